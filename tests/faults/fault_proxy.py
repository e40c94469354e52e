"""Stands between the proxy and an MCP server and breaks what passes, as a plan says.

HTTP/1.1 by hand, on bare asyncio streams, because what it does no HTTP library would: resets, halves of
streams, bytes that are no HTTP at all. Each request is shown to the plan, which names a fault for it or
lets it pass. What was done is kept, so that a test can compare it with what the server counted.
"""

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakSet

SESSION = "mcp-session-id"
_LIMIT = 2**20
_NO_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came from the proxy. Header names are in lower case."""

    verb: str
    head: bytes
    headers: Mapping[str, str]
    body: bytes
    message: Mapping[str, Any]

    @property
    def method(self) -> str | None:
        """The JSON-RPC method, if there is one."""
        return self.message.get("method")

    @property
    def key(self) -> str | None:
        """The argument ``key`` of a tool call."""
        params = self.message.get("params")
        arguments = params.get("arguments") if isinstance(params, dict) else None
        return arguments.get("key") if isinstance(arguments, dict) else None

    @property
    def session(self) -> str | None:
        """The session id that it carries."""
        return self.headers.get(SESSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer of the server; the body without its transfer encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Fault: TypeAlias = Callable[["Hop"], Awaitable[None]]
Plan: TypeAlias = Callable[[Request], Fault | None]


def http_reply(
    status: int, body: bytes = b"", content_type: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} -", f"content-length: {len(body)}"]
    if content_type is not None:
        lines.append(f"content-type: {content_type}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def stream_head(headers: Mapping[str, str] | None = None, status: int = 200) -> bytes:
    """The beginning of an answer in chunks, of an event stream unless the headers say otherwise."""
    chosen = {"content-type": "text/event-stream"} | dict(headers or {})
    lines = [f"HTTP/1.1 {status} -", "transfer-encoding: chunked", *(f"{n}: {v}" for n, v in chosen.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One piece of a body in chunks; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Hop:
    """One request on its way through, for the fault that has been chosen for it."""

    def __init__(self, faults: "FaultProxy", line: "_Line", request: Request) -> None:
        self.faults = faults
        self.request = request
        self._line = line

    async def forward(self) -> Answer:
        """Send the request to the server and read its whole answer; the proxy gets nothing yet."""
        return await self._line.exchange(self.request)

    async def deliver(self, answer: Answer, headers: Mapping[str, str] | None = None) -> None:
        """Begin to give the proxy an answer: its head, and ``headers``, as that of a stream in chunks."""
        names = ("content-type", SESSION)
        kept = {name: answer.headers[name] for name in names if name in answer.headers}
        self.faults.note_answer(self.request, answer.status, answer.headers, delivered=True)
        content_type = {"content-type": kept.pop("content-type", "text/plain")}
        await self.write(stream_head(content_type | kept | dict(headers or {}), answer.status))

    async def relay(self) -> None:
        """Let the request pass, and the answer as it comes."""
        await self._line.relay(self.request)

    async def write(self, data: bytes) -> None:
        """Bytes to the proxy."""
        self._line.writer.write(data)
        await self._line.writer.drain()

    def close(self) -> None:
        """End the connection in order."""
        self._line.close()

    def reset(self) -> None:
        """End the connection with a RST."""
        self._line.reset()

    async def half_close(self) -> None:
        """Send a FIN and go on listening until the proxy closes, too."""
        self._line.writer.write_eof()
        await self.stall()

    async def stall(self) -> None:
        """Do nothing until the proxy gives up."""
        await self._line.departure()
        self._line.close()


class _Reader(asyncio.StreamReader):
    """A reader that tells when the other side has left, whether or not somebody reads."""

    def __init__(self) -> None:
        super().__init__(limit=_LIMIT)
        self.left = asyncio.Event()

    def feed_eof(self) -> None:
        """The other side sends no more."""
        super().feed_eof()
        self.left.set()

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self.left.set()


class _Line:
    """One connection of the proxy's, and the connection to the server that belongs to it."""

    def __init__(self, faults: "FaultProxy", reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.over = False
        self._faults = faults
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def serve(self) -> None:
        """Handle request after request."""
        try:
            while not self.over and (request := await self._next()) is not None:
                await self._handle(request)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two ends is gone, so the other one goes, too
        finally:
            self.close()

    async def _handle(self, request: Request) -> None:
        fault = self._faults.choose(request)
        hop = Hop(self._faults, self, request)
        work = asyncio.ensure_future(hop.relay() if fault is None else fault(hop))
        leaving = asyncio.ensure_future(self.departure())
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.over = True
                if self._server is not None:
                    self._server[1].close()
            else:
                await work
        finally:
            for task in (work, leaving):
                task.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)

    async def departure(self) -> None:
        """Wait until the proxy closes its side."""
        await self.reader.left.wait()

    async def _next(self) -> Request | None:
        try:
            head, headers = await _read_head(self.reader)
        except asyncio.IncompleteReadError:
            return None
        body = b"".join([piece async for piece in _pieces(self.reader, headers)])
        return Request(
            verb=head.partition(b" ")[0].decode(),
            head=head,
            headers=headers,
            body=body,
            message=_object(body),
        )

    async def _send(self, request: Request) -> asyncio.StreamReader:
        if self._server is None:
            self._server = await self._faults.connect()
        reader, writer = self._server
        body = request.body
        if "chunked" in request.headers.get("transfer-encoding", ""):
            body = chunk(body) + chunk(b"")
        writer.write(request.head + body)
        await writer.drain()
        return reader

    async def exchange(self, request: Request) -> Answer:
        reader = await self._send(request)
        head, headers = await _read_head(reader)
        status = _status(head)
        self._faults.note_answer(request, status, headers, delivered=False)
        body = b"".join([piece async for piece in _pieces(reader, headers, status)])
        return Answer(status=status, headers=headers, body=body)

    async def relay(self, request: Request) -> None:
        reader = await self._send(request)
        head, headers = await _read_head(reader)
        self.writer.write(head)
        self._faults.note_answer(request, _status(head), headers, delivered=True)
        chunked = "chunked" in headers.get("transfer-encoding", "")
        async for piece in _pieces(reader, headers, _status(head)):
            self.writer.write(chunk(piece) if chunked else piece)
            await self.writer.drain()
        if chunked:
            self.writer.write(chunk(b""))
        await self.writer.drain()
        if headers.get("connection", "").lower() == "close":
            self.close()

    def close(self) -> None:
        self.over = True
        for writer in (self.writer, *(self._server[1:] if self._server else ())):
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    def reset(self) -> None:
        self.over = True
        with contextlib.suppress(OSError):
            plain = self.writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        self.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    head = await reader.readuntil(b"\r\n\r\n")
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    return head, {name.strip().decode().lower(): value.strip().decode() for name, _, value in pairs}


