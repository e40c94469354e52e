"""A cluster of any size on a clock of its own: the decisions are real, everything below them is played.

Members find, forward, take over and let go by the very code that runs in a proxy (``Shards``, ``Routing``,
``Members``, ``Membership``) and meet in the memory engine. Played are the network, the MCP server, the
clients and the failures, which come at random, by a seed. Nothing waits: the event loop's clock jumps to the
next moment at which something happens, so that a minute of ten members passes in a second. From the root::

    PYTHONPATH=.:tests python tests/cluster/simulation.py --members 200 --callers 200000

What must hold in every moment is checked in ``World``; how many of what there were is in ``Report``.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import selectors
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from bench.figures import Figure
from bench.plots import Bar, Group, draw
from mcp_session_proxy.aio import Tasks
from mcp_session_proxy.cluster import questions
from mcp_session_proxy.cluster.card import Card, write_card
from mcp_session_proxy.cluster.lease import LeaseAnswer, Served, left_by, owner_by, served_by
from mcp_session_proxy.cluster.members import Members
from mcp_session_proxy.cluster.outcomes import PeerBroke, PeerRefused, PeerUnreachable
from mcp_session_proxy.cluster.routing import Routing
from mcp_session_proxy.cluster.rules import ClusterRules, StoreOutage
from mcp_session_proxy.cluster.shards import Shards
from mcp_session_proxy.errors import OutcomeUnknown, ProxyError
from mcp_session_proxy.events import Event
from mcp_session_proxy.store.engine import (
    Claimed,
    Fenced,
    RecordPlace,
    StoredMember,
    StoredShard,
    StoreFailure,
)
from mcp_session_proxy.store.membership import Membership
from mcp_session_proxy.store.memory import MemoryEngine

_BEGINNING: Final = 1000.0
_STORE_SECONDS: Final = 0.0003
_NETWORK_SECONDS: Final = 0.0002
_CONNECT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 1.0
_STORE_TIMEOUT_SECONDS: Final = 1.0
# How long something may go on of which a client was told.
_UNDER_WAY_SECONDS: Final = 30.0
_PLACE: Final = RecordPlace("session", "1")

T = TypeVar("T")


class Broken(AssertionError):
    """Something happened that must not."""


# -- a clock that jumps ------------------------------------------------------------------------------


class _Jump(selectors.DefaultSelector):
    """Nothing ever arrives from outside; instead of waiting for it, time goes on."""

    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen")
        self.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._virtual = _BEGINNING
        selector = _Jump()
        selector.jump = self._jump
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual

    def _jump(self, seconds: float) -> None:
        self._virtual += max(0.0, seconds)


# -- what is counted ---------------------------------------------------------------------------------


@dataclass
class Report:
    """What there was, in numbers."""

    members: int
    callers: int
    seconds: float
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    sessions_opened: int = 0
    sessions_taken_over: int = 0
    longest_wait_seconds: float = 0.0
    assumed_together: int = 0
    real_seconds: float = 0.0

    def lines(self) -> list[str]:
        """The same, to be read."""
        pairs = [
            ("members, callers, seconds", f"{self.members:,}, {self.callers:,}, {self.seconds:,.0f}"),
            ("calls", f"{self.calls:,}: {_list(self.outcomes)}"),
            ("failures", _list(self.failures)),
            ("questions to the store", _list(self.verbs)),
            ("events", _list(self.events)),
            ("sessions opened, gone on with", f"{self.sessions_opened:,}, {self.sessions_taken_over:,}"),
            ("longest wait", f"{self.longest_wait_seconds:.2f} s"),
            ("served at two members in an outage", f"{self.assumed_together:,}"),
            ("took", f"{self.real_seconds:.0f} s"),
        ]
        return [f"{name:36} {value}" for name, value in pairs]


def _list(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counter.items())) or "none"


# -- the store ---------------------------------------------------------------------------------------


class Store(MemoryEngine):
    """The memory engine, which forgets what is over now and then only: with every beat, it would look at all
    that there is.
    """

    def __init__(self, world: "World") -> None:
        super().__init__(world.now)
        self.world = world
        self.down = False
        self._swept_at = self._listed_at = world.now()
        self._listed: Sequence[StoredShard] = ()

    async def shards(self) -> Sequence[StoredShard]:
        # All members ask for all that there is; within a second, they get the same answer.
        if not self._listed or self._now() - self._listed_at > 1.0:
            self._listed_at, self._listed = self._now(), await super().shards()
        return self._listed

    def _sweep(self) -> None:
        if self._now() - self._swept_at > 10.0:
            self._swept_at = self._now()
            super()._sweep()
            # Of a shard that had no records, nobody goes on with anything: it may begin anew.
            fences = self.world.fences
            for shard in [shard for shard in fences if shard not in self._shards]:
                del fences[shard]


class Link:
    """One member's way to the store, which may be cut. Implements ``engine.Engine``."""

    def __init__(self, store: Store, member: "Member") -> None:
        self._store = store
        self._member = member

    async def _ask(self, verb: str, ask: Callable[[], Awaitable[T]]) -> T:
        world, member = self._store.world, self._member
        world.report.verbs[verb] += 1
        await member.runs()
        await asyncio.sleep(_STORE_SECONDS)
        if self._store.down or member.cut_from_store:
            await asyncio.sleep(_STORE_TIMEOUT_SECONDS if member.cut_from_store else 0.0)
            raise StoreFailure("it cannot be reached")
        answer = await ask()
        await member.runs()
        return answer

    async def beat(self, member: str, card: bytes, ttl_seconds: float, reserved: int) -> bool:
        return await self._ask("beat", lambda: self._store.beat(member, card, ttl_seconds, reserved))

    async def claim(self, member: str, shard: str, ttl_seconds: float, min_fence: int = 0) -> Claimed:
        return await self._ask("claim", lambda: self._store.claim(member, shard, ttl_seconds, min_fence))

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        return await self._ask("write", lambda: self._store.write(member, shard, fence, changes, ttl_seconds))

    async def release(self, member: str, shard: str, fence: int, to: str | None = None) -> Fenced:
        return await self._ask("release", lambda: self._store.release(member, shard, fence, to))

    async def reserve(self, member: str, wanted: int, most: int) -> int:
        return await self._ask("reserve", lambda: self._store.reserve(member, wanted, most))

    async def load(self, shard: str) -> Mapping[RecordPlace, bytes]:
        return await self._ask("load", lambda: self._store.load(shard))

    async def shards(self) -> Sequence[StoredShard]:
        return await self._ask("shards", self._store.shards)

    async def members(self) -> Sequence[StoredMember]:
        return await self._ask("members", self._store.members)

    async def news(self) -> int:
        return await self._ask("news", self._store.news)

    async def bury(self, member: str, card: bytes) -> bool:
        return await self._ask("bury", lambda: self._store.bury(member, card))

    async def leave(self, member: str) -> None:
        await self._ask("leave", lambda: self._store.leave(member))


