"""Streamable HTTP against real sockets: redirects, trouble on the wire, streams cut anywhere, reuse."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from raw_server import RawServer, whole
from yarl import URL

from mcp_session_proxy import __version__, aio
from mcp_session_proxy.bounds import SMALL_BYTES
from mcp_session_proxy.errors import (
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.protocol.jsonrpc import Message, Response
from mcp_session_proxy.protocol.lost import Verdict
from mcp_session_proxy.upstream.http import head as http_head
from mcp_session_proxy.upstream.http import http1, redirects, streamable_http
from mcp_session_proxy.upstream.http import reply as http_reply
from mcp_session_proxy.upstream.http.http1 import HttpAnswer
from mcp_session_proxy.upstream.http.reply import BodyLimits, HttpReply
from mcp_session_proxy.upstream.http.streamable_http import HttpChannel, HttpRules, SessionRef, StreamableHttp
from mcp_session_proxy.upstream.transport import (
    NOBODY,
    Caller,
    ConnectionLost,
    NoStream,
    Refused,
    Reply,
    StreamRefused,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
PONG = b'{"jsonrpc":"2.0","id":1,"result":{}}'


Ways = list[StreamableHttp]


@pytest.fixture
def http() -> Iterator[Ways]:
    """The transports of a test, which are closed behind it."""
    ways: Ways = []
    yield ways
    for way in ways:
        way.close()


def transport(http: Ways, url: URL | str, *, silence_seconds: float = 5.0) -> StreamableHttp:
    """A transport that is closed behind the test."""
    rules = HttpRules(connect_timeout_seconds=5, request_timeout_seconds=silence_seconds)
    way = StreamableHttp(URL(url), rules=rules)
    http.append(way)
    return way


def session_of(way: StreamableHttp) -> HttpChannel:
    """The session s1, whose version is agreed on."""
    channel = way.connect()
    channel.ref = SessionRef("s1", "2025-11-25")
    return channel


def session_at(http: Ways, url: URL | str, *, silence_seconds: float = 5.0) -> HttpChannel:
    """The same by a transport of its own."""
    return session_of(transport(http, url, silence_seconds=silence_seconds))


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[URL]:
    """A real server with one handler for everything; gives its origin."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield URL(f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def read_all(reply: Reply) -> list[Message]:
    messages: list[Message] = []
    while (more := await reply.read()) is not None:
        messages += more
    return messages


async def refused(channel: HttpChannel) -> Refused:
    """The refusal of a message."""
    with pytest.raises(Refused) as caught:
        async with channel.send(PING, NOBODY):
            pass
    return caught.value


def results(messages: list[Message]) -> list[object]:
    return [json.loads(m.result or b"null") for m in messages if isinstance(m, Response)]


# -- what is sent ----------------------------------------------------------------------------------


