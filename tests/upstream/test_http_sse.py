"""HTTP+SSE towards a server, message by message: the endpoint, what is POSTed there, and the stream's end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from proxy_bench import until
from sse_server import SseServer, Stream, answer_to
from yarl import URL

from mcp_session_proxy.errors import (
    NoRoomForAnswer,
    ProxyError,
    SessionLost,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.memory import UNBOUNDED, Share
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Response
from mcp_session_proxy.protocol.lost import Verdict
from mcp_session_proxy.upstream.duplex import DuplexReply, DuplexSession
from mcp_session_proxy.upstream.http import http_sse
from mcp_session_proxy.upstream.http.http_sse import HttpSse
from mcp_session_proxy.upstream.http.streamable_http import HttpRules, StreamableHttp
from mcp_session_proxy.upstream.transport import (
    NOBODY,
    Caller,
    Concern,
    ConnectionLost,
    NoStream,
    Refused,
    StreamRefused,
    first_response,
)

INITIALIZE = jsonrpc.write_request(b"0", "initialize", b'{"protocolVersion":"2024-11-05"}')
CALLER = Caller(headers=(("Authorization", "Bearer ada"),), query="key=1&session_id=stolen")


@pytest.fixture
async def server() -> AsyncIterator[SseServer]:
    async with SseServer() as server:
        yield server


def transport(url: str, *, silence_seconds: float = 30.0, answers: Share = UNBOUNDED) -> HttpSse:
    rules = HttpRules(connect_timeout_seconds=5, request_timeout_seconds=silence_seconds)
    return HttpSse(StreamableHttp(URL(url), rules=rules, answers=answers), URL(url))


async def opened(way: HttpSse, caller: Caller = NOBODY) -> DuplexSession:
    """A session behind its handshake."""
    session = way.connect()
    async with session.open(INITIALIZE, caller, b"0", silence_seconds=30.0) as reply:
        answer = await first_response(reply)
    assert answer is not None
    session.agree("2024-11-05")
    return session


@pytest.fixture
async def session(server: SseServer) -> AsyncIterator[DuplexSession]:
    session = await opened(transport(server.url))
    yield session
    session.drop()


def sending(session: DuplexSession, number: int = 1, caller: Caller = NOBODY, **params: Any) -> DuplexReply:
    identifier = b"%d" % number
    body = jsonrpc.write_request(identifier, "tools/call", jsonrpc.write_object(params))
    return session.send(body, caller, identifier)


async def call(session: DuplexSession, number: int = 1, caller: Caller = NOBODY, **params: Any) -> Response:
    async with sending(session, number, caller, **params) as reply:
        response = await first_response(reply)
    assert response is not None
    return response


async def fails_to_open(way: HttpSse) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await opened(way)
    return caught.value


# -- the endpoint ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "/messages?session_id={}",
        "messages?session_id={}",
        "./messages?session_id={}",
        "{origin}/messages?session_id={}",
        "//{host}/messages?session_id={}",
        "/messages?session_id={}#part",
        "http://somebody:secret@{host}/messages?session_id={}",
    ],
)
async def test_endpoints(server: SseServer, endpoint: str) -> None:
    """However it is written, messages go to a path of the stream's own origin."""
    url = URL(server.url)
    server.endpoint = lambda name: (
        endpoint.replace("{origin}", str(url.origin()))
        .replace("{host}", f"{url.host}:{url.port}")
        .replace("{}", name)
    )
    session = await opened(transport(server.url))
    assert (await call(session)).result is not None
    assert all("Authorization" not in request.headers for request, _ in server.posts)
    session.drop()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/messages",
        "http://localhost:{port}/messages",
        "https://127.0.0.1:{port}/messages",
        "//evil.example/messages",
        "http://127.0.0.1:{port}@evil.example/messages",
        "ftp://127.0.0.1:{port}/messages",
        "javascript:alert(1)",
        "http://[",
        "/messages with spaces",
        "/m\u00e4ssages",
        "/" + "x" * 9000,
    ],
)
async def test_another_origin(server: SseServer, endpoint: str) -> None:
    """Nothing is ever sent there: credentials would go along. The stream is closed again."""
    server.endpoint = lambda _: endpoint.replace("{port}", str(server.port))
    assert isinstance(await fails_to_open(transport(server.url)), UpstreamProtocolError)
    assert server.posts == []
    await asyncio.wait_for(server.opened[0].ended.wait(), 10)


