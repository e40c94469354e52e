"""A piece of network between a client and the proxy that a test can cut."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

READ_BYTES = 65536


class _Line:
    """One connection: the request that is under way on it, and what has come for that."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.asked = b""
        self.answered = b""

    def note(self, data: bytes, *, to_client: bool) -> None:
        """Something passes."""
        if to_client:
            self.answered += data
        elif self.answered:
            self.asked, self.answered = data, b""
        else:
            self.asked += data


class Cutter:
    """Passes connections on to a port on loopback, both ways, until they are cut; ``async with``."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.swallowed = asyncio.Event()
        """Set when something was kept from the client (see ``deafen``)."""
        self._target_port = target_port
        self._deaf = False
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more, and cut whatever is left."""
        assert self._server is not None
        self._server.close()
        await self.cut()

    def answering(self, request: str, answer: str = "") -> bool:
        """Whether a request with this text in it is under way, and this text of its answer has passed."""
        return any(
            request.encode() in line.asked and answer.encode() in line.answered for line in self._lines
        )

    async def cut(self, request: str = "") -> int:
        """Break the connections (whose request has this text in it); new ones pass. Returns their number."""
        lines = [line for line in self._lines if request.encode() in line.asked]
        for line in lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in lines), return_exceptions=True)
        self._deaf = False
        self.swallowed.clear()
        return len(lines)

    def deafen(self) -> None:
        """From now on until the cut, whatever is sent to the client is lost."""
        self._deaf = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        line = _Line(task)
        self._lines.add(line)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pass(line, reader, back, to_client=False))
                    tasks.create_task(self._pass(line, there, writer, to_client=True))
            finally:
                back.transport.abort()
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._lines.discard(line)

    async def _pass(
        self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if to_client and self._deaf:
                self.swallowed.set()
                continue
            line.note(data, to_client=to_client)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
