"""A new configuration under way: each option that can change really does, in a proxy that runs."""

import asyncio
import contextlib
import io
import json
import logging
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from certificates import Authority
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import INITIALIZE, call
from proxy_bench import PATIENCE_SECONDS, Answer, Bench, until
from stdio_bench import StdioBench

from mcp_session_proxy.assembly import proxy as assembly
from mcp_session_proxy.downstream.passthrough import Passthrough
from mcp_session_proxy.events import Level
from mcp_session_proxy.ops import logs
from mcp_session_proxy.settings.config import LogFormat, Settings
from mcp_session_proxy.settings.kinds import Live
from mcp_session_proxy.store.sqlite import SqliteEngine
from mcp_session_proxy.upstream.http.streamable_http import StreamableHttp

META = "io.modelcontextprotocol/"
FORM = {"message": "Name?", "requestedSchema": {"type": "object", "properties": {}}}

TRIED: set[str] = set()
Test = TypeVar("Test", bound=Callable[..., Any])


def tries(*options: str) -> Callable[[Test], Test]:
    """Says which options a test is about."""
    TRIED.update(options)
    return lambda test: test


class Reloaded(Bench):
    """A bench whose proxy can be given other options."""

    told: list[Any]

    async def start(self, **options: Any) -> None:
        await super().start(**options)
        self.told = []
        self.watch(lambda event: self.told.append(event) if event.name.startswith("config.") else None)

    def change(self, **options: Any) -> None:
        """Reload with these options changed; all of them must take effect."""
        self.reload(**options)
        [event] = self.told
        assert event.name == "config.reloaded"
        assert event.changed == ", ".join(name.replace("_", "-") for name in options)
        assert event.needs_restart is None

    @property
    def sessions(self) -> int:
        """How many sessions the server holds."""
        return len(self.server.sessions)

    def pings(self) -> int:
        return len(self.server.posts("ping"))

    def hold(self) -> asyncio.Event:
        """Tool calls take until the event that is given is set."""
        go_on = asyncio.Event()

        async def tool(_: web.Request, message: Any) -> web.StreamResponse:
            await go_on.wait()
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {}})

        self.server.on["tools/call"] = tool
        return go_on

    def ask_clients(self) -> None:
        """Tool calls ask their client something, again and again."""
        # By the question: what one call asked may be refused when the next one has asked, too.
        answered: dict[int, asyncio.Event] = {}

        async def tool(request: web.Request, _: Any) -> web.StreamResponse:
            response = await begin_stream(request)
            for __ in range(10):
                number = len(answered)
                answered[number] = asyncio.Event()
                question = {"jsonrpc": "2.0", "id": number, "method": "elicitation/create", "params": FORM}
                await write_event(response, question)
                await answered[number].wait()
            return response

        async def response(_: web.Request, message: Any) -> web.StreamResponse:
            answered[message["id"]].set()
            return web.Response(status=202)

        self.server.on |= {"tools/call": tool, "response": response}

    async def ask(self, method: str = "tools/call", **params: Any) -> Answer:
        """A modern request."""
        params["_meta"] = {
            f"{META}protocolVersion": "2026-07-28",
            f"{META}clientCapabilities": params.pop("capabilities", {"elicitation": {"form": {}}}),
            f"{META}clientInfo": {"name": "m", "version": "1"},
        }
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        if method == "tools/call":
            params["name"] = headers["Mcp-Name"] = "count"
        return await self.post(call(1, method, **params), headers=headers)

    async def answer(self, asked: Answer) -> Answer:
        """The retry of a request that was asked something."""
        [key] = asked.json["result"]["inputRequests"]
        answers = {key: {"action": "accept", "content": {}}}
        return await self.ask(inputResponses=answers, requestState=asked.json["result"]["requestState"])


class Held:
    """A tool that ends when it is told to."""

    def __init__(self) -> None:
        self.began, self.end = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: web.Request, message: Any) -> web.StreamResponse:
        self.began.set()
        await self.end.wait()
        return reply_to(message, {})


@pytest.fixture
async def bench(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reloaded]:
    """A client and a server; the proxy between them looks after things often."""
    monkeypatch.setattr(assembly, "_MAINTENANCE_SECONDS", 0.005)
    level = logging.getLogger().level
    async with Reloaded(server) as bench:
        yield bench
    logging.getLogger().setLevel(level)


def live() -> set[str]:
    fields = Settings.model_fields.items()
    return {name for name, field in fields if any(isinstance(item, Live) for item in field.metadata)}


# -- listening -------------------------------------------------------------------------------------


@tries("admin_token")
async def test_admin_token(bench: Reloaded) -> None:
    """Operators show the new token from now on; the old one is worth nothing."""
    await bench.start(admin_listen="127.0.0.1:0", admin_token="old")
    bench.change(admin_token="new")
    for token, status in (("old", 401), ("new", 200)):
        headers = {"Authorization": f"Bearer {token}"}
        async with bench.http.post(f"{bench.proxy.admin_url}/api/v1/pause", headers=headers) as response:
            assert response.status == status