@pytest.mark.parametrize(
    "piece", [b"", b"data: hello\n\n", b'event: message\ndata: {"jsonrpc":"2.0","method":"x"}\n\n']
)
async def test_a_stream_without_an_endpoint(server: SseServer, piece: bytes) -> None:
    """One that ends before it, or begins with something else, is no session's."""

    async def other(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(piece)
        return response

    server.get = other
    assert isinstance(await fails_to_open(transport(server.url)), UpstreamProtocolError)


async def test_an_endpoint_that_never_comes(server: SseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for for ten seconds, comments or not."""
    monkeypatch.setattr(http_sse, "ENDPOINT_SECONDS", 0.2)

    async def comments(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b": ping\n\n")
            await asyncio.sleep(0.01)

    server.get = comments
    assert isinstance(await fails_to_open(transport(server.url)), UpstreamTimeout)


async def test_no_event_stream(server: SseServer) -> None:
    """A page is no answer."""

    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    server.get = page
    assert isinstance(await fails_to_open(transport(server.url)), UpstreamProtocolError)


@pytest.mark.parametrize(("status", "concern"), [(401, Concern.CALLER), (503, Concern.MOMENT)])
async def test_a_stream_that_is_refused(server: SseServer, status: int, concern: Concern) -> None:
    """It means what it means of a handshake over Streamable HTTP."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="no")

    server.get = refuse
    with pytest.raises(Refused) as refused:
        await opened(transport(server.url))
    assert (refused.value.how, refused.value.concern) == (status, concern)


async def test_no_server() -> None:
    """Nothing was sent."""
    assert isinstance(await fails_to_open(transport("http://127.0.0.1:1/sse")), UpstreamUnreachable)


async def test_who_gives_up_leaves_no_stream_open(server: SseServer) -> None:
    """A handshake that is cut short, before or behind its endpoint, closes what it has opened."""
    never = asyncio.Event()

    async def silent(_: Stream, __: Any) -> None:
        await never.wait()

    server.on["initialize"] = silent
    opening = asyncio.create_task(opened(transport(server.url)))
    await until(lambda: server.posts)
    opening.cancel()
    await asyncio.wait([opening])
    await asyncio.wait_for(server.opened[0].ended.wait(), 10)


# -- messages --------------------------------------------------------------------------------------


async def test_the_caller_travels_with_everything(server: SseServer) -> None:
    """By headers and query, to the stream and to the endpoint, whose own names nobody else can say."""
    session = await opened(transport(server.url), CALLER)
    await call(session, caller=CALLER)
    assert server.gets[0].headers["Authorization"] == "Bearer ada"
    assert server.gets[0].query.getall("key") == ["1"]
    for request, _ in server.posts:
        assert request.headers["Authorization"] == "Bearer ada"
        assert request.headers["Content-Type"] == "application/json"
        assert request.query.getall("session_id") == ["s1"]
        assert request.query.getall("key") == ["1"]
    assert server.posts[-1][0].headers["MCP-Protocol-Version"] == "2024-11-05"
    session.drop()


async def test_cookies_of_a_session(server: SseServer) -> None:
    """A balancer that sets one on the stream finds the replica of its POSTs."""

    async def sticky(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Set-Cookie": "route=7; Path=/"}
        )
        await response.prepare(request)
        stream = Stream(1, request, response)
        server.streams["s1"] = stream
        await stream.write(b"event: endpoint\ndata: /messages?session_id=s1\n\n")
        await stream.hold()
        return response

    server.get = sticky
    session = await opened(transport(server.url))
    assert [request.headers.get("Cookie") for request, _ in server.posts] == ["route=7"]
    session.drop()


async def test_a_batch_in_an_event(session: DuplexSession, server: SseServer) -> None:
    """The revisions of that time had them."""

    async def both(stream: Stream, message: Any) -> None:
        progress = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
        await stream.say([progress, answer_to(message, {"in": "a batch"})])

    server.on["tools/call"] = both
    async with sending(session) as reply:
        assert len(await reply.read() or []) == 2


async def test_events_of_other_kinds(session: DuplexSession, server: SseServer) -> None:
    """They are no messages, and a second endpoint changes nothing."""

    async def odd(stream: Stream, message: Any) -> None:
        text = b'{"jsonrpc":"2.0","id":%d,"result":{"bad":1}}' % message["id"]
        await stream.write(b"event: heartbeat\ndata: " + text + b"\n\n")
        await stream.write(b"event: endpoint\ndata: http://evil.example/\n\n")
        await stream.write(b"data: no JSON\n\n")
        await stream.say(answer_to(message, {"good": 1}))

    server.on["tools/call"] = odd
    assert (await call(session)).result == b'{"good": 1}'
    assert (await call(session, 2)).result == b'{"good": 1}'


async def test_large_messages(session: DuplexSession, server: SseServer) -> None:
    """Both ways, in as many pieces as it takes."""

    async def echo(stream: Stream, message: Any) -> None:
        await stream.say(answer_to(message, message["params"]))

    server.on["tools/call"] = echo
    text = jsonrpc.quote("x" * 8_000_000)
    assert jsonrpc.read_object((await call(session, text=text)).result)["text"] == text


async def test_messages_at_the_same_time(session: DuplexSession) -> None:
    """Each has a POST of its own, and its own answer."""
    answers = await asyncio.gather(*(call(session, number) for number in range(1, 60)))
    assert sorted(int(answer.id) for answer in answers) == list(range(1, 60))


# -- refusals --------------------------------------------------------------------------------------


def refuses(status: int, text: str) -> Callable[[Stream, Any], Any]:
    async def refuse(_: Stream, __: Any) -> web.Response:
        return web.Response(status=status, text=text)

    return refuse


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (404, "Could not find session", Verdict.GONE),
        (400, "No transport found for sessionId", Verdict.GONE),
        (404, "Session not found: 1", Verdict.GONE),
        (400, "Invalid session ID", Verdict.GONE),
        (404, "", Verdict.SUSPECT),
        (503, "No active SSE connection for session 1", Verdict.SUSPECT),
        (500, "SSE connection not established", Verdict.ALIVE),
        (413, "too large", Verdict.ALIVE),
        (403, "not yours", Verdict.ALIVE),
    ],
)
async def test_a_message_that_is_refused(
    session: DuplexSession, server: SseServer, status: int, text: str, verdict: Verdict
) -> None:
    """What it says of the session, in the dialects that there are."""
    server.on["tools/call"] = refuses(status, text)
    with pytest.raises(Refused) as refused:
        await call(session)
    assert (refused.value.how, refused.value.session) == (status, verdict)


