"""Servers killed, the proxy stopped, clients vanished, each in the middle of work.

FULL_FAULTS=1 runs the whole number of rounds; without it CI's share.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from e2e.launch import Fleet, Proxy, Server
from e2e.modern_wire import ModernCaller
from e2e.wire import eventually

from .clients import ERAS, UNEXECUTED, Client, Told

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FULL = bool(os.environ.get("FULL_FAULTS"))
KILLS = 50 if FULL else 5
STOPS = 20 if FULL else 3
VANISHING = 200
IN_FLIGHT = 100


def executions(server: Server) -> Counter[str]:
    """How often each call was executed, over all lives of the server."""
    file = Path(server.program.environment["HOME"]) / "executions.txt"
    return Counter(file.read_text().split()) if file.exists() else Counter()


async def started(server: Server, keys: set[str]) -> None:
    """Wait until the server works on all of these calls."""

    async def all_run() -> bool:
        return keys <= set(executions(server))

    await eventually(all_run)


async def timed(client: Client, key: str, seconds: float) -> tuple[str, Told, float]:
    """One call that takes its time, and how long its answer took."""
    begun = time.monotonic()
    told = await client.call("record", key, key=key, seconds=seconds)
    return key, told, time.monotonic() - begun


async def test_server_killed(
    fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """`kill -9` of the server with 100 calls in flight: each is answered once; what ran is not run again."""
    server = fleet.new_server("recording")
    proxy = fleet.new_proxy(server.url, "--acquire-timeout", "5s")
    clients = [Client(http, proxy.url, ERAS[n % 3], token=f"user-{n % 10}") for n in range(IN_FLIGHT)]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for round_number in range(KILLS):
        for told in await asyncio.gather(*(client.open() for client in clients if client.session is None)):
            assert told is None, told
        keys = [f"kill-{round_number}-{n}" for n in range(IN_FLIGHT)]
        async with asyncio.TaskGroup() as tasks:
            calls = [
                tasks.create_task(timed(client, key, 60)) for client, key in zip(clients, keys, strict=True)
            ]
            await started(server, set(keys))
            killed = time.monotonic()
            server.kill()
            await asyncio.to_thread(server.start)
        for call in calls:
            _, told, _ = call.result()
            outcomes[told.outcome] += 1
        slowest = max(slowest, time.monotonic() - killed)
        # What the clients hold goes on working: the very next call of each is answered.
        after = await asyncio.gather(
            *(client.call("record", n, key=f"after-{round_number}-{n}") for n, client in enumerate(clients))
        )
        assert Counter(told.outcome for told in after) == {"result": IN_FLIGHT}
    ran = executions(server)
    figures(
        f"{KILLS} kills, {KILLS * IN_FLIGHT} calls in flight, all answered, the last {slowest:.1f} s after "
        f"its kill (start of the server included); {dict(outcomes)}; executed twice: "
        f"{sum(1 for count in ran.values() if count > 1)}"
    )
    assert outcomes == {"outcome-unknown": KILLS * IN_FLIGHT}
    assert set(ran.values()) == {1}
    live = sum(proxy.metrics()[f'upstream_sessions{{state="{state}"}}'] for state in ("idle", "leased"))

    async def as_many_at_the_server() -> bool:
        async with http.get(f"{server.origin}/stats") as response:
            return bool((await response.json())["sessions"]["live"] == live)

    await eventually(as_many_at_the_server)


async def test_proxy_stopped_under_load(
    fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """SIGTERM under load: what was taken is answered, what was not is refused, no session stays, exit 0."""
    server = fleet.new_server("recording")
    outcomes: Counter[str] = Counter()
    for round_number in range(STOPS):
        proxy = fleet.new_proxy(server.url, "--drain-timeout", "30s")
        tellings, cut, refused = await load_until_gone(http, proxy, server, round_number)
        outcomes["refused connection"] += refused
        outcomes["idle connection closed"] += len(cut)
        ran = executions(server)
        assert not any(ran[key] for key in cut)
        for key, told in tellings:
            outcomes[told.outcome] += 1
            assert told.outcome in UNEXECUTED | {"result"}, told
            assert ran[key] == (1 if told.outcome == "result" else 0), (key, told)
        process = proxy.program.process
        assert process is not None
        assert await asyncio.to_thread(process.wait, 30) == 0
        async with http.get(f"{server.origin}/stats") as response:
            assert (await response.json())["sessions"]["live"] == 0
    assert set(executions(server).values()) == {1}
    figures(f"{STOPS} stops, every exit status 0; {dict(outcomes)}")
    assert outcomes["result"] > 0


async def load_until_gone(
    http: aiohttp.ClientSession, proxy: Proxy, server: Server, round_number: int
) -> tuple[list[tuple[str, Told]], list[str], int]:
    """30 clients that call until the proxy takes no more; it is told to stop when all of them are at it.

    Gives what they were told of each call, which calls met a connection as it was closed, and how many met
    none.
    """
    tellings: list[tuple[str, Told]] = []
    cut: list[str] = []
    refused = 0
    stopping = False

    async def life(number: int) -> None:
        nonlocal refused
        client = Client(http, proxy.url, ERAS[number % 3])
        assert await client.open() is None
        for turn in range(10_000):
            key = f"stop-{round_number}-{number}-{turn}"
            try:
                told = await client.call("record", key, key=key, seconds=0.2)
            except aiohttp.ClientConnectorError:
                assert stopping
                refused += 1
                return
            except aiohttp.ClientConnectionError:
                # It went out on an idle connection, which was closed at the same time.
                assert stopping
                cut.append(key)
                return
            tellings.append((key, told))
            if told.outcome != "result":
                assert stopping
                return

    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(life(number))
        await started(server, {f"stop-{round_number}-{number}-1" for number in range(30)})
        stopping = True
        process = proxy.program.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
    return tellings, cut, refused


@pytest.mark.share(2)
@pytest.mark.parametrize("era", ["session", "sessionless", "modern", "parked"])
async def test_clients_that_vanish(
    era: str, fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """200 clients vanish in mid-call: no lease, parked call or descriptor is left of them."""
    server = fleet.new_server("recording")
    options = ("--detach-after", "500ms", "--idle-timeout", "1s", "--park-timeout", "5s")
    proxy = fleet.new_proxy(server.url, *options, "--max-parked-per-principal", "300")
    # One that stays attached, so that what it needs is there before and after.
    stays = Client(http, proxy.url, "session", token="stays")
    assert await stays.open() is None
    async with stays.caller.listen(stays.session):
        assert (await stays.call("increment", 1)).reply.text == "1"
        await settled(proxy)
        before = descriptors(proxy)
        if era == "parked":
            await vanish_while_asked(proxy)
        else:
            await vanish_in_mid_call(era, proxy, server)
        await settled(proxy)
        assert (await stays.call("increment", 2)).reply.text == "2"

        async def as_before() -> bool:
            # One connection may be kept for a while after its last request.
            return descriptors(proxy) <= before + 1

        await eventually(as_before, interval_seconds=0.1)
    metrics = proxy.metrics()
    assert metrics["bugs_total"] == 0
    expired = metrics.get('parked_total{outcome="expired"}', 0)
    assert expired == (VANISHING if era == "parked" else 0)

    async def alone() -> bool:
        async with http.get(f"{server.origin}/stats") as response:
            return (await response.json())["sessions"]["live"] == 1

    await eventually(alone, interval_seconds=0.1)
    figures(
        f"{VANISHING} clients vanished ({era}): leases, exchanges, parked calls and waiters left: 0, "
        f"sessions at the server: 1 (of the client that stayed), "
        f"descriptors: {before} before, {descriptors(proxy)} after"
    )


async def vanish_in_mid_call(era: str, proxy: Proxy, server: Server) -> None:
    """200 clients whose connections are all cut once the server works on their calls."""
    keys = {f"vanish-{number}" for number in range(VANISHING)}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as doomed:
        clients = [Client(doomed, proxy.url, era, token=f"user-{n % 20}") for n in range(VANISHING)]
        for told in await asyncio.gather(*(client.open() for client in clients)):
            assert told is None
        calls = [
            asyncio.create_task(client.call("record", key, key=key, seconds=2))
            for client, key in zip(clients, sorted(keys), strict=True)
        ]
        await started(server, keys)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def vanish_while_asked(proxy: Proxy) -> None:
    """200 modern clients that are asked for a name and never come back."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as doomed:
        callers = [ModernCaller(doomed, proxy.url, token=f"user-{n % 20}") for n in range(VANISHING)]
        replies = await asyncio.gather(*(caller.call_modern("elicit_name") for caller in callers))
        assert {reply.result["resultType"] for reply in replies} == {"input_required"}


def descriptors(proxy: Proxy) -> int:
    """The proxy's open files and sockets."""
    process = proxy.program.process
    assert process is not None
    return len(os.listdir(f"/proc/{process.pid}/fd"))


async def settled(proxy: Proxy) -> None:
    """Wait until the proxy holds no session but that of the one that stays, and has nothing under way."""

    async def all_is_let_go() -> bool:
        sessions = proxy.json("/sessions?limit=1000")["upstream_sessions"]
        metrics = proxy.metrics()
        states = [metrics[f'upstream_sessions{{state="{state}"}}'] for state in ("opening", "closing")]
        return (
            len(sessions) == 1
            and not sessions[0]["in_flight"]
            and not any(states)
            and not metrics["exchanges_parked"]
            and not metrics["waiters"]
        )

    await eventually(all_is_let_go, interval_seconds=0.1)
