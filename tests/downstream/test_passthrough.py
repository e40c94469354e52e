"""The pass-through between real servers and clients: exact, streaming both ways, and never elsewhere."""

import asyncio
import gzip
import io
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from raw_server import always
from yarl import URL

from mcp_session_proxy.downstream.heartbeats import HeartbeatRules, Heartbeats
from mcp_session_proxy.downstream.passthrough import PassingRules, Passthrough, open_client_session
from mcp_session_proxy.memory import Share

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
METADATA = "/.well-known/oauth-protected-resource"


@dataclass
class Server:
    """A running server that gives every request to one handler."""

    runner: web.ServerRunner
    url: URL

    @property
    def port(self) -> int:
        assert self.url.port is not None
        return self.url.port


def heartbeats() -> Heartbeats:
    """What looks for clients that read nothing."""
    return Heartbeats(HeartbeatRules(interval_seconds=0.3))


async def start(handler: Handler) -> Server:
    server = web.Server(handler, handler_cancellation=True, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return Server(runner, URL(f"http://127.0.0.1:{runner.addresses[0][1]}"))


@dataclass
class Bench:
    """A client in front of the pass-through in front of a handler of the test's own."""

    http: aiohttp.ClientSession
    inner: aiohttp.ClientSession
    servers: list[Server] = field(default_factory=list)

    async def proxy(self, origin: URL, public_url: str | None = None, **options: Any) -> Server:
        rules = PassingRules(**options)
        handler = Passthrough(self.inner, origin, "/mcp", public_url, rules=rules, heartbeats=heartbeats())
        self.servers.append(await start(handler.handle))
        return self.servers[-1]

    async def before(self, upstream: Handler, public_url: str | None = None, **options: Any) -> Server:
        """A proxy before a server with this handler."""
        self.servers.append(await start(upstream))
        return await self.proxy(self.servers[-1].url, public_url, **options)

    def request(
        self, method: str, server: Server, path: str, **options: object
    ) -> "aiohttp.client._RequestContextManager":
        url = URL(f"{server.url}{path}", encoded=True)
        return self.http.request(method, url, allow_redirects=False, **options)  # type: ignore[arg-type]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """The bench, cleaned up behind the test."""
    async with aiohttp.ClientSession(auto_decompress=False) as http, open_client_session() as inner:
        bench = Bench(http, inner)
        yield bench
        for server in reversed(bench.servers):
            await server.runner.cleanup()


async def talk(port: int, request: bytes) -> bytes:
    """Send raw bytes, read what comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


# -- streaming -----------------------------------------------------------------------------------


async def test_request_bodies_stream(bench: Bench) -> None:
    """The server reads the first part of a request before the client has sent the second."""
    first_seen = asyncio.Event()
    seen: list[bytes] = []

    async def upstream(request: web.BaseRequest) -> web.Response:
        async for part in request.content.iter_any():
            seen.append(part)
            first_seen.set()
        assert request.headers["Transfer-Encoding"] == "chunked"
        return web.Response(text=str(len(b"".join(seen))))

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await first_seen.wait()
        yield b"second"

    proxy = await bench.before(upstream)
    async with bench.request("POST", proxy, "/upload", data=parts()) as response:
        assert await response.text() == "11"
    assert seen == [b"first", b"second"]


async def test_response_bodies_stream(bench: Bench) -> None:
    """The client reads the first event of a response before the server has sent the second."""
    first_seen = asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await first_seen.wait()
        await response.write(b"data: 2\n\n")
        return response

    proxy = await bench.before(upstream)
    async with bench.request("GET", proxy, "/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.readany() == b"data: 1\n\n"
        first_seen.set()
        assert await response.read() == b"data: 2\n\n"


async def test_heads_do_not_wait_for_bodies(bench: Bench) -> None:
    """Status and headers reach the client before there is any body."""
    head_seen = asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=203)
        await response.prepare(request)
        await head_seen.wait()
        return response

    proxy = await bench.before(upstream)
    async with bench.request("GET", proxy, "/slow") as response:
        assert response.status == 203
        head_seen.set()


async def test_answers_may_come_before_the_request_ends(bench: Bench) -> None:
    """A server that answers while the client is still sending is heard."""
    answered = asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part.upper())
        return response

    async def parts() -> AsyncIterator[bytes]:
        yield b"ping"
        await answered.wait()
        yield b"pong"

    proxy = await bench.before(upstream)
    async with bench.request("POST", proxy, "/echo", data=parts()) as response:
        assert await response.content.readany() == b"PING"
        answered.set()
        assert await response.read() == b"PONG"


async def test_large_bodies_both_ways(bench: Bench) -> None:
    """Bodies over every limit of the MCP endpoint arrive whole."""

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = request.content_length
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part)
        return response

    body = bytes(range(256)) * 4 * 8192
    proxy = await bench.before(upstream)
    async with bench.request("PUT", proxy, "/big", data=io.BytesIO(body)) as response:
        assert response.content_length == len(body)
        assert await response.read() == body


# -- exactness -----------------------------------------------------------------------------------


async def test_methods_and_headers_arrive(bench: Bench) -> None:
    """Any method, its end-to-end headers and its length arrive, with the server's own Host, nothing added."""
    seen: list[tuple[str, dict[str, str]]] = []

    async def upstream(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, dict(request.headers)))
        return web.Response(status=204)

    proxy = await bench.before(upstream)
    headers = {
        "X-Key": "k",
        "Cookie": "a=b",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "h",
        "TE": "trailers",
    }
    async with bench.request(
        "PROPFIND",
        proxy,
        "/dav",
        data=b"abc",
        headers=headers,
        skip_auto_headers=["User-Agent", "Content-Type"],
    ) as response:
        assert response.status == 204
    method, arrived = seen[0]
    assert method == "PROPFIND"
    assert arrived == {
        "Host": f"127.0.0.1:{bench.servers[0].port}",
        "X-Key": "k",
        "Cookie": "a=b",
        "Accept": "*/*",
        "Accept-Encoding": arrived["Accept-Encoding"],
        "Content-Length": "3",
    }