# -- a member ----------------------------------------------------------------------------------------


class Sessions:
    """What a shard is made of here: a session at the server, by its number. See ``shards.Contents``."""

    def __init__(self, member: "Member") -> None:
        self._member = member
        self.of: dict[str, int] = {}

    async def take(self, shard: str, fence: int, records: Mapping[RecordPlace, bytes]) -> None:
        world = self._member.world
        if fence <= world.fences.get(shard, 0):
            world.fail(f"{self._member} takes {shard} under {fence}, after {world.fences[shard]}")
        world.fences[shard] = fence
        if records and shard not in self.of:
            self.of[shard] = int(records[_PLACE])
            world.report.sessions_taken_over += 1

    async def flush(self, shard: str) -> bool:
        number = self.of.get(shard)
        changes = {} if number is None else {_PLACE: str(number).encode()}
        return await self._member.membership.write(shard, changes, 3600.0)

    def records(self, shard: str) -> Mapping[RecordPlace, bytes]:
        number = self.of.get(shard)
        return {} if number is None else {_PLACE: str(number).encode()}

    def note(self, shard: str) -> None:
        self._member.tasks.spawn(self._write(shard))

    async def _write(self, shard: str) -> None:
        # As the ledger does: until it is written, or is not this member's any more.
        while shard in self.of and shard in self._member.shards.held:
            try:
                await self.flush(shard)
            except StoreFailure:
                await asyncio.sleep(1.0)
            else:
                return

    def let_go(self, shard: str) -> None:
        self.of.pop(shard, None)

    def is_quiet(self, _: str) -> bool:
        return True

    def is_empty(self, shard: str) -> bool:
        return shard not in self.of


