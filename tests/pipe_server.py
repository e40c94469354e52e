"""A second transport: a pipe for each session, on which JSON lines go both ways to a server in this process.

It has neither statuses nor headers nor a URL. All that a session says and hears goes the same way, so what
answers belongs to is told by ids and progress tokens only; nothing can be resumed; and the session ends with
its pipe, whoever ends that. A :class:`PipeServer` is scripted as any ``FakeServer``, with what can happen
here.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fakes import FakeReply, FakeServer, Sent, answer
from messages import error

from mcp_session_proxy.errors import ProxyError, SessionLost, UpstreamTimeout, UpstreamUnreachable
from mcp_session_proxy.protocol import jsonrpc, revisions
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_session_proxy.protocol.lost import Verdict
from mcp_session_proxy.upstream.transport import (
    NOBODY,
    Caller,
    ConnectionLost,
    NoStream,
    Refused,
    StreamRefused,
)


class PipeReply:
    """What the client's end of a pipe has for one reader. Implements ``transport.Reply``."""

    last_event_id = None
    retry_seconds = None

    def __init__(self, silence_seconds: float | None) -> None:
        self._silence_seconds = silence_seconds
        self._arrived: asyncio.Queue[Message | Exception | None] = asyncio.Queue()

    def take(self, message: Message | Exception | None) -> None:
        """A message for this reader; an error, or None where that is no error, is the last."""
        self._arrived.put_nowait(message)

    async def read(self) -> list[Message] | None:
        try:
            async with asyncio.timeout(self._silence_seconds):
                message = await self._arrived.get()
        except TimeoutError:
            raise UpstreamTimeout("The MCP server accepted the request and then fell silent.") from None
        if isinstance(message, Exception):
            raise message
        return None if message is None else [message]