async def test_request_headers(http: Ways) -> None:
    """The server sees what MCP asks for, the caller's headers, its own Host, and who asks if nobody says."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        assert await request.read() == PING
        return web.Response(body=PONG, content_type="application/json")

    caller = Caller(headers=(("Authorization", "Bearer x"), ("X-Twice", "1"), ("X-Twice", "2")))
    async with served(handler) as origin:
        async with session_at(http, origin / "mcp").send(PING, caller) as reply:
            assert results(await read_all(reply)) == [{}]
        host = f"{origin.host}:{origin.port}"
    assert {(n.lower(), v) for n, v in seen[0].headers.items()} == {
        ("host", host),
        ("authorization", "Bearer x"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("mcp-session-id", "s1"),
        ("mcp-protocol-version", "2025-11-25"),
        ("accept", "application/json, text/event-stream"),
        ("accept-encoding", "identity"),
        ("user-agent", f"mcp-session-proxy/{__version__}"),
        ("content-type", "application/json"),
        ("content-length", str(len(PING))),
    }


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Authorization", "Bearer x"), ("X-Twice", "1"), ("x-twice", "2")),
        (("User-Agent", "somebody"), ("X-Latin", "na\u00efve")),
    ],
)
def test_a_post_is_written_as_any_other_request(headers: tuple[tuple[str, str], ...]) -> None:
    """The parts that are written once come to the same head."""
    url, ref, caller = URL("http://h:1/mcp?own=1"), SessionRef("s1", "2025-11-25"), Caller(headers=headers)
    assert caller.written is not None
    assert ref.written is not None
    parts = http_head.write_post(url) + caller.written + ref.written + http_head.write_end(7)
    said = [*headers, ("Content-Type", "application/json"), *ref.headers]
    whole_head = http_head.write_head("POST", url, said, 7)
    assert sorted(parts.split(b"\r\n")) == sorted(whole_head.split(b"\r\n"))
    assert parts.split(b"\r\n")[:2] == [b"POST /mcp?own=1 HTTP/1.1", b"Host: h:1"]


@pytest.mark.parametrize("name", ["Accept", "content-type", "MCP-Session-Id", "Host", "Content-Length"])
def test_a_caller_who_says_what_a_post_says(name: str) -> None:
    """Is written with more care: nothing is said twice, and lengths and hosts are as they are."""
    assert Caller(headers=((name, "x"),)).written is None
    head = http_head.write_head("POST", URL("http://h/mcp"), [(name, "x")], 7).lower().split(b"\r\n")
    assert sum(line.startswith(name.lower().encode() + b":") for line in head) == 1
    assert b"content-length: 7" in head


async def test_get_and_delete(http: Ways) -> None:
    """The stream is asked for as one, from the last event on; DELETE names the session."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=405 if request.method == "GET" else 204)

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")
        with pytest.raises(StreamRefused) as caught:
            async with way.open_stream(NOBODY, "e-7"):
                pass
        assert caught.value.why is NoStream.NOT_OFFERED
        await way.close(NOBODY)
    get, delete = seen
    assert (get.headers["Accept"], get.headers["Last-Event-ID"]) == ("text/event-stream", "e-7")
    assert delete.headers["Mcp-Session-Id"] == "s1"


@pytest.mark.parametrize(
    ("own", "clients", "sent"),
    [
        ("", "", ""),
        ("", "a=1&b=%2F", "a=1&b=%2F"),
        ("k=%2B", "", "k=%2B"),
        ("k=%2B&flag", "a=%20+%zz", "k=%2B&flag&a=%20+%zz"),
    ],
)
async def test_query_strings_are_joined(http: Ways, own: str, clients: str, sent: str) -> None:
    """The client's query string goes behind the server's own, byte for byte."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.raw_path)
        return web.Response(body=PONG, content_type="application/json")

    async with served(handler) as origin:
        url = URL(f"{origin}/mcp" + (f"?{own}" if own else ""), encoded=True)
        async with session_at(http, url).send(PING, Caller(query=clients)):
            pass
    assert seen == ["/mcp" + (f"?{sent}" if sent else "")]


async def test_what_cannot_be_written_is_not_sent(http: Ways) -> None:
    """A header that would smuggle in another is refused, and is no crash."""
    caller = Caller(headers=(("X-Bad", "a\r\nX-Evil: b"),))

    async def handler(_: web.Request) -> web.Response:
        raise AssertionError

    async with served(handler) as origin:
        with pytest.raises(UpstreamProtocolError):
            async with session_at(http, origin / "mcp").send(PING, caller):
                pass


def test_credentials_are_not_shown() -> None:
    """The transport's debug line holds nothing of the callers."""

    async def show() -> str:
        way = transport([], "http://h/mcp?key=sesame")
        return f"{way!r} {way._client!r}"

    assert "sesame" not in asyncio.run(show())