# -- sessions --------------------------------------------------------------------------------------


@tries("unknown_session")
async def test_unknown_session(bench: Reloaded) -> None:
    """Ids from elsewhere are refused from now on."""
    await bench.start()
    assert (await bench.post(call(), session="mine")).status == 200
    bench.change(unknown_session="reject")
    assert (await bench.post(call(), session="yours")).status == 404


@tries("delete_status")
async def test_delete_status(bench: Reloaded) -> None:
    """The next DELETE gets the new answer."""
    await bench.start()
    for status in (405, 204):
        async with bench.request("DELETE", session=await bench.initialize()) as response:
            assert response.status == status
        if status == 405:
            bench.change(delete_status="204")


@tries("on_stop")
async def test_on_stop(bench: Reloaded, tmp_path: Path) -> None:
    """What becomes of sessions at the end is what was chosen last."""
    await bench.start(state_dir=str(tmp_path / "state"), on_stop="end")
    await bench.initialize()
    bench.change(on_stop="keep")
    await bench.stop()
    assert not bench.server.deleted


@tries("linger")
async def test_linger(bench: Reloaded) -> None:
    """A session that lingers already goes by the new time."""
    await bench.start(sharing="isolated", linger="1h")
    async with bench.request("DELETE", session=await bench.initialize()):
        pass
    bench.change(linger="0s")
    await until(lambda: bench.server.deleted)


@tries("reconnect_grace")
async def test_reconnect_grace(bench: Reloaded) -> None:
    """A client whose stream has closed already is taken for gone."""
    await bench.start(reconnect_grace="1h", max_sessions=1, acquire_timeout="1h")
    session = await bench.initialize()
    async with bench.request("GET", session=session) as response:
        assert response.status == 200
        await until(lambda: bench.endpoint.streams)
        response.close()
    await until(lambda: not bench.endpoint.streams)
    async with bench.asking(INITIALIZE) as asking:
        await until(lambda: len(bench.proxy.core.pool.queue))
        bench.change(reconnect_grace="0s")
        assert (await asking).status == 200


@tries("detach_after")
async def test_detach_after(bench: Reloaded) -> None:
    """A client that is silent already is taken for gone."""
    await bench.start(detach_after="1h", max_sessions=1, acquire_timeout="1h")
    await bench.post(call(), session=await bench.initialize())
    async with bench.asking(INITIALIZE) as asking:
        await until(lambda: len(bench.proxy.core.pool.queue))
        bench.change(detach_after="0s")
        assert (await asking).status == 200


@tries("acquire_timeout")
async def test_acquire_timeout(bench: Reloaded) -> None:
    """The next request waits no longer than it now may."""
    await bench.start(max_sessions=1, acquire_timeout="1h")
    await bench.initialize()
    bench.change(acquire_timeout="10ms")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await bench.post(INITIALIZE)).error == (0, -32603, "acquire-timeout")
    assert bench.proxy.core.fleet.rules.patience_seconds == 0.01


@tries("min_idle")
async def test_min_idle(bench: Reloaded) -> None:
    """A reserve is built with the next request."""
    await bench.start(sharing="fresh")
    await bench.post(call())
    await until(lambda: bench.sessions == 0)
    bench.change(min_idle=2)
    await bench.post(call())
    await until(lambda: bench.sessions == 2)


@pytest.fixture
async def hanging() -> AsyncIterator[StdioBench]:
    """To be started before a command that never answers a handshake."""
    async with HttpServer() as nobody, StdioBench(nobody) as bench:
        yield bench


@tries("stdio_spawns")
@pytest.mark.slow
async def test_stdio_spawns(hanging: StdioBench) -> None:
    """Who waits for a start need not wait for the end of another one."""
    await hanging.start("--at", "initialize", "hang", stdio_spawns=1)
    async with hanging.asking(call()), hanging.asking(call(), headers={"Authorization": "ada"}):
        await until(lambda: hanging.told("child.started"))
        await asyncio.sleep(0)
        assert hanging.children == 1
        hanging.reload(stdio_spawns=2)
        await until(lambda: hanging.children == 2)


@tries("stdio_start_timeout")
@pytest.mark.slow
async def test_stdio_start_timeout(hanging: StdioBench) -> None:
    """The next child has the new time."""
    await hanging.start("--at", "initialize", "hang", stdio_start_timeout="1h")
    hanging.reload(stdio_start_timeout="10ms")
    assert (await hanging.post(call())).error == (1, -32603, "upstream-timeout")


@tries("max_buffered_events")
async def test_max_buffered_events(bench: Reloaded) -> None:
    """Old mailboxes keep as much as new ones."""
    await bench.start(max_buffered_events=1)
    await bench.initialize()
    [client] = bench.proxy.core.binder.directory
    old = bench.proxy.core.delivery.mailbox(client).standalone
    bench.change(max_buffered_events=3)
    await bench.post(INITIALIZE)
    new = bench.proxy.core.delivery.mailbox([*bench.proxy.core.binder.directory][1]).standalone
    for stream in (old, new):
        for _ in range(5):
            stream.append(b"x")
        assert len(stream.after(0)) == 3


