"""What is to be written: nothing noted is lost, whatever happens while it is written."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from fakes import Recorder

from mcp_session_proxy import events
from mcp_session_proxy.sessions.books import Books, Usage
from mcp_session_proxy.sessions.client import ClientSession, Farewell
from mcp_session_proxy.sessions.directory import Directory, DirectoryRules
from mcp_session_proxy.sessions.identity import ANONYMOUS, SessionKey, sessionless_profile
from mcp_session_proxy.sessions.ledger import SessionLedger
from mcp_session_proxy.sessions.record import ClientRecord
from mcp_session_proxy.sessions.stored import CLIENT, UPSTREAM
from mcp_session_proxy.store.engine import Fenced, RecordPlace, StoreFailure
from mcp_session_proxy.store.membership import Membership
from mcp_session_proxy.store.memory import MemoryEngine
from mcp_session_proxy.store.sealing import KEY_BYTES, Keys

pytestmark = pytest.mark.looptime

PROFILE = sessionless_profile("1")


class SlowEngine(MemoryEngine):
    """A store that takes its time, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: asyncio.Event | None = None
        self.broken = False
        self.written = 0  # records, and those that are to go

    async def write(
        self,
        member: str,
        shard: str,
        fence: int,
        changes: Mapping[RecordPlace, bytes | None],
        ttl_seconds: float,
    ) -> Fenced:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise StoreFailure("disk full")
        self.written += len(changes)
        return await super().write(member, shard, fence, changes, ttl_seconds)


def make_directory() -> Directory:
    rules = DirectoryRules(max_sessions=9, max_sessions_per_principal=9, timeout_seconds=600.0)
    return Directory(rules)


async def make(
    engine: SlowEngine, member: str = "m", directory: Directory | None = None
) -> tuple[SessionLedger, Recorder]:
    told = Recorder()
    membership = Membership(engine, member, card=lambda: b"")
    await membership.beat()
    ledger = SessionLedger(
        membership,
        Keys(b"k" * KEY_BYTES),
        books=Books(),
        directory=make_directory() if directory is None else directory,
        ttl_seconds=lambda: 60.0,
        observe=told,
        clock=asyncio.get_running_loop().time,
    )
    return ledger, told


async def stored(engine: SlowEngine, shard: str) -> set[str]:
    return {place.name for place in await engine.load(shard)}


async def test_what_is_noted_is_written_soon() -> None:
    """A moment later, in one write for each caller."""
    engine = SlowEngine()
    ledger, _ = await make(engine)
    keeping = asyncio.create_task(ledger.keep_up())
    for claim, principal in (("a", "one"), ("b", "one"), ("c", "two")):
        ledger.note_claim(claim, principal)
    assert ledger.pending == 3
    await asyncio.sleep(0.1)
    assert (await stored(engine, "one"), await stored(engine, "two")) == ({"a", "b"}, {"c"})
    assert ledger.pending == 0
    keeping.cancel()


def client_session(ledger: SessionLedger, directory: Directory, number: int = 0) -> ClientSession:
    """One that has begun and was told of."""
    now = asyncio.get_running_loop().time()
    client = ClientSession(
        ClientRecord(
            id=f"id-{number}",
            tag=f"c{number:08x}",
            principal=ANONYMOUS,
            key=SessionKey(ANONYMOUS.digest, None, PROFILE.digest),
            profile=PROFILE,
            usage=Usage.EXCLUSIVE,
            adopted=False,
            created=now,
            last_used=now,
        )
    )
    directory.add(client)
    ledger.note_client(client)
    return client


async def test_goodbyes_are_written_soon() -> None:
    """That a client session has begun is written in a moment, and that it is over; once, where both come at
    once. Nothing is written that has not changed.
    """
    engine = SlowEngine()
    directory = make_directory()
    ledger, _ = await make(engine, directory=directory)
    keeping = asyncio.create_task(ledger.keep_up())
    first = client_session(ledger, directory, 1)
    await asyncio.sleep(0.1)
    assert engine.written == 1
    second = client_session(ledger, directory, 2)
    for client in (first, second):
        client.farewell = Farewell.DELETED
        ledger.note_client(client)
    await asyncio.sleep(0.1)
    assert (engine.written, ledger.pending) == (3, 0)
    await asyncio.sleep(30)
    assert engine.written == 3  # nothing has changed
    for client in (first, second):
        directory.touch(client, asyncio.get_running_loop().time())
    await asyncio.sleep(30)
    assert engine.written == 5
    keeping.cancel()


async def test_what_waits_is_written_at_the_end() -> None:
    """In an orderly end nothing that could have waited is lost."""
    engine = SlowEngine()
    directory = make_directory()
    ledger, _ = await make(engine, directory=directory)
    client = client_session(ledger, directory)
    await ledger.flush()
    ledger.note_client(client)
    directory.remove(client, "age")
    ledger.drop_client(client)
    assert await ledger.finish()
    assert not await stored(engine, ANONYMOUS.digest)