async def test_cookies_are_not_kept(http: Ways) -> None:
    """A cookie that one caller was given is never sent for another."""
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(body=PONG, content_type="application/json", headers={"Set-Cookie": "who=alice"})

    async with served(handler) as origin:
        way = session_at(http, origin.with_host("localhost") / "mcp")
        for _ in range(2):
            async with way.send(PING, NOBODY) as reply:
                await read_all(reply)
    assert seen == [None, None]


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("location", ["/mcp/", "mcp/", "{origin}/mcp/", "https://127.0.0.1:{port}/mcp/"])
async def test_redirect_to_the_slash(http: Ways, status: int, location: str) -> None:
    """A redirect within the origin is followed once, with method and body, and remembered."""
    seen: list[tuple[str, str, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, await request.read()))
        if request.path == "/mcp":
            port = request.url.port
            target = location.format(origin=request.url.origin(), port=port)
            return web.Response(status=status, headers={"Location": target})
        return web.Response(body=PONG, content_type="application/json")

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")
        for _ in range(2):
            async with way.send(PING, Caller(query="a=%2F")) as reply:
                assert results(await read_all(reply)) == [{}]
    assert seen == [("POST", f"{path}?a=%2F", PING) for path in ("/mcp", "/mcp/", "/mcp/")]


async def test_redirects_that_meet(http: Ways) -> None:
    """Requests that were all sent before the first redirect was known all find their way."""
    gathered = asyncio.Barrier(5)

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/mcp":
            await gathered.wait()
            return web.Response(status=307, headers={"Location": "/mcp/"})
        return web.Response(body=PONG, content_type="application/json")

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")

        async def ask() -> list[object]:
            async with way.send(PING, NOBODY) as reply:
                return results(await read_all(reply))

        assert await asyncio.gather(*(ask() for _ in range(5))) == [[{}]] * 5


async def test_a_redirect_concerns_one_request(http: Ways) -> None:
    """Who is sent to a login page takes nobody along: the next caller's call goes to the endpoint."""
    seen: list[tuple[str, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        if request.path == "/login":
            return web.Response(body=PONG, content_type="application/json")
        if "Authorization" not in request.headers:
            return web.Response(status=307, headers={"Location": "/login"})
        return web.Response(body=PONG, content_type="application/json")

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")
        for caller in (NOBODY, Caller(headers=(("Authorization", "secret"),))):
            async with way.send(PING, caller) as reply:
                assert results(await read_all(reply)) == [{}]
    assert seen == [("/mcp", None), ("/login", None), ("/mcp", "secret")]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_change_the_method(http: Ways, status: int) -> None:
    """A request that would have to become a GET elsewhere is not sent there; the error says so."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/login"})

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")
        with pytest.raises(UpstreamProtocolError, match=r"redirects.*/login.*credential"):
            async with way.send(PING, NOBODY):
                pass
        await way.close(NOBODY)
    assert seen == ["/mcp", "/mcp"]


@pytest.mark.parametrize(
    "after",
    [
        {"status": 200, "content_type": "text/html"},
        {"status": 404},
        {"status": 500, "content_type": "application/json"},
    ],
)
async def test_a_slash_that_leads_to_no_endpoint(http: Ways, after: dict[str, object]) -> None:
    """Another spelling of the endpoint is kept only once it has answered as one."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        if request.path == "/mcp":
            return web.Response(status=307, headers={"Location": "/mcp/"})
        return web.Response(**after)  # type: ignore[arg-type]

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")
        for _ in range(2):
            with contextlib.suppress(Refused):
                async with way.send(PING, NOBODY):
                    pass
    assert seen == ["/mcp", "/mcp/"] * 2


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example/mcp",
        "http://127.0.0.1:1/mcp/",
        "//evil.example/mcp/",
        "/mcp",
        "",
        "http://[bad",
        "mailto:x@y",
        None,
    ],
)
async def test_redirect_elsewhere_is_refused(http: Ways, location: str | None) -> None:
    """Credentials never go to another origin, and nothing goes round in circles."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=307, headers={} if location is None else {"Location": location})

    async with served(handler) as origin:
        with pytest.raises(UpstreamProtocolError, match="redirects"):
            async with session_at(http, origin / "mcp").send(PING, NOBODY):
                pass
    assert seen == ["/mcp"]


async def test_second_redirect_is_not_followed(http: Ways) -> None:
    """A server that redirects back and forth is shown as it is."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        target = "/mcp" if request.path == "/mcp/" else "/mcp/"
        return web.Response(status=307, headers={"Location": target})

    async with served(handler) as origin:
        caught = await refused(session_at(http, origin / "mcp"))
    assert caught.how == 307
    assert seen == ["/mcp", "/mcp/"]


