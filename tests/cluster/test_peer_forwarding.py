"""What a client sends to one member is answered by another one, as if there were one."""

import asyncio
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from peer_bench import OWNER, SENDER, Pair, talk
from proxy_bench import PATIENCE_SECONDS, until
from yarl import URL

from mcp_session_proxy.cluster.card import Card
from mcp_session_proxy.cluster.outcomes import (
    Misdirected,
    PeerBroke,
    PeerFailure,
    PeerRefused,
    PeerUnreachable,
)
from mcp_session_proxy.downstream.connection import on_departure
from mcp_session_proxy.downstream.head import Head

MIB = 1024 * 1024


# -- there ---------------------------------------------------------------------------------------------


async def test_a_request_arrives_as_it_was_sent(pair: Pair) -> None:
    """Its method, its target byte for byte, its headers in their order, and its body."""
    sent = [("Authorization", "Bearer t"), ("X-Twice", "1"), ("Mcp-Session-Id", "s"), ("X-Twice", "2")]
    async with pair.http.post(
        URL(pair.url + "?a=%2f&b=1", encoded=True), data=b"{}", headers=CIMultiDict(sent)
    ):
        pass
    ((http, head, body),) = pair.seen
    assert (http.method, http.raw_path, body) == ("POST", "/mcp?a=%2f&b=1", b"{}")
    names = {name for name, _ in sent}
    arrived = [(n.decode(), v.decode()) for n, v in http.raw_headers if n.decode() in names]
    assert sorted(arrived, key=lambda pair: pair[0]) == sorted(sent, key=lambda pair: pair[0])
    assert head.hops == 1


async def test_the_client_behind_it(pair: Pair) -> None:
    """Its address and its scheme are the client's, and not those of the member in between."""
    async with pair.http.post(pair.url, data=b"{}"):
        pass
    http = pair.seen[0][0]
    assert (http.remote, http.scheme) == ("127.0.0.1", "http")


async def test_what_members_say_is_not_for_clients_to_say(pair: Pair) -> None:
    """A client's own headers of that kind go no further, nor do those of its connection."""
    headers = {"Msp-Peer": "v1 x", "msp-client": "9 https 1 10.0.0.1", "MSP-Anything": "1", "Keep-Alive": "1"}
    async with pair.http.post(pair.url, data=b"{}", headers=headers):
        pass
    http = pair.seen[0][0]
    names = [name.lower() for name, _ in http.raw_headers]
    assert not [name for name in names if name.startswith(b"msp-") or name == b"keep-alive"]
    assert (http.remote, http.scheme) == ("127.0.0.1", "http")


async def test_what_connection_names_stays_here(pair: Pair) -> None:
    """A header that its client wants to go no further goes no further (RFC 9110, section 7.6.1)."""
    reader, writer = await talk(
        pair.port,
        b"GET /mcp HTTP/1.1\r\nHost: h\r\nConnection: x-secret, close\r\nX-Secret: 1\r\nX-Open: 2\r\n\r\n",
    )
    await reader.read()
    writer.close()
    names = [name.lower() for name, _ in pair.seen[0][0].raw_headers]
    assert b"x-open" in names
    assert b"x-secret" not in names


async def test_bytes_that_are_no_utf8(pair: Pair) -> None:
    """Old Latin-1 values arrive as the bytes that they are, so the caller is the same at both."""
    reader, writer = await talk(
        pair.port, b"GET /mcp HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-User: M\xfcller\r\n\r\n"
    )
    await reader.read()
    writer.close()
    assert (b"X-User", b"M\xfcller") in pair.seen[0][0].raw_headers


async def test_a_client_of_http_1_0(pair: Pair) -> None:
    """It names no host, and its answer ends with the connection."""

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        await response.write(b"abc")
        return response

    pair.answer = answer
    reader, writer = await talk(pair.port, b"GET /mcp HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.0 200")
    assert body == b"abc"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 4 * MIB])
async def test_a_body_arrives_whole(pair: Pair, size: int) -> None:
    """However large it is, and whatever it says."""
    sent = os.urandom(size)
    async with pair.http.post(pair.url, data=io.BytesIO(sent)) as response:
        assert response.status == 200
    assert pair.seen[0][2] == sent


