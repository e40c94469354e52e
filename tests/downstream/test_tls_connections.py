"""Connections to a listener with TLS, before and while they shake hands."""

import asyncio
import errno
import os
import shutil
import socket
import ssl
from typing import Any, NoReturn, cast

import aiohttp
import pytest
import uvloop
from certificates import Authority
from http_server import HttpServer
from messages import call
from proxy_bench import PATIENCE_SECONDS, Bench, until

from mcp_session_proxy.downstream import tls_site

HANDSHAKE_RECORD = 22  # RFC 8446, section 5.1
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def start(bench: Bench, authority: Authority, **options: object) -> None:
    """Start the proxy with TLS."""
    cert, key = authority.issue("127.0.0.1")
    await bench.start(tls_cert=str(cert), tls_key=str(key), **options)


async def connect(bench: Bench) -> Connection:
    """A TCP connection, over which nothing was said."""
    host, _, port = bench.proxy.listen_url.removeprefix("https://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def ask(bench: Bench, authority: Authority) -> int:
    """A caller on a connection of its own; the status of its answer."""
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.post(bench.url, json=call(), headers={"Accept": "application/json"}) as response,
    ):
        return response.status


def hello() -> bytes:
    """The first thing that a client says in a handshake."""
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(heard, said).do_handshake()
    return said.read()


async def end_of(connection: Connection) -> None:
    """Wait until the other side closes it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while await connection[0].read(65536):
                pass
        except ConnectionError:
            pass
    connection[1].close()


async def test_silence_takes_a_place_and_makes_room(bench: Bench, authority: Authority) -> None:
    """Connections that say nothing count from their first moment on, and make room for who does."""
    await start(bench, authority, max_connections=3)
    silent = [await connect(bench) for _ in range(10)]
    assert await ask(bench, authority) == 200
    for connection in silent[:7]:
        await end_of(connection)
    assert len(bench.listener.places) <= 3
    for _, writer in silent[7:]:
        writer.close()


@pytest.mark.parametrize("sent", ["nothing", "a piece", "all of the hello"])
async def test_a_handshake_has_its_time(
    bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    """Wherever a handshake stops, the connection is closed soon, and its place is free."""
    monkeypatch.setattr(tls_site, "TLS_HANDSHAKE_SECONDS", 0.2)
    await start(bench, authority)
    connection = await connect(bench)
    connection[1].write({"nothing": b"", "a piece": hello()[:50], "all of the hello": hello()}[sent])
    await end_of(connection)
    await until(lambda: len(bench.listener.places) == 0)


async def test_handshakes_that_stop_make_room(bench: Bench, authority: Authority) -> None:
    """Those who began to shake hands and stopped keep nobody out."""
    await start(bench, authority, max_connections=3)
    places = bench.listener.places
    stopped = [await connect(bench) for _ in range(3)]
    for _, writer in stopped:
        writer.write(hello())
    await until(lambda: len(places._begun) == 3)
    assert await ask(bench, authority) == 200
    await end_of(stopped[0])
    for _, writer in stopped[1:]:
        writer.close()


async def test_who_speaks_comes_before_who_is_silent(bench: Bench, authority: Authority) -> None:
    """A slow handshake goes on while others connect and say nothing, however many they are."""
    await start(bench, authority, max_connections=3)
    places = bench.listener.places
    slow, said = await connect(bench), hello()
    slow[1].write(said[:50])
    await until(lambda: len(places._begun) == 1)
    silent = [await connect(bench) for _ in range(10)]
    await end_of(silent[0])
    slow[1].write(said[50:])
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await slow[0].readexactly(1))[0] == HANDSHAKE_RECORD
    for _, writer in (slow, *silent[1:]):
        writer.close()


async def test_what_is_no_tls_is_closed(bench: Bench, authority: Authority) -> None:
    """A client that speaks plain HTTP, or rubbish, is cut off at once; nobody else notices."""
    await start(bench, authority)
    for sent in (
        b"POST /mcp HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 1000,
        b"\x16\x03\x01\xff\xff" + b"x" * 99,
    ):
        connection = await connect(bench)
        connection[1].write(sent)
        connection[1].write_eof()
        await end_of(connection)
    await until(lambda: len(bench.listener.places) == 0)
    assert await ask(bench, authority) == 200


async def test_who_leaves_amid_a_handshake_leaves_nothing(bench: Bench, authority: Authority) -> None:
    """A place is free again when its client has gone, wherever that was."""
    await start(bench, authority)
    places = bench.listener.places
    for sent in (b"", hello()[:50], hello()):
        _, writer = await connect(bench)
        await until(lambda: len(places) == 1)
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()
        await until(lambda: len(places) == 0)


async def test_without_descriptors_somebody_makes_room(bench: Bench, authority: Authority) -> None:
    """When the system grants no more files, the one silent for longest goes, and accepting goes on."""
    await start(bench, authority)
    silent = await connect(bench)
    await until(lambda: len(bench.listener.places) == 1)
    (acceptor,) = [cast(Any, site)._server for site in bench.proxy.front.runner.sites]
    (listening,) = acceptor.sockets

    class Failing(socket.socket):
        """A socket that cannot accept."""

        def accept(self) -> NoReturn:
            raise OSError(errno.EMFILE, "Too many open files")

    failing = Failing(fileno=os.dup(listening.fileno()))
    acceptor._accept(failing)
    failing.close()
    await end_of(silent)
    assert await ask(bench, authority) == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
async def test_renegotiation_is_refused(bench: Bench, authority: Authority) -> None:
    """Nobody can have a connection shake hands again and again (TLS 1.2)."""
    await start(bench, authority)
    target = bench.proxy.listen_url.removeprefix("https://")
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", target, "-tls1_2", "-CAfile", str(authority.file)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await client.stdout.readline()).strip().startswith(b"Verify return code"):
            pass
        client.stdin.write(b"R\n")
        rest = await client.stdout.read()
        await client.wait()
    assert b"RENEGOTIATING" in rest
    assert b"no renegotiation" in rest


def test_under_the_programs_own_event_loop(authority: Authority) -> None:
    """uvloop's connections are taken in like asyncio's, and make room like them."""

    async def once() -> int:
        async with HttpServer() as server, Bench(server) as bench:
            await start(bench, authority, max_connections=3)
            silent = [await connect(bench) for _ in range(10)]
            slow = [await connect(bench) for _ in range(3)]
            for _, writer in slow:
                writer.write(hello())
            status = await ask(bench, authority)
            for _, writer in (*silent, *slow):
                writer.close()
            return status

    assert uvloop.run(once()) == 200