@pytest.mark.parametrize(
    ("asked", "location", "followed"),
    [
        ("http://h/mcp?own=%2B", "/mcp/", "http://h/mcp/?own=%2B"),
        ("http://h/mcp", "http://h:80/mcp/", "http://h/mcp/"),
        ("https://h/mcp", "http://h/mcp/", "https://h/mcp/"),
        ("http://h:8000/mcp", "http://H:8000/mcp/", "http://h:8000/mcp/"),
        ("http://h/a%2Fb", "a%2Fb/", "http://h/a%2Fb/"),
        ("http://h/mcp", "https://h:8443/mcp/", None),
        ("http://h/mcp", "http://user:pw@h/mcp/?x=1#y", "http://h/mcp/"),
    ],
)
def test_where_redirects_lead(asked: str, location: str, followed: str | None) -> None:
    """Only the path of a redirect counts, and only on the same host and port."""
    target = redirects.follow(URL(asked), location)
    assert (None if target is None else str(target)) == followed


# -- trouble ---------------------------------------------------------------------------------------


async def test_refused_connection(http: Ways) -> None:
    """Nothing was sent, and that is what is said."""
    way = session_at(http, f"http://127.0.0.1:{unused_port()}/mcp")
    with pytest.raises(UpstreamUnreachable):
        async with way.send(PING, NOBODY):
            pass
    with pytest.raises(UpstreamUnreachable):
        async with way.open_stream(NOBODY, None):
            pass
    await way.close(NOBODY)


async def test_unknown_host(http: Ways) -> None:
    """A name that cannot be looked up is a server that cannot be reached."""
    with pytest.raises(UpstreamUnreachable):
        async with session_at(http, "http://no-such-host.invalid/mcp").send(PING, NOBODY):
            pass


async def test_closed_after_sending(http: Ways) -> None:
    """A connection that ends without an answer leaves the outcome open, and POST is not sent twice."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.read(reader)

    raw = RawServer(serve)
    async with raw.running() as url:
        with pytest.raises(ConnectionLost):
            async with session_at(http, url).send(PING, NOBODY):
                pass
    assert len(raw.requests) == 1


def _with_headers(*headers: bytes) -> bytes:
    """A whole answer with these headers, too."""
    return whole(PONG).replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n", 1)


@pytest.mark.parametrize(
    "answer",
    [
        _with_headers(b"Set-Cookie: a=%b" % (b"x" * 60_000)),
        _with_headers(*(b"X-Policy-%d: %b" % (n, b"x" * 140) for n in range(400))),
        whole(PONG, status=b"200 " + b"O" * 60_000),
    ],
)
async def test_heads_may_be_large(http: Ways, answer: bytes) -> None:
    """Up to 64 KiB, in one header or in many."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer)
        await writer.drain()

    async with RawServer(serve).running() as url, session_at(http, url).send(PING, NOBODY) as reply:
        assert results(await read_all(reply)) == [{}]