class PlayedMembership(Membership):
    """Remembers until when it is sure of its lease only by assumption."""

    assumed_until = float("-inf")

    def assume(self, seconds: float) -> None:
        super().assume(seconds)
        self.assumed_until = self.sure_until


class Member:
    """One process."""

    def __init__(self, world: "World", machine: int) -> None:
        self.world = world
        self.name = f"{next(world.numbers):016x}"
        self.machine = machine
        self.alive = True
        self.cut_from_store = False
        self.tasks = Tasks()
        self.calls = Tasks()  # that have come in here, and have no answer yet
        self._stopped_until = 0.0
        self.card = Card(member=self.name, pid=1, started=0.0, version="1", addresses=["played"])
        self.membership = PlayedMembership(
            Link(world.store, self), self.name, card=lambda: write_card(self.card), now=world.now
        )
        self.members = Members(self.membership, is_gone=self._is_gone, observe=world.observe)
        self.sessions = Sessions(self)
        self.shards = Shards(
            self.membership,
            self.members,
            self.sessions,
            rules=ClusterRules(outage=world.outage),
            observe=world.observe,
            lease_left=self._lease_left,
            who_has=self._who_has,
            who_serves=self._who_serves,
        )
        self.routing = Routing(self.shards, world.observe)

    def __repr__(self) -> str:
        return f"<Member {self.name[-4:]}>"

    async def start(self) -> None:
        """Be a member, or try until the store can be reached."""
        while True:
            try:
                await self.membership.beat()
                await self.members.look()
                break
            except StoreFailure:
                await asyncio.sleep(1.0)
        self.tasks.spawn(self.shards.keep())

    def stall(self, seconds: float) -> None:
        """Nothing of it runs for so long, as after SIGSTOP."""
        self._stopped_until = self.world.now() + seconds

    @property
    def stands_still(self) -> bool:
        """Whether nothing of it runs now."""
        return self.world.now() < self._stopped_until

    async def runs(self) -> None:
        """Go on when this process may run."""
        while (left := self._stopped_until - self.world.now()) > 0:
            await asyncio.sleep(left)

    def kill(self) -> None:
        """All of it ends at once."""
        self.alive = False
        self.world.settled(self)
        self.shards.close()
        self.tasks.cancel()
        self.calls.cancel()

    async def drain(self) -> None:
        """Let go of everything in order, and end."""
        self.shards.draining = True
        self.card = Card(
            member=self.name, pid=1, started=0.0, version="1", addresses=["played"], draining=True
        )
        deadline = self.world.now() + 10.0
        while self.shards.held and self.alive and self.world.now() < deadline:
            for shard in list(self.shards.held):
                try:
                    await self.shards.release(shard)
                except StoreFailure:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(0.05)
        self.world.settled(self)
        while self.calls and self.world.now() < deadline + 10.0:
            await asyncio.wait(list(self.calls), timeout=1.0)
        if self.alive:
            for shard in list(self.shards.held):
                self.shards.lost(shard)
            with contextlib.suppress(StoreFailure):
                await self.membership.leave()
            self.kill()

    def _is_gone(self, stored: StoredMember) -> bool:
        other = self.world.everybody.get(stored.member)
        return other is not None and other.machine == self.machine and not other.alive

    async def _lease_left(self) -> float | None:
        return left_by(await self._ask_all(self.name, None))

    async def _who_has(self, shard: str) -> str | None:
        return owner_by(await self._ask_all(self.name, shard), self.name)

    async def _who_serves(self, shard: str) -> Served:
        return served_by(await self._ask_all(None, shard))

    async def _ask_all(self, member: str | None, shard: str | None) -> list[tuple[str, LeaseAnswer]]:
        """What those answer whom it reaches, and who run."""
        await asyncio.sleep(_NETWORK_SECONDS)

        async def ask(other: Member) -> tuple[str, LeaseAnswer] | None:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await other.runs()
                    return other.name, await questions.answer(other.shards, member, shard)
            except TimeoutError:
                return None

        answers: list[tuple[str, LeaseAnswer]] = []
        asked = []
        for other in self._reached():
            # Tasks only for those who have something to wait for: without the store, all are asked by all.
            known = None if other.stands_still else questions.known_of(other.shards, member, shard)
            if known is None:
                asked.append(ask(other))
            else:
                answers.append((other.name, known))
        return answers + [answer for answer in await asyncio.gather(*asked) if answer is not None]

    def _reached(self) -> list["Member"]:
        """Whom it knows and reaches."""
        known = [self.world.everybody[card.member] for card in self.members]
        return [other for other in known if other.alive and self.world.reaches(self, other)]