async def test_responses_arrive_as_they_are(bench: Bench) -> None:
    """Status, reason, repeated headers and an encoded body arrive as the server sent them."""
    packed = gzip.compress(b"hello" * 100)

    async def upstream(request: web.BaseRequest) -> web.Response:
        response = web.Response(status=299, reason="Very Fine", body=packed)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Server"] = "theirs"
        response.headers.add("Set-Cookie", "a=1; Path=/")
        response.headers.add("Set-Cookie", "b=2; HttpOnly")
        return response

    proxy = await bench.before(upstream)
    async with bench.request("GET", proxy, "/page") as response:
        assert (response.status, response.reason) == (299, "Very Fine")
        assert response.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
        assert response.headers["Server"] == "theirs"
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.content_length == len(packed)
        assert await response.read() == packed


async def test_encoded_request_bodies_arrive_as_they_are(bench: Bench) -> None:
    """A compressed request body is not opened on the way, and its headers still describe it."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        assert request.headers["Content-Encoding"] == "gzip"
        assert request.content_length == len(packed)
        return web.Response(body=gzip.decompress(await request.read()))

    proxy = await bench.before(upstream)
    packed = gzip.compress(b"hello")
    async with bench.request(
        "POST", proxy, "/x", data=packed, headers={"Content-Encoding": "gzip"}
    ) as response:
        assert await response.read() == b"hello"


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_answers_without_a_body(bench: Bench, method: str, status: int) -> None:
    """HEAD keeps the length that GET would have; 204 and 304 end at once."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, headers={"ETag": '"v"'}, body=b"12345" if status == 200 else None)

    proxy = await bench.before(upstream)
    for _ in range(2):  # the connection can be used again
        async with bench.request(method, proxy, "/x") as response:
            assert (response.status, response.headers["ETag"]) == (status, '"v"')
            assert await response.read() == (b"12345" if (method, status) == ("GET", 200) else b"")
            if status == 200:
                assert response.headers["Content-Length"] == "5"


async def test_bytes_that_are_not_utf8(bench: Bench) -> None:
    """Latin-1 in a header or a reason passes instead of breaking the request."""
    raw = always(b"HTTP/1.1 200 Tr\xe9s bien\r\nX-Name: caf\xe9\r\nContent-Length: 0\r\n\r\n")
    async with raw.running() as url:
        proxy = await bench.proxy(url.origin())
        answer = await talk(
            proxy.port,
            b"GET /x HTTP/1.1\r\nHost: x\r\nX-Name: na\xefve\r\nConnection: close\r\n\r\n",
        )
    assert answer.startswith("HTTP/1.1 200 Trés bien\r\n".encode())
    assert "X-Name: café\r\n".encode() in answer
    assert "X-Name: naïve\r\n".encode() in raw.requests[0]