@tries("max_header_bytes")
async def test_max_header_bytes(bench: Reloaded) -> None:
    """The next connection may send larger headers."""
    await bench.start(max_header_bytes="1KiB")
    headers = {"X-Large": "x" * 2000}
    assert (await bench.post(call(), headers=headers)).status == 431
    bench.change(max_header_bytes="4KiB")
    assert (await bench.post(call(), headers=headers)).status == 200


@tries("max_json_depth")
async def test_max_json_depth(bench: Reloaded) -> None:
    """The next message may be deeper, the server's, too."""
    await bench.start(max_json_depth=3)

    async def tool(_: web.Request, message: Any) -> web.StreamResponse:
        result = {"a": {"b": {"c": 1}}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    bench.server.on["tools/call"] = tool
    deep = call(1, arguments={"a": {"b": 1}})
    assert (await bench.post(deep)).error == (1, -32700, "json-too-deep")
    assert (await bench.post(call())).error == (1, -32603, "upstream-protocol-error")
    bench.change(max_json_depth=4)
    assert (await bench.post(deep)).json["result"] == {"a": {"b": {"c": 1}}}


@tries("event_linger")
async def test_event_linger(bench: Reloaded) -> None:
    """What has ended already goes as soon as new streams would."""
    await bench.start(event_linger="1h")
    await bench.initialize()
    [client] = bench.proxy.core.binder.directory
    mailbox = bench.proxy.core.delivery.mailbox(client)
    mailbox.open().close(reached_at=asyncio.get_running_loop().time())
    bench.proxy.core.delivery.maintain()
    assert len(mailbox.streams) == 2
    bench.change(event_linger="0s")
    bench.proxy.core.delivery.maintain()
    assert len(mailbox.streams) == 1


@tries("event_ttl", "event_store_bytes")
async def test_event_store(bench: Reloaded, tmp_path: Path) -> None:
    """What is written next is kept for as long as was chosen last, and only as much as was."""
    await bench.start(state_dir=str(tmp_path / "state"), event_ttl="1h")
    await bench.initialize()
    [client] = bench.proxy.core.binder.directory
    stream = bench.proxy.core.delivery.mailbox(client).standalone

    def kept() -> list[float]:
        """For how long each stream is kept from now on."""
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.db")) as db:
            return [until - time.time() for (until,) in db.execute("SELECT until FROM event_streams")]

    stream.append(b"{}")
    await until(kept)
    assert kept()[0] > 3000
    bench.change(event_ttl="10m")
    stream.append(b"{}")
    await until(lambda: kept()[0] < 1000)
    bench.told.clear()
    bench.change(event_ttl="5m", event_store_bytes="1")
    stream.append(b"{}")
    await until(lambda: not kept())


# -- modern clients --------------------------------------------------------------------------------


@tries("max_parked", "max_parked_per_principal")
async def test_max_parked(bench: Reloaded) -> None:
    """There is room for one more call."""
    for option in ("max_parked", "max_parked_per_principal"):
        await bench.start(**{option: 0})
        bench.ask_clients()
        assert (await bench.ask()).error == (1, -32603, "too-many-parked")
        bench.change(**{option: 1})
        assert (await bench.ask()).json["result"]["resultType"] == "input_required"


@tries("max_rounds")
async def test_max_rounds(bench: Reloaded) -> None:
    """The server may ask once more."""
    await bench.start(max_rounds=1)
    bench.ask_clients()
    assert (await bench.answer(await bench.ask())).error == (1, -32603, "too-many-rounds")
    bench.change(max_rounds=2)
    asked_again = await bench.answer(await bench.ask())
    assert asked_again.json["result"]["resultType"] == "input_required"
    assert (await bench.answer(asked_again)).error == (1, -32603, "too-many-rounds")


@tries("park_timeout")
async def test_park_timeout(bench: Reloaded) -> None:
    """Calls that are parked from now on wait for less."""
    await bench.start()
    bench.ask_clients()
    bench.change(park_timeout="10ms")
    await bench.ask()
    await until(lambda: len(bench.proxy.core.parking) == 0)


KNOWS_TASKS: dict[str, Any] = {"extensions": {f"{META}tasks": {}}}


@tries("max_tasks", "max_tasks_per_principal")
async def test_max_tasks(bench: Reloaded) -> None:
    """There is room for one."""
    for option in ("max_tasks", "max_tasks_per_principal"):
        await bench.start(**{option: 0}, task_after="1ms")
        bench.hold().set()
        assert "resultType" in (await bench.ask(capabilities=KNOWS_TASKS)).json["result"]
        go_on = bench.hold()
        bench.change(**{option: 1})
        assert (await bench.ask(capabilities=KNOWS_TASKS)).json["result"]["resultType"] == "task"
        go_on.set()


@tries("task_after", "task_ttl")
async def test_task_after(bench: Reloaded) -> None:
    """The next call that takes longer becomes a task, which is kept for so long."""
    await bench.start()
    go_on = bench.hold()
    bench.change(task_ttl="90s", task_after="1ms")
    result = (await bench.ask(capabilities=KNOWS_TASKS)).json["result"]
    assert (result["resultType"], result["ttlMs"]) == ("task", 90_000)
    go_on.set()


@tries("cache_ttl", "cache_scope")
async def test_cache_ttl(bench: Reloaded) -> None:
    """The next list says how long it may be kept, and by whom."""
    await bench.start()
    listed = (await bench.ask("tools/list")).json["result"]
    assert (listed["ttlMs"], listed["cacheScope"]) == (0, "private")
    bench.change(cache_ttl=["tools/list=60000"], cache_scope="public")
    listed = (await bench.ask("tools/list")).json["result"]
    assert (listed["ttlMs"], listed["cacheScope"]) == (60000, "public")


@tries("upstream_era")
async def test_upstream_era(bench: Reloaded) -> None:
    """Modern requests reach the server as they are, or as calls of a session."""
    await bench.start()
    assert (await bench.ask()).json["result"]["count"] == 1
    bench.change(upstream_era="modern")
    assert (await bench.ask()).status == 404  # the server's own answer to what names no session
    bench.told.clear()
    bench.change(upstream_era="legacy")
    assert (await bench.ask()).json["result"]["count"] == 2


@tries("serve_eras")
async def test_serve_eras(bench: Reloaded) -> None:
    """Who is refused from now on: the ones or the others."""
    await bench.start()
    bench.change(serve_eras="legacy")
    assert [(await bench.ask()).status, (await bench.post(INITIALIZE)).status] == [400, 200]
    bench.told.clear()
    bench.change(serve_eras="modern")
    assert [(await bench.ask()).status, (await bench.post(INITIALIZE)).status] == [200, 400]


# -- limits ----------------------------------------------------------------------------------------


@tries("max_sessions", "max_sessions_per_principal")
async def test_max_sessions(bench: Reloaded) -> None:
    """Who waits for room gets it at once; who is idle over a lower limit goes."""
    for option in ("max_sessions", "max_sessions_per_principal"):
        await bench.start(**{option: 1})
        await bench.initialize()
        async with bench.asking(INITIALIZE) as asking:
            await until(lambda: len(bench.proxy.core.pool.queue))
            bench.change(**{option: 2})
            assert (await asking).status == 200
        bench.told.clear()
        before = bench.sessions
        await until(lambda: len([*bench.proxy.core.pool.books.slots()]) == 2)
        for client in list(bench.proxy.core.binder.directory):
            bench.proxy.core.binder.forget(client, "age")
        bench.change(**{option: 1})  # whoever is idle makes room
        await until(lambda: bench.sessions == before - 1)  # noqa: B023


@tries("max_client_sessions", "max_client_sessions_per_principal")
async def test_max_client_sessions(bench: Reloaded) -> None:
    """What is over a lower limit is forgotten."""
    for option in ("max_client_sessions", "max_client_sessions_per_principal"):
        await bench.start(sharing="shared")
        for _ in range(4):
            await bench.initialize()
        bench.change(**{option: 2})
        await bench.initialize()
        assert len(bench.proxy.core.binder.directory) == 2


@tries("max_waiters")
@pytest.mark.slow
async def test_max_waiters(bench: Reloaded) -> None:
    """One more may wait."""
    await bench.start(max_sessions=1, max_waiters=0)
    await bench.initialize()
    assert (await bench.post(INITIALIZE)).error == (0, -32603, "too-many-waiters")
    bench.change(max_waiters=1)
    async with bench.asking(INITIALIZE):
        await until(lambda: len(bench.proxy.core.pool.queue) == 1)


@tries("max_requests_per_session")
async def test_max_requests_per_session(bench: Reloaded) -> None:
    """A session that has served for long enough by now is closed."""
    await bench.start()
    for number in range(3):
        assert (await bench.post(call(number))).json["result"] == {"count": number + 1}
    bench.change(max_requests_per_session=1)
    await until(lambda: bench.server.deleted)


@tries("open_concurrency")
@pytest.mark.slow
async def test_open_concurrency(bench: Reloaded) -> None:
    """Who waits for a handshake gets one of its own."""
    bench.server.hold_up_handshakes()
    await bench.start()
    async with bench.asking(INITIALIZE), bench.asking(INITIALIZE):
        await until(lambda: len(bench.proxy.core.pool.queue) == 2)
        await until(lambda: len(bench.server.posts("initialize")) == 1)
        bench.change(open_concurrency=2)
        await until(lambda: len(bench.server.posts("initialize")) == 2)


@tries("max_connections")
async def test_max_connections(bench: Reloaded) -> None:
    """One more may connect while something is under way on the first."""
    await bench.start(max_connections=1)
    go_on = bench.server.hold_up_handshakes()
    async with bench.asking(INITIALIZE) as first:
        await until(lambda: bench.server.posts("initialize"))
        with pytest.raises(aiohttp.ClientError):
            async with bench.request("OPTIONS"):
                pass
        bench.change(max_connections=2)
        async with bench.request("OPTIONS") as second:
            assert second.status == 204
        go_on.set()
        assert (await first).status == 200


@tries("max_body_bytes")
async def test_max_body_bytes(bench: Reloaded) -> None:
    """A larger body is taken, even larger ones are not."""
    await bench.start(max_body_bytes=1000)
    large = call(arguments={"text": "x" * 1000})
    assert (await bench.post(large)).status == 413
    bench.change(max_body_bytes=2000)
    assert (await bench.post(large)).status == 200
    assert (await bench.post(call(arguments={"text": "x" * 2000}))).status == 413


@tries("breaker_threshold", "breaker_reset")
async def test_breaker_threshold(bench: Reloaded) -> None:
    """Failures that were counted before count, and the pause is the new one."""

    async def broken(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(status=500)

    bench.server.on["initialize"] = broken
    await bench.start(breaker_threshold=100, breaker_reset="1h")
    for _ in range(3):
        assert (await bench.post(call())).status == 502
    bench.change(breaker_threshold=1, breaker_reset="1ms")
    assert (await bench.post(call())).status == 502
    [replica] = bench.proxy.core.fleet.replicas
    assert replica.breakers.shown(0.0).state == "open"
    del bench.server.on["initialize"]
    await asyncio.sleep(0.002)
    assert (await bench.post(call())).status == 200


@tries("max_exchanges")
async def test_max_exchanges(bench: Reloaded) -> None:
    """The next request finds the new limit."""
    await bench.start()
    tool = bench.server.on["tools/call"] = Held()
    async with bench.asking(call()):
        await tool.began.wait()
        bench.change(max_exchanges="1")
        assert (await bench.post(call(method="ping"))).status == 503
        tool.end.set()


@tries("max_exchanges_per_principal")
async def test_max_exchanges_per_principal(bench: Reloaded) -> None:
    """So does the next request of the caller."""
    await bench.start()
    tool = bench.server.on["tools/call"] = Held()
    async with bench.asking(call()):
        await tool.began.wait()
        bench.change(max_exchanges_per_principal="1")
        assert (await bench.post(call(method="ping"))).status == 503
        tool.end.set()


@tries("memory_budget")
async def test_memory_budget(bench: Reloaded) -> None:
    """Bodies are refused by the new budget."""
    await bench.start()
    assert (await bench.post(call(pad="x" * 100_000))).status == 200
    bench.change(memory_budget="100KB")
    assert (await bench.post(call(pad="x" * 100_000))).status == 503


@tries("max_inflight_bytes")
async def test_max_inflight_bytes(bench: Reloaded) -> None:
    """So are they by the new share of bodies."""
    await bench.start()
    assert (await bench.post(call(pad="x" * 100_000))).status == 200
    bench.change(max_inflight_bytes="50KB")
    assert (await bench.post(call(pad="x" * 100_000))).status == 503


# -- timeouts --------------------------------------------------------------------------------------


@tries("request_timeout")
async def test_request_timeout(bench: Reloaded) -> None:
    """Servers get less time for the next request."""
    await bench.start()
    await bench.post(call())
    bench.hold()
    bench.change(request_timeout="20ms")
    assert (await bench.post(call())).error == (1, -32603, "upstream-timeout")


@tries("connect_timeout")
async def test_connect_timeout(bench: Reloaded) -> None:
    """All ways to the server go by the new time."""
    await bench.start(upstream_transport="http")
    bench.change(connect_timeout="7s")
    # Every network that could be trusted to leave a connection hanging is somebody else's.
    [transport], [passing] = bench.proxy.transports.transports, bench.proxy.front._passing.values()
    assert isinstance(transport, StreamableHttp)
    assert isinstance(passing, Passthrough)
    assert [each.connect_seconds for each in (transport._usual_patience, transport.patience(None))] == [7, 7]
    assert passing.rules.timeout.sock_connect == 7


@tries("idle_timeout")
async def test_idle_timeout(bench: Reloaded) -> None:
    """A session that is idle already goes by the new time."""
    await bench.start()
    await bench.post(call())
    bench.change(idle_timeout="1ms")
    await until(lambda: bench.server.deleted)


@tries("max_lifetime")
async def test_max_lifetime(bench: Reloaded) -> None:
    """A session that is old already is closed."""
    await bench.start()
    await bench.post(call())
    bench.change(max_lifetime="1ms")
    await until(lambda: bench.server.deleted)


@tries("handshake_timeout")
async def test_handshake_timeout(bench: Reloaded) -> None:
    """The next handshake takes no longer than it now may, be it of a new session or of one that was lost."""
    await bench.start(handshake_timeout="1h")
    session = await bench.initialize()
    bench.change(handshake_timeout="10ms")
    bench.server.hold_up_handshakes()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await bench.post(INITIALIZE)).error == (0, -32603, "upstream-timeout")
        bench.server.sessions.clear()
        assert (await bench.post(call(), session=session)).error == (1, -32603, "session-lost")


@tries("check_after")
async def test_check_after(bench: Reloaded) -> None:
    """A session that is there already is pinged before its next request."""
    await bench.start(check_after="0s")
    await bench.post(call())
    bench.change(check_after="1ms")
    await asyncio.sleep(0.002)
    assert bench.pings() == 0
    await bench.post(call())
    assert bench.pings() == 1


@tries("keepalive")
async def test_keepalive(bench: Reloaded) -> None:
    """A session that is there already is pinged as often as it now should be."""
    await bench.start()
    await bench.post(call())
    bench.change(keepalive="10ms")
    await until(lambda: bench.pings() > 1)


@tries("client_session_timeout")
async def test_client_session_timeout(bench: Reloaded) -> None:
    """A client session that is there already is forgotten."""
    await bench.start()
    await bench.initialize()
    bench.change(client_session_timeout="1ms")
    await until(lambda: len(bench.proxy.core.binder.directory) == 0)


@tries("heartbeat")
async def test_heartbeat(bench: Reloaded) -> None:
    """An answer that is waited for already gets heartbeats, and so do new streams."""
    await bench.start(heartbeat="1h")
    bench.hold()
    accept = "text/event-stream, application/json"
    posting = asyncio.create_task(bench.request("POST", call(), accept=accept).__aenter__())
    await until(lambda: bench.server.posts("tools/call"))
    assert not posting.done()
    bench.change(heartbeat="10ms")
    async with asyncio.timeout(PATIENCE_SECONDS), await posting as response:
        assert await response.content.readline() == b": keep-alive\n"
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        bench.request("GET", session=await bench.initialize()) as stream,
    ):
        beats = 0
        while beats < 3:
            beats += await stream.content.readline() == b": keep-alive\n"


