"""What callers who show nothing can make grow, and where it ends. Times are short options here."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from messages import INITIALIZE, call
from modern_bench import modern, routing
from proxy_bench import PATIENCE_SECONDS, Bench, until

from mcp_session_proxy.protocol.headers import _classify_short, end_to_end_response_headers


async def connect(bench: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection to the listener."""
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def first_request_may_be_slow(bench: Bench) -> None:
    """What is tried is the time between requests; a busy machine may take longer to send the first one."""
    bench.listener.places._first_request_seconds = PATIENCE_SECONDS


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, which must come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def open_streams(bench: Bench, sessions: list[str]) -> AsyncIterator[None]:
    """GET streams under these session ids, opened one after the other."""
    async with AsyncExitStack() as stack:
        for session in sessions:
            await stack.enter_async_context(bench.request("GET", session=session))
        yield


# -- connections -----------------------------------------------------------------------------------


async def test_connections(bench: Bench) -> None:
    """At --max-connections, a new one takes the place of the one silent for longest."""
    await bench.start(max_connections=2)
    first, second = await connect(bench), await connect(bench)
    await until(lambda: len(bench.listener.places) == 2)
    assert (await bench.post(call())).status == 200
    assert await ended(first[0]) == b""
    assert not second[0].at_eof()
    for _, writer in (first, second):
        writer.close()


async def test_connections_in_use(bench: Bench) -> None:
    """Where something is under way on all, a new one is closed; when they go, there is room again."""
    await bench.start(max_connections=2, heartbeat="100ms")
    sessions = [await bench.initialize(headers={"Connection": "close"}) for _ in range(2)]
    async with open_streams(bench, sessions):
        third = await connect(bench)
        assert await ended(third[0]) == b""
        third[1].close()
    await until(lambda: len(bench.listener.places) == 0)
    assert (await bench.post(call())).status == 200


@pytest.mark.parametrize("kind", ["GET streams", "listeners"])
async def test_streams_of_several_callers(bench: Bench, kind: str) -> None:
    """Callers that fill all connections with streams make room for one who comes later, each with an equal
    share of all; their other streams go on."""
    await bench.start(max_connections=8, heartbeat="100ms")
    async with AsyncExitStack() as stack:
        for name in ("ada", "bob"):
            token = {"Authorization": f"Bearer {name}"}
            await bench.post(call(), headers=token | {"Connection": "close"})
            for number in range(4):
                if kind == "listeners":
                    body = modern("subscriptions/listen", number, notifications={"toolsListChanged": True})
                    headers = token | routing(body)
                    stream = bench.request("POST", body, headers=headers)
                else:
                    stream = bench.request("GET", session=f"{name}-{number}", headers=token)
                await stack.enter_async_context(stream)
        assert len(bench.listener.places) == 8
        late = {"Authorization": "Bearer cyd", "Connection": "close"}
        for _ in range(3):
            assert (await bench.post(call(), headers=late)).status == 200
        assert len(bench.listener.places) >= 6