@pytest.mark.parametrize(
    "answer",
    [
        _with_headers(b"X-Large: %b" % (b"x" * 70_000)),
        _with_headers(*(b"X-%d: 1" % n for n in range(5000))),
        whole(PONG, status=b"200 " + b"O" * 70_000),
        _with_headers(b"X-Odd\x00: 1"),
        _with_headers(b"no colon"),
        _with_headers(b"Content-Length: 99"),
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n",
    ],
)
async def test_heads_that_cannot_be_read(http: Ways, answer: bytes) -> None:
    """The error says so, and that the request may have been executed; it is not sent again."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer)
        await writer.drain()

    raw = RawServer(serve)
    async with raw.running() as url:
        with pytest.raises(UpstreamProtocolError, match=r"head .* cannot be read.*may have been done"):
            async with session_at(http, url).send(PING, NOBODY):
                pass
    assert len(raw.requests) == 1


async def test_closed_kept_connection(http: Ways) -> None:
    """Also on a connection that was used before: the HTTP client must not repeat a POST by itself."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(whole(PONG))
        await server.read(reader)

    raw = RawServer(serve)
    async with raw.running() as url:
        way = session_at(http, url)
        async with way.send(PING, NOBODY) as reply:
            await read_all(reply)
        with pytest.raises(ConnectionLost):
            async with way.send(PING, NOBODY):
                pass
    assert (raw.connections, len(raw.requests)) == (1, 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\n",
    ],
)
async def test_body_that_breaks_off(http: Ways, answer: bytes) -> None:
    """An answer whose body ends too early is no answer."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer)
        await writer.drain()

    async with RawServer(serve).running() as url:
        with pytest.raises(ConnectionLost):
            async with session_at(http, url).send(PING, NOBODY) as reply:
                await read_all(reply)


async def test_no_http_at_all(http: Ways) -> None:
    """Something that is no HTTP server has had the request all the same."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()

    async with RawServer(serve).running() as url:
        with pytest.raises(UpstreamProtocolError, match="may have been done"):
            async with session_at(http, url).send(PING, NOBODY):
                pass


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n"])
@pytest.mark.parametrize("verb", ["post", "resume"])
async def test_silence(http: Ways, head: bytes, verb: str) -> None:
    """A server that accepts a request and says nothing is given up, before and after its first words."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(head)
        await reader.read()

    async with RawServer(serve).running() as url:
        way = session_at(http, url, silence_seconds=0.05)
        request = way.send(PING, NOBODY) if verb == "post" else way.resume(NOBODY, "7")
        with pytest.raises(UpstreamTimeout):
            async with request as reply:
                await read_all(reply)


async def test_stream_may_be_silent_for_ever(http: Ways) -> None:
    """The stream for what the server says of its own accord has no time limit."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await reader.read()

    async with (
        RawServer(serve).running() as url,
        session_at(http, url, silence_seconds=0.05).open_stream(NOBODY, None) as reply,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reply.read()


async def test_goodbye_is_not_waited_for_for_long(http: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs on DELETE does not hold up a shutdown."""
    monkeypatch.setattr(streamable_http, "_GOODBYE_SECONDS", (0.05, 0.05))

    async def serve(server: RawServer, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.read(reader)
        await reader.read()

    async with RawServer(serve).running() as url:
        async with asyncio.timeout(30):
            await session_at(http, url).close(NOBODY)


# -- answers ---------------------------------------------------------------------------------------

EVENTS = (
    "\ufeff: hello\n\n"
    'event: message\r\nid: 1\r\ndata: {"jsonrpc":"2.0","method":"notifications/message",\r\n'
    'data: "params":{"data":"ü"}}\r\n\r\n'
    "retry: 250\ndata: not json\n\n"
    'data: {"jsonrpc":"2.0","id":1,"result":{"text":"naïve ☃"}}\nid: 2\n\n'
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_stream_split_anywhere(http: Ways, size: int) -> None:
    """However the bytes of a stream arrive, the same messages come out."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "Text/Event-Stream; charset=utf-8"})
        await response.prepare(request)
        for start in range(0, len(EVENTS), size):
            await response.write(EVENTS[start : start + size])
            await asyncio.sleep(0)
        return response

    async with (
        served(handler) as origin,
        session_at(http, origin / "mcp").send(PING, NOBODY) as reply,
    ):
        messages = await read_all(reply)
        assert (reply.last_event_id, reply.retry_seconds) == ("2", 0.25)
    assert [type(m).__name__ for m in messages] == ["Notification", "Response"]
    assert results(messages) == [{"text": "naïve ☃"}]


@pytest.mark.parametrize("padding", [0, SMALL_BYTES])
async def test_a_batch_in_an_event(http: Ways, padding: int) -> None:
    """An event may hold several messages (MCP 2025-03-26, basic/transports, "Sending Messages")."""
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"%b"}}' % (b"x" * padding)
    body = b"data: [%b,%b]\n\n" % (note, PONG)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/event-stream")

    async with (
        served(handler) as origin,
        session_at(http, origin / "mcp").send(PING, NOBODY) as reply,
    ):
        messages = await read_all(reply)
    assert [type(m).__name__ for m in messages] == ["Notification", "Response"]