@tries("heartbeat_format", "json_patience")
@pytest.mark.parametrize("option", [{"heartbeat_format": "sse"}, {"json_patience": "0s"}])
async def test_patience_for_json(bench: Reloaded, option: dict[str, str]) -> None:
    """An answer that is waited for already need not be JSON any more."""
    await bench.start(heartbeat="10ms", json_patience="1h")
    bench.hold()
    posting = asyncio.create_task(bench.request("POST", call()).__aenter__())
    await until(lambda: bench.server.posts("tools/call"))
    bench.change(**option)
    async with asyncio.timeout(PATIENCE_SECONDS), await posting as response:
        assert await response.content.readline() == b": keep-alive\n"


@tries("drain_timeout")
async def test_drain_timeout(bench: Reloaded) -> None:
    """The end comes when it now should."""
    await bench.start(drain_timeout="1h")
    bench.hold()
    async with bench.asking(call()) as asking:
        await until(lambda: bench.server.posts("tools/call"))
        bench.change(drain_timeout="1ms")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await bench.proxy.drain()
        assert (await asking).error == (1, -32603, "draining")


@tries("store_outage")
async def test_store_outage(bench: Reloaded, tmp_path: Path) -> None:
    """Who cannot reach the store once its lease has run out serves, or refuses."""
    await bench.start(state_dir=str(tmp_path / "state"), lease="50ms")
    state = bench.proxy._state
    assert state is not None
    engine = state._store.engine
    assert isinstance(engine, SqliteEngine)
    await engine.file.run(lambda: engine._db.execute("PRAGMA query_only=ON").fetchone())
    await until(lambda: not state.membership.up)
    assert (await bench.post(call())).status == 200
    bench.change(store_outage="refuse")
    await until(lambda: not state.membership.is_sure)
    assert (await bench.post(call())).error[2] == "store-unavailable"