async def test_connections_between_requests(bench: Bench) -> None:
    """Those on which nothing is under way make room, whoever was first."""
    await bench.start(max_connections=2)
    used = [await connect(bench), await connect(bench)]
    for reader, writer in used:
        writer.write(b"OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
    assert (await bench.post(call())).status == 200
    assert await ended(used[0][0]) == b""
    assert not used[1][0].at_eof()
    for _, writer in used:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: x\r\nAccept: text/event-stream\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_connections_of_strangers(bench: Bench, sent: bytes) -> None:
    """A caller that the server does not know cannot keep its places with a stream or half of a body."""
    await bench.start(max_connections=2)
    held = [await connect(bench), await connect(bench)]
    for number, (_, writer) in enumerate(held):
        # Each a stream of its own: a second one of the same session would end the first.
        own = sent.replace(b"Id: x", b"Id: x%d" % number)
        writer.write(own.replace(b"Host", b"Authorization: Bearer made-up\r\nHost", 1))
    await until(lambda: not bench.listener.places.waiting)
    assert (await bench.post(call())).status == 200
    for _, writer in held:
        writer.close()


async def test_who_has_most_connections_makes_room(bench: Bench) -> None:
    """One caller's many connections do not cost another its only one."""
    await bench.start(max_connections=4)
    assert (await bench.post(call())).status == 200  # on one connection, which is kept
    (only,) = bench.listener.connections
    greedy = [await connect(bench) for _ in range(3)]
    for reader, writer in greedy:
        writer.write(b"OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer greedy\r\n\r\n")
        assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
    newcomer = await connect(bench)
    assert await ended(greedy[0][0]) == b""
    assert only in bench.listener.connections
    for _, writer in (*greedy, newcomer):
        writer.close()


async def test_one_callers_streams_leave_room_for_others(bench: Bench) -> None:
    """Streams of a caller that the server knows take three quarters of the connections, and no more."""
    await bench.start(max_connections=4)
    greedy = {"Authorization": "Bearer greedy", "Connection": "close"}
    sessions = [await bench.initialize(headers=greedy) for _ in range(4)]
    async with AsyncExitStack() as stack:
        for number, session in enumerate(sessions):
            stream = await stack.enter_async_context(bench.request("GET", session=session, headers=greedy))
            assert stream.status == (200 if number < 3 else 503)
        assert (await stream.json())["error"]["data"]["reason"] == "too-many-connections"
        await until(lambda: len(bench.listener.places) == 3)  # the refused one was closed
        for _ in range(2):
            assert (await bench.post(call(), headers={"Connection": "close"})).status == 200
    await until(lambda: len(bench.listener.places) == 0)


@pytest.mark.parametrize("sent", [b"", b"POST /mcp HT", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n"])
async def test_slow_heads(bench: Bench, sent: bytes) -> None:
    """A connection whose request does not begin, or never gets to its end, is closed."""
    await bench.start(connection_idle_timeout="200ms")
    reader, writer = await connect(bench)
    writer.write(sent)
    assert await ended(reader) == b""
    assert not bench.listener.places.waiting
    writer.close()


async def test_heads_that_trickle(bench: Bench) -> None:
    """A header line now and then does not keep a connection open."""
    await bench.start(connection_idle_timeout="300ms")
    reader, writer = await connect(bench)
    writer.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n")

    async def trickle() -> None:
        while not writer.is_closing():
            writer.write(b"X-Slow: 1\r\n")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(trickle())
    assert await ended(reader) == b""
    task.cancel()
    writer.close()


async def test_idle_connections(bench: Bench) -> None:
    """Between requests, too, a connection lives only for so long."""
    await bench.start(connection_idle_timeout="300ms")
    first_request_may_be_slow(bench)
    reader, writer = await connect(bench)
    writer.write(b"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await ended(reader)).startswith(b"HTTP/1.1 405")
    writer.close()


async def test_open_streams_are_not_idle(bench: Bench) -> None:
    """The timeout is for connections without a request, not for silent streams."""
    await bench.start(connection_idle_timeout="200ms", heartbeat="100ms")
    first_request_may_be_slow(bench)
    session = await bench.initialize(headers={"Connection": "close"})
    async with bench.request("GET", session=session) as stream:
        beats = 0
        while beats < 3:
            beats += await stream.content.readline() == b": keep-alive\n"
        await asyncio.sleep(0.3)
        assert not stream.content.at_eof()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
async def test_connections_that_read_nothing(bench: Bench) -> None:
    """The operating system is told to give up a connection that takes nothing for a minute."""
    await bench.start()
    _, writer = await connect(bench)
    await until(lambda: bench.listener.connections)
    (connection,) = bench.listener.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    writer.close()


# -- requests --------------------------------------------------------------------------------------


FITS = {"Authorization": "Bearer " + "x" * 15_000}


@pytest.mark.parametrize(
    "headers",
    [
        {f"X-{n}": "1" for n in range(200)},
        {"X-Large": "x" * 17_000},
        {"Authorization": "Bearer " + "x" * 17_000},
        {"X" * 17_000: "1"},
        {"X-Huge": "x" * 3_000_000},
        {f"X-{n}": "x" * 10_000 for n in range(7)},
    ],
    ids=["many", "large", "large credential", "large name", "huge", "large together"],
)
@pytest.mark.parametrize("path", ["/mcp", "/other"])
async def test_headers(bench: Bench, headers: dict[str, str], path: str) -> None:
    """Headers have a size and a number; more is answered 431, with the option, before anything is done."""
    await bench.start()
    url = bench.proxy.listen_url + path
    async with bench.http.post(url, data=b" " * 1_000_000, headers=headers) as response:
        assert response.status == 431
        assert response.content_type == "application/json"
        error = (await response.json())["error"]
    assert error["data"]["reason"] == "head-too-large"
    assert "--max-header-bytes" in error["message"]
    assert not any(value in error["message"] for value in headers.values() if len(value) > 1)
    assert bench.server.seen == []


async def test_long_names_of_headers(bench: Bench) -> None:
    """What a name means is remembered, so it has a length; that of a server's is cut for that."""
    await bench.start()
    for length, status in ((256, 200), (257, 431)):
        assert (await bench.post(call(), headers={"X" * length: "1"})).status == status
    remembered = _classify_short.cache_info().currsize
    for number in range(100):
        end_to_end_response_headers([(f"{'x' * 100_000}-{number}", "1")])
    assert _classify_short.cache_info().currsize - remembered < 10


async def test_long_request_lines(bench: Bench) -> None:
    """The request line has the same limit."""
    await bench.start()
    async with bench.http.get(f"{bench.url}?{'x' * 17_000}") as response:
        assert response.status == 431
    async with bench.http.get(f"{bench.url}?{'x' * 15_000}") as response:
        assert response.status == 405


async def test_large_tokens(bench: Bench) -> None:
    """What fits goes to the server as it is, on every path, and tells the caller apart."""
    await bench.start()
    for count in (1, 2):
        assert (await bench.post(call(), headers=FITS)).json["result"] == {"count": count}
    request, _ = bench.server.posts("tools/call")[0]
    assert request.headers["Authorization"] == FITS["Authorization"]


@pytest.mark.parametrize("version", [b"2.0", b"0.9", b"3.0", b"1.7"])
@pytest.mark.parametrize("method", [b"POST", b"GET"])
async def test_other_versions_of_http(bench: Bench, method: bytes, version: bytes) -> None:
    """A line of HTTP/1.1 that names another version is refused, also behind a request with the same head."""
    await bench.start()
    reader, writer = await connect(bench)
    head = b"Host: localhost\r\nAccept: application/json\r\nContent-Length: 2\r\n\r\n{}"
    writer.write(method + b" /mcp HTTP/1.1\r\n" + head)
    assert b" 40" in await reader.readline()
    await reader.readuntil(b"\r\n\r\n")
    writer.write(method + b" /mcp HTTP/" + version + b"\r\n" + head)
    # What came before it was answered with a body, too.
    answers = await ended(reader)
    assert b"HTTP/1.1 505 " in answers or b"HTTP/1.0 400 Bad Request" in answers
    assert bench.server.seen == []
    writer.close()


@pytest.mark.slow
async def test_refused_head_ends_its_connection(bench: Bench) -> None:
    """A client that goes on sending is not read for ever."""
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000)
    assert b" 431 " in await reader.readline()
    assert b"head-too-large" in await ended(reader)  # and the connection ends
    writer.close()


async def test_slow_bodies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has a time to arrive in; half of it is no request."""
    monkeypatch.setattr("mcp_session_proxy.downstream.body.BODY_SECONDS", 0.1)
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    head = await reader.readline()
    assert head == b"HTTP/1.1 400 Bad Request\r\n"
    writer.close()


async def test_slow_uploads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is passed through must go on, or the server's connection is let go of."""
    monkeypatch.setattr("mcp_session_proxy.downstream.passthrough._UPLOAD_SECONDS", 0.1)
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(b"POST /other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
    writer.close()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([call(n) for n in range(101)]).encode(),
        b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % (b"x" * 1025),
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":%b}'
        % (b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ],
    ids=["batch", "id", "depth"],
)
async def test_messages(bench: Bench, body: bytes) -> None:
    """Batches, ids and depths over the limit are refused before anything is done."""
    await bench.start()
    assert (await bench.post(body)).status == 400
    assert bench.server.seen == []


# -- what is kept ------------------------------------------------------------------------------------


async def test_streams_of_one_caller(bench: Bench) -> None:
    """GET streams under made-up ids: a caller has so many at most, and nothing comes of them."""
    await bench.start(max_client_sessions_per_principal=3)
    async with open_streams(bench, [f"made-up-{number}" for number in range(8)]):
        await until(lambda: bench.endpoint.streams == 3)
        assert len(bench.proxy.core.early) == 3
        assert len(bench.proxy.core.binder.directory) == 0
        assert not list(bench.proxy.core.binder.pool.books.slots())
    await until(lambda: bench.endpoint.streams == 0)
    assert len(bench.proxy.core.early) == 0


async def test_streams_of_one_session(bench: Bench) -> None:
    """However often a client opens its stream, one of them is open."""
    await bench.start()
    session = await bench.initialize()
    async with open_streams(bench, [session] * 8):
        await until(lambda: bench.endpoint.streams == 1)
    await until(lambda: bench.endpoint.streams == 0)


async def test_made_up_credentials(bench: Bench) -> None:
    """Anybody can be many callers, so there are limits for all of them together."""
    await bench.start(max_client_sessions=5, max_sessions=3, acquire_timeout="50ms")
    for number in range(12):
        await bench.post(INITIALIZE, headers={"Authorization": f"Bearer {number}"})
    assert len(bench.proxy.core.binder.directory) <= 5
    await until(lambda: len(list(bench.proxy.core.binder.pool.books.slots())) <= 3)


async def test_ids_are_of_no_use_to_others(bench: Bench) -> None:
    """A session id that another caller holds means no more than one that was made up."""
    await bench.start(unknown_session="reject")
    session = await bench.initialize(headers={"Authorization": "Bearer ada"})
    for headers, status in (
        ({"Authorization": "Bearer bob"}, 404),
        ({}, 404),
        ({"Authorization": "Bearer ada"}, 200),
    ):
        assert (await bench.post(call(), session=session, headers=headers)).status == status


async def test_ids_cannot_be_guessed(bench: Bench) -> None:
    """Every id that is given out has 144 random bits."""
    await bench.start(max_sessions_per_principal=100)
    ids = {await bench.initialize() for _ in range(20)}
    assert len(ids) == 20
    assert all(len(identifier) == 24 + 1 + 8 for identifier in ids)  # the rest is a mark
    assert len({identifier[:4] for identifier in ids}) == 20


@pytest.mark.parametrize("line", [b"X: a\rX-Injected: 1", b"X: a\x00b", b"X\x01: a", b"X : a", b"X: a\n b"])
async def test_headers_cannot_be_injected(bench: Bench, line: bytes) -> None:
    """What could be two headers to somebody behind us is no request."""
    await bench.start()
    reader, writer = await connect(bench)
    writer.write(b"GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + line + b"\r\n\r\n")
    answer = await ended(reader)
    writer.close()
    assert b" 400 " in answer.splitlines()[0]
    assert bench.server.seen == []


# -- capabilities ----------------------------------------------------------------------------------


async def test_capabilities(bench: Bench) -> None:
    """64 KiB of capabilities are enough for everybody, in both eras; nothing is kept of more."""
    await bench.start()
    large = {"experimental": {"x": "y" * 70_000}}
    legacy = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": large}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": large,
    }
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    for body, sent in ((legacy, {}), (call(0, "tools/list", _meta=meta), headers)):
        answer = await bench.post(body, headers=sent)
        assert (answer.status, answer.error) == (400, (0, -32602, "invalid-params"))
    assert bench.proxy.core.memory.profiles.used_bytes == 0