class Pieces:
    """An answer that comes in these pieces."""

    content_type = "text/event-stream"

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def note_word(self) -> None:
        pass


async def test_a_large_event_is_there_when_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on with the stream from where it is meanwhile misses nothing of what came with it."""
    monkeypatch.setattr(aio, "_PIECE_SECONDS", 0.0)
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":%b}'
    large = note % (b'{"data":[' + b"[0]," * 100_000 + b"0]}")
    events = [
        b"id: %d\ndata: %b\n\n" % (n, data) for n, data in enumerate([note % b"{}", note % b"{}", large])
    ]
    reply = HttpReply(cast(HttpAnswer, Pieces(events[0], events[1] + events[2])), BodyLimits())
    assert len(await reply.read() or ()) == 1
    reading = asyncio.create_task(reply.read())
    seen = []
    while not reading.done():
        seen.append(reply.last_event_id)
        await asyncio.sleep(0)
    assert (set(seen), len(seen) > 1, reply.last_event_id) == ({"0"}, True, "2")
    assert len(await reading or ()) == 2


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (PONG, [{}]),
        (b"[" + PONG + b"," + PONG.replace(b"1", b"2") + b"]", [{}, {}]),
        (b"\xef\xbb\xbf" + PONG, [{}]),
        (b"", []),
        (b"<html>", []),
        (b"null", []),
        (b'{"jsonrpc":"2.0","id":1,"result":"' + b"x" * 3_000_000 + b'"}', ["x" * 3_000_000]),
    ],
    ids=["one", "batch", "byte order mark", "empty", "html", "null", "large"],
)
async def test_json_bodies(http: Ways, body: bytes, found: list[object]) -> None:
    """A body holds one message, a batch, or none; size does not matter."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with (
        served(handler) as origin,
        session_at(http, origin / "mcp").send(PING, NOBODY) as reply,
    ):
        assert results(await read_all(reply)) == found
        assert (reply.last_event_id, reply.retry_seconds) == (None, None)


