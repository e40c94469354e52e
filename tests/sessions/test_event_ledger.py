"""What is written to an event store, and when: nothing that a client may ask for is forgotten on the way."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import Recorder

from mcp_session_proxy import events
from mcp_session_proxy.sessions.event_ledger import EventLedger, EventRules
from mcp_session_proxy.sessions.kept_stream import AGE, EventBudget
from mcp_session_proxy.sessions.mailbox import Former, Mailbox
from mcp_session_proxy.store.events import Numbered
from mcp_session_proxy.store.sealing import KEY_BYTES, Keys

pytestmark = pytest.mark.looptime

KEYS = Keys(b"k" * KEY_BYTES)


class Store:
    """Remembers what it was told, and takes its time or fails if it is to."""

    def __init__(self) -> None:
        self.places: dict[str, dict[int, bytes]] = {}
        self.told: list[tuple[Any, ...]] = []
        self.gate: asyncio.Event | None = None
        self.broken = False

    async def _do(self, *what: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise OSError("gone")
        self.told.append(what)

    async def append(self, place: str, events: Sequence[Numbered], keep: int, ttl_seconds: float) -> None:
        await self._do("append", [number for number, _ in events], keep, ttl_seconds)
        self.places.setdefault(place, {}).update(events)

    async def after(self, place: str, number: int) -> Sequence[Numbered]:
        await self._do("after", number)
        # In any order: nobody is to rely on it.
        return [event for event in reversed(self.places.get(place, {}).items()) if event[0] > number]

    async def drop(self, place: str) -> None:
        await self._do("drop")
        self.places.pop(place, None)


class Scene:
    """A client's mailbox, kept in a store."""

    def __init__(self, **rules: Any) -> None:
        self.store = Store()
        self.recorder = Recorder()
        given = {"max_events": 5, "linger_seconds": 30.0, **rules}
        self.ledger = EventLedger(self.store, KEYS, EventRules(**given), self.recorder)
        self.mailbox = self.make()

    def make(self, former: Former | None = None) -> Mailbox:
        """A mailbox of the same client session."""
        return Mailbox(EventBudget(5), self.ledger.keeping("principal", "id"), former)

    async def next_process(self, fence: int = 2) -> Mailbox:
        """The mailbox as the next process has it."""
        await self.ledger.flush()
        return self.make(Former(self.mailbox.nonce, fence * AGE))


async def read(ledger: EventLedger, mailbox: Mailbox, event_id: str) -> list[bytes] | None:
    """What a client gets that comes back with this id."""
    await ledger.fetch(mailbox, event_id)
    found = mailbox.find(event_id)
    return None if found is None else [event.data for event in found[0].after(found[1])]


async def test_a_batch_is_one_write() -> None:
    """What comes within a moment goes together, once, and to the place of its stream."""
    scene = Scene()
    keeping = asyncio.create_task(scene.ledger.keep_up())
    post = scene.mailbox.open([b'"a"'])
    for _ in range(2):
        scene.mailbox.standalone.append(b"x")
        post.append(b"y")
    await asyncio.sleep(1)
    scene.mailbox.standalone.append(b"z")
    await asyncio.sleep(1)
    assert [what[:2] for what in scene.store.told] == [
        ("append", [0, 1, 2]),
        ("append", [1, 2]),
        ("append", [3]),
    ]
    assert scene.ledger.pending == 0
    keeping.cancel()


async def test_an_answer_that_was_written_is_kept_for_a_moment() -> None:
    """Its end says how long; a client that was cut off has the whole time."""
    scene = Scene(ttl_seconds=600.0)
    written, missed = scene.mailbox.open(), scene.mailbox.open()
    for stream, reached_at in ((written, 1.0), (missed, None)):
        stream.append(b"x")
        stream.close(reached_at=reached_at)
    await scene.ledger.flush()
    assert [what[3] for what in scene.store.told] == [30.0, 600.0]


async def test_the_next_process_goes_on() -> None:
    """Old ids lead to what came after them, and new ones are greater."""
    scene = Scene()
    first = scene.mailbox.standalone.append(b"1")
    scene.mailbox.standalone.append(b"2")
    mailbox = await scene.next_process()
    newest = mailbox.standalone.append(b"3")
    assert await read(scene.ledger, mailbox, first) == [b"2", b"3"]
    assert await read(scene.ledger, mailbox, newest) == []
    assert mailbox.open().event_id(0) != scene.mailbox.open().event_id(0)
    third = scene.make(Former(mailbox.nonce, 3 * AGE))
    await scene.ledger.flush()
    assert await read(scene.ledger, third, first) == [b"2", b"3"]


async def test_what_was_not_written_is_not_taken_for_something_else() -> None:
    """A client that had an event in the last moment before a kill gets all of the next process."""
    scene = Scene()
    scene.mailbox.standalone.append(b"1")
    mailbox = await scene.next_process()
    unwritten = [scene.mailbox.standalone.append(b"%d" % n) for n in range(2, 5)]
    for n in range(5, 8):
        mailbox.standalone.append(b"%d" % n)
    assert await read(scene.ledger, mailbox, unwritten[-1]) == [b"5", b"6", b"7"]