async def test_old_clients(bench: Bench) -> None:
    """An HTTP/1.0 client gets a body without chunks, ended by the connection's end."""

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await response.write(b"two")
        return response

    proxy = await bench.before(upstream)
    answer = await talk(proxy.port, b"GET /x HTTP/1.0\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"onetwo"


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a%2Fb/%2e%2e/c%20d?x=%26&y=a+b&&z", "/a%2Fb/%2e%2e/c%20d?x=%26&y=a+b&&z"),
        ("/a/../b/./c//d/", "/a/../b/./c//d/"),
        ("/?", "/"),
        ("/a;b=c,d:e@f|g'h\"i<j>", "/a;b=c,d:e@f|g'h\"i<j>"),
        ("/%zz%", "/%zz%"),
        ("//evil.example/x", "//evil.example/x"),
        ("///evil.example", "///evil.example"),
        ("/\\evil.example", "/\\evil.example"),
        ("/@evil.example", "/@evil.example"),
        ("http://evil.example/x?y", "/x?y"),
        ("http://evil.example", "/"),
        ("http://evil.example?y", "/?y"),
        ("http://user:password@evil.example//y/", "//y/"),
        ("/x#fragment", "/x"),
    ],
)
async def test_targets_stay_exact_and_at_the_server(bench: Bench, target: str, expected: str) -> None:
    """Path and query arrive byte for byte, and no form of target leads to another origin."""
    raw = always(OK)
    async with raw.running() as url:
        proxy = await bench.proxy(url.origin())
        request = f"GET {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        answer = await talk(proxy.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.requests[0].startswith(f"GET {expected} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n".encode())


@pytest.mark.parametrize(
    "target",
    ["/mcp//", "//mcp", "/%6dcp", "/x/%2e%2e/mcp/", "/x/..\\mcp", "/MCP", "/mcp;x", "/mcp%20", "/x/..;/mcp"],
)
async def test_the_endpoint_has_one_spelling(bench: Bench, target: str) -> None:
    """Nobody gets around the session handling by another spelling of the endpoint's path."""
    raw = always(OK)
    async with raw.running() as url:
        proxy = await bench.proxy(url.origin())
        async with bench.request("POST", proxy, target, data=b"{}") as response:
            assert response.status == 404
            assert (await response.json())["error"]["reason"] == "not-passed-through"
    assert raw.requests == []