async def test_those_who_come_together_are_stored_together() -> None:
    """Names of what was minted begin with the time, and are of one length with all others."""
    engine = SlowEngine()
    directory = make_directory()
    ledger, _ = await make(engine, directory=directory)
    names: list[str] = []
    for number in range(3):
        client_session(ledger, directory, number)
        await ledger.flush()
        names += await stored(engine, ANONYMOUS.digest) - set(names)
        await asyncio.sleep(60)
    assert names == sorted(names)
    assert {len(name) for name in names} == {len(ledger.keys.name_of("id"))}


async def held_up() -> tuple[SlowEngine, asyncio.Event, SessionLedger, "asyncio.Task[None]"]:
    """A ledger whose first write goes on until the gate is open."""
    engine = SlowEngine()
    gate = engine.gate = asyncio.Event()
    ledger, _ = await make(engine)
    ledger.note_claim("a", "one")
    writing = asyncio.create_task(ledger.flush())
    await asyncio.sleep(0.1)
    return engine, gate, ledger, writing


async def test_a_write_that_is_cut_short_is_made_again() -> None:
    """The one who writes is cancelled in the middle of it: all that was noted is noted still."""
    engine, gate, ledger, writing = await held_up()
    ledger.note_claim("b", "two")
    writing.cancel()
    await asyncio.sleep(0.1)
    assert ledger.pending == 2
    gate.set()
    await ledger.flush()
    assert (await stored(engine, "one"), await stored(engine, "two")) == ({"a"}, {"b"})


async def test_events_are_written_first() -> None:
    """What a record says of a stream is never newer than the events of it that are written."""
    engine, steps = SlowEngine(), []
    ledger, _ = await make(engine)

    async def settle() -> bool:
        steps.append(await stored(engine, "one"))
        return True

    ledger.before_writing.append(settle)
    ledger.note_claim("a", "one")
    await ledger.flush()
    steps.append(await stored(engine, "one"))
    assert steps == [set(), {"a"}]


async def test_what_events_are_not_written_of_waits() -> None:
    """As long as events take their time, no record says where a server's stream goes on; others do not wait,
    and at the end none does.
    """
    engine, settled = SlowEngine(), False
    ledger, _ = await make(engine)

    async def settle() -> bool:
        return settled

    async def noted(session: str, client: str) -> set[str]:
        ledger.note("one", RecordPlace(UPSTREAM, session), b"{}")
        ledger.note("one", RecordPlace(CLIENT, client), b"{}")
        await ledger.flush()
        return await stored(engine, "one")

    ledger.before_writing.append(settle)
    assert await noted("s1", "c1") == {"c1"}
    assert ledger.pending == 1
    ledger.note("two", RecordPlace(UPSTREAM, "s2"), b"{}")
    await ledger.flush()
    assert (await stored(engine, "two"), ledger.pending) == (set(), 2)
    settled = True
    await ledger.flush()
    assert (await stored(engine, "one"), await stored(engine, "two"), ledger.pending) == (
        {"c1", "s1"},
        {"s2"},
        0,
    )
    settled = False
    ledger.note("two", RecordPlace(UPSTREAM, "s3"), b"{}")
    assert await ledger.finish()
    assert await stored(engine, "two") == {"s2", "s3"}


async def test_what_is_being_written_counts() -> None:
    """A store that takes its time has it all still to write."""
    _, gate, ledger, writing = await held_up()
    ledger.note_claim("a", "one")
    ledger.note_claim("b", "one")
    assert ledger.pending == 2
    gate.set()
    await writing
    assert ledger.pending == 2
    await ledger.flush()
    assert ledger.pending == 0


async def test_a_store_that_fails_is_told_of_once() -> None:
    """It is tried again every second; when it works, all is there, and that is told, too."""
    engine = SlowEngine()
    engine.broken = True
    ledger, told = await make(engine)
    keeping = asyncio.create_task(ledger.keep_up())
    for number in range(5):
        ledger.note_claim(str(number), "one")
        await asyncio.sleep(2)
    kinds: list[Any] = [type(event) for event in told.events]
    assert kinds == [events.StoreFailed]
    engine.broken = False
    await asyncio.sleep(2)
    assert await stored(engine, "one") == {"0", "1", "2", "3", "4"}
    assert isinstance(told.events[-1], events.StoreRecovered)
    keeping.cancel()


async def test_what_another_owns_waits() -> None:
    """Nothing of it is written as long as that one lives; then all of it is."""
    engine = SlowEngine()
    other, _ = await make(engine, "other")
    other.note_claim("a", "one")
    await other.flush()
    ledger, _ = await make(engine)
    ledger.note_claim("b", "one")
    ledger.note_claim("c", "two")
    await ledger.flush()
    assert (await stored(engine, "one"), await stored(engine, "two")) == ({"a"}, {"c"})
    await other.membership.leave()
    await ledger.flush()
    assert await stored(engine, "one") == {"a", "b"}