async def test_a_message_that_does_not_arrive(session: DuplexSession, server: SseServer) -> None:
    """A server that is down takes none, and its streams have ended."""
    await server.stop()
    await until(lambda: session.ended is not None)
    with pytest.raises(Refused) as refused:
        await call(session)
    assert refused.value.session is Verdict.GONE


async def test_an_endpoint_that_redirects(session: DuplexSession, server: SseServer) -> None:
    """Nothing goes to another origin."""

    async def redirect(_: Stream, __: Any) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://evil.example/messages"})

    server.on["tools/call"] = redirect
    with pytest.raises(UpstreamProtocolError):
        await call(session)


# -- the end ---------------------------------------------------------------------------------------


async def test_a_stream_that_ends(session: DuplexSession, server: SseServer) -> None:
    """Ends the session, for calls under way, for the standalone stream, and for what would follow."""
    never = asyncio.Event()

    async def hold(_: Stream, __: Any) -> None:
        await never.wait()

    server.on["tools/call"] = hold
    calling = asyncio.create_task(call(session))
    async with session.open_stream(NOBODY, None) as stream:
        await until(lambda: server.sent("tools/call"))
        server.only_stream().end()
        with pytest.raises(ConnectionLost):
            await calling
        assert await stream.read() is None
    with pytest.raises(StreamRefused) as refused:
        await session.open_stream(NOBODY, None).__aenter__()
    assert refused.value.why is NoStream.NO_SESSION


