"""Answers as servers gave them, and observations made of such."""

import json
from dataclasses import replace
from typing import Any

from mcp_session_proxy.check.observations import (
    Client,
    Observations,
    Play,
    Sent,
    ServerAnswer,
    Step,
    Streams,
)
from mcp_session_proxy.protocol.jsonrpc import ErrorObject

URL = "http://127.0.0.1:8000/mcp"
UUID = "1b963a8d-4c47-42a4-ada2-24a2ccf80be1"
HEX = "27fdf66f5d3543558d9793bd39f05ddf"
JSON = "application/json"


def answered(result: object = None, *, seconds: float = 0.001, **more: Any) -> ServerAnswer:
    """A result."""
    raw = json.dumps({} if result is None else result).encode()
    return ServerAnswer(status=200, content_type=JSON, result=raw, seconds=seconds, **more)


def refused(
    status: int,
    message: str,
    code: int | None = None,
    identifier: str = "null",
    content_type: str | None = JSON,
) -> ServerAnswer:
    """A refusal: with a code a JSON-RPC error, without one a text."""
    if code is None:
        return ServerAnswer(
            status=status, content_type=content_type, body=message.encode(), sent_session_id=True
        )
    return ServerAnswer(
        status=status,
        content_type=content_type,
        error=ErrorObject(code, message),
        error_id=identifier.encode(),
        sent_session_id=True,
    )


def text(status: int, message: str, content_type: str | None = None) -> ServerAnswer:
    """A refusal that is no JSON-RPC."""
    return refused(status, message, content_type=content_type)


def hello(session_id: str | None = HEX, name: str = "counter", *, seconds: float = 0.002) -> ServerAnswer:
    """The answer to ``initialize``."""
    result = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": name, "version": "1.2.3"},
    }
    return answered(result, session_id=session_id, seconds=seconds)


def noted(status: int = 202) -> Step:
    """``notifications/initialized`` and its answer."""
    return Step(name="notifications/initialized", answer=ServerAnswer(status=status), sent=Sent.NOTIFICATION)


def play(*used: ServerAnswer, opened: ServerAnswer | None = None, name: str = "tools/list") -> Play:
    """A conversation that went well up to its use."""
    first = Step(name="initialize", answer=opened or hello())
    return Play(steps=(first, noted(), *(Step(name=name, answer=answer) for answer in used)))


def discovered(*versions: str) -> ServerAnswer:
    """The answer to ``server/discover``."""
    return answered({"supportedVersions": list(versions), "capabilities": {"tools": {}}})


STREAM = ServerAnswer(verb="GET", status=200, content_type="text/event-stream")
GONE = refused(404, "Session not found", -32600, '"server-error"')
MISSING = refused(400, "Bad Request: Missing session ID", -32600, '"server-error"')
TOOLS = answered({"tools": [{"name": "echo"}]})


def deleted_then(answer: ServerAnswer) -> Play:
    """An OpenAI-style conversation that ended with this answer."""
    return Play(
        steps=(
            Step(name="initialize", answer=hello()),
            noted(),
            Step(name="tools/list", answer=TOOLS),
            Step(name="DELETE", answer=ServerAnswer(verb="DELETE", status=200), sent=Sent.FAREWELL),
            Step(name="tools/list after DELETE", answer=answer),
        )
    )


def stateful(**changes: Any) -> Observations:
    """A server with sessions, as of the Python SDK 1.30."""
    seen = Observations(
        url=URL,
        reads="tools/list",
        hello=hello(),
        listed=TOOLS,
        ping=answered(),
        missing=replace(MISSING, sent_session_id=False),
        unknown=GONE,
        bare_get=replace(MISSING, verb="GET", sent_session_id=False),
        nonsense=refused(400, "Validation error: 11 errors", -32602, '"server-error"'),
        discover=replace(MISSING, sent_session_id=False),
        streams=Streams(
            first=STREAM,
            second=refused(409, "Conflict: Only one SSE stream is allowed per session", -32600),
            again=STREAM,
            again_seconds=0.2,
        ),
        plays={
            Client.KEEPS: (play(TOOLS),),
            Client.OPENAI: (deleted_then(GONE),),
            Client.PER_CALL: (play(TOOLS), play(TOOLS), play(TOOLS)),
            Client.LEAVES: (play(TOOLS),),
            Client.FORGETFUL: (Play(steps=(Step(name="initialize", answer=hello()), noted(400))),),
            Client.STALE: (Play(steps=(Step(name="tools/list with an old id", answer=GONE),)),),
            Client.MODERN: (Play(steps=(Step(name="server/discover", answer=MISSING),)),),
        },
    )
    return replace(seen, **changes)


def with_plays(seen: Observations, **plays: Any) -> Observations:
    """Other conversations for some clients, which are named as in the enumeration."""
    changed = {Client[name.upper()]: conversations for name, conversations in plays.items()}
    return replace(seen, plays={**seen.plays, **changed})


def stateless(**changes: Any) -> Observations:
    """A server that keeps no sessions, and answers whatever id comes."""
    opened = hello(None)
    seen = stateful(
        hello=opened, unknown=TOOLS, missing=TOOLS, bare_get=ServerAnswer(status=405), streams=None
    )
    fine = (play(TOOLS, opened=opened),)
    return replace(
        with_plays(seen, keeps=fine, openai=fine, per_call=fine, leaves=fine, forgetful=fine, stale=fine),
        **changes,
    )


def modern(seen: Observations) -> Observations:
    """The same server, speaking the modern protocol besides."""
    found = discovered("2026-07-28")
    steps = (Step(name="server/discover", answer=found), Step(name="tools/list", answer=TOOLS))
    return with_plays(replace(seen, discover=found), modern=(Play(steps=steps),))


def proxied(**changes: Any) -> Observations:
    """This proxy in front of such a server."""
    opened = hello("kC9-otherwise-as-before")
    nonsense = replace(refused(400, "no message", -32600), error_source="mcp-session-proxy")
    seen = modern(stateful(hello=opened, unknown=TOOLS, missing=TOOLS, nonsense=nonsense))
    fine = (play(TOOLS, opened=opened),)
    return replace(with_plays(seen, openai=(deleted_then(TOOLS),), forgetful=fine, stale=fine), **changes)


def called(seen: Observations, answers: dict[str, tuple[object, ...]]) -> Observations:
    """The tool ``count`` was called, twice by each client; ``keeps`` are its answers in one session."""

    def said(value: object) -> ServerAnswer:
        return answered({"content": [{"type": "text", "text": str(value)}]})

    plays = {
        name: tuple(play(said(value), name="tools/call") for value in values)
        for name, values in answers.items()
        if name != "keeps"
    }
    within = tuple(said(value) for value in answers["keeps"])
    plays["keeps"] = (play(TOOLS, *within),)
    return with_plays(replace(seen, tool="count", in_session=within), **plays)
