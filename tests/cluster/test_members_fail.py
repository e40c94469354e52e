"""Clients of eight kinds count without pause at three members behind a balancer, while members are killed and
stand still, and the store goes, forgets and fails over: no count begins anew, nothing is executed twice, and
callers do not meet.

FULL_FAULTS=1 runs all of it, with more clients and for longer (`make cluster`); without it a share.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from counting import UNEXECUTED, WITH_IDS, CountingServer, Crowd, Note, note
from key_value_server import KeyValueServer, needs_one, watched
from processes import Processes, needs_nginx, on_store, open_store, records, until_written
from restart_bench import rows
from selection import FULL_FAULTS

LEASE_SECONDS = 5.0 if FULL_FAULTS else 2.0
LEASE = f"{LEASE_SECONDS:g}s"
OF_EACH_KIND = 4 if FULL_FAULTS else 1
# Of an owner that cannot be reached, and has executed nothing.
NOT_TAKEN = UNEXECUTED | {"peer-unreachable"}
# How long a machine may be busy with something else, where no figure is to be published.
BUSY_SECONDS = 1.0 if FULL_FAULTS else 60.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    needs_nginx,
    needs_one,
]
full = pytest.mark.skipif(not FULL_FAULTS, reason="takes minutes: `make cluster`")


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    async with CountingServer() as counting_server:
        yield counting_server


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyValueServer]:
    async with open_store(tmp_path / "store") as opened:
        yield opened


class Trial:
    """Members at work for a crowd; what has happened to them, and what came of it."""

    def __init__(self, server: CountingServer, members: Processes, record: Note) -> None:
        self._record = record
        self.server = server
        self.members = members
        self.crowd = Crowd(OF_EACH_KIND, NOT_TAKEN)
        self.happened: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def at_work(self, written: Callable[[], int]) -> AsyncIterator[None]:
        """All clients count, and what there is of them is ``written``, before anything goes wrong."""
        await self.members.start()
        began = time.monotonic()
        try:
            async with self.crowd.counting(await self.members.url()):
                await self.crowd.until_all_count_on(2)
                wanted = len(self.crowd.clients) + WITH_IDS * OF_EACH_KIND
                await until_written(written, wanted)
                yield
                await self.crowd.until_all_count_on(2, 120.0)
        finally:
            text = self.tell(time.monotonic() - began)
            note(self._record, text, self.crowd, self.server, count=self.happened.total())

    def check(self) -> None:
        """Whatever has happened."""
        assert self.crowd.trouble == []
        self.check_apart()
        assert len(self.server.posts("initialize")) == len(self.crowd.clients)

    def check_apart(self) -> None:
        """Also where sessions were lost."""
        assert self.server.twice == {}
        assert self.server.mixed == {}
        assert self.crowd.refused == Counter()

    def tell(self, seconds: float) -> str:
        """What is to be published."""
        crowd = self.crowd
        what = ", ".join(f"{times} x {name}" for name, times in self.happened.items())
        return (
            f"{what} in {seconds:.0f} s, {len(crowd.clients)} clients: {crowd.answered} answered, "
            f"{len(crowd.unknown)} unknown, told {dict(crowd.told)}, longest wait {crowd.longest:.2f} s, "
            f"{len(self.server.posts('initialize'))} sessions, gaps and troubles {len(crowd.trouble)}, "
            f"twice {len(self.server.twice)}, mixed {len(self.server.mixed)}, "
            f"fenced {self.members.told('store.fenced')}, lapsed {self.members.told('cluster.lease_lapsed')}"
        )


@pytest.fixture
def trial(
    server: CountingServer,
    store: KeyValueServer,
    stack: contextlib.AsyncExitStack,
    tmp_path: Path,
    record_property: Note,
) -> Trial:
    """Members on a store of their own."""
    options = on_store(tmp_path, store.url, LEASE)
    return Trial(server, Processes(tmp_path, server.url, stack, *options), record_property)


async def killing(trial: Trial, seconds: float, every_seconds: float) -> None:
    """One after the other is killed, and started again."""
    until_when = time.monotonic() + seconds
    for place in itertools.cycle(range(3)):
        began = time.monotonic()
        await trial.members.kill(place)
        trial.happened["kill -9"] += 1
        await trial.members.again(place)
        await asyncio.sleep(max(0.0, began + every_seconds - time.monotonic()))
        if time.monotonic() > until_when:
            return


async def test_members_are_killed(trial: Trial, store: KeyValueServer) -> None:
    """Only of what was in flight it is not known whether it was executed; nobody waits for longer than a
    lease and a moment.
    """
    async with trial.at_work(lambda: records(store)):
        if FULL_FAULTS:
            await killing(trial, 120.0, 3.0)
        else:
            await killing(trial, 0.0, 0.0)
    trial.check()
    assert trial.crowd.longest < LEASE_SECONDS + BUSY_SECONDS


@full
async def test_members_of_one_machine_are_killed(
    server: CountingServer, stack: contextlib.AsyncExitStack, tmp_path: Path, record_property: Note
) -> None:
    """Where members share a directory, nobody waits for a lease."""
    state = tmp_path / "state"
    members = Processes(tmp_path, server.url, stack, "--state-dir", str(state), "--lease", "1h")
    trial = Trial(server, members, record_property)
    async with trial.at_work(lambda: rows(state, "records")):
        await killing(trial, 60.0, 3.0)
    trial.check()
    assert trial.crowd.longest < 2.0


@full
async def test_members_stand_still(trial: Trial, store: KeyValueServer) -> None:
    """SIGSTOP for twice a lease: others go on with what it owned, and when it runs again it has lost that."""
    async with trial.at_work(lambda: records(store)):
        for place in itertools.islice(itertools.cycle(range(3)), 20 if FULL_FAULTS else 1):
            trial.members.pause(place)
            trial.happened["SIGSTOP"] += 1
            await asyncio.sleep(2 * LEASE_SECONDS)
            trial.members.resume(place)
            await trial.crowd.until_all_count_on(2, 120.0)
    trial.check()
    assert trial.members.told("cluster.lease_lapsed") > 0
    # Who has come to the one that stands still waits until it goes on; no other one for longer than a lease.
    assert trial.crowd.longest < 2 * LEASE_SECONDS + LEASE_SECONDS + BUSY_SECONDS


async def store_is_away(store: KeyValueServer, seconds: float) -> None:
    """It is stopped, and comes back empty."""
    store.stop()
    await asyncio.sleep(seconds)
    store.start()


async def store_is_restarted(store: KeyValueServer, seconds: float) -> None:
    """It is stopped, and comes back with all that it had."""
    store.ask("SAVE")
    store.stop()
    await asyncio.sleep(seconds)
    store.start()


async def store_stands_still(store: KeyValueServer, seconds: float) -> None:
    """It takes connections and answers nothing, then goes on with all that it had."""
    store.pause()
    await asyncio.sleep(seconds)
    store.resume()


async def store_is_flushed(store: KeyValueServer, seconds: float) -> None:
    """All that it has is gone."""
    store.ask("FLUSHALL")
    await asyncio.sleep(seconds / 10)


TROUBLES: dict[str, Callable[[KeyValueServer, float], Awaitable[None]]] = {
    "paused": store_stands_still,
    "restarted": store_is_restarted,
    "stopped": store_is_away,
    "flushed": store_is_flushed,
}


@pytest.mark.share(4)
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_store_fails(trial: Trial, store: KeyValueServer, trouble: str) -> None:
    """Clients of living owners notice nothing at all, and all is written again afterwards."""
    times, seconds = (10, 30.0) if FULL_FAULTS else (1, 1.5 * LEASE_SECONDS)
    async with trial.at_work(lambda: records(store)):
        written = records(store)
        for _ in range(times):
            await TROUBLES[trouble](store, seconds)
            trial.happened[f"store {trouble}"] += 1
            await trial.crowd.until_all_count_on(2, 120.0)
            await until_written(lambda: records(store), written)
    trial.check()
    assert trial.crowd.told == Counter()
    assert trial.crowd.unknown == []


@full
async def test_members_are_killed_while_the_store_is_away(trial: Trial, store: KeyValueServer) -> None:
    """Nobody can know what the dead one had, so its callers may begin anew; nothing is executed twice."""
    async with trial.at_work(lambda: records(store)):
        store.pause()
        await trial.members.kill(0)
        trial.happened["kill -9 without the store"] += 1
        await asyncio.sleep(2 * LEASE_SECONDS)
        store.resume()
        await trial.members.again(0)
        await trial.crowd.until_all_count_on(2, 120.0)
    trial.check_apart()


async def has_caught_up(replica: KeyValueServer, primary: KeyValueServer) -> None:
    """Wait until it has all that there is."""
    wanted = records(primary)
    assert wanted > 0
    await until_written(lambda: records(replica), wanted)


@full
async def test_failover_with_lost_writes(
    server: CountingServer, stack: contextlib.AsyncExitStack, tmp_path: Path, record_property: Note
) -> None:
    """A replica becomes the primary that has not heard the newest writes: claims that were acknowledged are
    lost, members are killed after that, and still no call is executed twice and nobody is mixed up.
    """
    one, two, watch = stack.enter_context(watched(tmp_path, maxclients=1000))
    options = on_store(tmp_path, f"sentinel://127.0.0.1:{watch.port}/main", LEASE)
    trial = Trial(server, Processes(tmp_path, server.url, stack, *options), record_property)
    async with trial.at_work(lambda: records(one)):
        for primary, replica in itertools.islice(itertools.cycle([(one, two), (two, one)]), 10):
            replica.ask("REPLICAOF", "127.0.0.1", primary.port)
            await has_caught_up(replica, primary)
            replica.ask("REPLICAOF", "NO", "ONE")
            # What is written from here on is lost.
            await trial.members.kill(0)
            await trial.crowd.until_all_count_on(2, 120.0)
            watch.ask("SENTINEL", "REMOVE", "main")
            watch.ask("SENTINEL", "MONITOR", "main", "127.0.0.1", replica.port, 1)
            primary.stop()
            trial.happened["failover"] += 1
            await trial.members.again(0)
            await trial.crowd.until_all_count_on(5, 120.0)
            primary.start()
    trial.check()
