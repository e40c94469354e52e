"""Trouble on the wire: servers that are down, die, come back; shutdown; churn that stops at the proxy."""

import asyncio
import json
import signal
from collections.abc import Callable

import aiohttp
import pytest

from .conftest import Desk, admin_json
from .launch import Fleet, Proxy, get
from .wire import Caller, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(20)]

MakeDesk = Callable[..., Desk]


# The server is not there --------------------------------------------------------------------------


async def test_upstream_not_up_yet(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """A server that is not up yet is waited for: not ready and 502/503 meanwhile, then all is well."""
    server = owned.new_server("mcp-1.30", start=False)
    proxy = owned.new_proxy(server.url, "--acquire-timeout", "0.5s", "--connect-timeout", "0.5s", ready=False)
    assert admin_status(proxy, "/readyz") == 503
    assert admin_status(proxy, "/healthz") == 200
    caller = Caller(http, proxy.url)
    reply = await caller.initialize()
    assert reply.status in (502, 503)
    assert reply.response["id"] == 1
    assert reply.error["code"] == -32603
    assert reply.error["data"]["source"] == "mcp-session-proxy"
    assert reply.error["data"]["reason"]
    server.start()
    proxy.wait_ready()
    session = await caller.open()
    assert (await caller.call("increment", session=session)).text == "1"


async def test_client_that_waits_for_the_upstream(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """A request that arrives shortly before the server does is retried within its deadline and answered."""
    server = owned.new_server("mcp-1.30", start=False)
    proxy = owned.new_proxy(server.url, "--acquire-timeout", "30s", ready=False)
    caller = Caller(http, proxy.url)
    async with asyncio.TaskGroup() as tasks:
        early = tasks.create_task(caller.call("increment"))
        await asyncio.sleep(0.3)  # refused at least once by now
        await asyncio.to_thread(server.start)
    assert early.result().text == "1"


async def test_upstream_down(own_desk: MakeDesk) -> None:
    """A server that went away: every request gets a JSON-RPC error with its id; readiness falls."""
    at = own_desk("mcp-1.30", "--acquire-timeout", "0.5s", "--connect-timeout", "0.5s")
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"
    at.server.kill()
    for reply in await asyncio.gather(
        at.caller.call("increment", session=session, request_id="a"),
        at.caller.ask("tools/list", session=session, request_id="a"),
        at.caller.call("increment", request_id="a"),
        at.another().call("increment", request_id="a"),
    ):
        assert reply.status in (502, 503)
        assert reply.response["id"] == "a"
        assert reply.error["code"] == -32603
        assert reply.error["data"]["source"] == "mcp-session-proxy"
        assert "Traceback" not in reply.body.decode()
    told = await at.caller.notify("notifications/initialized", session=session)
    assert (told.status, told.body) == (202, b"")
    assert (await at.caller.delete(session)).status == 405

    async def unready() -> bool:
        return admin_status(at.proxy, "/readyz") == 503

    await eventually(unready)
    at.server.start()
    assert (await at.caller.call("increment", session=session)).text == "1"
    at.proxy.wait_ready()


async def test_server_restarted_under_a_client(own_desk: MakeDesk) -> None:
    """The server killed and restarted under a client that keeps its id and its GET: the next call works."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open()
    async with at.caller.listen(session) as stream:
        assert stream.status == 200
        assert (await at.caller.call("increment", session=session)).text == "1"
        at.server.kill()
        at.server.start()
        assert (await at.caller.call("increment", session=session)).text == "1"
        assert (await at.caller.call("increment", session=session)).text == "2"
        assert (await at.caller.call("tools_changed", session=session)).text == "told"
        message = await stream.next()
    assert message is not None
    assert message["method"] == "notifications/tools/list_changed"


async def test_journal_is_replayed(own_desk: MakeDesk) -> None:
    """Log level, subscriptions and who the client is survive the loss of the upstream session."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open(client="journal", capabilities={"roots": {"listChanged": True}})
    await at.caller.ask("logging/setLevel", {"level": "error"}, session=session)
    await at.caller.ask("resources/subscribe", {"uri": "counter://shared"}, session=session)
    await at.caller.ask("resources/subscribe", {"uri": "counter://other"}, session=session)
    await at.caller.ask("resources/unsubscribe", {"uri": "counter://other"}, session=session)
    before = json.loads((await at.caller.call("whoami", session=session)).text)
    at.server.kill()
    at.server.start()
    after = json.loads((await at.caller.call("whoami", session=session)).text)
    for field in ("client", "protocol", "capabilities", "log_level", "subscriptions"):
        assert after[field] == before[field], field
    assert after["subscriptions"] == ["counter://shared"]


async def test_lost_while_a_tool_runs(own_desk: MakeDesk) -> None:
    """A server that dies in the middle of a tool: the client is told `outcome-unknown`; no second try."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("die", {"key": "k"}, session=session, request_id="d"))
        await eventually(lambda: has_ended(at))
        at.server.program.kill()
        at.server.start()
    reply = call.result()
    assert reply.response["id"] == "d"
    assert reply.error["data"]["reason"] == "outcome-unknown"
    assert (await at.caller.call("execution_count", {"key": "k"}, session=session)).text == "0"


async def has_ended(at: Desk) -> bool:
    """Whether the server's process has ended of itself."""
    process = at.server.program.process
    return process is not None and process.poll() is not None


async def test_lost_under_many_callers(own_desk: MakeDesk) -> None:
    """A server killed during calls to many callers: each of them gets an answer, whatever it is."""
    at = own_desk("mcp-1.30", "--acquire-timeout", "2s")
    callers = [at.another() for _ in range(8)]
    sessions = [await caller.open() for caller in callers]
    async with asyncio.TaskGroup() as tasks:
        calls = [
            tasks.create_task(caller.call("slow", {"seconds": 10}, session=session, request_id=n))
            for n, (caller, session) in enumerate(zip(callers, sessions, strict=True))
        ]

        async def all_run() -> bool:
            return bool((await at.all_stats())["calls"].get("slow", 0) == len(calls))

        await eventually(all_run)
        at.server.kill()
    for number, call in enumerate(calls):
        reply = call.result()
        assert reply.response["id"] == number
        assert reply.error["data"]["reason"] == "outcome-unknown"


@pytest.mark.parametrize("kind", ["mcp-1.30", "mcp-1.23"])
async def test_at_most_once_over_forgotten_sessions(kind: str, own_desk: MakeDesk) -> None:
    """Whatever the server forgets in between, each call is executed exactly once."""
    at = own_desk(kind)
    session = await at.caller.open()
    for number in range(1, 6):
        async with at.http.post(f"{at.server.origin}/forget") as response:
            assert response.status == 200
        assert (await at.caller.call("execute", {"key": "k"}, session=session)).text == str(number)


async def test_client_that_goes_away(own_desk: MakeDesk) -> None:
    """A client that drops its connection in the middle of a call harms nobody: the session serves on."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await at.caller.call("slow", {"seconds": 20}, session=session)
    assert (await at.caller.call("increment", session=session)).text == "1"
    assert (await at.stats())["sessions"]["live"] == 1


async def test_keepalive(own_desk: MakeDesk) -> None:
    """An unused upstream session is pinged every --keepalive, with its caller's credentials."""
    at = own_desk("mcp-1.30", "--keepalive", "0.3s")
    session = await at.caller.open()

    async def pinged() -> bool:
        return len([r for r in await at.seen() if r["method"] == "ping" and r["status"] == 200]) >= 2

    await eventually(pinged)
    assert (await at.caller.call("increment", session=session)).text == "1"


# Churn --------------------------------------------------------------------------------------------


async def churn(caller: Caller) -> str:
    """One client life: initialize, initialized, tools/list, tools/call, DELETE; what the call said."""
    session = await caller.open(client="churner")
    assert (await caller.ask("tools/list", session=session)).result["tools"]
    said = (await caller.call("increment", session=session)).text
    assert (await caller.delete(session)).status == 405
    return said


async def test_churn_of_one_principal(own_desk: MakeDesk) -> None:
    """300 client lives of one principal open at most 5 upstream sessions, as counted by the server."""
    at = own_desk("mcp-1.30")
    for _ in range(300):
        await churn(at.caller)
    counted = await at.stats()
    assert 1 <= counted["sessions"]["opened"] <= 5
    assert counted["sessions"]["live"] <= 5
    assert counted["calls"]["increment"] == 300
    metrics = at.proxy.metrics()
    assert metrics["client_sessions_created_total"] == 300
    assert metrics["deletes_absorbed_total"] == 300
    assert sum_of(metrics, "upstream_sessions_opened_total") == counted["sessions"]["opened"]
    assert sum_of(metrics, "upstream_sessions_reused_total") >= 295


async def test_concurrent_churn_of_one_principal(own_desk: MakeDesk) -> None:
    """Ten clients of one principal at a time, thirty lives each: no more upstream sessions than clients."""
    at = own_desk("mcp-1.30")

    async def lives() -> None:
        for _ in range(30):
            await churn(at.caller)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(lives())
    counted = await at.stats()
    assert counted["calls"]["increment"] == 300
    assert counted["sessions"]["opened"] <= 10


async def test_two_principals_never_share(own_desk: MakeDesk) -> None:
    """Two principals churning at once: no session of the server ever sees both."""
    at = own_desk("mcp-1.30")
    callers = [at.another(), at.another()]
    seen: list[set[int]] = [set(), set()]

    async def lives(caller: Caller, numbers: set[int]) -> None:
        for turn in range(25):
            session = await caller.open() if turn % 3 else None
            who = json.loads((await caller.call("whoami", session=session)).text)
            assert who["authorization"] == caller.authorization
            numbers.add(who["session"])
            if session:
                await caller.delete(session)

    async with asyncio.TaskGroup() as tasks:
        for caller, numbers in zip(callers, seen, strict=True):
            tasks.create_task(lives(caller, numbers))
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


@pytest.mark.parametrize(
    "other",
    [
        {"Cookie": "sid=2"},
        {"X-Api-Key": "two"},
        {"X-MCP-Anything": "two"},
        {"X-Tenant": "two"},
        {"X-User-Id": "two"},
    ],
)
async def test_what_tells_principals_apart(other: dict[str, str], desk: MakeDesk) -> None:
    """A cookie or an identifying header makes a principal; the User-Agent does not."""
    at = desk("mcp-1.30")
    assert (await at.caller.call("increment")).text == "1"
    assert (await at.caller.call("increment", headers=other)).text == "1"
    assert (await at.caller.call("increment", headers={"User-Agent": "another/2.0"})).text == "2"


async def test_query_string_tells_principals_apart(desk: MakeDesk) -> None:
    """The query string is part of who is calling."""
    at = desk("mcp-1.30")
    plain = at.another(token=at.caller.token)
    plain.url += "?tenant=two"
    assert (await at.caller.call("increment")).text == "1"
    assert (await plain.call("increment")).text == "1"
    assert (await at.caller.call("increment")).text == "2"


# Start and stop -----------------------------------------------------------------------------------


@pytest.mark.at_one
async def test_sigterm_closes_upstream_sessions(own_desk: MakeDesk) -> None:
    """SIGTERM: exit status 0, and every upstream session was ended with DELETE, as counted by the server."""
    at = own_desk("mcp-1.30")
    for caller in (at.caller, at.another(), at.another()):
        await caller.open()
    assert (await at.all_stats())["sessions"]["live"] == 3
    assert await asyncio.to_thread(at.proxy.stop) == 0
    counted = await at.all_stats()
    assert counted["sessions"] == {"opened": 3, "closed": 3, "live": 0}


@pytest.mark.at_one
async def test_sigterm_lets_calls_finish(own_desk: MakeDesk) -> None:
    """SIGTERM during a call: the call is answered, listen streams end, the proxy leaves with status 0."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open()
    async with at.caller.listen(session) as stream, asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("slow", {"seconds": 1}, session=session))

        async def runs() -> bool:
            return bool((await at.all_stats())["calls"].get("slow"))

        await eventually(runs)
        process = at.proxy.program.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert (await call).text == "slept 1.0"
        await stream.wait_end()
        assert await asyncio.to_thread(process.wait, 10) == 0


@pytest.mark.at_one
async def test_second_sigterm_stops_at_once(own_desk: MakeDesk) -> None:
    """A second SIGTERM does not wait for the call in flight."""
    at = own_desk("mcp-1.30", "--drain-timeout", "1h")
    session = await at.caller.open()
    call = asyncio.create_task(at.caller.call("slow", {"seconds": 3600}, session=session))

    async def runs() -> bool:
        return bool((await at.all_stats())["calls"].get("slow"))

    await eventually(runs)
    process = at.proxy.program.process
    assert process is not None
    process.send_signal(signal.SIGTERM)

    async def draining() -> bool:
        return admin_status(at.proxy, "/readyz") == 503

    await eventually(draining)
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 30)
    await asyncio.wait([call])
    assert call.exception() is not None or call.result().status >= 500 or "error" in call.result().response


@pytest.mark.at_one
async def test_ids_survive_a_restart_of_the_proxy(owned: Fleet, own_desk: MakeDesk) -> None:
    """An id from before the proxy's restart goes on working."""
    at = own_desk("mcp-1.30")
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"
    assert await asyncio.to_thread(at.proxy.stop) == 0
    later = owned.new_proxy(at.server.url)
    caller = Caller(at.http, later.url, token=at.caller.token)
    assert [(await caller.call("increment", session=session)).text for _ in range(2)] == ["1", "2"]


@pytest.mark.at_one
async def test_proxy_leaves_while_the_server_is_gone(own_desk: MakeDesk) -> None:
    """SIGTERM when the server is down: it is not waited for, and the exit status is 0."""
    at = own_desk("mcp-1.30", "--drain-timeout", "1h", "--request-timeout", "1h")
    await at.caller.open()
    at.server.kill()
    assert await asyncio.to_thread(at.proxy.stop) == 0


# Seen from outside --------------------------------------------------------------------------------


@pytest.mark.at_one
async def test_admin_documents(own_desk: MakeDesk) -> None:
    """/readyz, /healthz, /sessions and /metrics tell of a session; nothing secret is in them or the log."""
    at = own_desk("mcp-1.30")
    at.caller.url += "?api_key=secret-in-query"
    session = await at.caller.open(client="seen-from-outside")
    assert (await at.caller.call("increment", session=session)).text == "1"
    assert at.proxy.json("/readyz") == {"status": "ready", "mode": "stateless", "ready": 1, "total": 1}
    assert admin_status(at.proxy, "/healthz") == 200
    sessions = json.dumps(at.proxy.json("/sessions"))
    assert "seen-from-outside" in sessions
    metrics = at.proxy.metrics()
    assert metrics["client_sessions"] == 1
    assert sum_of(metrics, "upstream_sessions") == 1
    assert sum_of(metrics, "upstream_sessions_opened_total") == 1
    assert any(name.startswith("requests_total") and 'method="tools/call"' in name for name in metrics)
    everything = sessions + json.dumps(metrics) + at.proxy.program.log.read_text()
    assert str(at.caller.token) not in everything
    assert "secret-in-query" not in everything
    assert session not in everything


def admin_status(proxy: Proxy, path: str) -> int:
    """The status of an admin page."""
    return get(f"{proxy.admin}{path}")[0]


def sum_of(metrics: dict[str, float], name: str) -> float:
    """The sum of a metric's samples over all labels."""
    return sum(value for sample, value in metrics.items() if sample.partition("{")[0] == name)


@pytest.mark.at_one
async def test_start_says_what_it_is(own_desk: MakeDesk) -> None:
    """At start it says what it listens on, what it stands in front of, and how sessions are shared."""
    at = own_desk("mcp-1.30")
    said = at.proxy.program.log.read_text()
    assert at.proxy.origin.removeprefix("http://") in said
    assert at.server.url in said
    assert "handover" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--sharing", "sometimes"),
        ("--max-sessions", "0"),
        ("--idle-timeout", "soon"),
        ("--listen", "nowhere"),
    ],
)
async def test_wrong_values(option: str, value: str, owned: Fleet) -> None:
    """A wrong value: exit status 2 and a message that names the option and the value."""
    proxy = owned.new_proxy("http://127.0.0.1:9/mcp", option, value, start=False)
    with pytest.raises(AssertionError, match="exited with 2"):
        await asyncio.to_thread(proxy.start)
    said = proxy.program.tail()
    assert option in said
    assert value in said
    assert "Traceback" not in said


@pytest.mark.at_one
async def test_unknown_admin_page(desk: MakeDesk) -> None:
    """A page that the admin listener does not have is 404, and the MCP endpoint is not served there."""
    at = desk("mcp-1.30")
    assert admin_status(at.proxy, "/nothing") == 404
    assert admin_status(at.proxy, "/mcp") == 404
    assert admin_json(at.proxy, "/readyz")["status"] == "ready"
