"""Three members and a store, each a host of its own, in a network that falls into parts: who serves, who
waits, who is told what. Clients of eight kinds count without pause meanwhile, at each member in turn.

FULL_FAULTS=1 runs every way to part them, twenty times each (`make cluster`); without it one, once.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from counting import OPTIONS, UNEXECUTED, WITH_IDS, CountingServer, Crowd, Note, note
from key_value_server import ANY, KeyValueServer, needs_one
from network import Host, Network, why_not
from processes import KEY, START_SECONDS, records, until_written
from programs import running
from selection import FULL_FAULTS

TIMES = 20 if FULL_FAULTS else 1
OF_EACH_KIND = 2 if FULL_FAULTS else 1
LEASE_SECONDS = 2.0
PAUSE_SECONDS = 0.05
# A connection that is not there in time, or is silent for too long.
PEER_SECONDS = 6.0
# How long a machine may be busy with something else.
BUSY_SECONDS = 1.0 if FULL_FAULTS else 60.0

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.timeout(1800), needs_one]

reason_why_not = cache(why_not)


@dataclass
class Hosts:
    """Who there is."""

    network: Network
    members: Sequence[Host]
    store: Host


@dataclass(frozen=True)
class Parting:
    """What is lost from now on, and what may come of it: the reasons that clients may be told, and whether
    calls that are under way may have an unknown outcome. ``at`` are the members that clients come to.
    """

    begin: Callable[[Hosts], None]
    told: frozenset[str] = frozenset()
    unknown: bool = False
    at: tuple[int, ...] = (0, 1, 2)
    options: tuple[str, ...] = ()


UNREACHABLE = frozenset({"peer-unreachable"})
REFUSED = frozenset({"store-unavailable"})


def _cut_from_all(hosts: Hosts) -> None:
    one, *others = hosts.members
    hosts.network.cut(one, hosts.store, *others)


def _one_way(way: Callable[[Hosts], tuple[Host, Host]]) -> Callable[[Hosts], None]:
    return lambda hosts: hosts.network.lose(*way(hosts))


PARTINGS = {
    # The owner lives, and is never robbed: who cannot reach it says so, and another member may.
    "member from member": Parting(
        lambda hosts: hosts.network.cut(*hosts.members[:2]), UNREACHABLE, unknown=True
    ),
    "to a member": Parting(_one_way(lambda h: (h.members[0], h.members[1])), UNREACHABLE, unknown=True),
    # It hears from the others that its lease has run out, and sends on what comes to it.
    "member from store": Parting(lambda hosts: hosts.network.cut(hosts.members[0], hosts.store)),
    # The store hears nothing of it.
    "to the store": Parting(_one_way(lambda h: (h.members[0], h.store))),
    # The store does all that it is asked, and nobody hears of it.
    "from the store": Parting(_one_way(lambda h: (h.store, h.members[0]))),
    # Nobody says to it that its lease has run out: it goes on, and so does whoever takes over.
    "member from all": Parting(_cut_from_all, UNREACHABLE, unknown=True),
    "member from all, which refuses then": Parting(
        _cut_from_all, UNREACHABLE | REFUSED, unknown=True, options=("--store-outage", "refuse")
    ),
    "all members from the store": Parting(
        lambda hosts: hosts.network.cut(hosts.store, *hosts.members),
    ),
    # As if its machine were gone: nobody says goodbye.
    "a cable is pulled out": Parting(
        lambda hosts: hosts.network.unplug(hosts.members[0]), unknown=True, at=(1, 2)
    ),
}


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    why = reason_why_not()
    if why is not None:
        pytest.skip(why)
    with Network() as network:
        yield Hosts(network, [network.add(f"m{number}") for number in range(3)], network.add("store"))


@pytest.fixture
def store(hosts: Hosts, tmp_path: Path) -> Iterator[KeyValueServer]:
    """A store on a host of its own."""
    (tmp_path / "store").mkdir()
    server = KeyValueServer(
        tmp_path / "store",
        ANY,
        port=6379,
        prefix=hosts.store.prefix,
        bind="0.0.0.0",
        protected_mode="no",
        maxclients=1000,
    )
    server.start()
    yield server
    server.close()


def options_of(member: Host, hosts: Hosts, folder: Path) -> list[str]:
    """How a member finds the others."""
    key = folder / "cluster.key"
    key.write_text(f"{KEY}\n")
    peer = f"{member.address}:7946"
    return [
        *("--listen", f"{member.address}:8080", "--admin-listen", "off", *OPTIONS),
        *("--store", f"redis://{hosts.store.address}:6379", "--cluster", "test"),
        *("--cluster-key-file", str(key), "--lease", f"{LEASE_SECONDS:g}s"),
        *("--peer-listen", peer, "--peer-url", f"http://{peer}", "--peer-plain"),
    ]


@contextlib.asynccontextmanager
async def members_at_work(
    hosts: Hosts, folder: Path, upstream: str, *options: str
) -> AsyncIterator[list[str]]:
    """The members, each at its host; the URLs of all."""
    async with contextlib.AsyncExitStack() as stack:
        programs = []
        for number, member in enumerate(hosts.members):
            (folder / f"m{number}").mkdir()
            words = [*options_of(member, hosts, folder), *options]
            started = running(folder / f"m{number}", upstream, *words, prefix=member.prefix)
            programs.append(await stack.enter_async_context(started))
        for program in programs:
            await program.ready(START_SECONDS)
        yield [f"http://{member.address}:8080/mcp" for member in hosts.members]


@pytest.mark.share(100)
@pytest.mark.parametrize("name", PARTINGS)
async def test_the_network_falls_apart(
    hosts: Hosts, store: KeyValueServer, tmp_path: Path, name: str, record_property: Note
) -> None:
    """No call is executed twice, no count begins anew, callers do not meet, nobody hangs; and clients are
    told nothing but what the way of parting makes true.
    """
    parting = PARTINGS[name]
    crowd = Crowd(OF_EACH_KIND, UNEXECUTED | parting.told, PAUSE_SECONDS)
    began = time.monotonic()
    times = 0
    async with CountingServer(hosts.network.outside) as server:
        try:
            async with (
                members_at_work(hosts, tmp_path, server.url, *parting.options) as urls,
                crowd.counting(*(urls[number] for number in parting.at)),
            ):
                await crowd.until_all_count_on(3)
                wanted = len(crowd.clients) + WITH_IDS * OF_EACH_KIND
                await until_written(lambda: records(store), wanted)
                for _ in range(TIMES):
                    times += 1
                    parting.begin(hosts)
                    await asyncio.sleep(2 * LEASE_SECONDS)
                    hosts.network.mend()
                    await crowd.until_all_count_on(3, 120.0)
        finally:
            sessions = len(server.posts("initialize"))
            text = (
                f"{times} x {name}, {2 * LEASE_SECONDS:g} s each, in {time.monotonic() - began:.0f} s, "
                f"{len(crowd.clients)} clients: {crowd.answered} answered, {len(crowd.unknown)} unknown, "
                f"told {dict(crowd.told)}, {sessions} sessions"
            )
            note(record_property, text, crowd, server, count=times)
    assert crowd.trouble == []
    assert server.twice == {}
    assert server.mixed == {}
    assert crowd.refused == Counter()
    assert parting.unknown or crowd.unknown == []
    assert sessions == len(crowd.clients)
    assert crowd.longest < PEER_SECONDS + LEASE_SECONDS + BUSY_SECONDS
