"""Which transport a server speaks: found out by the first handshake, with one GET at most, and remembered."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream
from proxy_bench import until
from sse_server import SseServer
from yarl import URL

from mcp_session_proxy.errors import ProxyError, SessionLost, UpstreamRejected
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.upstream.duplex import DuplexSession
from mcp_session_proxy.upstream.handshake import Handshake
from mcp_session_proxy.upstream.http import auto_http
from mcp_session_proxy.upstream.http.auto_http import AutoHttp, Speaks
from mcp_session_proxy.upstream.http.http_sse import HttpSse
from mcp_session_proxy.upstream.http.streamable_http import HttpChannel, HttpRules, StreamableHttp
from mcp_session_proxy.upstream.transport import NOBODY, Channel, first_response

PARAMS = b'{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}'


class Way:
    """The transport under test, and what it has told."""

    def __init__(self, url: str) -> None:
        self.told: list[Speaks] = []
        rules = HttpRules(connect_timeout_seconds=5, request_timeout_seconds=30)
        streamable = StreamableHttp(URL(url), rules=rules)
        self.transport = AutoHttp(streamable, HttpSse(streamable, URL(url)), self.told.append)

    async def open(self) -> Channel:
        """A channel behind its handshake."""
        channels: list[Channel | None] = []
        handshake = Handshake(
            self.transport,
            NOBODY,
            allocate=lambda: 1,
            take=lambda _: None,
            stands=channels.append,
            silence_seconds=30.0,
        )
        await handshake.initialize(PARAMS)
        assert channels[-1] is not None
        return channels[-1]


@pytest.fixture
async def sse() -> AsyncIterator[SseServer]:
    async with SseServer() as server:
        yield server


def gets(server: HttpServer) -> list[web.Request]:
    return [request for request, _ in server.seen if request.method == "GET"]


async def no(_: web.Request, __: Any = None) -> web.StreamResponse:
    return web.Response(status=405)


# -- a server that speaks HTTP+SSE -----------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_it_is_found_out_and_remembered(sse: SseServer, status: int) -> None:
    """One POST is refused, and the GET that follows is the session's; the next one begins with its GET."""
    sse.refusal_status = status
    way = Way(sse.url)
    channels = [await way.open() for _ in range(3)]
    assert all(isinstance(channel, DuplexSession) for channel in channels)
    assert (len(sse.wrong_posts), len(sse.gets), len(sse.streams)) == (1, 3, 3)
    assert way.told == [Speaks.SSE]
    assert way.transport.sessions_only
    for channel in channels:
        channel.drop()


@pytest.mark.parametrize("status", [401, 403, 406, 415, 429, 500, 503])
async def test_refusals_that_say_nothing_of_it(sse: SseServer, status: int) -> None:
    """They are the caller's to hear, and no GET follows."""
    sse.refusal_status = status
    with pytest.raises(UpstreamRejected) as refused:
        await Way(sse.url).open()
    assert refused.value.upstream_status == status
    assert sse.gets == []


async def test_many_at_once(sse: SseServer) -> None:
    """One looks for all; every session has one stream, and no stream is without a session."""
    way = Way(sse.url)
    channels = await asyncio.gather(*(way.open() for _ in range(20)))
    assert len(sse.opened) == len(sse.streams) == 20
    assert way.told == [Speaks.SSE]
    for channel in channels:
        channel.drop()
    await until(lambda: not sse.streams)


async def test_a_stream_that_is_refused_to_this_caller(sse: SseServer) -> None:
    """The next caller's is asked for."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=401)

    sse.get = refuse
    way = Way(sse.url)
    with pytest.raises(UpstreamRejected) as refused:
        await way.open()
    assert refused.value.upstream_status == 405
    sse.get = sse.open_stream
    assert isinstance(await way.open(), DuplexSession)


async def test_a_server_that_speaks_otherwise_after_a_while(sse: SseServer) -> None:
    """What comes back from a deployment may speak Streamable HTTP, and the other way round."""
    way = Way(sse.url)
    await way.open()
    await sse.stop()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await new.answer(request)

    async with HttpServer() as new:
        new.on["GET"] = no
        app = web.Application()
        app.router.add_route("*", "/sse", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", sse.port).start()
        try:
            assert isinstance(await way.open(), HttpChannel)
        finally:
            await runner.cleanup()
    await sse.start()
    assert isinstance(await way.open(), DuplexSession)
    assert way.told == [Speaks.SSE, Speaks.STREAMABLE, Speaks.SSE]


# -- a server that speaks Streamable HTTP ----------------------------------------------------------


async def test_nothing_changes_for_it(server: HttpServer) -> None:
    """It meets nothing new, and nothing is told."""
    way = Way(server.url)
    for _ in range(2):
        assert isinstance(await way.open(), HttpChannel)
    assert [request.method for request, _ in server.seen] == ["POST", "POST"]
    assert way.told == []
    assert not way.transport.sessions_only


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_one_get_and_no_more(server: HttpServer, status: int) -> None:
    """One that refuses its very first handshakes is asked once; its callers hear its refusals as they are."""

    async def refuse(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(status=status, text="not so")

    server.on["initialize"] = refuse
    way = Way(server.url)
    for _ in range(3):
        with pytest.raises(UpstreamRejected) as refused:
            await way.open()
        assert (refused.value.upstream_status, refused.value.body) == (status, b"not so")
    assert len(gets(server)) == 1


async def test_one_that_is_known(server: HttpServer) -> None:
    """Once it has answered a handshake, a 400 is about the request."""

    async def refuse(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(status=400, text="not so")

    way = Way(server.url)
    await way.open()
    server.on["initialize"] = refuse
    with pytest.raises(UpstreamRejected):
        await way.open()
    assert gets(server) == []


async def test_one_that_gives_anybody_a_stream(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without an endpoint says no, in ten seconds at most; it is closed again."""
    monkeypatch.setattr(auto_http, "ENDPOINT_SECONDS", 0.2)
    closed = asyncio.Event()

    async def refuse(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(status=400, text="not so")

    async def give(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
        return response

    server.on["initialize"], server.on["GET"] = refuse, give
    with pytest.raises(UpstreamRejected):
        await Way(server.url).open()
    await asyncio.wait_for(closed.wait(), 10)


async def test_a_server_that_is_away() -> None:
    """Nothing is learnt of it."""
    with pytest.raises(ProxyError):
        await Way("http://127.0.0.1:1/mcp").open()


async def test_sessions_from_before(server: HttpServer) -> None:
    """One with an id is gone on with; one without may have been over HTTP+SSE, until more is known."""
    way = Way(server.url)
    assert way.transport.reconnect("a").session_id == "a"
    with pytest.raises(SessionLost):
        way.transport.reconnect(None)
    await way.open()
    assert way.transport.reconnect(None).session_id is None


async def test_another_question_before_the_handshake(sse: SseServer) -> None:
    """Asked whether it speaks modern, a server is only asked."""
    channel = Way(sse.url).transport.connect()
    channel.agree("2026-07-28")
    body = jsonrpc.write_request(b'"era"', "server/discover", None)
    with pytest.raises(Exception, match="405"):
        async with channel.open(body, NOBODY, b'"era"', silence_seconds=5.0) as reply:
            await first_response(reply)
    assert sse.gets == []
