"""A second transport: a pipe for each session, on which JSON lines go both ways to a server in this process.

It has neither statuses nor headers nor a URL. All that a session says and hears goes the same way
(``upstream.duplex``), nothing can be resumed, and the session ends with its pipe, whoever ends that. A
:class:`PipeServer` is scripted as any ``FakeServer``, with what can happen here.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fakes import FakeReply, FakeServer, Sent, answer
from messages import error

from mcp_session_proxy.errors import ProxyError, UpstreamTimeout, UpstreamUnreachable
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Message, Request, Response
from mcp_session_proxy.upstream.duplex import DuplexSession
from mcp_session_proxy.upstream.inbox import Sweeper
from mcp_session_proxy.upstream.transport import NOBODY, Caller, ConnectionLost


class PipeLink:
    """One session's pipe, from both ends. Implements ``duplex.Link``.

    What the server writes while the pipe is ``paused`` is read when that is over.
    """

    def __init__(self, server: "PipeServer", session: DuplexSession) -> None:
        self.server = server
        self.session = session
        self.paused = False
        self._broken = False  # by the server
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._written: list[bytes] = []

    @property
    def ended(self) -> bool:
        return self.session.ended is not None

    # -- the client's end ------------------------------------------------------------------------

    def send(self, body: bytes, caller: Caller) -> None:
        self.server.check_full(self, body)
        self._lines.put_nowait(body)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        written, self._written = self._written, []
        for line in written:
            self.write(line)

    async def close(self, caller: Caller) -> None:
        if not self._broken:
            self.drop()
            self.server.said_goodbye(self)

    def drop(self) -> None:
        self._lines.put_nowait(None)

    # -- the server's end --------------------------------------------------------------------------

    async def read_line(self) -> bytes | None:
        """What the server reads."""
        return await self._lines.get()

    def write(self, line: bytes) -> None:
        """The server writes a line; what is no message is nobody's."""
        if self.paused:
            self._written.append(line)
        elif (message := jsonrpc.parse_upstream(line)) is not None:
            self.session.take(message)

    def end(self, error: ProxyError | None = None) -> None:
        """The server closes its end, or what it writes cannot be read."""
        self._broken = True
        self.session.end("the pipe was closed", error=error)
        self.drop()


class PipeServer(FakeServer):
    """A stateful server behind pipes. Implements ``transport.Transport``.

    One that is down has ended its pipes; one that has only lost a session says so in its answers.
    """

    loss_shows_as = "ended"
    hears_all = False
    sessions_only = True

    def __init__(self, *, stateless: bool = False) -> None:
        super().__init__(stateless=stateless)
        self.sweeper = Sweeper(self.silence_seconds)
        self._pipes: dict[PipeLink, str | None] = {}  # and what its session is called here
        self._working: set[asyncio.Task[None]] = set()

    def connect(self) -> DuplexSession:  # type: ignore[override]
        self.sweeper.silence_seconds = self.silence_seconds
        return DuplexSession(self._open_link, self.sweeper)

    async def _open_link(self, session: DuplexSession, caller: Caller) -> PipeLink:
        pipe = PipeLink(self, session)
        self._pipes[pipe] = None
        self._spawn(self._read(pipe))
        return pipe

    @property
    def pipes(self) -> list[PipeLink]:
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

    def check_full(self, pipe: PipeLink, line: bytes) -> None:
        """Raises UpstreamUnreachable if a script says that the pipe takes nothing."""
        sent = self._sent(pipe, line)
        script = self._scripts[sent.method]
        if script and isinstance(refusal := script[0], UpstreamUnreachable):
            script.popleft()
            self.seen.append(sent)
            raise refusal

    def said_goodbye(self, pipe: PipeLink) -> None:
        """The client has closed its end, of what was open."""
        if pipe not in self._pipes:
            return
        name = self._pipes.pop(pipe) or ""
        self.deleted.append(name)
        if name in self.sessions:
            self.sessions.remove(name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _read(self, pipe: PipeLink) -> None:
        """Read what is written into this pipe, line by line, and work on all of it at once."""
        while (line := await pipe.read_line()) is not None:
            self._spawn(self._answer(pipe, self._sent(pipe, line)))

    def _sent(self, pipe: PipeLink, line: bytes) -> Sent:
        return Sent("POST", self._pipes.get(pipe), pipe.session.version, NOBODY, jsonrpc.parse_message(line))

    async def _answer(self, pipe: PipeLink, sent: Sent) -> None:
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
            pipe.end(error)

    async def _write(self, pipe: PipeLink, reply: FakeReply) -> None:
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
