"""A client that writes MCP on the wire by hand, so that a test can send what no SDK would.

Nothing is checked or repaired here: what the test says is sent, what came back is kept.
"""

import asyncio
import io
import itertools
import json
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

SESSION_HEADER = "Mcp-Session-Id"
BOTH = "application/json, text/event-stream"
PROTOCOL = "2025-06-18"
ANSWER_SECONDS = 30.0

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One whole HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip()

    @property
    def session(self) -> str | None:
        """The session id the response carries."""
        return self.headers.get(SESSION_HEADER)

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages in the body, JSON or SSE (a JSON array is one item per element)."""
        if self.content_type == "text/event-stream":
            parsed = [json.loads(data) for data in _event_data(self.body.decode())]
        else:
            parsed = [json.loads(self.body)]
        return [item for message in parsed for item in (message if isinstance(message, list) else [message])]

    @property
    def response(self) -> Message:
        """The one message that answers the request; fails when there is none or more than one."""
        answers = [m for m in self.messages if "result" in m or "error" in m]
        assert len(answers) == 1, f"{self.status}: {self.body!r}"
        answer: Message = answers[0]
        return answer

    @property
    def result(self) -> Message:
        """The result; fails with the whole reply when there is an error instead."""
        assert self.status == 200, f"{self.status}: {self.body!r}"
        answer = self.response
        assert "result" in answer, answer
        result: Message = answer["result"]
        return result

    @property
    def error(self) -> Message:
        """The JSON-RPC error."""
        answer = self.response
        assert "error" in answer, answer
        error: Message = answer["error"]
        return error

    @property
    def text(self) -> str:
        """The text of a tool's result; fails when the tool reports an error."""
        result = self.result
        assert not result.get("isError"), result
        return "".join(part.get("text", "") for part in result["content"])