async def test_an_answer_of_which_the_end_was_lost() -> None:
    """Each request without an answer gets an error, behind all that its client may have seen."""
    scene = Scene()
    post = scene.mailbox.open([b"1", b'"b"'])
    first = post.append(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    mailbox = await scene.next_process()
    seen = [post.append(b"lost") for _ in range(3)]
    [answer] = await read(scene.ledger, mailbox, seen[-1]) or []
    assert b'"id":"b"' in answer
    assert b"outcome-unknown" in answer
    assert await read(scene.ledger, mailbox, first) == [answer]


async def test_what_memory_has_let_go_of_is_whole() -> None:
    """An answer of this process that is not in memory any more is read as it was."""
    scene = Scene()
    post = scene.mailbox.open([b"2"])
    post.append(b"x")
    await scene.ledger.flush()
    post.leave_memory()
    assert await read(scene.ledger, scene.mailbox, post.event_id(0)) == [b"x"]


async def test_an_answer_that_has_only_begun() -> None:
    """Its client has the id of its beginning, and is told by the next process that nobody knows."""
    scene = Scene()
    begun = scene.mailbox.open([b"7"]).event_id(0)
    mailbox = await scene.next_process()
    [answer] = await read(scene.ledger, mailbox, begun) or []
    assert b'"id":7' in answer


async def test_what_nobody_can_ask_for_goes() -> None:
    """A client session that is over, and answers for which there are too many."""
    scene = Scene()
    ids = [scene.mailbox.open().append(b"x") for _ in range(20)]
    await scene.ledger.flush()
    assert len(scene.store.places) == 15
    assert await read(scene.ledger, scene.mailbox, ids[0].rpartition("-")[0] + "-0") is None
    scene.mailbox.close()
    await scene.ledger.flush()
    assert scene.store.places == {}


async def test_memory_is_let_go_of_and_the_store_is_not() -> None:
    """Whoever stops leaves all of it to the next one."""
    scene = Scene()
    scene.mailbox.standalone.append(b"x")
    scene.mailbox.open().append(b"y")
    scene.mailbox.part()
    scene.mailbox.standalone.append(b"z")
    await scene.ledger.flush()
    assert sorted(map(len, scene.store.places.values())) == [1, 2]


async def test_only_so_much() -> None:
    """Over the limit of one process, what was written to longest ago goes."""
    scene = Scene(store_bytes=5000)
    streams = [scene.mailbox.open() for _ in range(3)]
    for stream in streams:
        stream.append(b"x" * 1000)
        await scene.ledger.flush()
    assert len(scene.store.places) == 2
    assert streams[0].copy is not None
    assert streams[0].copy.place not in scene.store.places


async def test_a_store_that_fails_is_told_of_once() -> None:
    """It gets everything when it works again, and what was to be forgotten is."""
    scene = Scene()
    keeping = asyncio.create_task(scene.ledger.keep_up())
    gone = scene.mailbox.open()
    gone.append(b"y")
    await asyncio.sleep(1)
    scene.store.broken = True
    for n in range(3):
        scene.mailbox.standalone.append(b"%d" % n)
        await asyncio.sleep(5)
    gone.drop()
    await asyncio.sleep(5)
    kinds: list[Any] = [type(event) for event in scene.recorder.events]
    assert kinds == [events.StoreAsked, events.StoreFailed]
    scene.store.broken = False
    await asyncio.sleep(5)
    assert [len(kept) for kept in scene.store.places.values()] == [3]
    assert events.StoreRecovered in [type(event) for event in scene.recorder.events]
    keeping.cancel()


async def test_a_write_that_is_cut_short_is_made_again() -> None:
    """Nothing is lost of what was noted."""
    scene = Scene()
    scene.store.gate = asyncio.Event()
    scene.mailbox.standalone.append(b"1")
    writing = asyncio.create_task(scene.ledger.flush())
    await asyncio.sleep(1)
    scene.mailbox.standalone.append(b"2")
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    scene.store.gate.set()
    await scene.ledger.flush()
    assert [sorted(kept) for kept in scene.store.places.values()] == [[1, 2]]


async def test_whoever_needs_it_written_waits_for_a_moment() -> None:
    """Half a second, and not at all for a store that fails."""
    scene = Scene()
    now = asyncio.get_running_loop().time
    scene.mailbox.standalone.append(b"1")
    assert await scene.ledger.settle()
    assert len(scene.store.places) == 1
    scene.store.gate = asyncio.Event()
    scene.mailbox.standalone.append(b"2")
    began = now()
    assert not await scene.ledger.settle()
    assert (now() - began, scene.ledger.pending) == (0.5, 1)
    scene.store.gate, scene.store.broken = None, True
    await scene.ledger.flush()
    scene.store.gate = asyncio.Event()
    began = now()
    assert await scene.ledger.settle()
    assert (now() - began, scene.ledger.pending) == (0.0, 1)


async def test_a_client_waits_a_second_at_most() -> None:
    """Then it goes on with what is in memory."""
    scene = Scene()
    first = scene.mailbox.standalone.append(b"1")
    mailbox = await scene.next_process()
    scene.store.gate = asyncio.Event()
    began = asyncio.get_running_loop().time()
    assert await read(scene.ledger, mailbox, first) == []
    assert asyncio.get_running_loop().time() - began == 1.0


async def test_what_was_tampered_with_is_not_given() -> None:
    """Neither what was changed nor what was put into another's place."""
    scene = Scene()
    ids = [scene.mailbox.standalone.append(b"%d" % n) for n in range(4)]
    mailbox = await scene.next_process()
    [kept] = scene.store.places.values()
    kept[3] = kept[4]
    assert await read(scene.ledger, mailbox, ids[0]) == [b"1", b"3"]
