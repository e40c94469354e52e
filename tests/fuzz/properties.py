"""What must hold for any input at all: used by the Hypothesis tests and by the targets of ``make fuzz``.

Each function takes bytes that nobody chose with care. It raises when a promise is broken, and nothing
else: errors that are the input's own fault are ``ProxyError``, and end here.
"""

import base64
from collections.abc import Mapping, Sequence

import msgspec

from mcp_session_proxy.bounds import BATCH_MESSAGES
from mcp_session_proxy.errors import ProxyError, UpstreamProtocolError
from mcp_session_proxy.protocol import (
    inbound,
    jsonrpc,
    lifting,
    lost,
    lowering,
    mirroring,
    questions,
    revisions,
    tool_lists,
)
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Rejection, Request, Response
from mcp_session_proxy.protocol.lifting import CacheHint, ServerFacts
from mcp_session_proxy.protocol.sse import SseEvent, SseParser, write_event
from mcp_session_proxy.protocol.subscriptions import read_filter
from mcp_session_proxy.protocol.tool_lists import ToolList
from mcp_session_proxy.sessions.identity import Identifier, read_profile
from mcp_session_proxy.upstream.journal import Journal

MAX_EVENT_BYTES = 4096
_identifier = Identifier(
    credential_headers=("authorization",),
    credential_query=True,
    affinity_headers=("x-conversation",),
    affinity_meta=("openai/session", "sessionID"),
    secret=b"x" * 32,
)
_raw = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_json(raw: bytes) -> bytes:
    """Fails unless these bytes are one JSON value, in UTF-8."""
    raw.decode()
    _raw.decode(raw)
    return raw


def is_object(raw: bytes) -> bytes:
    """Fails unless these bytes are a JSON object, in UTF-8."""
    raw.decode()
    _object.decode(raw)
    return raw


# -- what clients send -------------------------------------------------------------------------------


def check_inbound(body: bytes) -> None:
    """A POST's body: read, classified, judged and lowered, or refused with an error of ours."""
    try:
        messages, _ = jsonrpc.parse_body(body)
    except ProxyError as error:
        is_object(jsonrpc.write_error(jsonrpc.peek_id(body), error))
        return
    assert len(messages) <= BATCH_MESSAGES
    for message in messages:
        if isinstance(message, Rejection):
            is_object(jsonrpc.write_error(message.id, message.error))
        elif isinstance(message, Request):
            is_object(jsonrpc.write_request(message.id, message.method, message.params))
            _check_request(message)
        elif isinstance(message, Notification):
            is_object(jsonrpc.write_notification(message.method, message.params))
        else:
            is_object(jsonrpc.write_response(message.id, message))


def _check_request(request: Request) -> None:
    meta = jsonrpc.read_meta(request.params)
    affinity = _identifier.affinity({}, meta)
    assert affinity is None or len(affinity) < 300
    _try(lambda: read_profile(request.params))
    if "progressToken" in meta and request.params is not None:
        is_object(jsonrpc.with_progress_token(request.params, b"7"))
    Journal().record(revisions.SUBSCRIBE, request.params)
    headers = _matching_headers(request, meta)
    inbound.era_of(request, headers[revisions.VERSION_HEADER][0], meta)
    try:
        modern = inbound.read_modern(request, meta, lambda name: headers.get(name, []))
    except ProxyError as error:
        is_object(jsonrpc.write_error(request.id, error))
        return
    lowered = lowering.lower_params(modern)
    if lowered is not None:
        is_object(lowered)
        jsonrpc.canonical(lowered)
    read_profile(is_object(lowering.lower_initialize(modern.raw_capabilities, modern.client_info)))
    _try(lambda: is_object(read_filter(modern.params.get("notifications")).write()))
    for answer in jsonrpc.read_object(modern.params.get("inputResponses")).values():
        for method in (revisions.ELICIT, revisions.SAMPLE, revisions.LIST_ROOTS):
            questions.is_fit_answer(method, answer)