# -- safety, logging -------------------------------------------------------------------------------


@tries("allowed_origin", "allowed_host")
async def test_allowed_origin(bench: Reloaded) -> None:
    """Another page, and another name, are let in."""
    await bench.start()
    page = {"Origin": "https://app.example.com"}
    name = {"Host": "mcp.example.com"}
    assert [(await bench.post(call(), headers=headers)).status for headers in (page, name)] == [403, 403]
    bench.change(allowed_origin=["https://app.example.com"], allowed_host=["mcp.example.com", "127.0.0.1"])
    assert [(await bench.post(call(), headers=headers)).status for headers in (page, name)] == [200, 200]


@tries("log_level")
async def test_log_level(bench: Reloaded) -> None:
    """More is logged."""
    stream = io.StringIO()
    logs.configure(Level.ERROR, LogFormat.JSON, stream)
    await bench.start(log_level="error")
    await bench.post(call())
    logging.getLogger("library").warning("careful")
    assert stream.getvalue() == ""
    bench.change(log_level="debug")
    await bench.post(call())
    logging.getLogger("library").warning("careful")
    written = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert {"request.finished", "careful"} <= set(written)


@tries("passthrough")
async def test_passthrough(bench: Reloaded) -> None:
    """The next request for another page is judged by the new rule."""
    await bench.start()
    for passing, status in (("all", 404), ("none", 404)):
        bench.server.seen.clear()
        async with bench.http.get(f"{bench.proxy.listen_url}/page") as response:
            assert response.status == status
        assert len(bench.server.seen) == (passing == "all")
        if passing == "all":
            bench.change(passthrough="none")