async def test_targets_without_a_path_are_refused(bench: Bench) -> None:
    """``OPTIONS *`` is about us, and not for any page of the server."""
    proxy = await bench.proxy(URL("http://127.0.0.1:1"))
    answer = await talk(proxy.port, b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_redirects_are_not_followed(bench: Bench) -> None:
    """A redirect reaches the client; one to the server itself leads to the proxy, others stay."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        own = f"http://{request.host}/there?a=1"
        return web.Response(status=307, headers={"Location": request.query.get("to", own)})

    proxy = await bench.before(upstream)
    async with bench.request("GET", proxy, "/here") as response:
        assert (response.status, response.headers["Location"]) == (307, "/there?a=1")
    async with bench.request("GET", proxy, "/here?to=https://login.example/x") as response:
        assert response.headers["Location"] == "https://login.example/x"


@pytest.mark.parametrize("upgrade", ["websocket", "h2c, websocket"])
async def test_upgrades_are_refused(bench: Bench, upgrade: str) -> None:
    """A WebSocket handshake is refused with 501 and a reason, instead of a connection that goes nowhere."""
    proxy = await bench.proxy(URL("http://127.0.0.1:1"))
    headers = {
        "Connection": "Upgrade",
        "Upgrade": upgrade,
        "Sec-WebSocket-Key": "x",
        "Sec-WebSocket-Version": "13",
    }
    async with bench.request("GET", proxy, "/ws", headers=headers) as response:
        assert response.status == 501
        assert (await response.json())["error"]["reason"] == "upgrade-not-supported"


async def test_tunnels_are_refused(bench: Bench) -> None:
    """CONNECT is refused with 501."""
    proxy = await bench.proxy(URL("http://127.0.0.1:1"))
    answer = await talk(
        proxy.port, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 501 ")


async def test_an_offer_of_http2_is_declined(bench: Bench) -> None:
    """Clients that offer h2c with their first request are answered over HTTP/1.1."""
    raw = always(OK)
    async with raw.running() as url:
        proxy = await bench.proxy(url.origin())
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
        async with bench.request("GET", proxy, "/x", headers=headers) as response:
            assert await response.read() == b"ok"
    assert b"h2c" not in raw.requests[0]


async def test_cors_headers_are_added_where_the_server_has_none(bench: Bench) -> None:
    """Allowed pages can read what the server did not grant, and the server's own grants stay alone."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        own = {"Access-Control-Allow-Origin": "*"} if request.path == "/own" else {}
        return web.Response(headers=own)

    cors = {"Access-Control-Allow-Origin": "https://app.example", "Vary": "Origin"}
    bench.servers.append(await start(upstream))
    origin, rules = bench.servers[-1].url, PassingRules()
    handler = Passthrough(bench.inner, origin, "/mcp", None, rules=rules, heartbeats=heartbeats())
    bench.servers.append(await start(lambda request: handler.handle(request, cors)))
    for path, expected in (("/own", ["*"]), ("/other", ["https://app.example"])):
        async with bench.request("GET", bench.servers[-1], path) as response:
            assert response.headers.getall("Access-Control-Allow-Origin") == expected


# -- trouble -------------------------------------------------------------------------------------


async def test_unreachable_server(bench: Bench) -> None:
    """A server that does not listen is a 502 in plain JSON that says whose error it is."""
    proxy = await bench.proxy(URL(f"http://127.0.0.1:{unused_port()}"))
    async with bench.request("POST", proxy, "/x", data=b"body") as response:
        assert (response.status, response.content_type) == (502, "application/json")
        error = (await response.json())["error"]
    assert error["source"] == "mcp-session-proxy"
    assert error["reason"] == "upstream-unreachable"
    assert error["message"]


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n"])
async def test_server_without_an_answer(bench: Bench, answer: bytes) -> None:
    """A server that closes or talks nonsense instead of answering is a 502."""
    async with always(answer).running() as url:
        proxy = await bench.proxy(url.origin())
        async with bench.request("POST", proxy, "/x") as response:
            assert response.status == 502
            assert (await response.json())["error"]["reason"] == "upstream-protocol-error"


async def test_silent_server(bench: Bench) -> None:
    """A server that never answers is a 504 after the idle time."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    proxy = await bench.before(upstream, idle_timeout_seconds=0.05)
    async with bench.request("GET", proxy, "/x") as response:
        assert response.status == 504
        assert (await response.json())["error"]["reason"] == "upstream-timeout"


@pytest.mark.parametrize("framing", [{}, {"Content-Length": "1000"}])
@pytest.mark.parametrize("end", ["abort", "silence"])
async def test_broken_off_answers_do_not_look_complete(
    bench: Bench, framing: dict[str, str], end: str
) -> None:
    """When the server dies or falls silent in the middle of a body, the client's connection breaks too."""

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers=framing)
        await response.prepare(request)
        await response.write(b"half")
        if end == "abort":
            assert request.transport is not None
            request.transport.abort()
        else:
            await asyncio.Event().wait()
        return response

    proxy = await bench.before(upstream, idle_timeout_seconds=0.05 if end == "silence" else 60)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        async with bench.request("GET", proxy, "/x") as response:
            await response.read()


@pytest.mark.parametrize("answers_first", [True, False])
async def test_leaving_clients_free_the_server(bench: Bench, answers_first: bool) -> None:
    """When the client leaves, before or amid a silent answer, the request to the server is closed."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if answers_first:
            await response.prepare(request)
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    proxy = await bench.before(upstream)
    client = asyncio.create_task(_get(bench, proxy, "/x"))
    await arrived.wait()
    client.cancel()
    await asyncio.wait_for(left.wait(), 30)


async def _get(bench: Bench, proxy: Server, path: str) -> bytes:
    async with bench.request("GET", proxy, path) as response:
        return await response.read()


async def test_uploads_of_leaving_clients_are_not_completed(bench: Bench) -> None:
    """A request that breaks off in the middle never reaches the server as a whole one."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arrived = asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.Response:
        try:
            async for _ in request.content.iter_any():
                arrived.set()
        except BaseException:
            outcome.set_result("broken")
            raise
        outcome.set_result("complete")
        return web.Response()

    proxy = await bench.before(upstream)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await arrived.wait()
    writer.transport.abort()
    assert await asyncio.wait_for(outcome, 30) == "broken"