def _matching_headers(request: Request, meta: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The headers that a modern client would have sent with this body."""
    params = jsonrpc.read_object(request.params)
    name = jsonrpc.read_string(params.get("name", params.get("uri"))) or ""
    wrapped = base64.b64encode(name.encode("utf-8", "replace")).decode()
    return {
        revisions.VERSION_HEADER: [jsonrpc.read_string(meta.get(revisions.META_VERSION)) or ""],
        revisions.METHOD_HEADER: [request.method],
        revisions.NAME_HEADER: [f"=?base64?{wrapped}?="],
    }


def _try(step: object) -> None:
    try:
        step()  # type: ignore[operator]
    except ProxyError:
        return


# -- event streams -------------------------------------------------------------------------------------


def check_sse(data: bytes, cuts: Sequence[int]) -> None:
    """A stream's bytes: the same events however they are split, and bounded."""
    whole, broken = _feed([data])
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    split, split_broken = _feed(pieces)
    if broken or split_broken:
        shorter = min(len(whole), len(split))
        assert whole[:shorter] == split[:shorter]
    else:
        assert whole == split
    for event in split:
        assert event.data
        message = jsonrpc.parse_upstream(event.data)
        if message is not None:
            assert _feed([write_event(event.data)])[0] == [
                SseEvent(event.data.replace(b"\r", b" ").replace(b"\n", b" "))
            ]


def _feed(pieces: Sequence[bytes]) -> tuple[list[SseEvent], bool]:
    parser = SseParser(max_event_bytes=MAX_EVENT_BYTES)
    events: list[SseEvent] = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
    except UpstreamProtocolError:
        return events, True
    return events, False


# -- what servers send ---------------------------------------------------------------------------------


def check_lifting(body: bytes, arguments: bytes) -> None:
    """A server's body: read and lifted, whatever it says; and ``arguments`` compared with its marks."""
    text = body[:4096]
    for status in (200, 400, 404, 503):
        error = jsonrpc.read_error(body) if status != 400 else None
        lost.judge(lost.Evidence(verb="POST", status=status, body=text, error=error, sent_session_id=True))
    for message in jsonrpc.parse_upstream_body(body):
        _check_message(message, arguments)


def _check_message(message: Message, arguments: bytes) -> None:
    if isinstance(message, Response):
        if message.error is not None:
            is_object(jsonrpc.error_object(message.error))
            is_object(lifting.lift_error(message.error, {"uri": b'"x:y"'}).raw)
            for url in lifting.required_urls(message):
                is_object(lifting.lift_question(revisions.ELICIT, url))
        if message.result is not None:
            _check_result(message.result, arguments)
        return
    is_object(lifting.tag(message.params, b'"1"'))
    if isinstance(message, Request):
        is_object(lifting.lift_question(message.method, message.params))
        for method in (revisions.ELICIT, revisions.SAMPLE, revisions.LIST_ROOTS):
            questions.missing_capability(method, message.params, {"elicitation": b"{}", "sampling": b"{}"})
            key = questions.key_for(method, message.params, {"question"})
            assert 0 < len(key) <= 80
            assert key.isascii()


def read_tools(result: bytes) -> ToolList:
    """What is made of a list of tools, in one go."""
    reading = tool_lists.read(result)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            read: ToolList = end.value
            return read


def _check_result(result: bytes, arguments: bytes) -> None:
    facts: ServerFacts = lifting.read_server_facts(result)
    is_object(lifting.lift_discovery(facts, CacheHint(), revisions.SERVED_VERSIONS))
    facts.offers("tools", "listChanged")
    for hint in (None, CacheHint(60_000, "public")):
        members = jsonrpc.read_object(is_object(lifting.lift_result(result, facts, hint)))
        assert members["resultType"] == lifting.COMPLETE
    is_json(read_tools(result).lifted or result)
    for tool in jsonrpc.read_array(jsonrpc.read_object(result).get("tools", b"")):
        try:
            marks = mirroring.read_marks(lifting.read_input_schema(tool))
        except mirroring.InvalidMarks:
            continue
        _try(lambda: mirroring.check_params(marks, arguments, {}))  # noqa: B023
        headers = {mark.header: ["1"] for mark in marks}
        _try(lambda: mirroring.check_params(marks, arguments, headers))  # noqa: B023