async def test_a_compressed_body(pair: Pair) -> None:
    """It goes on as it was read: decompressed, and said to be so."""
    async with pair.http.post(pair.url, data=b"{}" * 1000, compress="gzip"):
        pass
    http, _, body = pair.seen[0]
    assert body == b"{}" * 1000
    assert "Content-Encoding" not in http.headers


async def test_a_client_is_known_again(pair: Pair) -> None:
    """Requests of one client's connection have one head at the owner, and those of another one another."""
    other = await pair.start_client()
    for http in (pair.http, other, pair.http, other):
        async with http.post(pair.url, data=b"{}"):
            pass
    heads = [head for _, head, _ in pair.seen]
    assert heads[0] is heads[2]
    assert heads[1] is heads[3]
    assert heads[0] is not heads[1]


# -- and back ------------------------------------------------------------------------------------------


async def test_an_answer_comes_back_as_it_was(pair: Pair) -> None:
    """Its status, its headers with those that repeat, and its body."""
    headers = CIMultiDict([("Mcp-Session-Id", "s"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    pair.answer = web.Response(status=404, body=b'{"x":1}', headers=headers)
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert response.status == 404
        assert await response.read() == b'{"x":1}'
        assert response.headers["Mcp-Session-Id"] == "s"
        assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert len(response.headers.getall("Date")) == len(response.headers.getall("Server")) == 1


@pytest.mark.parametrize(
    ("start", "kept"),
    [
        (b"GET /mcp HTTP/1.1\r\nHost: h\r\n", True),
        (b"GET /mcp HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", False),
        (b"GET /mcp HTTP/1.0\r\n", False),
        (b"GET /mcp HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
async def test_the_client_keeps_its_connection(pair: Pair, start: bytes, kept: bool) -> None:
    """What the owner says of its own connection is nothing to the client, whose is another one."""
    pair.answer = web.Response(text="abc", headers={"Connection": "close"})
    reader, writer = await talk(pair.port, start + b"\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        assert head.startswith(start[9:17] + b" 200 OK\r\n")
        assert head.count(b"Content-Length: 3\r\n") == 1
        if kept:
            writer.write(start + b"\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == head
        else:
            assert await reader.read() == b""
    assert (b"Connection: close" in head) == (not kept and start[9:17] == b"HTTP/1.1")
    writer.close()


@pytest.mark.parametrize("status", [202, 204, 304, 405])
async def test_an_answer_without_a_body(pair: Pair, status: int) -> None:
    """It has none at the client either, and the next answer is the next one's."""
    pair.answer = web.Response(status=status, headers={"Allow": "POST"})
    for _ in range(2):
        async with pair.http.get(pair.url) as response:
            assert (response.status, response.headers["Allow"]) == (status, "POST")
            assert await response.read() == b""


@pytest.mark.parametrize("size", [10, 4 * MIB])
@pytest.mark.parametrize("own", [{}, {"Access-Control-Allow-Origin": "https://own.example"}])
async def test_a_web_page(pair: Pair, own: dict[str, str], size: int) -> None:
    """What lets a page read the answer is added where it came in, unless the answer has it."""
    pair.cors = {"Access-Control-Allow-Origin": "https://page.example", "Vary": "Origin"}
    pair.answer = web.Response(body=b"x" * size, headers=own)
    async with pair.http.post(pair.url, data=b"{}") as response:
        origins = response.headers.getall("Access-Control-Allow-Origin")
        assert len(await response.read()) == size
    assert origins == [own.get("Access-Control-Allow-Origin", "https://page.example")]


@pytest.mark.parametrize("size", [64 * 1024 + 1, 4 * MIB])
async def test_a_large_answer(pair: Pair, size: int) -> None:
    """It arrives whole."""
    body = os.urandom(size)
    pair.answer = web.Response(body=body)
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert await response.read() == body


async def test_a_stream_comes_as_it_is_written(pair: Pair) -> None:
    """Each event arrives before the next one is written."""
    taken = asyncio.Event()

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        for number in range(3):
            await response.write(b"data: %d\n\n" % number)
            await taken.wait()
            taken.clear()
        return response

    pair.answer = answer
    async with asyncio.timeout(PATIENCE_SECONDS), pair.http.get(pair.url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        for number in range(3):
            assert await response.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            taken.set()
        assert await response.content.read() == b""


async def test_an_answer_in_pieces(pair: Pair) -> None:
    """One whose head comes before its body, and its body in bytes, has the length that it says."""

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "3"})
        await response.prepare(http)
        for byte in (b"a", b"b", b"c"):
            await response.write(byte)
            await asyncio.sleep(0.01)
        return response

    pair.answer = answer
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert response.headers["Content-Length"] == "3"
        assert await response.read() == b"abc"


async def test_a_slow_answer_is_waited_for(pair: Pair) -> None:
    """No time of the forwarder's ends it: nobody has set one."""
    go_on, arrived = asyncio.Event(), asyncio.Event()

    async def answer(*_: object) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response(text="late")

    pair.answer = answer
    asking = asyncio.create_task(pair.http.post(pair.url, data=b"{}"))
    await arrived.wait()
    deadlines = {connection.deadline for connection in pair.client._connections}
    assert deadlines == {float("inf")}
    go_on.set()
    response = await asking
    assert await response.text() == "late"


# -- who leaves ------------------------------------------------------------------------------------------


async def test_a_client_leaves(pair: Pair) -> None:
    """Its leaving is the owner's to judge: the connection there ends with its own."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        on_departure(http, left.set)
        arrived.set()
        await left.wait()
        return web.Response()

    pair.answer = answer
    _, writer = await talk(pair.port, b"POST /mcp HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    await arrived.wait()
    writer.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await left.wait()
    await until(lambda: pair.connections == 0 and not pair.client._connections)


async def test_a_client_leaves_amid_a_stream(pair: Pair) -> None:
    """The same when it has begun to read."""
    cancelled = asyncio.Event()

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        try:
            await response.write(b"data: 1\n\n")
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return response

    pair.answer = answer
    reader, writer = await talk(pair.port, b"GET /mcp HTTP/1.1\r\nHost: h\r\n\r\n")
    await reader.readuntil(b"data: 1\n\n")
    writer.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await cancelled.wait()


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_an_answer_breaks_off(pair: Pair, verb: str) -> None:
    """What looks complete would be a lie; but who follows a stream finds its end, and comes back."""

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        await response.write(b"data: 1\n\n")
        assert http.transport is not None
        http.transport.abort()
        return response

    pair.answer = answer
    async with pair.http.request(verb, pair.url) as response:
        if verb == "GET":
            assert await response.read() == b"data: 1\n\n"
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


@pytest.mark.slow
async def test_connections_do_not_pile_up(pair: Pair) -> None:
    """Requests one after the other have one connection, and those that were given up have none."""
    for _ in range(50):
        async with pair.http.post(pair.url, data=b"{}"):
            pass
    assert pair.connections == 1

    arrived: list[object] = []

    async def answer(*_: object) -> web.StreamResponse:
        arrived.append(None)
        await asyncio.Event().wait()
        raise AssertionError

    pair.answer = answer
    request = b"POST /mcp HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
    writers = [(await talk(pair.port, request))[1] for _ in range(200)]
    await until(lambda: len(arrived) == 200)
    for writer in writers:
        writer.close()
    await until(lambda: pair.connections == 0 and not pair.client._connections)
    assert not pair.heartbeats._watched


async def test_a_call_costs_no_timer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scheduled for a request, and beside aiohttp's two tasks, at either end, none is begun."""
    request = b"POST /mcp HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
    reader, writer = await talk(pair.port, request)
    await reader.readuntil(b"answered")
    loop = asyncio.get_running_loop()
    counted: Counter[str] = Counter()
    for name in ("call_at", "call_later", "create_task"):
        original = getattr(loop, name)

        def count(*args: object, _name: str = name, _original: Any = original, **more: object) -> object:
            counted[_name] += 1
            return _original(*args, **more)

        monkeypatch.setattr(loop, name, count)
    for _ in range(50):
        writer.write(request)
        await reader.readuntil(b"answered")
    writer.close()
    assert counted["create_task"] <= 2 * 50
    assert counted["call_at"] + counted["call_later"] <= 10


# -- no answer -------------------------------------------------------------------------------------------


async def fail(pair: Pair) -> PeerFailure:
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert response.status == 503
    (failure,) = pair.failures
    return failure


async def test_nobody_listens(pair: Pair, tmp_path: Path) -> None:
    """A socket that is gone, one that nobody listens on, and a port that nobody has: nothing was sent."""
    await pair.listener.close()
    assert isinstance(await fail(pair), PeerRefused)


async def test_all_addresses_are_tried(pair: Pair) -> None:
    """The one that works is found, and is the first one from then on."""
    good = pair.card.addresses[0]
    pair.card = Card(
        member=OWNER,
        pid=1,
        started=0.0,
        version="1",
        addresses=["unix:/nowhere/peer.sock", "http://127.0.0.1:9", good],
    )
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert response.status == 200
    assert pair.peers._ways[OWNER].best == good


async def test_no_address(pair: Pair) -> None:
    """Of a member that nobody can reach, nobody can say that it is gone."""
    pair.card = Card(member=OWNER, pid=1, started=0.0, version="1")
    assert isinstance(await fail(pair), PeerUnreachable)


async def test_it_breaks_before_an_answer(pair: Pair) -> None:
    """Whether the request was executed, nobody knows."""

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        assert http.transport is not None
        http.transport.abort()
        return web.Response()

    pair.answer = answer
    assert isinstance(await fail(pair), PeerBroke)


async def test_what_is_no_answer(pair: Pair) -> None:
    """Of what is no HTTP, neither."""

    async def answer(http: web.BaseRequest, _: Head) -> web.StreamResponse:
        assert http.transport is not None
        http.transport.write(b"SSH-2.0\r\n\r\n")
        await asyncio.Event().wait()
        return web.Response()

    pair.answer = answer
    assert isinstance(await fail(pair), PeerBroke)


async def test_a_member_that_has_lost_its_lease(pair: Pair) -> None:
    """As long as it answers, what is under way at it comes to its end: it may only not reach the store."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(*_: object) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response(text="done")

    pair.answer = answer
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(pair.http.post(pair.url, data=b"{}"))
        await arrived.wait()
        pair.peers.keep({SENDER})
        await until(lambda: pair.connections == 2)  # it was asked beside that
        go_on.set()
    assert await asking.result().text() == "done"


async def test_a_member_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for one that has no lease and does not answer hears so."""
    monkeypatch.setattr("mcp_session_proxy.cluster.peers.PEER_ANSWER_SECONDS", 0.05)
    arrived = asyncio.Event()

    async def answer(*_: object) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def hang(_: str) -> None:
        await asyncio.Event().wait()

    pair.answer = answer
    failing = asyncio.create_task(fail(pair))
    await arrived.wait()
    monkeypatch.setattr(pair.listener.server._door, "_check_member", hang)
    pair.peers.keep({OWNER})
    await asyncio.sleep(0)
    assert not failing.done()
    pair.peers.keep({SENDER})
    assert isinstance(await failing, PeerBroke)


@pytest.mark.parametrize("owner", ["c" * 16, None])
async def test_the_wrong_member(pair: Pair, owner: str | None) -> None:
    """It says whose the caller is, if it knows."""

    async def answer(*_: object) -> web.StreamResponse:
        raise Misdirected(owner)

    pair.answer = answer
    failure = await fail(pair)
    assert isinstance(failure, Misdirected)
    assert failure.owner == owner


async def test_a_status_of_the_server_behind(pair: Pair) -> None:
    """A 421 or a 403 that the owner only passes on is an answer like any other."""
    for status in (421, 403):
        pair.answer = web.Response(status=status, text="the server's own")
        async with pair.http.post(pair.url, data=b"{}") as response:
            assert (response.status, await response.text()) == (status, "the server's own")
    assert pair.failures == []


async def test_another_process_at_its_address(pair: Pair) -> None:
    """What is meant for a member that was there before is not done."""
    pair.card = Card(member="c" * 16, pid=1, started=0.0, version="1", addresses=list(pair.card.addresses))
    failure = await fail(pair)
    assert isinstance(failure, Misdirected)
    assert pair.seen == []