class PipeChannel:
    """One session and its pipe. Implements ``transport.Channel``."""

    session_id = None  # there is no need for names

    def __init__(self, server: "PipeServer") -> None:
        self.server = server
        self.version: str | None = None
        self.ended = False
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._replies: dict[bytes, PipeReply] = {}
        self._standalone: PipeReply | None = None
        self._unheard: list[Message] = []

    @property
    def silence_seconds(self) -> float:
        return self.server.silence_seconds

    def agree(self, version: str) -> None:
        self.version = version

    # -- the client's end ------------------------------------------------------------------------

    @asynccontextmanager
    async def open(
        self, body: bytes, caller: Caller, identifier: bytes, /, *, silence_seconds: float
    ) -> AsyncIterator[PipeReply]:
        self.server.begin(self, self._lines)
        opened = False
        try:
            async with self.send(body, caller, identifier, silence_seconds=silence_seconds) as reply:
                opened = True
                yield reply
        finally:
            if not opened:
                self.end()

    @asynccontextmanager
    async def send(
        self,
        body: bytes,
        caller: Caller,
        identifier: bytes | None = None,
        /,
        *,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[PipeReply]:
        if self.ended:
            raise Refused(SessionLost("The server has gone."), how="ended", session=Verdict.GONE)
        self.server.check_full(self, body)
        reply = PipeReply(silence_seconds or self.silence_seconds)
        if identifier is None:
            reply.take(None)
        else:
            self._replies[identifier] = reply
        self._lines.put_nowait(body)
        try:
            await asyncio.sleep(0)
            yield reply
        finally:
            if identifier is not None:
                self._replies.pop(identifier, None)

    @asynccontextmanager
    async def open_stream(self, caller: Caller, last_event_id: str | None) -> AsyncIterator[PipeReply]:
        if self.ended:
            raise StreamRefused(NoStream.NO_SESSION)
        reply = self._standalone = PipeReply(None)
        for message in self._unheard:
            reply.take(message)
        self._unheard.clear()
        try:
            yield reply
        finally:
            self._standalone = None

    @asynccontextmanager
    async def resume(self, caller: Caller, last_event_id: str) -> AsyncIterator[PipeReply]:
        raise AssertionError("nothing on a pipe has an event id")
        yield

    def drop(self) -> None:
        self.end()

    async def close(self, caller: Caller) -> None:
        if not self.ended:
            self.end()
            self.server.said_goodbye(self)

    # -- the server's end --------------------------------------------------------------------------

    def write(self, line: bytes) -> None:
        """The server writes a line; what is no message is nobody's."""
        message = jsonrpc.parse_upstream(line)
        if message is None or self.ended:
            return
        reader = self._whose(message)
        if reader is not None:
            reader.take(message)
        elif self._standalone is not None:
            self._standalone.take(message)
        elif not isinstance(message, Response):  # an answer to nothing, or to what was given up
            self._unheard.append(message)

    def _whose(self, message: Message) -> PipeReply | None:
        """By its id, by its token, or because nothing else is going on."""
        if isinstance(message, Response):
            return self._replies.get(message.id)
        if isinstance(message, Notification) and message.method == revisions.PROGRESS:
            token = jsonrpc.read_object(message.params).get("progressToken", b"")
            if (reply := self._replies.get(token)) is not None:
                return reply
        return next(iter(self._replies.values())) if len(self._replies) == 1 else None

    def fail(self, asked: object, error: ProxyError) -> None:
        """What the server writes on this cannot be read."""
        if isinstance(asked, Request) and (reply := self._replies.get(asked.id)) is not None:
            reply.take(error)

    def end(self) -> None:
        """Either end is closed."""
        if self.ended:
            return
        self.ended = True
        self._lines.put_nowait(None)
        for reply in self._replies.values():
            reply.take(ConnectionLost())
        if self._standalone is not None:
            self._standalone.take(None)


class PipeServer(FakeServer):
    """A stateful server behind pipes. Implements ``transport.Transport``.

    One that is down has ended its pipes; one that has only lost a session says so in its answers.
    """

    loss_shows_as = "ended"
    hears_all = False

    def __init__(self, *, stateless: bool = False) -> None:
        super().__init__(stateless=stateless)
        self._pipes: dict[PipeChannel, str | None] = {}  # and what its session is called here
        self._working: set[asyncio.Task[None]] = set()

    def connect(self) -> PipeChannel:  # type: ignore[override]
        return PipeChannel(self)

    @property
    def pipes(self) -> list[PipeChannel]:
        """Those that are open."""
        return [pipe for pipe in self._pipes if not pipe.ended]

    def forget(self) -> None:
        """Die, and be started anew by whoever needs a server."""
        super().forget()
        for pipe in tuple(self._pipes):
            pipe.end()

    def usual(self, sent: Sent) -> FakeReply:
        if sent.method != "initialize" and not self._stateless and sent.session_id not in self.sessions:
            return answer(error(-32600, "Session not found"))
        return super().usual(sent)

    def check_full(self, pipe: PipeChannel, line: bytes) -> None:
        """Raises UpstreamUnreachable if a script says that the pipe takes nothing."""
        sent = self._sent(pipe, line)
        script = self._scripts[sent.method]
        if script and isinstance(refusal := script[0], UpstreamUnreachable):
            script.popleft()
            self.seen.append(sent)
            raise refusal

    def begin(self, pipe: PipeChannel, lines: "asyncio.Queue[bytes | None]") -> None:
        """Read what is written into this pipe, line by line, and work on all of it at once."""
        self._pipes[pipe] = None
        self._spawn(self._read(pipe, lines))

    def said_goodbye(self, pipe: PipeChannel) -> None:
        """The client has closed its end."""
        name = self._pipes.pop(pipe, None) or ""
        self.deleted.append(name)
        if name in self.sessions:
            self.sessions.remove(name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _read(self, pipe: PipeChannel, lines: "asyncio.Queue[bytes | None]") -> None:
        while (line := await lines.get()) is not None:
            self._spawn(self._answer(pipe, self._sent(pipe, line)))

    def _sent(self, pipe: PipeChannel, line: bytes) -> Sent:
        return Sent("POST", self._pipes.get(pipe), pipe.version, NOBODY, jsonrpc.parse_message(line))

    async def _answer(self, pipe: PipeChannel, sent: Sent) -> None:
        if pipe.ended:
            return  # whoever should have read this is not there any more
        try:
            async with self.answered(sent) as reply:
                assert reply.status < 300, "there are no statuses here"
                if reply.session_id is not None:
                    self._pipes[pipe] = reply.session_id
                await self._write(pipe, reply)
        except ConnectionLost:
            pipe.end()
        except UpstreamTimeout:
            pass  # the server says nothing more, and its pipe stays open
        except ProxyError as error:
            pipe.fail(sent.message, error)

    async def _write(self, pipe: PipeChannel, reply: FakeReply) -> None:
        while (messages := await reply.read()) is not None:
            for message in messages:
                pipe.write(line_of(message))


def line_of(message: Message) -> bytes:
    """A message as a line."""
    if isinstance(message, Response):
        return jsonrpc.write_response(message.id, message)
    if isinstance(message, Request):
        return jsonrpc.write_request(message.id, message.method, message.params)
    return jsonrpc.write_notification(message.method, message.params)