# -- a call ------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """What the client of a call was told, and when."""

    when: float
    number: int
    outcome: str
    read: bool


class Call:
    """One request of a caller. Implements ``routing.Routable``, at the member where it came in."""

    def __init__(self, world: "World", member: Member, shard: str, number: int, *, read: bool) -> None:
        self.hops = 0
        self.is_stream = False
        self.deadline = world.now() + 10.0
        self._world = world
        self._member = member
        self._shard = shard
        self._number = number
        self._read = read

    @property
    def is_read(self) -> bool:
        return self._read

    async def serve(self) -> int:
        """Have the server execute it, in the caller's session."""
        world, member, shard = self._world, self._member, self._shard
        world.check_alone(member, shard)
        await member.runs()
        sessions = member.sessions
        number = sessions.of.get(shard)
        if number is None:
            number = sessions.of[shard] = world.open_session()
            # The client is told of its session when it is written, or cannot be for now.
            try:
                await sessions.flush(shard)
            except StoreFailure:
                sessions.note(shard)
        await asyncio.sleep(world.random.expovariate(100.0))
        await member.runs()
        world.execute(self._number)
        await asyncio.sleep(0.001)
        return number

    async def send(self, card: Card, hops: int) -> int:
        """Have another member answer it."""
        world, other = self._world, self._world.everybody[card.member]
        await asyncio.sleep(_NETWORK_SECONDS)
        if not world.reaches(self._member, other):
            await asyncio.sleep(_CONNECT_SECONDS)
            raise PeerUnreachable("no way there")
        if not other.alive:
            raise PeerRefused("nobody listens")
        forwarded = Call(world, other, self._shard, self._number, read=self._read)
        forwarded.hops = hops
        working = other.calls.spawn(forwarded.arrive())
        # Whoever has sent it may be killed meanwhile.
        working.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([working])
        if working.cancelled():
            raise PeerBroke("it was killed")
        return working.result()

    async def arrive(self) -> int:
        """What becomes of it at a member, once that runs."""
        await self._member.runs()
        return await self._member.routing.answer(self._shard, self)


# -- everything --------------------------------------------------------------------------------------


class World:
    """Members, the store, the server and the network between them; and what must hold in every moment."""

    def __init__(self, report: Report, seed: int, *, outage: StoreOutage = StoreOutage.SERVE) -> None:
        self.report = report
        self.random = random.Random(seed)
        self.outage = outage
        self.numbers = itertools.count(1)
        self.now = asyncio.get_running_loop().time
        self.store = Store(self)
        self.everybody: dict[str, Member] = {}
        self.fences: dict[str, int] = {}
        self.broken: list[str] = []
        self.executed: Counter[int] = Counter()
        self.told: deque[Told] = deque()
        self._holders: dict[str, Member] = {}
        self._cuts: set[frozenset[str]] = set()
        self._living: list[Member] = []

    async def add(self, machine: int) -> Member:
        """Another process."""
        member = Member(self, machine)
        self.everybody[member.name] = member
        await member.start()
        self._living.append(member)
        return member

    def living(self) -> list[Member]:
        """Who takes requests of clients."""
        return self._living

    def settled(self, member: Member) -> None:
        """It takes no more."""
        if member in self._living:
            self._living.remove(member)

    def reaches(self, one: Member, other: Member) -> bool:
        """Whether there is a way from one to the other."""
        return not self._cuts or frozenset((one.name, other.name)) not in self._cuts

    def cut(self, one: Member, other: Member) -> Callable[[], None]:
        """There is none any more, until what this gives is called."""
        pair = frozenset((one.name, other.name))
        self._cuts.add(pair)
        return lambda: self._cuts.discard(pair)

    def observe(self, event: Event) -> None:
        """Count what members tell."""
        if event.name.startswith("cluster.") and event.name not in ("cluster.forwarded",):
            self.report.events[event.name.removeprefix("cluster.")] += 1
        if event.name == "proxy.crashed":
            self.fail(str(event))

    def open_session(self) -> int:
        """Another session at the server."""
        self.report.sessions_opened += 1
        return self.report.sessions_opened

    def execute(self, number: int) -> None:
        """The server executes a call."""
        self.executed[number] += 1

    def check_alone(self, member: Member, shard: str) -> None:
        """A member begins to serve a shard: nobody else may be sure of it."""
        before = self._holders.get(shard)
        self._holders[shard] = member
        if before is None or before is member or not before.alive or shard not in before.shards.held:
            return
        now, other = self.now(), before.membership
        if other.is_sure and member.membership.is_sure:
            held = [each.shards.held[shard] for each in (before, member) if shard in each.shards.held]
            # Without the store, who cannot be asked may have it: the operator wants to go on all the same.
            if now < max(other.assumed_until, member.membership.assumed_until) or not all(
                each.fence for each in held
            ):
                self.report.assumed_together += 1
                return
            self.fail(f"{before} and {member} are both sure of {shard}: {held}")

    def fail(self, text: str) -> None:
        """Something has happened that must not."""
        self.broken.append(f"at {self.now() - _BEGINNING:.2f} s: {text}")

    def check_told(self, *, all_of_them: bool = False) -> None:
        """What clients were told some time ago must be true: what was given up may have gone on since."""
        while self.told and (all_of_them or self.now() - self.told[0].when > _UNDER_WAY_SECONDS):
            told = self.told.popleft()
            self._check_outcome(told.number, told.outcome, read=told.read)

    def _check_outcome(self, number: int, outcome: str, *, read: bool) -> None:
        times = self.executed.pop(number, 0)
        if times > (2 if read else 1):
            self.fail(f"call {number} was executed {times} times")
        if outcome == "answered" and not times:
            self.fail(f"call {number} was answered and not executed")
        if outcome not in ("answered", "unknown", "connection lost") and times:
            self.fail(f"call {number} was executed, and its client told {outcome}")


