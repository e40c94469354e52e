"""A stateful MCP server that costs next to nothing, so that what stands before it is what gets measured.

    python stub.py --port 8000 [--sse]
    python stub.py --stdio

It is strict about sessions, as real servers are: every `initialize` opens one, other requests must name
one (400 without, 404 for one that it does not know), GET is a stream that stays silent (409 for a second
one), and DELETE ends the session and its stream. It is an `asyncio.Protocol` on uvloop that reads only
what it needs of HTTP/1.1: no chunked request bodies, no `Expect`.

With `--stdio` it is a command: one session, a message a line.

The tools are `echo`, `big` and `progress`. `GET /stats` tells how many sessions and streams there are.
"""

import argparse
import asyncio
import itertools
import json
import secrets
import sys
from collections.abc import Iterator
from typing import Final, cast

import msgspec
import uvloop

VERSIONS: Final = {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"}
PREFERRED_VERSION: Final = "2025-11-25"
_OBJECT: Final = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
TOOLS: Final = [
    {"name": name, "description": f"The tool {name} of a benchmark server", "inputSchema": _OBJECT}
    for name in ("echo", "big", "progress", *(f"tool_{number}" for number in range(7)))
]


class Arguments(msgspec.Struct):
    """The arguments of all the tools."""

    message: str = ""
    size: int = 0
    n: int = 0


class Meta(msgspec.Struct):
    """What matters of `_meta`."""

    progressToken: str | int | None = None  # noqa: N815


class Params(msgspec.Struct):
    """What matters of `params`, whatever the method."""

    name: str = ""
    arguments: Arguments = msgspec.field(default_factory=Arguments)
    protocolVersion: str = ""  # noqa: N815
    meta: Meta = msgspec.field(name="_meta", default_factory=Meta)


class Message(msgspec.Struct):
    """One message from a client."""

    method: str = ""
    id: msgspec.Raw = msgspec.Raw()
    """Empty when there is none."""
    params: Params = msgspec.field(default_factory=Params)


_read = msgspec.json.Decoder(Message).decode
_sessions: set[bytes] = set()
_streams: dict[bytes, "Connection"] = {}
_TOOLS_RESULT: Final = json.dumps({"tools": TOOLS}).encode()
_texts: dict[int, bytes] = {}


def _text(value: bytes) -> bytes:
    return b'{"content":[{"type":"text","text":' + value + b'}],"isError":false}'


def _result(message: Message) -> bytes:
    """The result of a request, as JSON."""
    params = message.params
    if message.method == "tools/call":
        if params.name == "big":
            size = params.arguments.size
            if size not in _texts:
                _texts[size] = _text(b'"' + b"x" * size + b'"')
            return _texts[size]
        return _text(msgspec.json.encode(f"Echo: {params.arguments.message}"))
    if message.method == "tools/list":
        return _TOOLS_RESULT
    if message.method == "initialize":
        version = params.protocolVersion if params.protocolVersion in VERSIONS else PREFERRED_VERSION
        return (
            b'{"protocolVersion":"%s","capabilities":{"tools":{"listChanged":true}},'
            b'"serverInfo":{"name":"stub","version":"1"}}' % version.encode()
        )
    return b"{}"


def _progress(message: Message) -> Iterator[bytes]:
    """The progress notifications that the tool `progress` sends before its result."""
    token = message.params.meta.progressToken
    if message.method != "tools/call" or message.params.name != "progress" or token is None:
        return
    written = msgspec.json.encode(token)
    for step in range(1, message.params.arguments.n + 1):
        yield (
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%d,'
            b'"total":%d,"message":"step %d"}}' % (written, step, message.params.arguments.n, step)
        )


def _event(message: bytes) -> bytes:
    data = b"event: message\r\ndata: " + message + b"\r\n\r\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _header(head: bytes, lowered: bytes, name: bytes) -> bytes:
    """A header's value, empty when it is not there. `name` is `\\r\\nname:` in lower case."""
    at = lowered.find(name)
    if at < 0:
        return b""
    at += len(name)
    end = head.find(b"\r\n", at)
    return head[at : end if end >= 0 else len(head)].strip()


class Connection(asyncio.Protocol):
    """One connection of HTTP/1.1."""

    sse = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._busy = False
        self._listens_to: bytes | None = None

    def connection_lost(self, _: Exception | None) -> None:
        """Asyncio's."""
        if self._listens_to is not None and _streams.get(self._listens_to) is self:
            del _streams[self._listens_to]

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        self._received = self._received + data if self._received else data
        self._go_on()

    def _go_on(self) -> None:
        """Answer what has arrived whole; one request after the other."""
        while not self._busy:
            received = self._received
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = received[:end]
            lowered = head.lower()
            length = int(_header(head, lowered, b"\r\ncontent-length:") or 0)
            if len(received) < end + 4 + length:
                return
            body = received[end + 4 : end + 4 + length]
            self._received = received[end + 4 + length :]
            self._answer(head, _header(head, lowered, b"\r\nmcp-session-id:"), body)

    def _answer(self, head: bytes, session: bytes, body: bytes) -> None:
        known = session in _sessions
        if head.startswith(b"POST "):
            try:
                message = _read(body)
            except msgspec.DecodeError:
                return self._plain(b"400 Bad Request")
            if message.method == "initialize" and not session:
                session = secrets.token_hex(16).encode()
                _sessions.add(session)
            elif not known:
                return self._refuse(session)
            if not bytes(message.id):
                return self._plain(b"202 Accepted")
            return self._respond(message, session)
        if head.startswith(b"GET /stats "):
            said = b'{"sessions":%d,"streams":%d}' % (len(_sessions), len(_streams))
            return self._transport.write(_JSON_HEAD % (b"-", len(said)) + said)
        if not known:
            return self._refuse(session)
        if head.startswith(b"GET "):
            return self._stream(session)
        _sessions.discard(session)
        stream = _streams.pop(session, None)
        if stream is not None:
            stream._transport.write(b"0\r\n\r\n")
        return self._plain(b"200 OK")

    def _stream(self, session: bytes) -> None:
        if session in _streams:
            return self._plain(b"409 Conflict")
        _streams[session] = self
        self._listens_to = session
        return self._transport.write(_STREAM_HEAD % session)

    def _refuse(self, session: bytes) -> None:
        """As the official SDKs do."""
        status = b"404 Not Found" if session else b"400 Bad Request"
        self._transport.write(_REFUSAL_HEAD % (status, len(_REFUSAL)) + _REFUSAL)

    def _plain(self, status: bytes) -> None:
        self._transport.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)

    def _respond(self, message: Message, session: bytes) -> None:
        response = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (bytes(message.id), _result(message))
        progress = _progress(message)
        first = next(progress, None)
        if first is not None:
            self._busy = True
            self._transport.write(_STREAM_HEAD % session)
            self._tell(itertools.chain((first,), progress), response)
        elif self.sse:
            self._transport.write(_STREAM_HEAD % session + _event(response) + b"0\r\n\r\n")
        else:
            head = _JSON_HEAD % (session, len(response))
            self._transport.write(head + response)

    def _tell(self, progress: Iterator[bytes], response: bytes) -> None:
        """One notification in each turn of the loop, so that each is sent by itself; then the response."""
        step = next(progress, None)
        if self._transport.is_closing():
            return
        if step is None:
            self._transport.write(_event(response) + b"0\r\n\r\n")
            self._busy = False
            self._go_on()
        else:
            self._transport.write(_event(step))
            asyncio.get_running_loop().call_soon(self._tell, progress, response)


_REFUSAL: Final = (
    b'{"jsonrpc":"2.0","id":null,'
    b'"error":{"code":-32600,"message":"Bad Request: No valid session ID provided"}}'
)
_REFUSAL_HEAD: Final = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Mcp-Session-Id: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_JSON_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: %s\r\nContent-Length: %d\r\n\r\n"
)


async def serve(port: int, *, sse: bool) -> None:
    """Serve until killed."""
    Connection.sse = sse
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def serve_lines() -> None:
    """Serve the one session of a command, until standard input ends."""
    for line in sys.stdin.buffer:
        message = _read(line)
        if bytes(message.id):
            response = b'{"jsonrpc":"2.0","id":%s,"result":%s}\n' % (bytes(message.id), _result(message))
            sys.stdout.buffer.write(response)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--stdio", action="store_true", help="be a command")
    parser.add_argument("--sse", action="store_true", help="answer event streams instead of JSON")
    chosen = parser.parse_args()
    if chosen.stdio:
        serve_lines()
    else:
        uvloop.run(serve(chosen.port, sse=chosen.sse))