@tries("trusted_proxy")
async def test_trusted_proxy(bench: Reloaded) -> None:
    """What a proxy in front of us says of its client reaches the server once that proxy is trusted."""
    await bench.start()
    for expected in ("127.0.0.1", "192.0.2.1"):
        async with bench.http.get(f"{bench.proxy.listen_url}/page", headers={"X-Forwarded-For": "192.0.2.1"}):
            assert bench.server.seen[-1][0].headers["X-Forwarded-For"] == expected
        if expected == "127.0.0.1":
            bench.change(trusted_proxy="127.0.0.0/8")


async def test_trusted_proxy_on_a_connection_that_is_open(bench: Reloaded) -> None:
    """What was judged of an earlier request of the same connection does not outlive the rules."""
    await bench.start()
    for expected in ("127.0.0.1", "192.0.2.1"):
        for _ in range(2):
            assert (await bench.post(call(), headers={"X-Forwarded-For": "192.0.2.1"})).status == 200
            assert bench.server.posts("tools/call")[-1][0].headers["X-Forwarded-For"] == expected
        if expected == "127.0.0.1":
            bench.change(trusted_proxy="127.0.0.0/8")


async def test_allowed_origin_on_a_connection_that_is_open(bench: Reloaded) -> None:
    """A page that may call no longer is refused at its next request, over whatever connection."""
    await bench.start(allowed_origin="https://page.example")
    page = {"Origin": "https://page.example"}
    for _ in range(2):
        answer = await bench.post(call(), headers=page)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, page["Origin"])
    bench.change(allowed_origin="https://other.example")
    answer = await bench.post(call(), headers=page)
    assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (403, False)


