"""What the running proxy shows of itself, and what it never shows."""

import asyncio
from typing import Any

from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import call
from proxy_bench import Bench, read_events, until

from mcp_session_proxy.errors import UpstreamTimeout
from mcp_session_proxy.ops.introspection import Phase


async def test_readiness(bench: Bench) -> None:
    """Starting until the server was seen, ready while it is there, draining from the first signal on."""
    await bench.start()
    snapshot, monitor = bench.proxy.snapshot, bench.proxy.core.fleet.replicas[0].monitor
    found = []
    for up, draining in ((None, False), (True, False), (False, False), (True, True)):
        monitor.up = up
        if draining:
            bench.endpoint.drain()
        readiness = snapshot.readiness()
        found.append((readiness.phase, readiness.ready, readiness.total))
    assert found == [
        (Phase.STARTING, 0, 1),
        (Phase.READY, 1, 1),
        (Phase.UPSTREAM_DOWN, 0, 1),
        (Phase.DRAINING, 1, 1),
    ]


async def test_conditions(bench: Bench) -> None:
    """A server that takes connections but fails handshakes is told from one that is away."""
    await bench.start()
    snapshot, replica = bench.proxy.snapshot, bench.proxy.core.fleet.replicas[0]
    found = []
    for up, failures in ((None, 0), (False, 0), (True, 0), (True, 5)):
        replica.monitor.up = up
        for _ in range(failures):
            replica.breakers.common.failed(UpstreamTimeout("Too late."), asyncio.get_running_loop().time())
        found.append(snapshot.gauges().upstreams)
    assert found == [{"unknown": 1}, {"down": 1}, {"up": 1}, {"breaker-open": 1}]
    assert snapshot.gauges().limits["upstream_sessions"] == 1000


async def test_nothing_yet(bench: Bench) -> None:
    """A proxy that has done nothing shows nothing."""
    await bench.start()
    snapshot = bench.proxy.snapshot
    assert (list(snapshot.upstream_sessions()), list(snapshot.client_sessions())) == ([], [])
    gauges = snapshot.gauges()
    assert (gauges.client_sessions, gauges.waiters, gauges.exchanges_parked) == (0, 0, 0)
    assert set(gauges.upstream_sessions.values()) == {0}
    assert set(gauges.streams.values()) == {0}


async def test_sessions(bench: Bench) -> None:
    """Each session is shown with what it does now."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        started.set()
        await go_on.wait()
        return reply_to(message, {})

    async def stream(request: web.Request, _: Any) -> web.StreamResponse:
        await begin_stream(request)
        await asyncio.Event().wait()
        return web.Response()

    bench.server.on.update({"tools/call": work, "GET": stream})
    await bench.start()
    snapshot = bench.proxy.snapshot
    session = await bench.initialize()
    async with bench.asking(call(), session=session) as asking:
        await started.wait()
        [upstream] = snapshot.upstream_sessions()
        [client] = snapshot.client_sessions()
        gauges = snapshot.gauges()
        go_on.set()
        await asking
    assert (upstream.state, upstream.attached, upstream.in_flight, upstream.requests) == ("leased", 1, 1, 1)
    assert (upstream.protocol_version, upstream.client_name) == ("2025-11-25", "t")
    assert (upstream.affinity, upstream.stream) == (False, True)
    assert upstream.age_seconds >= upstream.idle_seconds >= 0
    assert (client.attached, client.in_flight, client.origin) == (True, 1, "minted")
    assert (client.upstream, client.idle_seconds) == (upstream.session, 0.0)
    assert gauges.client_sessions == 1
    assert gauges.upstream_sessions["leased"] == 1
    assert len(gauges.upstream_session_age_seconds) == 1
    assert gauges.streams["upstream"] == 1
    await until(lambda: not bench.endpoint.posts)
    [upstream] = snapshot.upstream_sessions()
    [client] = snapshot.client_sessions()
    assert (upstream.in_flight, client.in_flight) == (0, 0)


async def test_streams_and_foreign_ids(bench: Bench) -> None:
    """Clients' streams are counted; a session that was brought along is shown as such."""
    await bench.start()
    await bench.post(call(), session="brought")
    async with bench.request("GET", session="brought") as response:
        assert response.status == 200
        assert bench.proxy.snapshot.gauges().streams["client"] == 1
        [client] = bench.proxy.snapshot.client_sessions()
        assert (client.origin, client.affinity) == ("adopted", True)
    await until(lambda: bench.proxy.snapshot.gauges().streams["client"] == 0)


