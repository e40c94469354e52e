"""A client that calls as OpenAI's Responses API does: it ends its session, then uses it.

Plain HTTP on purpose: what goes over the wire is the point, and it is all here to read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from ..protocol import jsonrpc, revisions, sse

_VERSION: Final = "2025-03-26"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
_MAX_TEXT: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """One HTTP request of a round: what it was, the status of its answer, and what that said."""

    name: str
    status: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One conversation of the client. ``count`` is what the tool answered, None when it did not."""

    steps: tuple[DemoStep, ...]
    count: int | None


@dataclass(frozen=True, slots=True)
class _Received:
    status: int
    session: str | None
    message: Mapping[str, Any]
    raw: str

    @property
    def result(self) -> Any:
        return self.message.get("result")

    @property
    def complaint(self) -> str:
        error = self.message.get("error")
        return str(error.get("message")) if isinstance(error, dict) else self.raw


async def play_rounds(url: str, count: int) -> list[Round]:
    """Have that many conversations with the MCP endpoint at ``url``."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        return [await _play_round(http, url) for _ in range(count)]


async def _play_round(http: aiohttp.ClientSession, url: str) -> Round:
    hello = await _post(http, url, None, _request("initialize", _INITIALIZE))
    session = hello.session
    noted = await _post(http, url, session, {"jsonrpc": "2.0", "method": revisions.INITIALIZED})
    tools = await _post(http, url, session, _request("tools/list", {}))
    gone = await _delete(http, url, session)
    called = await _post(http, url, session, _request("tools/call", {"name": "increment", "arguments": {}}))
    count = _count_in(called)
    steps = (
        DemoStep(name="initialize", status=hello.status, text=f"session {_shorten(session or 'none', 9)}"),
        DemoStep(name=revisions.INITIALIZED, status=noted.status, text=""),
        DemoStep(name="tools/list", status=tools.status, text=_describe_tools(tools)),
        DemoStep(name="DELETE", status=gone, text="accepted" if gone < 300 else "no need"),
        DemoStep(
            name="tools/call, same id",
            status=called.status,
            text=_shorten(called.complaint, _MAX_TEXT) if count is None else f"the count is {count}",
        ),
    )
    return Round(steps=steps, count=count)


_INITIALIZE: Final = {
    "protocolVersion": _VERSION,
    "capabilities": {},
    "clientInfo": {"name": "openai-mcp", "version": "1.0.0"},
}


def _request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def _post(
    http: aiohttp.ClientSession, url: str, session: str | None, message: Mapping[str, Any]
) -> _Received:
    async with http.post(url, json=message, headers=_headers(session)) as response:
        body = await response.read()
        new_session = response.headers.get(revisions.SESSION_HEADER)
        return _Received(
            response.status, new_session, _read_message(response.content_type, body), body.decode()
        )


async def _delete(http: aiohttp.ClientSession, url: str, session: str | None) -> int:
    async with http.delete(url, headers=_headers(session)) as response:
        return response.status


def _headers(session: str | None) -> dict[str, str]:
    headers = {"Accept": revisions.ACCEPT_BOTH}
    if session is not None:
        headers |= {revisions.SESSION_HEADER: session, revisions.VERSION_HEADER: _VERSION}
    return headers


def _read_message(content_type: str, body: bytes) -> Mapping[str, Any]:
    """The JSON-RPC message of an answer, whichever way it came; empty when there is none."""
    if content_type == revisions.SSE:
        body = next((event.data for event in sse.SseParser().feed(body) if b'"id"' in event.data), b"")
    message = jsonrpc.read_value(body)
    return message if isinstance(message, dict) else {}


def _count_in(answer: _Received) -> int | None:
    try:
        return int(answer.result["content"][0]["text"])
    except (TypeError, KeyError, IndexError, ValueError):
        return None


def _describe_tools(answer: _Received) -> str:
    try:
        return f"{len(answer.result['tools'])} tools"
    except (TypeError, KeyError):
        return _shorten(answer.complaint, _MAX_TEXT)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
