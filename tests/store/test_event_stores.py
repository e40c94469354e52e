"""What every event store promises: one suite, each of ours."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from engine_world import HandClock, key_value_server, valkey_engine
from key_value_server import PROGRAMS
from mcp.server.streamable_http import EventCallback, EventMessage
from mcp.server.streamable_http import EventStore as SdkEventStore

from mcp_session_proxy.store.events import CannotLoad, EventStore, load
from mcp_session_proxy.store.sdk_events import SdkEvents
from mcp_session_proxy.store.sqlite import SqliteEngine

HERE, THERE = "a/b/1f-0", "a/b/1f-1"
TTL = 60.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: HandClock) -> AsyncIterator[SqliteEngine]:
    opened = SqliteEngine(tmp_path / "state.db", now=clock, wall=clock, boot="this one")
    await opened.open()
    yield opened
    await opened.close()


class SdkStore(SdkEventStore):
    """As the SDK's documents have one: of each stream, so many events, found by their ids."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.events: dict[str, tuple[str, Any]] = {}

    async def store_event(self, stream_id: str, message: Any) -> str:
        event_id = str(len(self.events))
        self.events[event_id] = (stream_id, message)
        return event_id

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if last_event_id not in self.events:
            return None
        stream_id, _ = self.events[last_event_id]
        of_stream = [name for name, (stream, _) in self.events.items() if stream == stream_id]
        for name in of_stream[-self.most :]:
            if int(name) > int(last_event_id):
                await send_callback(EventMessage(self.events[name][1], name))
        return stream_id


@pytest.fixture(params=["sqlite", "sdk", *PROGRAMS])
async def store(
    request: pytest.FixtureRequest, engine: SqliteEngine, tmp_path: Path, clock: HandClock
) -> AsyncIterator[EventStore]:
    if request.param == "sqlite":
        yield engine.events
        return
    if request.param == "sdk":
        async with SdkEvents(SdkStore(), tmp_path / "ids.db", now=clock) as adapted:
            yield adapted
        return
    other = valkey_engine(key_value_server(request.param))
    yield other.events
    await other.close()


async def test_what_came_after(store: EventStore) -> None:
    """Each place has its own events, in their order; what nothing was kept of is empty."""
    await store.append(HERE, [(0, b"a"), (1, b"b")], 10, TTL)
    await store.append(THERE, [(1, b"x")], 10, TTL)
    await store.append(HERE, [(2**62, b"c")], 10, TTL)
    assert list(await store.after(HERE, -1)) == [(0, b"a"), (1, b"b"), (2**62, b"c")]
    assert list(await store.after(HERE, 0)) == [(1, b"b"), (2**62, b"c")]
    assert list(await store.after(HERE, 2**62)) == []
    assert list(await store.after(THERE, 0)) == [(1, b"x")]
    assert list(await store.after("elsewhere", -1)) == []


async def test_the_newest_are_kept(store: EventStore) -> None:
    """As many as were asked for last; of other places, nothing goes."""
    await store.append(THERE, [(1, b"x")], 10, TTL)
    for number in range(10):
        await store.append(HERE, [(number, b"%d" % number)], 3, TTL)
    assert [number for number, _ in await store.after(HERE, -1)] == [7, 8, 9]
    assert len(await store.after(THERE, -1)) == 1


async def test_twice_is_once(store: EventStore) -> None:
    """A write that was made again, because nobody knew whether it was made, changes nothing."""
    for _ in range(2):
        await store.append(HERE, [(1, b"a"), (2, b"b")], 10, TTL)
    assert list(await store.after(HERE, 0)) == [(1, b"a"), (2, b"b")]


async def test_a_place_is_forgotten(store: EventStore) -> None:
    """On demand, and then it begins anew."""
    await store.append(HERE, [(1, b"a")], 10, TTL)
    await store.append(THERE, [(1, b"x")], 10, TTL)
    await store.drop(HERE)
    await store.drop("elsewhere")
    assert list(await store.after(HERE, -1)) == []
    assert list(await store.after(THERE, -1)) == [(1, b"x")]
    await store.append(HERE, [(2, b"b")], 10, TTL)
    assert list(await store.after(HERE, -1)) == [(2, b"b")]


