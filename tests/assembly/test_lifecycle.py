"""Start, drain and stop of a whole proxy, in this process and as a program of its own."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import PATIENCE_SECONDS, Bench, read_events, until
from yarl import URL

from mcp_session_proxy.assembly import proxy as assembly
from mcp_session_proxy.assembly.proxy import Proxy
from mcp_session_proxy.assembly.sockets import CannotListen, CannotStart
from mcp_session_proxy.events import Event
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.upstream.http import streamable_http


class Work:
    """A tool that takes as long as the test wants."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, _: web.Request, message: Any) -> web.StreamResponse:
        self.started.set()
        await self.go_on.wait()
        return reply_to(message, {"done": True})


def watch(bench: Bench, then: Callable[[Event], None]) -> None:
    """Tell ``then`` of the proxy's own events."""
    bench.watch(lambda event: then(event) if event.name.startswith("proxy.") else None)


# -- start -----------------------------------------------------------------------------------------


async def test_urls(bench: Bench) -> None:
    """Once started, the proxy knows where it is; port 0 takes any free port."""
    await bench.start(admin_listen="127.0.0.1:0")
    proxy = bench.proxy
    assert proxy.listen_url.startswith("http://127.0.0.1:")
    assert proxy.endpoint_url == f"{proxy.listen_url}/mcp"
    assert proxy.admin_url is not None
    assert proxy.admin_url != proxy.listen_url
    async with bench.http.get(f"{proxy.admin_url}/healthz") as response:
        assert response.status == 200


async def test_public_url(bench: Bench) -> None:
    """The endpoint is announced as clients see it."""
    await bench.start(public_url="https://mcp.example.com/base/")
    assert bench.proxy.endpoint_url == "https://mcp.example.com/base/mcp"
    assert bench.proxy.admin_url is None


async def test_announcement(bench: Bench, tmp_path: Path) -> None:
    """Whoever started the proxy finds its URLs in a file, whole, and nothing else beside it."""
    path = tmp_path / "proxy.json"
    path.write_text("old")
    await bench.start(announce=str(path), admin_listen="127.0.0.1:0")
    assert json.loads(path.read_text()) == {
        "listen": bench.proxy.listen_url,
        "endpoint": bench.proxy.endpoint_url,
        "admin": bench.proxy.admin_url,
    }
    assert list(tmp_path.iterdir()) == [path]


async def test_announcement_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    """The error names the option, and the listeners are closed again."""
    before = asyncio.all_tasks()
    with pytest.raises(CannotStart, match=r"cannot write .*no-such-dir.*see --announce"):
        await bench.start(announce=str(tmp_path / "no-such-dir" / "proxy.json"))
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("option", ["listen", "admin_listen"])
async def test_address_that_is_taken(bench: Bench, option: str) -> None:
    """The error names the address and the option to change, and nothing stays open."""
    before = asyncio.all_tasks()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen) as caught:
            await bench.start(**{option: address})
    assert f"cannot listen on {address} (" in str(caught.value)
    assert f"with --{option.replace('_', '-')}" in str(caught.value)
    assert asyncio.all_tasks() == before


async def test_address_that_is_not_ours(bench: Bench) -> None:
    """A name that cannot be looked up is an address like any other that does not work."""
    with pytest.raises(CannotListen, match=r"no-such-host\.invalid:1"):
        await bench.start(listen="no-such-host.invalid:1")


async def test_nothing_is_asked_of_the_server_at_first(bench: Bench) -> None:
    """Starting opens no session."""
    await bench.start()
    await until(lambda: bench.proxy.snapshot.readiness().phase == "ready")
    assert bench.server.seen == []


async def test_server_that_comes_later(bench: Bench) -> None:
    """A server that is not up yet is waited for; the proxy is not ready meanwhile."""
    await bench.server.__aexit__()
    await bench.start(admin_listen="127.0.0.1:0")
    await until(lambda: bench.proxy.snapshot.readiness().phase == "upstream-down")
    async with bench.http.get(f"{bench.proxy.admin_url}/readyz") as response:
        assert response.status == 503