class Failures:
    """What goes wrong, at random; each kind once in so many seconds."""

    def __init__(self, world: World, every_seconds: Mapping[str, float]) -> None:
        self._world = world
        self._kinds = {
            "kill": self.kill,
            "stall": self.stall,
            "drain": self.drain,
            "store away": self.store_away,
            "cut from store": self.cut_from_store,
            "cut from each other": self.cut_from_each_other,
        }
        self._every_seconds = every_seconds

    def begin(self, tasks: Tasks) -> None:
        """Let them happen, until ``tasks`` are cancelled."""
        for kind, seconds in self._every_seconds.items():
            tasks.spawn(self._repeat(kind, seconds, tasks))

    async def _repeat(self, kind: str, seconds: float, tasks: Tasks) -> None:
        while True:
            await asyncio.sleep(self._world.random.expovariate(1 / seconds))
            self._world.report.failures[kind] += 1
            tasks.spawn(self._kinds[kind]())

    def _somebody(self) -> Member:
        return self._world.random.choice(self._world.living())

    async def kill(self) -> None:
        """A process is gone; another one is started in its place."""
        member = self._somebody()
        if len(self._world.living()) > 1:
            member.kill()
            await asyncio.sleep(self._world.random.uniform(1, 5))
        await self._world.add(member.machine)

    async def stall(self) -> None:
        """A process does not run for a while, perhaps for longer than its lease."""
        self._somebody().stall(self._world.random.uniform(1, 15))

    async def drain(self) -> None:
        """A process is replaced in order."""
        member = self._somebody()
        await self._world.add(member.machine)
        await member.drain()

    async def store_away(self) -> None:
        """Nobody reaches the store."""
        self._world.store.down = True
        await asyncio.sleep(self._world.random.uniform(1, 12))
        self._world.store.down = False

    async def cut_from_store(self) -> None:
        """One member does not reach it."""
        member = self._somebody()
        member.cut_from_store = True
        await asyncio.sleep(self._world.random.uniform(1, 15))
        member.cut_from_store = False

    async def cut_from_each_other(self) -> None:
        """Two members do not reach each other."""
        one, other = self._somebody(), self._somebody()
        if one is not other:
            mend = self._world.cut(one, other)
            await asyncio.sleep(self._world.random.uniform(5, 30))
            mend()