def _object(body: bytes) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError):
        message = json.loads(body)
        return message if isinstance(message, dict) else {}
    return {}


def _status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str], status: int = 200) -> Any:
    """The body, piece by piece, without its transfer encoding."""
    if status in _NO_BODY:
        return
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif length := int(headers.get("content-length", "0")):
        yield await reader.readexactly(length)


class FaultProxy:
    """Listens on ``port``, passes to ``upstream``, both on loopback; ``async with``, or ``in_thread``."""

    def __init__(self, upstream: int, port: int) -> None:
        self.upstream = upstream
        self.port = port
        self.plan: Plan = lambda request: None
        self.seen: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.issued: dict[str, bool] = {}
        """Session ids that the server gave out; False for those that the proxy never learned."""
        self.ended: set[str] = set()
        self.told: dict[str, list[str]] = {}
        """What was sent under each session id, and the fault that met it."""
        self.gone: dict[str, Callable[[str], bytes]] = {}
        """Sessions that were ended behind the proxy's back, and how each is answered since then."""
        self.kept: dict[str, list[Fault]] = {}
        """What GETs that go on after an event id meet in turn, by that id; the last of these for ever."""
        self._server: asyncio.Server | None = None
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()
        self.loop: asyncio.AbstractEventLoop | None = None

    def choose(self, request: Request) -> Fault | None:
        """What happens to a request."""
        self.seen[request.method or request.verb] += 1
        session = request.session
        if request.verb == "GET" and (then := self.kept.get(request.headers.get("last-event-id", ""))):
            return then.pop(0) if len(then) > 1 else then[0]
        if session is not None and (reply := self.gone.get(session)) is not None:
            return say(reply(request.verb))
        fault = self.plan(request)
        if fault is not None:
            self.injected[request.method or request.verb] += 1
        elif request.verb == "DELETE" and session is not None:
            self.ended.add(session)
        if session is not None:
            met = "" if fault is None else f" met {getattr(fault, '__qualname__', fault)}"
            self.told.setdefault(session, []).append(f"{request.method or request.verb}{met}")
        return fault

    def note_answer(
        self, request: Request, status: int, headers: Mapping[str, str], *, delivered: bool
    ) -> None:
        """Remember a session that the server opened."""
        if request.method == "initialize" and status == 200 and SESSION in headers:
            self.issued[headers[SESSION]] = delivered

    async def end_session(self, request: Request, reply: Callable[[str], bytes]) -> None:
        """End the request's session at the server; from now on it is answered with ``reply(verb)``."""
        session = request.session
        assert session is not None
        self.gone[session] = reply
        reader, writer = await self.connect()
        authorization = request.headers.get("authorization", "")
        path = request.head.split(b" ", 2)[1].decode()
        writer.write(
            f"DELETE {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.upstream}\r\n"
            f"authorization: {authorization}\r\naccept: application/json, text/event-stream\r\n"
            f"{SESSION}: {session}\r\nconnection: close\r\n\r\n".encode()
        )
        try:
            await reader.read()
        finally:
            writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server. Whoever is cancelled meanwhile leaves none behind."""
        opening = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", self.upstream, limit=_LIMIT))
        try:
            reader, writer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Waited for, because the event loop may be about to end.
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                opening.result()[1].close()
            raise
        self._transports.add(writer.transport)
        return reader, writer

    # -- listening -------------------------------------------------------------------------------------

    async def __aenter__(self) -> "FaultProxy":
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(), self._accept), "127.0.0.1", self.port, backlog=512
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection and listen no more."""
        await self.refuse()
        for line in list(self._lines):
            line.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # They are closed, but where the other side reads nothing that would last longer than the event loop.
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        line = _Line(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(line)
        self._tasks.add(task)
        self._transports.add(writer.transport)
        try:
            await line.serve()
        except asyncio.CancelledError:
            line.close()
        finally:
            self._lines.discard(line)
            self._tasks.discard(task)

    async def refuse(self) -> None:
        """Refuse connections from now on; those that stand go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept_again(self) -> None:
        """The end of ``refuse``."""
        await self.__aenter__()

    async def cut_everything(self) -> None:
        """Reset every connection that stands."""
        for line in list(self._lines):
            line.reset()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator["FaultProxy"]:
        """Run it beside the tests, with an event loop of its own, longer than one test lasts."""
        loop = self.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="faults")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result(10)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.__aexit__(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


def say(reply: bytes) -> Fault:
    """Answer this, and let nothing pass."""

    async def fault(hop: Hop) -> None:
        await hop.write(reply)

    return fault


def say_in_stream(*pieces: bytes) -> Fault:
    """Answer with a stream that brings this and ends."""
    return say(stream_head() + b"".join(chunk(piece) for piece in pieces) + chunk(b""))