async def test_maintenance_survives_a_bug(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the regular work is told, and the work goes on."""
    monkeypatch.setattr(assembly, "_MAINTENANCE_SECONDS", 0.001)
    told: list[Any] = []
    calls = 0

    def broken() -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    await bench.start()
    watch(bench, told.append)
    monkeypatch.setattr(bench.proxy.core, "maintain", broken)
    await until(lambda: calls > 3)
    assert {event.name for event in told} == {"proxy.bug"}


# -- drain -----------------------------------------------------------------------------------------


async def test_stop_gives_everything_back(bench: Bench) -> None:
    """Sessions are DELETEd, connections closed, and no task stays."""
    before = asyncio.all_tasks()
    flags = {"upstream": bench.server.url, "listen": "127.0.0.1:0", "admin_listen": "off"}
    async with Proxy(load(flags)) as proxy:
        async with bench.http.post(proxy.endpoint_url, json=INITIALIZE) as response:
            session = response.headers["Mcp-Session-Id"]
        headers = {"Mcp-Session-Id": session}
        async with bench.http.get(proxy.endpoint_url, headers=headers) as stream:
            assert stream.status == 200
            async with bench.http.post(proxy.endpoint_url, json=call()) as response:
                assert response.status == 200
            drained = asyncio.create_task(proxy.drain())
            assert (await stream.content.read()).startswith(b": keep-alive")  # a graceful end
            await drained
        await proxy.drain()
    assert sorted(bench.server.deleted) == ["upstream-1", "upstream-2"]
    assert bench.server.sessions == {}
    await bench.http.close()
    await until(lambda: asyncio.all_tasks() <= before)


async def test_drain_finishes_what_is_in_flight(bench: Bench) -> None:
    """Calls in flight are answered; newcomers are sent away; then the sessions go."""
    work = Work()
    bench.server.on["tools/call"] = work
    await bench.start(drain_timeout="30s", admin_listen="127.0.0.1:0")
    async with bench.asking(call("x")) as asking:
        await work.started.wait()
        assert (await bench.post(call("p", "ping"))).status == 200  # a connection that is kept
        draining = asyncio.create_task(bench.proxy.drain())
        await until(lambda: bench.endpoint.draining)
        async with bench.http.get(f"{bench.proxy.admin_url}/readyz") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "draining"
        late = await bench.post(call("late", "ping"))
        assert (late.status, late.error) == (503, ("late", -32603, "draining"))
        async with aiohttp.ClientSession() as stranger:
            with pytest.raises(aiohttp.ClientConnectorError):
                await stranger.post(bench.url, json=call())
        assert not draining.done()
        assert bench.server.deleted == []
        work.go_on.set()
        assert (await asking).json["result"] == {"done": True}
        await draining
    assert bench.server.deleted == ["upstream-1"]


async def test_whoever_asks_again_is_told(bench: Bench) -> None:
    """Answers say that they are the last; whoever asks after one that could not, as it had begun, is told."""
    work = Work()

    async def begun(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, notification("notifications/message"))
        await work(request, message)
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        return response

    bench.server.on["tools/call"] = begun
    await bench.start(drain_timeout="30s")
    session = await bench.initialize()
    async with bench.request("POST", call("x"), session=session) as answer:
        await read_events(answer.content, 1)
        draining = asyncio.create_task(bench.proxy.drain())
        await until(lambda: bench.endpoint.draining)
        work.go_on.set()
        assert b'"result"' in await answer.read()
    await until(lambda: any(each.quiet_looks for each in bench.listener.connections))
    late = await bench.post(call("late", "ping"), session=session)
    assert late.error == ("late", -32603, "draining")
    assert late.headers["Connection"] == "close"
    await draining


async def test_a_stream_takes_its_connection_along(bench: Bench) -> None:
    """What its client asked on that afterwards would only be refused: a new one may lead to a successor."""
    await bench.start(connection_idle_timeout="1h")
    session = await bench.initialize()
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(
        b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
        b"Mcp-Session-Id: %b\r\n\r\n" % session.encode()
    )
    await until(lambda: any(each.follows for each in bench.listener.connections))
    await bench.proxy.front.shut()
    bench.proxy.core.binder.end_streams()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_drain_cuts_off_what_takes_too_long(bench: Bench) -> None:
    """After the drain timeout a call is answered all the same, and the server is told to stop."""
    work = Work()
    told: list[Any] = []
    bench.server.on["tools/call"] = work
    await bench.start(drain_timeout="50ms")
    watch(bench, told.append)
    async with bench.asking(call("x")) as asking:
        await work.started.wait()
        await bench.proxy.drain()
        answer = await asking
    assert (answer.status, answer.error) == (503, ("x", -32603, "draining"))
    assert answer.headers["Retry-After"] == "1"
    assert bench.server.deleted == ["upstream-1"]
    assert [event.cut_off for event in told if event.name == "proxy.stopped"] == [1]


@pytest.mark.slow
async def test_drain_sends_waiters_away(bench: Bench) -> None:
    """Requests that wait for a session are answered, and what was half open is closed at the server."""
    opening = asyncio.Event()

    async def stuck(_: web.Request, __: Any) -> web.StreamResponse:
        opening.set()
        await asyncio.Event().wait()
        return web.Response(status=202)

    bench.server.on["notifications/initialized"] = stuck
    await bench.start(acquire_timeout="30s")
    async with bench.asking(call("x")) as asking:
        await opening.wait()
        await bench.proxy.drain()
        answer = await asking
    assert (answer.status, answer.error[2]) == (503, "draining")
    assert bench.server.deleted == ["upstream-1"]


@pytest.mark.slow
async def test_drain_in_the_middle_of_a_handshake(bench: Bench) -> None:
    """A session whose id is on its way to us when we leave is given back all the same."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request, message: Any) -> web.StreamResponse:
        response = bench.server.open_session(message)
        asked.set()
        await answer.wait()
        return response

    bench.server.on["initialize"] = slow
    await bench.start()
    async with bench.asking(call()) as asking:
        await asked.wait()
        draining = asyncio.create_task(bench.proxy.drain())
        assert (await asking).error[2] == "draining"
        assert not draining.done()
        answer.set()
        await draining
    assert (bench.server.sessions, bench.server.deleted) == ({}, ["upstream-1"])


async def test_drain_does_not_wait_for_a_server_that_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes no DELETE does not hold up the end."""
    monkeypatch.setattr(streamable_http, "_GOODBYE_SECONDS", (0.05, 0.05))

    async def stuck(_: web.Request, __: Any) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    bench.server.on["DELETE"] = stuck
    await bench.start()
    await bench.post(call())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await bench.proxy.drain()


async def test_client_that_left_does_not_lose_its_call(bench: Bench) -> None:
    """A call whose client has gone is finished before the end, too."""
    work = Work()
    bench.server.on["tools/call"] = work
    await bench.start(drain_timeout="30s")
    session = await bench.initialize()
    async with bench.asking(call(), session=session):
        await work.started.wait()
    draining = asyncio.create_task(bench.proxy.drain())
    await until(lambda: bench.endpoint.draining)
    assert not draining.done()
    work.go_on.set()
    await draining
    assert bench.server.posts("notifications/cancelled") == []


# -- as a program ----------------------------------------------------------------------------------


@asynccontextmanager
async def program(bench: Bench, tmp_path: Path, *options: str) -> AsyncIterator[Any]:
    """The program, running; gives the process and the URLs that it announced."""
    announced = tmp_path / "announced.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mcp_session_proxy", "serve", bench.server.url),
        *("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--announce", str(announced), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            while not announced.exists() and process.returncode is None:
                await asyncio.sleep(0.01)
        yield process, json.loads(announced.read_text()) if announced.exists() else None
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
async def test_signal_ends_the_program(bench: Bench, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C drain, give the sessions back, and end with status 0."""
    async with program(bench, tmp_path) as (process, urls):
        async with bench.http.post(urls["endpoint"], json=call()) as response:
            assert response.status == 200
        process.send_signal(number)
        _, errors = await process.communicate()
        assert process.returncode == 0
    assert b"Traceback" not in errors
    assert urls["endpoint"].encode() in errors
    assert bench.server.deleted == ["upstream-1"]


@pytest.mark.slow
async def test_second_signal_ends_the_program_at_once(bench: Bench, tmp_path: Path) -> None:
    """Who asks twice does not want to wait."""
    work = Work()
    bench.server.on["tools/call"] = work
    async with program(bench, tmp_path, "--drain-timeout", "10m") as (process, urls):
        asking = asyncio.create_task(bench.http.post(urls["endpoint"], json=call()))
        await work.started.wait()
        process.terminate()
        async with asyncio.timeout(30):
            while True:
                async with bench.http.get(f"{urls['admin']}/readyz") as response:
                    if (await response.json())["status"] == "draining":
                        break
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 1
        with pytest.raises(aiohttp.ClientError):
            await asking


@pytest.mark.slow
async def test_program_that_cannot_listen(bench: Bench, tmp_path: Path) -> None:
    """The program says so in one line and ends with status 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with program(bench, tmp_path, "--listen", address) as (process, urls):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert urls is None
    lines = [line for line in errors.decode().splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith(f"mcp-session-proxy: cannot listen on {address} (")