async def test_malformed_uploads(bench: Bench) -> None:
    """A request body whose framing breaks in the middle is the client's fault."""
    arrived = asyncio.Event()

    async def upstream(request: web.BaseRequest) -> web.Response:
        async for _ in request.content.iter_any():
            arrived.set()
        return web.Response()

    proxy = await bench.before(upstream, idle_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await arrived.wait()
    writer.write(b"ZZ\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_decoding_session_is_refused() -> None:
    """A client session that would alter bodies is a programming error, found at start."""
    async with aiohttp.ClientSession() as http:
        origin, rules = URL("http://127.0.0.1:1"), PassingRules()
        with pytest.raises(ValueError, match="must not decode"):
            Passthrough(http, origin, "/mcp", None, rules=rules, heartbeats=heartbeats())


async def test_a_client_that_reads_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off, and the connection to the server is let go of."""
    monkeypatch.setattr("mcp_session_proxy.downstream.heartbeats.UNREAD_SECONDS", 0.2)
    given_up = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(256 * 1024))
        finally:
            given_up.set()

    proxy = await bench.before(endless)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
    writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    await given_up.wait()
    writer.transport.abort()


async def test_what_clients_have_not_taken_counts(bench: Bench) -> None:
    """Pages are in the budget of memory: where there is no room for more, they break off."""
    memory = Share("answers", 1_000_000)

    async def large(_: web.BaseRequest) -> web.Response:
        return web.Response(body=bytes(1_000_000))

    bench.servers.append(await start(large))
    origin, rules = bench.servers[-1].url, PassingRules()
    handler = Passthrough(
        bench.inner, origin, "/mcp", None, rules=rules, heartbeats=heartbeats(), answers=memory
    )
    bench.servers.append(await start(handler.handle))
    async with bench.request("GET", bench.servers[-1], "/large") as response:
        assert len(await response.read()) == 1_000_000
    memory.hold(900_000)
    with pytest.raises(aiohttp.ClientError):
        async with bench.request("GET", bench.servers[-1], "/large") as response:
            await response.read()
    assert memory.used_bytes == 900_000


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="an option of Linux and macOS")
async def test_the_system_holds_little_of_a_page(bench: Bench) -> None:
    """Of what a client does not read: the server has to wait, instead of filling megabytes for each page."""
    held: list[int] = []

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(64 * 1024))

    proxy = await bench.before(endless)
    async with bench.inner.get(bench.servers[0].url / "endless") as response:
        assert response.connection is not None
        assert response.connection.transport is not None
        towards = response.connection.transport.get_extra_info("socket")
        held.append(towards.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        response.close()
    async with bench.request("GET", proxy, "/endless") as response:
        await response.content.readany()
        assert proxy.runner.server is not None
        [connection] = proxy.runner.server.connections
        assert connection.transport is not None
        back = connection.transport.get_extra_info("socket")
        held.append(back.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
        response.close()
    assert all(0 < each <= 256 * 1024 for each in held)


@pytest.mark.slow
async def test_a_client_that_reads_slowly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets all, however long it takes, and so does one whose server is silent for long."""
    monkeypatch.setattr("mcp_session_proxy.downstream.heartbeats.UNREAD_SECONDS", 0.3)

    async def pausing(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2):
            await response.write(bytes(1000))
            await asyncio.sleep(0.7)
        return response

    proxy = await bench.before(pausing)
    async with bench.request("GET", proxy, "/pausing") as response:
        assert len(await response.read()) == 2000


# -- OAuth documents -----------------------------------------------------------------------------


def metadata_server(body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Handler:
    """A server that describes itself as a protected resource."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        if not request.path.startswith(METADATA):
            challenge = f'Bearer resource_metadata="http://{request.host}{METADATA}/mcp"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        document = {
            "resource": f"http://{request.host}{request.path.removeprefix(METADATA)}",
            "jwks": {"n": 1},
        }
        content = json.dumps(document).encode() if body is None else body
        return web.Response(body=content, content_type="application/json", headers=headers)

    return upstream


async def test_metadata_names_the_public_url(bench: Bench) -> None:
    """With a public URL the metadata's resource is there, and so is the way to the metadata."""
    proxy = await bench.before(metadata_server(), "https://mcp.example/tools")
    async with bench.request("GET", proxy, f"{METADATA}/tools/mcp") as response:
        body = await response.read()
        assert response.content_length == len(body)
        assert json.loads(body) == {"resource": "https://mcp.example/tools/mcp", "jwks": {"n": 1}}
    async with bench.request("GET", proxy, "/private") as response:
        challenge = response.headers["WWW-Authenticate"]
    assert challenge == f'Bearer resource_metadata="https://mcp.example{METADATA}/tools/mcp"'


@pytest.mark.parametrize("kind", [None, "text/plain; charset=utf-8", "application/octet-stream"])
async def test_metadata_that_is_not_called_json(bench: Bench, kind: str | None) -> None:
    """Clients read it all the same, so it names the public URL, too."""

    async def upstream(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=json.dumps({"resource": f"http://{request.host}/mcp"}).encode())
        response.headers["Content-Type"] = kind or "x"
        if kind is None:
            del response.headers["Content-Type"]
        return response

    proxy = await bench.before(upstream, "https://mcp.example")
    async with bench.request("GET", proxy, f"{METADATA}/mcp") as response:
        assert response.headers.get("Content-Type") in (kind, "application/octet-stream")
        assert json.loads(await response.read()) == {"resource": "https://mcp.example/mcp"}


async def test_metadata_is_left_alone_without_a_public_url(bench: Bench) -> None:
    """Without a public URL the server's document comes as it is."""
    proxy = await bench.before(metadata_server())
    async with bench.request("GET", proxy, f"{METADATA}/mcp") as response:
        resource = json.loads(await response.read())["resource"]
    assert resource == f"http://127.0.0.1:{bench.servers[0].port}/mcp"


async def test_metadata_is_asked_for_unencoded(bench: Bench) -> None:
    """The server is not invited to compress, or to send a part of, what has to be rewritten."""
    raw = always(OK)
    async with raw.running() as url:
        proxy = await bench.proxy(url.origin(), "https://mcp.example")
        headers = {"Accept-Encoding": "gzip, br", "Range": "bytes=0-1"}
        async with bench.request("GET", proxy, METADATA, headers=headers):
            pass
    assert b"encoding" not in raw.requests[0].lower()
    assert b"range" not in raw.requests[0].lower()


async def test_head_of_metadata_has_no_length(bench: Bench) -> None:
    """HEAD does not promise the length of a document that GET would rewrite."""
    proxy = await bench.before(metadata_server(), "https://mcp.example")
    async with bench.request("HEAD", proxy, METADATA) as response:
        assert response.status == 200
        assert "Content-Length" not in response.headers


@pytest.mark.parametrize(
    "body",
    [b"not json", b"", b"[1]", b'{"resource":"https://other.example"}', b'{"x":"' + b"y" * 2**21 + b'"}'],
    ids=["text", "empty", "list", "foreign", "large"],
)
async def test_odd_metadata_passes_unchanged(bench: Bench, body: bytes) -> None:
    """A document that cannot or need not be rewritten arrives as it is, however large."""
    proxy = await bench.before(metadata_server(body), "https://mcp.example")
    async with bench.request("GET", proxy, METADATA) as response:
        assert response.content_length == len(body)
        assert await response.read() == body


@pytest.mark.parametrize(
    "path",
    [
        f"{METADATA}/mcp",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/tenant/.well-known/openid-configuration",
    ],
)
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_every_metadata_document_names_the_public_url(bench: Bench, path: str, encoding: str) -> None:
    """Whichever document says so, and if the server compresses what it was not asked to compress."""
    pack: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    packed = pack.get(encoding, bytes)

    async def upstream(request: web.BaseRequest) -> web.Response:
        document = {"authorization_servers": [f"http://{request.host}/"], "pad": "x" * 300_000}
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        return web.Response(body=packed(json.dumps(document).encode()), headers=headers)

    proxy = await bench.before(upstream, "https://mcp.example")
    async with bench.request("GET", proxy, path) as response:
        body = await response.read()
        assert response.content_length == len(body)
        assert response.headers.get("Content-Encoding", "identity") == "identity"
    assert json.loads(body)["authorization_servers"] == ["https://mcp.example/"]


@pytest.mark.parametrize(
    "body", [gzip.compress(b"x" * 2**21, mtime=0), gzip.compress(b"{}", mtime=0), b"not gzip"]
)
async def test_encoded_documents_that_need_no_rewriting(bench: Bench, body: bytes) -> None:
    """What is too large when it is unpacked, foreign or broken arrives as it was sent."""
    proxy = await bench.before(metadata_server(body, {"Content-Encoding": "gzip"}), "https://mcp.example")
    async with bench.request("GET", proxy, METADATA) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == body


async def test_digests_of_rewritten_metadata_go(bench: Bench) -> None:
    """A rewritten document does not carry the digest of the old one."""
    proxy = await bench.before(
        metadata_server(headers={"Content-Digest": "sha-256=:x:"}), "https://mcp.example"
    )
    async with bench.request("GET", proxy, METADATA) as response:
        assert "Content-Digest" not in response.headers