@pytest.mark.parametrize("store", ["sqlite", "sdk"], indirect=True)
async def test_after_its_time(store: EventStore, clock: HandClock) -> None:
    """The last word counts, be it longer or shorter."""
    await store.append(HERE, [(1, b"a")], 10, 5.0)
    await store.append(HERE, [], 10, 60.0)
    await store.append(THERE, [(1, b"x")], 10, 60.0)
    await store.append(THERE, [], 10, 5.0)
    clock.seconds += 10.0
    assert list(await store.after(HERE, 0)) == [(1, b"a")]
    assert list(await store.after(THERE, 0)) == []


async def test_nothing_is_left(engine: SqliteEngine, clock: HandClock) -> None:
    """What has had its time is gone with the next beat."""
    for place in (HERE, THERE):
        await engine.events.append(place, [(1, b"a")], 10, 60.0 if place == HERE else 5.0)
    for seconds, expected in ((10.0, 1), (60.0, 0)):
        clock.seconds += seconds
        await engine.beat("m", b"", 5.0, 0)
        left = await engine.file.run(lambda: engine._db.execute("SELECT count(*) FROM events").fetchone())
        assert left == (expected,)


async def test_a_store_of_the_sdk_in_the_next_process(tmp_path: Path, clock: HandClock) -> None:
    """It finds again what it has, also where the store itself has let go of the beginning."""
    theirs, path = SdkStore(), tmp_path / "ids.db"
    async with SdkEvents(theirs, path, now=clock) as store:
        await store.append(HERE, [(n, b"%d" % n) for n in range(10)], 10, TTL)
    async with SdkEvents(theirs, path, now=clock) as store:
        await store.append(HERE, [(2**40, b"more")], 10, TTL)
        assert [number for number, _ in await store.after(HERE, 7)] == [8, 9, 2**40]
        theirs.most = 2
        assert [number for number, _ in await store.after(HERE, -1)] == [9, 2**40]
        clock.seconds += 2 * TTL
        await store.append(THERE, [(1, b"x")], 10, TTL)
        assert list(await store.after(HERE, -1)) == []


# -- by name -------------------------------------------------------------------------------------------


_MODULE = """
class Store:
    entered = left = 0
    async def append(self, place, events, keep, ttl_seconds): ...
    async def after(self, place, number): return []
    async def drop(self, place): ...

class Entered(Store):
    async def __aenter__(self):
        Store.entered += 1
        return self
    async def __aexit__(self, *_):
        Store.left += 1

ready = Store()

def make():
    return Store()

async def make_later():
    return Entered()

class parts:
    store = ready

class Half:
    async def append(self, place, events, keep, ttl_seconds): ...

def broken():
    raise RuntimeError("no way")

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported."""
    name = f"own_events_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("attribute", ["Store", "Entered", "ready", "make", "make_later", "parts.store"])
async def test_a_store_of_ones_own(module: str, attribute: str) -> None:
    """It is made once, whatever makes it; one that can be entered is, and is left in the end."""
    async with AsyncExitStack() as stack:
        store = await load(f"{module}:{attribute}", stack)
        await store.append(HERE, [], 1, TTL)
        kind = type(store)
    entered = attribute in ("Entered", "make_later")
    assert (kind.entered, kind.left) == ((1, 1) if entered else (0, 0))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Half", "no method after and no drop"),
        ("broken", "RuntimeError: no way"),
        ("missing", "has no attribute 'missing'"),
        ("number", "no method append and no after and no drop"),
    ],
)
async def test_what_is_no_store(module: str, name: str, problem: str) -> None:
    """It is said what is wrong with it, and by which name it was asked for."""
    async with AsyncExitStack() as stack:
        with pytest.raises(CannotLoad, match=f"{module}:{name}.*{problem}"):
            await load(f"{module}:{name}", stack)
        with pytest.raises(CannotLoad, match="No module named 'nowhere'"):
            await load("nowhere:store", stack)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_key_of_events_ends(program: str) -> None:
    """In a store that forgets by itself, the last word counts as well."""
    server = key_value_server(program)
    engine = valkey_engine(server)
    for ttl_seconds in (5.0, 60.0, 10.0):
        await engine.events.append(HERE, [], 10, ttl_seconds)
        await engine.events.append(HERE, [(1, b"a")], 10, ttl_seconds)
        assert ttl_seconds - 5 < server.ask("PTTL", f"{engine._prefix}e:{HERE}") / 1000 <= ttl_seconds
    await engine.close()