# -- TLS -------------------------------------------------------------------------------------------


async def _shown(bench: Reloaded, context: Any) -> str:
    """The name on the certificate that a new connection is shown; empty if there is none."""
    host, _, port = bench.proxy.listen_url.removeprefix("https://").partition(":")
    context.check_hostname = False
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except (OSError, asyncio.IncompleteReadError):
        return ""
    subject = writer.get_extra_info("peercert")["subject"]
    writer.transport.abort()
    return str(next(value for pairs in subject for key, value in pairs if key == "commonName"))


@tries("tls_cert", "tls_key")
async def test_tls_cert(bench: Reloaded, tmp_path: Path) -> None:
    """New connections see the new certificate."""
    authority = Authority(tmp_path)
    (cert, key), (cert2, key2) = authority.issue("one.example"), authority.issue("two.example")
    await bench.start(tls_cert=str(cert), tls_key=str(key))
    assert await _shown(bench, authority.client_context()) == "one.example"
    bench.change(tls_cert=str(cert2), tls_key=str(key2))
    assert await _shown(bench, authority.client_context()) == "two.example"


@tries("tls_client_ca")
async def test_tls_client_ca(bench: Reloaded, tmp_path: Path) -> None:
    """Clients of the old authority are locked out, those of the new one let in."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("127.0.0.1")
    await bench.start(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(authority.file))
    clients = [authority.client_context(issuer.issue("c.example")) for issuer in (authority, other)]

    async def admitted(context: Any) -> bool:
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as http:
            try:
                async with http.post(bench.url, json=call()) as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

    assert [await admitted(context) for context in clients] == [True, False]
    bench.change(tls_client_ca=str(other.file))
    # Not even a client that took its old session up again would be let in.
    assert [await admitted(context) for context in clients] == [False, True]


@tries("upstream_cert", "upstream_key")
async def test_upstream_cert(bench: Reloaded, tmp_path: Path) -> None:
    """The server sees the new certificate."""
    authority = Authority(tmp_path)
    (cert, key), (cert2, key2) = authority.issue("one.example"), authority.issue("two.example")
    async with HttpServer(tls=authority.server_context(wants_client=True)) as server:
        bench.server = server
        await bench.start(upstream_ca=str(authority.file), upstream_cert=str(cert), upstream_key=str(key))
        bench.change(upstream_cert=str(cert2), upstream_key=str(key2))
        assert (await bench.post(call())).status == 200
        assert "two.example" in str(server.seen[0][0].get_extra_info("peercert"))
        await bench.proxy.drain()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_old_session_opens_the_door(
    bench: Reloaded, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A TLS session from before does not spare a client the check of its certificate."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("127.0.0.1")
    await bench.start(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(authority.file))
    context = authority.client_context(authority.issue("c.example"))
    context.minimum_version = context.maximum_version = version
    port = int(bench.proxy.listen_url.rpartition(":")[2])

    def visit(session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure:
            secure.sendall(b"OPTIONS /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            if not secure.recv(65536):
                raise ConnectionError
            return secure.session

    session = await asyncio.to_thread(visit, None)
    bench.change(tls_client_ca=str(other.file))
    with pytest.raises(OSError):  # noqa: PT011 - which one differs between the versions
        await asyncio.to_thread(visit, session)


async def test_renewed_files(bench: Reloaded, tmp_path: Path) -> None:
    """Files under the same names are read again, on both sides, though no option has changed."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("proxy.example")
    async with HttpServer(tls=authority.server_context(wants_client=True)) as server:
        bench.server = server
        tls = {
            "tls_cert": str(cert),
            "tls_key": str(key),
            "upstream_cert": str(cert),
            "upstream_key": str(key),
        }
        await bench.start(upstream_ca=str(authority.file), **tls)
        (cert2, key2), context = authority.issue("renewed.example"), authority.client_context()
        cert.write_bytes(cert2.read_bytes())
        key.write_bytes(key2.read_bytes())
        assert await _shown(bench, context) == "proxy.example"
        bench.reload()
        assert [event.name for event in bench.told] == ["config.reloaded"]
        assert await _shown(bench, context) == "renewed.example"
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.post(bench.url, json=call()) as response,
        ):
            assert response.status == 200
        assert "renewed.example" in str(server.seen[0][0].get_extra_info("peercert"))
        await bench.proxy.drain()