class Stream:
    """An open SSE stream, read event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.status = response.status
        self.headers = response.headers
        self.last_event_id: str | None = None
        self.comments = 0

    async def next(self, timeout_seconds: float = ANSWER_SECONDS) -> Message | None:
        """The next message; None when the stream ended."""
        async with asyncio.timeout(timeout_seconds):
            return await anext(self._messages(), None)

    async def next_comment(self, timeout_seconds: float = ANSWER_SECONDS) -> bool:
        """Wait for a comment line (a heartbeat); False when the stream ended."""
        async with asyncio.timeout(timeout_seconds):
            while line := await self.response.content.readline():
                if line.startswith(b":"):
                    self.comments += 1
                    return True
        return False

    async def wait_end(self, timeout_seconds: float = ANSWER_SECONDS) -> list[Message]:
        """Read to the end of the stream; the messages that came before it."""
        rest: list[Message] = []
        async with asyncio.timeout(timeout_seconds):
            rest.extend([message async for message in self._messages()])
        return rest

    async def _messages(self) -> AsyncIterator[Message]:
        data: list[str] = []
        while line := await self.response.content.readline():
            text = line.decode().rstrip("\r\n")
            if text.startswith(":"):
                self.comments += 1
            elif text.startswith("data:"):
                data.append(text[5:].removeprefix(" "))
            elif text.startswith("id:"):
                self.last_event_id = text[3:].removeprefix(" ")
            elif not text and any(data):
                yield json.loads("\n".join(data))
                data = []
            elif not text:
                data = []


class Caller:
    """Somebody who calls an MCP endpoint, told apart from others by a bearer token of its own."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, token: str | None = "") -> None:
        self.http = http
        self.url = url
        self.token = uuid.uuid4().hex if token == "" else token
        self._ids = itertools.count(1)

    @property
    def authorization(self) -> str | None:
        """The Authorization header this caller sends."""
        return None if self.token is None else f"Bearer {self.token}"

    def headers(
        self, session: str | None = None, more: Mapping[str, str | None] | None = None
    ) -> dict[str, str]:
        """What a well-behaved client sends; a None in `more` leaves a header out."""
        chosen: dict[str, str | None] = {"Accept": BOTH, "Content-Type": "application/json"}
        if self.authorization:
            chosen["Authorization"] = self.authorization
        if session is not None:
            chosen |= {SESSION_HEADER: session, "MCP-Protocol-Version": PROTOCOL}
        chosen |= more or {}
        return {name: value for name, value in chosen.items() if value is not None}

    def request(self, method: str, params: Message | None = None, *, request_id: Any = None) -> Message:
        """A JSON-RPC request, with the next id unless one is given."""
        message: Message = {
            "jsonrpc": "2.0",
            "id": next(self._ids) if request_id is None else request_id,
            "method": method,
        }
        return message if params is None else message | {"params": params}

    async def send(
        self,
        method: str,
        *,
        data: bytes | AsyncIterable[bytes] | None = None,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        url: str | None = None,
    ) -> Reply:
        """One HTTP request and its whole response. Never follows a redirect."""
        # aiohttp would add an Accept of its own where a test means to send none.
        async with asyncio.timeout(ANSWER_SECONDS):
            async with self.http.request(
                method,
                url or self.url,
                data=io.BytesIO(data) if isinstance(data, bytes) else data,
                headers=self.headers(session, headers),
                skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
                allow_redirects=False,
            ) as response:
                return Reply(status=response.status, headers=response.headers, body=await response.read())

    async def post(
        self,
        message: object,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        url: str | None = None,
    ) -> Reply:
        """POST one message (or whatever JSON it is)."""
        return await self.send(
            "POST", data=json.dumps(message).encode(), session=session, headers=headers, url=url
        )

    async def ask(
        self,
        method: str,
        params: Message | None = None,
        *,
        session: str | None = None,
        request_id: Any = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """POST one request."""
        return await self.post(self.request(method, params, request_id=request_id), session, headers)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, object] | None = None,
        *,
        session: str | None = None,
        meta: Message | None = None,
        request_id: Any = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """POST tools/call."""
        params: Message = {"name": tool, "arguments": dict(arguments or {})}
        if meta is not None:
            params["_meta"] = meta
        return await self.ask("tools/call", params, session=session, request_id=request_id, headers=headers)

    async def notify(
        self,
        method: str,
        params: Message | None = None,
        *,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """POST one notification."""
        message: Message = {"jsonrpc": "2.0", "method": method}
        return await self.post(message if params is None else message | {"params": params}, session, headers)

    async def initialize(
        self,
        *,
        client: str = "wire",
        protocol: str = PROTOCOL,
        capabilities: Message | None = None,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """POST initialize (with `session` only where a test wants that oddity)."""
        params = {
            "protocolVersion": protocol,
            "capabilities": capabilities or {},
            "clientInfo": {"name": client, "version": "1.0.0"},
        }
        return await self.ask("initialize", params, session=session, headers=headers)

    async def open(self, **options: Any) -> str:
        """The whole handshake; returns the session id."""
        reply = await self.initialize(**options)
        assert "protocolVersion" in reply.result
        assert reply.session, "no session id in the answer to initialize"
        told = await self.notify("notifications/initialized", session=reply.session)
        assert (told.status, told.body) == (202, b"")
        return reply.session

    async def delete(self, session: str | None, headers: Mapping[str, str | None] | None = None) -> Reply:
        """DELETE the session."""
        return await self.send("DELETE", session=session, headers=headers)

    @asynccontextmanager
    async def listen(
        self,
        session: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> AsyncIterator[Stream]:
        """An open GET stream (or whatever status the GET was answered with)."""
        async with self.http.get(
            self.url,
            headers=self.headers(
                session, {"Accept": "text/event-stream", "Content-Type": None} | dict(headers or {})
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            allow_redirects=False,
        ) as response:
            yield Stream(response)

    @asynccontextmanager
    async def stream(self, message: object, session: str | None = None) -> AsyncIterator[Stream]:
        """POST a request and read its answer as it comes."""
        async with self.http.post(
            self.url,
            data=json.dumps(message).encode(),
            headers=self.headers(session),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        ) as response:
            yield Stream(response)


def _event_data(text: str) -> list[str]:
    """The non-empty data of every SSE event in `text`."""
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if any(lines):
            events.append("\n".join(lines))
    return events


async def eventually(check: Any, timeout_seconds: float = 30.0, interval_seconds: float = 0.02) -> Any:
    """Ask `check()` (async) again until it says something true; fails with its last word when time is up."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while True:
        said = await check()
        if said:
            return said
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"still {said!r} after {timeout_seconds} s")
        await asyncio.sleep(interval_seconds)