async def test_no_secrets(bench: Bench) -> None:
    """Neither credentials nor session ids, ours or the server's, are ever shown."""
    await bench.start()
    secret = {"Authorization": "Bearer sesame"}
    session = await bench.initialize(headers=secret)
    await bench.post(call(), session=session, headers=secret)
    await bench.post(call(), session="sesame-session", headers=secret)
    snapshot = bench.proxy.snapshot
    shown = repr([*snapshot.upstream_sessions(), *snapshot.client_sessions(), snapshot.gauges()])
    assert len(list(snapshot.client_sessions())) == 2
    for hidden in ("sesame", session, *bench.server.sessions):
        assert hidden not in shown


async def test_session_that_is_being_opened(bench: Bench) -> None:
    """A session without a handshake yet can be shown, too."""
    go_on = bench.server.hold_up_handshakes()
    await bench.start()
    async with bench.asking(call()) as asking:
        await until(lambda: bench.server.posts("initialize"))
        [upstream] = bench.proxy.snapshot.upstream_sessions()
        gauges = bench.proxy.snapshot.gauges()
        go_on.set()
        await asking
    assert (upstream.state, upstream.protocol_version, upstream.requests) == ("opening", None, 0)
    assert (gauges.upstream_sessions["opening"], gauges.waiters) == (1, 1)


async def test_newest_first(bench: Bench) -> None:
    """Of many sessions the newest are shown, newest first, without looking at all of them in full."""
    await bench.start()
    for tenant in "abc":
        await bench.initialize(headers={"X-Tenant": tenant})
    snapshot = bench.proxy.snapshot
    upstream, clients = snapshot.upstream_sessions(), snapshot.client_sessions()
    assert [view.age_seconds for view in upstream] == sorted(view.age_seconds for view in upstream)
    assert [view.age_seconds for view in clients] == sorted(view.age_seconds for view in clients)
    for limit in (0, 1, 2, 9):
        assert [view.session for view in snapshot.upstream_sessions(limit)] == [
            view.session for view in upstream[:limit]
        ]
        assert [view.client for view in snapshot.client_sessions(limit)] == [
            view.client for view in clients[:limit]
        ]


async def test_servers(bench: Bench) -> None:
    """Each server is shown with what is known of it, and without the secrets of its URL."""
    await bench.start(upstream=f"{bench.server.url}?key=sesame", replica="http://127.0.0.1:1/mcp")
    snapshot = bench.proxy.snapshot
    await until(lambda: [each.condition for each in snapshot.replicas()] == ["up", "down"])
    await bench.post(call())
    up, down = snapshot.replicas()
    assert f"{up.upstream}/mcp" == bench.server.url
    assert (up.down_seconds, up.breaker, up.last_error, up.modern, up.sessions) == (
        None,
        "closed",
        None,
        None,
        1,
    )
    assert down.down_seconds is not None
    assert down.down_seconds >= 0
    assert down.sessions == 0


ASK = {
    "jsonrpc": "2.0",
    "id": "q",
    "method": "elicitation/create",
    "params": {"message": "Name?", "requestedSchema": {"type": "object", "properties": {}}},
}


async def _ask_and_wait(request: web.Request, _: Any) -> web.StreamResponse:
    response = await begin_stream(request)
    await write_event(response, ASK)
    await asyncio.Event().wait()
    return response


async def test_parked_calls(bench: Bench) -> None:
    """A modern call whose client was asked something is parked on its session; it is not in flight."""
    bench.server.on["tools/call"] = _ask_and_wait
    await bench.start()
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        "io.modelcontextprotocol/clientInfo": {"name": "m", "version": "1"},
    }
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}
    asked = await bench.post(call(name="count", _meta=meta), headers=headers)
    assert asked.json["result"]["resultType"] == "input_required"
    [upstream] = bench.proxy.snapshot.upstream_sessions()
    assert (upstream.parked, bench.proxy.snapshot.in_flight) == (1, 0)


async def test_open_questions(bench: Bench) -> None:
    """What a legacy client was asked and has not answered is counted for its session."""
    bench.server.on["tools/call"] = _ask_and_wait
    await bench.start()
    session = await bench.initialize()
    async with bench.request("POST", call(), session=session) as response:
        await read_events(response.content, 1)
        [client] = bench.proxy.snapshot.client_sessions()
        assert (client.parked, client.in_flight, bench.proxy.snapshot.in_flight) == (1, 1, 1)
