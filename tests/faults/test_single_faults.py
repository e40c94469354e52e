"""One fault at a time, each of them before a client of each era."""

import asyncio
import itertools
from collections.abc import Iterator

import aiohttp
import pytest
from e2e.launch import Fleet
from e2e.wire import eventually

from .catalogue import ALL, CASES, RESULT, TIMEOUT, UNKNOWN
from .clients import ERAS, Client
from .conftest import Rig, rig_at
from .fault_proxy import Fault, Plan

pytestmark = pytest.mark.e2e

# Only --request-timeout ends the wait for the answer.
ENDLESS = ("stalled", "stream-that-cannot-be-resumed")

_keys = itertools.count(1)


@pytest.fixture(scope="module")
def patient(module_fleet: Fleet) -> Iterator[Rig]:
    """One row of programs for all faults that come to an end; every test is a principal of its own."""
    with rig_at(module_fleet, "--acquire-timeout", "30s") as row:
        yield row


@pytest.fixture(scope="module")
def hasty(module_fleet: Fleet) -> Iterator[Rig]:
    """One for those that only a timeout ends."""
    options = ("--request-timeout", "2s", "--handshake-timeout", "2s", "--acquire-timeout", "30s")
    with rig_at(module_fleet, *options) as row:
        yield row


@pytest.fixture
def rig(name: str, request: pytest.FixtureRequest) -> Rig:
    """The right one of these for a fault."""
    row: Rig = request.getfixturevalue("hasty" if name.startswith(ENDLESS) else "patient")
    return row


def once(fault: Fault, wanted: str) -> Plan:
    """Nothing but the first request with this key, method or verb meets the fault."""
    left = [fault]
    return lambda request: (
        left.pop() if left and wanted in (request.key, request.method, request.verb) else None
    )


@pytest.mark.share(2)
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ALL)
async def test_a_faulted_call(name: str, era: str, rig: Rig, http: aiohttp.ClientSession) -> None:
    """A tool call that meets one fault is answered once, as the fault deserves, and runs at most once."""
    case = ALL[name]
    client = Client(http, rig.proxy.url, era)
    assert await client.open() is None
    assert (await client.call("increment", 0)).outcome == "result"
    key = f"single-{next(_keys)}"
    rig.faults.plan = once(case.fault, key)
    told = await client.call("execute", f"id of {key}", key=key)
    executed = rig.stats()["executions"].get(key, 0)
    assert told.outcome in case.outcomes, told
    assert executed in case.executed
    assert "Set-Cookie" not in told.reply.headers
    if told.outcome == "result":
        assert told.reply.text == "1"
    status = case.modern_status if era == "modern" else case.status
    if status is not None and told.reply.content_type != "text/event-stream":
        assert told.status == status
    if told.outcome == TIMEOUT:
        assert told.status == 504
    if not case.stays:  # whatever it was, the next call is none the worse for it
        after = await client.call("execute", 2, key=f"{key}-after")
        assert (after.outcome, after.reply.text) == ("result", "1")


@pytest.mark.share(2)
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", CASES)
async def test_a_faulted_read(name: str, era: str, rig: Rig, http: aiohttp.ClientSession) -> None:
    """A read that meets a fault after which nobody knows what happened is made again, and answered."""
    case = CASES[name]
    client = Client(http, rig.proxy.url, era)
    assert await client.open() is None
    assert (await client.call("increment", 0)).outcome == "result"
    rig.faults.plan = once(case.fault, "resources/read")
    told = await client.ask("resources/read", {"uri": "counter://shared"}, "read")
    wanted = {RESULT if outcome == UNKNOWN else outcome for outcome in case.outcomes}
    assert told.outcome in wanted, told


@pytest.mark.share(3)
@pytest.mark.parametrize("method", ["initialize", "notifications/initialized"])
@pytest.mark.parametrize("name", CASES)
async def test_a_faulted_handshake(name: str, method: str, rig: Rig, http: aiohttp.ClientSession) -> None:
    """A handshake that meets a fault is answered, and what it opened at the server is not left there."""
    client = Client(http, rig.proxy.url, "session")
    before = set(rig.faults.issued)
    rig.faults.plan = once(CASES[name].fault, method)
    told = await client.open()
    assert told is None or told.status >= 400
    if told is not None:
        assert await client.open() is None
    assert (await client.call("increment", 1)).outcome == "result"
    mine = {one for one in set(rig.faults.issued) - before if rig.faults.issued[one]}

    async def only_one_is_left() -> bool:
        return len(mine - rig.faults.ended) == 1

    await eventually(only_one_is_left)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", [case.name for case in ALL.values() if not (case.forwards or case.stays)])
async def test_a_faulted_stream(name: str, rig: Rig, http: aiohttp.ClientSession) -> None:
    """A GET stream of the proxy's that meets a fault harms no call."""
    client = Client(http, rig.proxy.url, "session")
    rig.faults.plan = once(ALL[name].fault, "GET")
    assert await client.open() is None
    for turn in (1, 2):
        assert (await client.call("increment", turn)).outcome == "result"


async def test_a_refused_connection(fleet: Fleet, http: aiohttp.ClientSession) -> None:
    """While connections are refused, calls wait for the server to come back, and run once each."""
    with rig_at(fleet) as rig:
        clients = [Client(http, rig.proxy.url, era) for era in ERAS]
        for client in clients:
            assert await client.open() is None
            assert (await client.call("increment", 0)).outcome == "result"
        rig.faults.plan = lambda request: None
        rig.in_its_loop(rig.faults.refuse())
        rig.in_its_loop(rig.faults.cut_everything())
        keys = [f"refused-{next(_keys)}" for _ in clients]
        async with asyncio.TaskGroup() as tasks:
            calls = [
                tasks.create_task(client.call("execute", key, key=key))
                for client, key in zip(clients, keys, strict=True)
            ]
            await asyncio.sleep(0.3)  # refused a few times by now
            await asyncio.to_thread(rig.in_its_loop, rig.faults.accept_again())
        executions = rig.stats()["executions"]
        for key, call in zip(keys, calls, strict=True):
            assert (call.result().outcome, executions.get(key)) == (RESULT, 1), call.result()
