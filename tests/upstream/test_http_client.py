"""The HTTP client's connections, over real sockets: which are used again, which are not, and none is left."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import pytest
from aiohttp.test_utils import unused_port
from certificates import Authority
from raw_server import RawServer, always, whole
from yarl import URL

from mcp_session_proxy.errors import UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from mcp_session_proxy.upstream.http import client as http_client
from mcp_session_proxy.upstream.http.client import HttpClient, patience
from mcp_session_proxy.upstream.http.http1 import HttpAnswer
from mcp_session_proxy.upstream.transport import ConnectionLost

PATIENCE = patience(connect_seconds=5, silence_seconds=30)
Opener = Callable[..., HttpClient]


@pytest.fixture
async def to() -> AsyncIterator[Opener]:
    """Opens clients, which are closed behind the test."""
    clients: list[HttpClient] = []

    def open_client(url: URL, tls: ssl.SSLContext | None = None) -> HttpClient:
        clients.append(HttpClient(url, tls))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


async def ask(client: HttpClient, url: URL, body: bytes | None = b"{}", **options: Any) -> HttpAnswer:
    return await client.request("POST", url, [], body, options.pop("patience", PATIENCE), **options)


async def ask_whole(client: HttpClient, url: URL, body: bytes | None = b"{}", **options: Any) -> bytes:
    """Send a request; gives the whole body of the answer."""
    answer = await ask(client, url, body, **options)
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def _wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


Then = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*answers: bytes, then: Then = _wait) -> RawServer:
    """A server that answers the requests of each connection so, one after the other, and then does that."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await server.read(reader)
            writer.write(answer)
            await writer.drain()
        await then(reader, writer)

    return RawServer(serve)


# -- what is used again ------------------------------------------------------------------------------