async def test_a_stream_that_cannot_be_read(server: SseServer) -> None:
    """Calls hear why."""

    async def much(stream: Stream, _: Any) -> None:
        await stream.write(b"data: " + b"x" * 3_000_000)

    server.on["tools/call"] = much
    session = await opened(transport(server.url, answers=Share("answers", 1_000_000)))
    with pytest.raises(NoRoomForAnswer):
        await call(session)
    await asyncio.wait_for(server.opened[0].ended.wait(), 10)


async def test_goodbye(session: DuplexSession, server: SseServer) -> None:
    """The stream is closed; there is nothing else to say."""
    await session.close(NOBODY)
    await asyncio.wait_for(server.opened[0].ended.wait(), 10)
    await session.close(NOBODY)


async def test_nothing_is_resumed(server: SseServer) -> None:
    """A session ends with its stream, so there is none to go on with."""
    with pytest.raises(SessionLost):
        transport(server.url).reconnect("s1")


# -- time ------------------------------------------------------------------------------------------


async def test_silence(server: SseServer) -> None:
    """A server that has taken a call and says nothing is waited for for so long, and its session goes on."""

    async def silent(_: Stream, __: Any) -> None:
        pass

    server.on["tools/call"] = silent
    session = await opened(transport(server.url, silence_seconds=0.3))
    with pytest.raises(UpstreamTimeout):
        await call(session)
    server.on.clear()
    assert (await call(session, 2)).result is not None
    session.drop()


@pytest.mark.slow
async def test_comments_are_signs_of_life(server: SseServer) -> None:
    """A stream that the server keeps alive is not silent."""

    async def work(stream: Stream, message: Any) -> None:
        for _ in range(20):
            await stream.write(b": ping\n\n")
            await asyncio.sleep(0.05)
        await stream.say(answer_to(message, {"done": 1}))

    server.on["tools/call"] = work
    session = await opened(transport(server.url, silence_seconds=0.6))
    assert (await call(session)).result == b'{"done": 1}'
    session.drop()


async def test_another_patience(server: SseServer) -> None:
    """It may change; sessions that stand go by it, too."""

    async def silent(_: Stream, __: Any) -> None:
        pass

    way = transport(server.url)
    session = await opened(way)
    server.on["tools/call"] = silent
    way.rules = HttpRules(connect_timeout_seconds=5, request_timeout_seconds=0.2)
    with pytest.raises(UpstreamTimeout):
        await call(session)
    session.drop()


async def test_a_reader_that_is_slow(session: DuplexSession, server: SseServer) -> None:
    """The server is slowed down by TCP, and nothing is lost."""
    count = 3000

    async def flood(stream: Stream, message: Any) -> None:
        token, text = message["id"], "x" * 10_000
        for number in range(count):
            params = {"progressToken": token, "progress": number, "message": text}
            await stream.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        await stream.say(answer_to(message, {}))

    server.on["tools/call"] = flood
    heard = 0
    async with sending(session) as reply:
        while (messages := await reply.read()) is not None:
            heard += len(messages)
            await asyncio.sleep(0)
            assert reply.unread_bytes < 8_000_000
    assert heard == count + 1
