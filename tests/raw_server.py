"""A server that is handed every connection as it is, for answers that no HTTP library would write."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from yarl import URL


@dataclass
class RawServer:
    """A server that does what a test says with each connection. ``connections`` counts them."""

    serve: Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[URL]:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self.serve(self, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read one whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(v) for n, _, v in _fields(head) if n.lower() == b"content-length"), 0)
        self.requests.append(head + await reader.readexactly(length))


def _fields(head: bytes) -> list[tuple[bytes, bytes, bytes]]:
    return [line.partition(b":") for line in head.split(b"\r\n")[1:]]


def whole(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    """An answer of HTTP/1.1 with a body."""
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(body))
    return head + body


def always(answer: bytes) -> RawServer:
    """A server that answers one request on each connection, always with these bytes."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer)
        await writer.drain()

    return RawServer(serve)