async def test_a_connection_keeps_its_certificate(bench: Reloaded, tmp_path: Path) -> None:
    """What is under way goes on."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    await bench.start(tls_cert=str(cert), tls_key=str(key))
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with aiohttp.ClientSession(connector=connector) as http:
        for _ in range(2):
            async with http.post(bench.url, json=call()) as response:
                assert response.status == 200
            bench.reload()
    assert bench.proxy.watchers.metrics.registry.get_sample_value(
        "mcp_session_proxy_config_reloads_total", {"outcome": "applied"}
    )


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"linger": "soon"}, "--linger: 'soon' is not allowed; it must be a duration"),
        (
            {"heartbeat": "1s", "tls_cert": "/c.pem"},
            "--tls-cert: '/c.pem' is not allowed; it needs --tls-key",
        ),
        ({"heartbeat": "1s", "config": "/none.toml"}, "--config: /none.toml cannot be read"),
    ],
)
async def test_a_wrong_configuration(bench: Reloaded, options: dict[str, str], problem: str) -> None:
    """It is told what is wrong, nothing changes, and the next attempt is a new one."""
    await bench.start()
    before = bench.proxy.settings
    bench.reload(**options)
    [event] = bench.told
    assert event.name == "config.reload_failed"
    assert event.problem.startswith(problem)
    assert bench.proxy.settings is before
    read = bench.proxy.watchers.metrics.registry.get_sample_value
    assert read("mcp_session_proxy_config_last_reload_successful") == 0
    bench.told.clear()
    bench.change(heartbeat="1s")
    assert read("mcp_session_proxy_config_last_reload_successful") == 1


async def test_a_broken_certificate(bench: Reloaded, tmp_path: Path) -> None:
    """Nothing changes if only one of the files is wrong; the old certificate goes on."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("proxy.example")
    await bench.start(tls_cert=str(cert), tls_key=str(key))
    key.write_text("half writt")
    bench.reload(heartbeat="1s")
    assert [event.name for event in bench.told] == ["config.reload_failed"]
    assert bench.proxy.settings.heartbeat == 15
    assert await _shown(bench, authority.client_context()) == "proxy.example"


async def test_a_broken_certificate_towards_the_server(bench: Reloaded, tmp_path: Path) -> None:
    """A new authority is not trusted either, until everything is right."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("proxy.example")
    tls = {"upstream_ca": str(authority.file), "upstream_cert": str(cert), "upstream_key": str(key)}
    async with HttpServer(tls=other.server_context()) as server:
        bench.server = server
        await bench.start(**tls)
        right = key.read_bytes()
        authority.file.write_bytes(other.file.read_bytes())
        key.write_text("half writt")
        bench.reload()
        assert [event.name for event in bench.told] == ["config.reload_failed"]
        assert (await bench.post(call())).status == 502
        key.write_bytes(right)
        bench.reload()
        assert (await bench.post(call())).status == 200
        await bench.proxy.drain()


async def test_what_needs_a_restart(bench: Reloaded) -> None:
    """It is named, and the rest is applied."""
    await bench.start()
    bench.reload(sharing="shared", heartbeat="1s", listen="127.0.0.1:1")
    [event] = bench.told
    assert (event.changed, event.needs_restart) == ("heartbeat", "listen, sharing")
    assert (bench.proxy.settings.heartbeat, bench.proxy.settings.sharing) == (1, "handover")


# -- all of them -----------------------------------------------------------------------------------


def test_every_live_option_is_tried() -> None:
    """What is marked as live has been seen to change."""
    assert live() == TRIED