async def test_json_body_in_pieces(http: Ways) -> None:
    """A JSON body is whole before it is read."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for byte in PONG:
            await response.write(bytes([byte]))
            await asyncio.sleep(0)
        return response

    async with (
        served(handler) as origin,
        session_at(http, origin / "mcp").send(PING, NOBODY) as reply,
    ):
        assert results(await read_all(reply)) == [{}]


async def test_json_body_without_end(http: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never stops growing is refused before it fills our memory."""
    monkeypatch.setattr(http_reply, "SERVER_EVENT_BYTES", 1_000_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    async with served(handler) as origin:
        with pytest.raises(UpstreamProtocolError, match="more than 1000000 bytes"):
            async with session_at(http, origin / "mcp").send(PING, NOBODY) as reply:
                await read_all(reply)


async def test_compressed_answers(http: Ways) -> None:
    """A server that compresses without being asked is understood."""

    async def handler(_: web.Request) -> web.Response:
        response = web.Response(body=PONG, content_type="application/json")
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with (
        served(handler) as origin,
        session_at(http, origin / "mcp").send(PING, NOBODY) as reply,
    ):
        assert results(await read_all(reply)) == [{}]


@pytest.mark.parametrize(("status", "adopted"), [(200, "new"), (202, "new"), (400, None), (404, None)])
async def test_session_id_of_2xx_only(http: Ways, status: int, adopted: str | None) -> None:
    """The id that comes with a refusal is a throwaway."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Mcp-Session-Id": "new"})

    async with served(handler) as origin:
        channel = transport(http, origin / "mcp").connect()
        with contextlib.suppress(Refused):
            async with channel.open(PING, NOBODY, b"1", silence_seconds=5.0):
                pass
    assert channel.session_id == adopted


async def test_refusal(http: Ways) -> None:
    """A refusal gives its text, within a bound, and the headers that explain it."""

    async def handler(_: web.Request) -> web.Response:
        response = web.Response(status=401, text="x" * 1_000_000)
        response.headers.add("WWW-Authenticate", "Basic")
        response.headers.add("WWW-Authenticate", 'Bearer realm="x"')
        response.headers["X-Powered-By"] = "PHP"
        return response

    async with served(handler) as origin:
        error = (await refused(session_at(http, origin / "mcp"))).error
    assert isinstance(error, UpstreamRejected)
    assert error.content_type == "text/plain"
    assert len(error.body) == 64 * 1024
    assert error.headers() == {"WWW-Authenticate": 'Basic, Bearer realm="x"'}


async def test_refusal_that_breaks_off(http: Ways) -> None:
    """What came of a refusal's text is enough."""

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nSession not found")
        await writer.drain()

    async with RawServer(serve).running() as url:
        caught = await refused(session_at(http, url))
    assert caught.words == b"Session not found"
    assert caught.session is Verdict.GONE
    assert isinstance(caught.error, UpstreamRejected)
    assert caught.error.content_type is None


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "stream"])
async def test_connections_are_reused(http: Ways, kind: str) -> None:
    """A connection serves again once its answer is read, also when a stream ends just after its response."""
    event = b"data: " + PONG + b"\n\n"

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read(reader)
            if kind == "json":
                writer.write(whole(PONG))
                continue
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            writer.write(b"0\r\n\r\n")

    raw = RawServer(serve)
    async with raw.running() as url:
        way = session_at(http, url)
        for _ in range(3):
            async with way.send(PING, NOBODY) as reply:
                while not await reply.read():
                    pass
            while not way.transport._client._idle:  # until it is back in its pool
                await asyncio.sleep(0)
    assert (raw.connections, len(raw.requests)) == (1, 3)


async def test_stream_that_stays_open_is_cut(http: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not end its stream after the response does not keep a connection of ours."""
    monkeypatch.setattr(http1, "_END_OF_STREAM_SECONDS", 0.02)
    cut = asyncio.Event()

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + PONG + b"\n\n")
        assert await reader.read() == b""
        cut.set()

    async with RawServer(serve).running() as url:
        way = session_at(http, url)
        async with way.send(PING, NOBODY) as reply:
            assert results(await reply.read() or []) == [{}]
        async with asyncio.timeout(30):
            await cut.wait()


@pytest.mark.parametrize("verb", ["post", "listen"])
async def test_giving_up_closes_the_connection(http: Ways, verb: str) -> None:
    """A cancelled request leaves no connection behind on which an answer could still come."""
    started, cut = asyncio.Event(), asyncio.Event()

    async def serve(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        started.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n")
        assert await reader.read() == b""
        cut.set()

    async with RawServer(serve).running() as url:
        way = session_at(http, url)

        async def ask() -> None:
            request = way.send(PING, NOBODY) if verb == "post" else way.open_stream(NOBODY, None)
            async with request as reply:
                await read_all(reply)

        asking = asyncio.create_task(ask())
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(30):
            await cut.wait()


@pytest.mark.slow
async def test_connections_are_not_limited(http: Ways) -> None:
    """More calls than any usual connection limit can be under way at once."""
    everyone = asyncio.Barrier(150)

    async def handler(_: web.Request) -> web.Response:
        await everyone.wait()
        return web.Response(body=PONG, content_type="application/json")

    async with served(handler) as origin:
        way = session_at(http, origin / "mcp")

        async def ask() -> list[object]:
            async with way.send(PING, NOBODY) as reply:
                return results(await read_all(reply))

        assert await asyncio.gather(*(ask() for _ in range(150))) == [[{}]] * 150
