"""The admin listener's connections: how many there may be, and how long one may say nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import uvloop
from aiohttp import web

from mcp_session_proxy.ops.admin.admission import Admission, AdmittingSite

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Slow:
    """A page that comes when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def page(self, _: web.Request) -> web.Response:
        """Answer."""
        self.begun += 1
        await self.end.wait()
        return web.Response(text="slow")


@asynccontextmanager
async def listener(
    slow: Slow | None = None, large: Page | None = None, **bounds: float
) -> AsyncIterator[int]:
    """A listener with one page, or several; gives its port."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", page)
    if slow is not None:
        app.router.add_get("/slow", slow.page)
    if large is not None:
        app.router.add_get("/large", large)
    admission = Admission(**bounds)  # type: ignore[arg-type]
    admission.watch(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await AdmittingSite(runner, socket.create_server(("127.0.0.1", 0)), admission=admission).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes the connection without a word."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def ask(port: int, path: str = "/") -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
        return await response.text()


async def test_silence_makes_room() -> None:
    """Connections that say nothing keep nobody out who asks for something, and the oldest one goes."""
    async with listener(max_connections=2) as port, asyncio.timeout(30):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await is_ended(silent[0][0])
        for _ in range(5):
            assert await ask(port) == "here"
        for _, writer in silent:
            writer.close()


async def test_one_over_the_limit_is_ended() -> None:
    """Where all are being answered, one more is closed, and takes nothing from anybody."""
    slow = Slow()
    async with listener(slow, max_connections=2) as port, asyncio.timeout(30):
        waiting = [asyncio.create_task(ask(port, "/slow")) for _ in range(2)]
        while slow.begun < 2:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_ended(reader)
        writer.close()
        slow.end.set()
        assert await asyncio.gather(*waiting) == ["slow", "slow"]
        assert await ask(port) == "here"


async def test_idle_connections_make_room() -> None:
    """Who has asked for something and stays keeps nobody out, either."""
    async with listener(max_connections=2) as port, asyncio.timeout(30), aiohttp.ClientSession() as idle:
        responses = [await idle.get(f"http://127.0.0.1:{port}/") for _ in range(2)]
        for response in responses:
            await response.read()
        for _ in range(5):
            assert await ask(port) == "here"


async def test_silence_ends() -> None:
    """Who connects and asks for nothing is let go, also in the middle of a request's head."""
    async with listener(first_request_seconds=0.05) as port:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(30):
                assert await is_ended(reader)
            writer.close()


def test_under_the_programs_own_event_loop() -> None:
    """uvloop's connections are let in like asyncio's."""

    async def once() -> str:
        async with listener() as port:
            return await ask(port)

    assert uvloop.run(once()) == "here"


async def test_who_asks_may_stay() -> None:
    """A connection that has made a request is kept for the next one."""
    async with listener(first_request_seconds=0.05) as port, aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.get(f"http://127.0.0.1:{port}/") as response:
                assert await response.text() == "here"
                connection = response.connection
            await asyncio.sleep(0.1)
        assert connection is None
        assert len(http.connector._conns) == 1  # type: ignore[union-attr]


LARGE = bytes(8 * 1024 * 1024)


async def large(_: web.Request) -> web.Response:
    """More than the system takes for a client that reads nothing."""
    return web.Response(body=LARGE)


async def ask_and_read_nothing(
    port: int, request: bytes = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
) -> socket.socket:
    """A connection on which this was sent."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, request)
    return connection


async def test_unread_pages_make_room() -> None:
    """Connections whose clients read nothing keep nobody out."""
    most = 100 * len(LARGE)
    async with listener(large=large, max_connections=2, unread_bytes=most) as port, asyncio.timeout(30):
        unread = [await ask_and_read_nothing(port) for _ in range(5)]
        for _ in range(5):
            assert await ask(port) == "here"
        for connection in unread:
            connection.close()


async def test_requests_without_their_bodies_make_room() -> None:
    """Nor do those that announce a body and send none, whether or not the page waits for it."""
    slow = Slow()
    request = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    async with listener(slow, max_connections=2) as port, asyncio.timeout(30):
        waiting = [await ask_and_read_nothing(port, request)]
        waiting.append(await ask_and_read_nothing(port, request.replace(b"/ ", b"/slow ")))
        while not slow.begun:
            await asyncio.sleep(0)
        for _ in range(5):
            assert await ask(port) == "here"
        slow.end.set()
        for connection in waiting:
            connection.close()


async def test_who_reads_nothing_is_cut_off() -> None:
    """After a while, also where there is room."""
    pages: list[web.Request] = []

    async def page(request: web.Request) -> web.Response:
        pages.append(request)
        return await large(request)

    async with listener(large=page, unread_seconds=0.05) as port, asyncio.timeout(30):
        with await ask_and_read_nothing(port):
            while not pages or pages[0].transport is not None:
                await asyncio.sleep(0.001)


async def test_what_nobody_reads_is_bounded() -> None:
    """Beyond so much of it, whoever has left most is cut off, and the others go on."""
    pages: list[web.Request] = []

    async def page(request: web.Request) -> web.Response:
        pages.append(request)
        return await large(request)

    async with listener(large=page, unread_bytes=2 * len(LARGE)) as port, asyncio.timeout(30):
        connections = [await ask_and_read_nothing(port) for _ in range(6)]
        while len(pages) < 6:
            await asyncio.sleep(0)
        assert await ask(port) == "here"
        while all(request.transport is not None for request in pages):
            await asyncio.sleep(0.001)
        left = [request.transport for request in pages if request.transport is not None]
        assert left
        assert sum(transport.get_write_buffer_size() for transport in left) <= 2 * len(LARGE)
        assert await ask(port) == "here"
        for connection in connections:
            connection.close()


async def test_a_page_in_a_turn() -> None:
    """However many ask at once, everybody else has a turn between two pages, but for what costs nothing."""
    turn = 0
    made: list[int] = []

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def page(_: web.Request) -> web.Response:
        made.append(turn)
        return web.Response(text="here")

    async with listener(large=page) as port, asyncio.timeout(30):
        counting = asyncio.create_task(count_turns())
        connections = [await ask_and_read_nothing(port, b"GET ") for _ in range(5)]
        for connection in connections:
            connection.send(b"/large HTTP/1.1\r\nHost: x\r\n\r\n")
        while len(made) < 5:
            await asyncio.sleep(0)
        counting.cancel()
        for connection in connections:
            connection.close()
    assert len(set(made)) == 5