async def call(world: World, shard: str, number: int) -> None:
    """A client calls at any member, and is told what came of it."""
    read = world.random.random() < 0.5
    member = world.random.choice(world.living())
    way = Call(world, member, shard, number, read=read)
    began = world.now()
    # The client's connection ends with the process that it has come to.
    working = member.calls.spawn(way.arrive())
    await asyncio.wait([working])
    if working.cancelled():
        outcome = "connection lost"
    elif (error := working.exception()) is None:
        outcome = "answered"
        world.report.longest_wait_seconds = max(world.report.longest_wait_seconds, world.now() - began)
    elif isinstance(error, OutcomeUnknown):
        outcome = "unknown"
    elif isinstance(error, ProxyError):
        outcome = error.reason
    else:
        outcome = "crashed"
        world.fail(f"call {number}: {error!r}")
    world.report.outcomes[outcome] += 1
    world.told.append(Told(world.now(), number, outcome, read))


async def play(report: Report, seed: int, every_seconds: Mapping[str, float], *, calls_each: int) -> None:
    """Let all callers call at random times, while things go wrong."""
    world = World(report, seed)
    for number in range(report.members):
        await world.add(number // 4)
    failing, calling = Tasks(), Tasks()
    Failures(world, every_seconds).begin(failing)
    step_seconds, shards = 0.05, [f"{number:x}" for number in range(report.callers)]
    order = shards * calls_each
    world.random.shuffle(order)
    steps = max(1, int(report.seconds / step_seconds))
    for step in range(steps):
        for place in range(step * len(order) // steps, (step + 1) * len(order) // steps):
            report.calls += 1
            calling.spawn(call(world, order[place], place))
        await asyncio.sleep(step_seconds)
        world.check_told()
        if world.broken:
            break
    failing.cancel()
    world.store.down = False
    await calling.ended()
    await asyncio.sleep(_UNDER_WAY_SECONDS)
    world.check_told(all_of_them=True)
    for member in list(world.living()):
        member.kill()
    if world.broken:
        raise Broken("\n".join(world.broken[:20]))


def simulate(
    members: int,
    callers: int,
    *,
    seconds: float = 60.0,
    seed: int = 1,
    every_seconds: Mapping[str, float],
    calls_each: int = 3,
) -> Report:
    """Play it from the beginning to the end.

    Raises:
        Broken: something happened that must not.
    """
    report = Report(members, callers, seconds)
    began = time.perf_counter()
    loop = VirtualLoop()
    try:
        loop.run_until_complete(play(report, seed, every_seconds, calls_each=calls_each))
        loop.run_until_complete(_end(loop))
    finally:
        loop.close()
    report.real_seconds = time.perf_counter() - began
    return report


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


EVERYTHING: Final = {
    "kill": 3.0,
    "stall": 5.0,
    "drain": 7.0,
    "store away": 40.0,
    "cut from store": 10.0,
    "cut from each other": 4.0,
}
_SIZES: Final = (25, 50, 100, 200)


def draw_growth(reports: Sequence[Report]) -> str:
    """How much the store was asked in all, by the size of the cluster, as an SVG."""
    groups = []
    for title, verbs in (
        ("Claims and loads", ("claim", "load")),
        ("Beats, and looks for news of the others", ("beat", "news", "members")),
        ("Records written", ("write",)),
    ):
        bars = []
        for report in reports:
            count = sum(report.verbs[verb] for verb in verbs)
            figure = Figure(median=count, low=count, high=count)
            bars.append(Bar(name=f"{report.members} members", figure=figure))
        groups.append(Group(title=title, unit="", bars=bars))
    callers = reports[0].callers // reports[0].members
    return draw(f"What a cluster asks of its store in all, with {callers:,} callers a member", groups)


def main() -> None:
    """Run it as the options say."""
    parser = argparse.ArgumentParser(description="A cluster on a clock of its own.")
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--callers", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls-each", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="run four sizes, up to --members, and draw this SVG")
    given = parser.parse_args()

    def run(members: int, callers: int) -> Report:
        report = simulate(
            members,
            callers,
            seconds=given.seconds,
            seed=given.seed,
            every_seconds=EVERYTHING,
            calls_each=given.calls_each,
        )
        print("\n".join([*report.lines(), ""]), flush=True)
        return report

    if given.plot is None:
        run(given.members, given.callers)
    else:
        parts = [given.members * size // _SIZES[-1] for size in _SIZES]
        reports = [run(members, members * given.callers // given.members) for members in parts]
        given.plot.write_text(draw_growth(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