async def test_one_connection_for_requests_in_turn(to: Opener) -> None:
    """A connection serves as long as its answers end in order."""
    server = answering(*[whole(b"{}")] * 5)
    async with server.running() as url:
        client = to(url)
        for _ in range(5):
            assert await ask_whole(client, url) == b"{}"
    assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"{}") + whole(b"of somebody else"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_is_not_used_again(to: Opener, answer: bytes) -> None:
    """Each request of these has a connection of its own, and nobody hears another's answer."""
    server = answering(answer)
    async with server.running() as url:
        client = to(url)
        for _ in range(3):
            assert await ask_whole(client, url) == b"{}"
    assert server.connections == 3


async def test_an_idle_connection_that_the_server_ends(to: Opener) -> None:
    """It is found out before anything is sent on it, so that nothing is lost."""
    gone = asyncio.Event()

    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        gone.set()

    server = answering(whole(b"{}"), then=leave)
    async with server.running() as url:
        client = to(url)
        for _ in range(3):
            gone.clear()
            assert await ask_whole(client, url) == b"{}"
            await gone.wait()
            while client._connections:
                await asyncio.sleep(0)
    assert server.connections == 3


@pytest.mark.slow
async def test_idle_connections_are_let_go(to: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the server does, so that no request meets the end of one; and the timer ends with the last."""
    monkeypatch.setattr(http_client, "_KEEP_CONNECTION_SECONDS", 0.02)
    let_go = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        let_go.set()

    async with answering(whole(b"{}"), then=wait).running() as url:
        client = to(url)
        await ask_whole(client, url)
        await let_go.wait()
        while client._connections:
            await asyncio.sleep(0)
        assert not client._idle


async def test_as_many_are_kept_as_there_may_be(to: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond that are ended as soon as they are free."""
    monkeypatch.setattr(http_client, "KEPT_CONNECTIONS", 2)
    everybody = asyncio.Barrier(5)

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        await everybody.wait()
        writer.write(whole(b"{}"))
        await reader.read()

    async with RawServer(serve).running() as url:
        client = to(url)
        await asyncio.gather(*(ask_whole(client, url) for _ in range(5)))
        assert len(client._idle) == 2


# -- what is sent ------------------------------------------------------------------------------------


async def test_a_large_body(to: Opener) -> None:
    """Arrives byte for byte, also at a server that begins its answer before it reads."""
    body = os.urandom(1000) * 5000

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.01)
        server.requests.append(await reader.readexactly(len(body)))
        writer.write(b"{}")

    server = RawServer(serve)
    async with server.running() as url:
        assert await ask_whole(to(url), url, body) == b"{}"
    assert server.requests == [body]


async def test_a_server_that_reads_nothing(to: Opener) -> None:
    """Is given up after a while, and until then holds up nobody and makes nothing grow."""

    async def serve(_: RawServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with RawServer(serve).running() as url:
        client = to(url)
        asking = asyncio.create_task(
            ask(client, url, b"x" * 50_000_000, patience=patience(connect_seconds=5, silence_seconds=0.2))
        )
        while not client._connections:
            await asyncio.sleep(0)
        (connection,) = client._connections
        transport = connection._transport
        assert transport is not None
        await asyncio.sleep(0.05)
        assert transport.get_write_buffer_size() < 1_000_000
        with pytest.raises(UpstreamTimeout):
            await asking


async def test_a_refusal_amid_the_upload(to: Opener) -> None:
    """The words of a server that refuses a body after its first bytes, and closes, are heard."""

    async def serve(_: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")
        await writer.drain()
        await reader.read()

    async with RawServer(serve).running() as url:
        answer = await ask(to(url), url, b"x" * 50_000_000)
        assert (answer.status, await answer.read()) == (413, b"no!")


# -- connecting --------------------------------------------------------------------------------------


def named(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> list[str]:
    """Let a name have these addresses; gives the names that are looked up."""
    asked: list[str] = []

    async def look_up(host: str, _port: int, **_: object) -> list[Any]:
        asked.append(host)
        await asyncio.sleep(0.01)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    return asked


async def test_a_name_with_several_addresses(to: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes no connection is passed over, and who connects at once looks up once."""
    server = answering(whole(b"{}"))
    async with server.running() as url:
        port = url.port or 0
        asked = named(monkeypatch, ("127.0.0.1", unused_port()), ("127.0.0.1", port))
        client = to(named_url := url.with_host("server.test"))
        bodies = await asyncio.gather(*(ask_whole(client, named_url) for _ in range(10)))
    assert bodies == [b"{}"] * 10
    assert asked == ["server.test"]
    assert all(b"Host: server.test:%d" % port in request for request in server.requests)


async def test_who_gives_up_takes_the_look_up_from_nobody(
    to: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first who asked for a name may leave; the others go on waiting for it."""
    async with answering(whole(b"{}")).running() as url:
        named(monkeypatch, ("127.0.0.1", url.port or 0))
        client = to(named_url := url.with_host("server.test"))
        first, second = (asyncio.create_task(ask_whole(client, named_url)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"{}"
        assert first.cancelled()


async def test_a_look_up_that_fails(to: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told to everybody who waited for it, and asked anew by the next."""
    client = to(url := URL("http://server.test/mcp"))

    async def fail(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    for _ in range(2):
        found = await asyncio.gather(*(ask(client, url) for _ in range(3)), return_exceptions=True)
        assert {type(each) for each in found} == {UpstreamUnreachable}


async def test_a_connection_that_takes_too_long(to: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent."""

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", hang)
    client = to(url := URL("http://127.0.0.1:9/mcp"))
    with pytest.raises(UpstreamUnreachable):
        await ask(client, url, patience=patience(connect_seconds=0.02, silence_seconds=5))


async def test_a_server_that_speaks_first(to: Opener) -> None:
    """Something that speaks unasked is no HTTP server, and what it says answers nobody."""

    async def serve(_: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()

    async with RawServer(serve).running() as url:
        with pytest.raises(UpstreamProtocolError):
            await ask(to(url), url)


async def test_ipv6(to: Opener) -> None:
    """An address in brackets is connected to, and named so."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"{}"))
        writer.write(whole(b"{}"))
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server:
        url = URL(f"http://[::1]:{server.sockets[0].getsockname()[1]}/mcp")
        assert await ask_whole(to(url), url) == b"{}"
    assert f"Host: [::1]:{url.port}\r\n".encode() in seen[0]


# -- TLS ---------------------------------------------------------------------------------------------


async def _serve_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(whole(b"%d" % length))
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_tls(to: Opener, tmp_path: Path, size: int) -> None:
    """Small and large bodies, on one connection."""
    authority = Authority(tmp_path)
    server = await asyncio.start_server(_serve_tls, "127.0.0.1", 0, ssl=authority.server_context())
    async with server:
        url = URL(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")
        client = to(url, authority.client_context())
        for _ in range(3):
            assert await ask_whole(client, url, b"x" * size) == b"%d" % size
        assert len(client._connections) == 1
        client.close()


@pytest.mark.slow
async def test_no_trust_no_request(to: Opener, tmp_path: Path) -> None:
    """Nothing is sent to a server whose certificate nobody vouches for, or that speaks no TLS."""
    authority = Authority(tmp_path)
    server = await asyncio.start_server(_serve_tls, "127.0.0.1", 0, ssl=authority.server_context())
    async with server:
        url = URL(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")
        with pytest.raises(UpstreamProtocolError, match="TLS"):
            await ask(to(url), url)
    async with always(whole(b"{}")).running() as plain:
        with pytest.raises((UpstreamProtocolError, UpstreamUnreachable)):
            await ask(to(plain.with_scheme("https")), plain.with_scheme("https"))


# -- nothing is left ---------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _settled(client: HttpClient, files: int) -> None:
    while client._connections or open_files() > files:
        await asyncio.sleep(0.001)


class _OneAnswer(asyncio.Protocol):
    """A server that is as quick as can be: an answer to whatever comes, and the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, _: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        self.transport.close()


@pytest.mark.slow
async def test_ten_thousand_connections(to: Opener) -> None:
    """Opened and closed, a hundred at a time: no descriptor, no connection and no timer is left."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_OneAnswer, "127.0.0.1", 0, backlog=500)
    async with server:
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")
        client, files = to(url), open_files()

        async def ask_many() -> None:
            for _ in range(100):
                assert await ask_whole(client, url) == b"{}"

        await asyncio.gather(*(ask_many() for _ in range(100)))
        async with asyncio.timeout(60):
            await _settled(client, files)


@pytest.mark.parametrize("turns", range(12))
async def test_given_up_at_any_moment(to: Opener, turns: int) -> None:
    """Whoever is cancelled, however far it was, leaves no descriptor, and no answer to somebody else."""
    number = iter(range(1_000_000))

    async def serve(_: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"{}")
            assert head
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await asyncio.sleep(0)
            body = head.partition(b"X-Number: ")[2].partition(b"\r\n")[0]
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    async with RawServer(serve).running() as url:
        client, files = to(url), open_files()

        async def ask_own() -> None:
            own = str(next(number))
            answer = await client.request("POST", url, [("X-Number", own)], b"{}", PATIENCE)
            try:
                assert await answer.read() == own.encode()
            except BaseException:
                answer.close()
                raise
            answer.let_end()

        for _ in range(30):
            asking = asyncio.create_task(ask_own())
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await ask_own()
        client.close()
        async with asyncio.timeout(60):
            await _settled(client, files)


async def test_closed(to: Opener) -> None:
    """Whoever waits for an answer hears that there will be none, and nobody can send any more."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.read(reader)
        await reader.read()

    server = RawServer(serve)
    async with server.running() as url:
        client = to(url)
        asking = asyncio.create_task(ask(client, url))
        while not server.requests:
            await asyncio.sleep(0)
        client.close()
        with pytest.raises(ConnectionLost):
            await asking
        with pytest.raises(UpstreamUnreachable):
            await ask(client, url)
