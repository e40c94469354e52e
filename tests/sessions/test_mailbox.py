"""What is kept for a client's streams, and for how long."""

import asyncio
from typing import Any

import pytest
from fakes import settle
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.memory import Share
from mcp_session_proxy.sessions import kept_stream as module
from mcp_session_proxy.sessions.kept_stream import EventBudget, Stream
from mcp_session_proxy.sessions.mailbox import Mailbox


def kept(stream: Stream, after: int = 0) -> list[bytes]:
    return [event.data for event in stream.after(after)]


def message(size_bytes: int) -> bytes:
    """A message that is the same object as no other."""
    return bytes(bytearray(b"x" * size_bytes))


# -- one stream ------------------------------------------------------------------------------------


def test_events_are_numbered_and_kept() -> None:
    """Each event has an id under which the client can continue behind it."""
    stream = Stream("x-0", EventBudget(10))
    assert [stream.append(b"%d" % n) for n in range(3)] == ["x-0-1", "x-0-2", "x-0-3"]
    assert kept(stream) == [b"0", b"1", b"2"]
    assert kept(stream, 2) == [b"2"]
    assert kept(stream, 99) == []


def test_only_the_newest_are_kept() -> None:
    """Over the bound the oldest events go; their numbers are not used again."""
    stream = Stream("x", EventBudget(3))
    for number in range(10):
        stream.append(b"%d" % number)
    assert kept(stream) == [b"7", b"8", b"9"]
    assert [event.number for event in stream.after(0)] == [8, 9, 10]


def test_large_events_go_earlier() -> None:
    """There is a bound in bytes, too; the newest event is kept whatever its size."""
    stream = Stream("x", EventBudget(100))
    for _ in range(5):
        stream.append(b"x" * 400_000)
    assert len(kept(stream)) == 2
    stream.append(b"y" * 5_000_000)
    assert [len(data) for data in kept(stream)] == [5_000_000]


@given(
    sizes=st.lists(st.integers(0, 700_000), max_size=30),
    max_events=st.integers(0, 10),
)
def test_bounds_hold(sizes: list[int], max_events: int) -> None:
    """Whatever is appended while nobody reads, only the newest event may be over the bounds."""
    stream = Stream("x", EventBudget(max_events))
    for size in sizes:
        stream.append(b"x" * size)
        events = kept(stream)
        assert len(events) == 1 or (len(events) <= max_events and sum(map(len, events)) <= 1024 * 1024)
        assert stream._bytes == sum(map(len, events))


def test_what_a_reader_has_not_read_yet_is_kept() -> None:
    """A burst over the bounds does not lose events for a client that is connected and reading."""
    stream = Stream("x", EventBudget(0))
    stream.take_over(0)[0]
    for _ in range(5):
        stream.append(b"x" * 500_000)
    assert len(kept(stream)) == 5
    stream.taken = 4
    stream.append(b"y")
    assert kept(stream, 4) == [b"x" * 500_000, b"y"]


def test_stuck_reader_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is connected and reads nothing does not fill our memory."""
    monkeypatch.setattr(module, "UNREAD_EVENTS", 50)
    stream = Stream("x", EventBudget(5))
    stream.take_over(0)[0]
    for number in range(1000):
        stream.append(b"%d" % number)
    assert len(kept(stream)) == 50
    big = Stream("x", EventBudget(5))
    big.take_over(0)
    for _ in range(100):
        big.append(b"x" * 1024 * 1024)
    assert sum(map(len, kept(big))) <= 16 * 1024 * 1024


def test_the_newest_follower_wins() -> None:
    """A new reader ends the one before; leaving late takes nothing from the new one."""
    stream = Stream("x", EventBudget(5))
    assert not stream.followed
    first = stream.take_over(0)[0]
    assert stream.is_follower(first)
    second = stream.take_over(0)[0]
    assert not stream.is_follower(first)
    stream.leave(first)
    assert stream.is_follower(second)
    assert stream.followed
    stream.leave(second)
    assert not stream.followed


def test_end_following() -> None:
    """The reader can be sent away; the stream and its events stay."""
    stream = Stream("x", EventBudget(5))
    stream.append(b"1")
    follower = stream.take_over(0)[0]
    stream.end_following()
    assert not stream.is_follower(follower)
    assert not stream.followed
    assert not stream.closed
    assert kept(stream) == [b"1"]


@pytest.mark.parametrize("what", ["append", "close", "take_over", "end_following"])
async def test_changes_wake_whoever_waits(what: str) -> None:
    """All who wait are woken by a new event, the end, and another reader."""
    stream = Stream("x", EventBudget(5))
    waiting = [asyncio.create_task(stream.changed()) for _ in range(2)]
    await settle()
    assert not any(task.done() for task in waiting)
    arguments: dict[str, list[Any]] = {"append": [b"data"], "take_over": [0.0]}
    getattr(stream, what)(*arguments.get(what, []))
    await settle()
    assert all(task.done() for task in waiting)


async def test_cancelled_waiters_leave_nothing_behind() -> None:
    """A reader that goes does not pile up in the stream."""
    stream = Stream("x", EventBudget(5))
    waiting = asyncio.create_task(stream.changed())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not stream._changed


# -- all streams of a client -----------------------------------------------------------------------


def test_streams_are_found_by_event_id() -> None:
    """An event id leads to its stream and its place there, among all streams of the client."""
    mailbox = Mailbox(EventBudget(5))
    post = mailbox.open()
    first = mailbox.standalone.append(b"a")
    second = post.append(b"b")
    assert mailbox.find(first) == (mailbox.standalone, 1)
    assert mailbox.find(second) == (post, 1)


def test_no_id_at_all() -> None:
    """Without an id, the standalone stream goes on behind what was taken of it."""
    mailbox = Mailbox(EventBudget(5))
    mailbox.standalone.append(b"a")
    assert mailbox.find("") == (mailbox.standalone, 0)
    mailbox.standalone.taken = 1
    assert mailbox.find("") == (mailbox.standalone, 1)


def test_ids_that_name_nothing() -> None:
    """Ids from before a restart, of other clients, and nonsense lead nowhere."""
    mailbox = Mailbox(EventBudget(5))
    mine = mailbox.open().append(b"a")
    nonce = mine.partition("-")[0]
    others = Mailbox(EventBudget(5)).open().append(b"a")
    for odd in (
        "-",
        "--",
        others,
        nonce,
        f"{nonce}-0",
        f"{nonce}-0-",
        f"{nonce}-x-1",
        f"{nonce}-0-x",
        f"{nonce}-0--1",
        f"{nonce}-7-1",
        f"{nonce}-0-1-2",
        f"{nonce}-" + "9" * 5000 + "-1",
        f"{nonce}-1-\u0661",
        "x-0-1",
        "xxxxxx-0-1",
        f"{mine}\n",
    ):
        assert mailbox.find(odd) is None


def test_standalone_stream_from_before_a_restart() -> None:
    """To its client it is the same stream: it goes on, behind what was taken of the new one."""
    mailbox, former = Mailbox(EventBudget(5)), Mailbox(EventBudget(5))
    mailbox.standalone.append(b"a")
    mailbox.standalone.taken = 1
    assert mailbox.find(former.standalone.event_id(7)) == (mailbox.standalone, 1)


def test_beginning_of_a_stream() -> None:
    """Number 0 names the place before the first event."""
    mailbox = Mailbox(EventBudget(5))
    stream = mailbox.open()
    assert mailbox.find(stream.event_id(0)) == (stream, 0)


def test_huge_numbers_are_harmless() -> None:
    """An event number with thousands of digits is a place behind everything that has happened."""
    mailbox = Mailbox(EventBudget(5))
    mine = mailbox.standalone.append(b"a")
    assert mailbox.find(mine + "0" * 5000) == (mailbox.standalone, 1)


def test_ended_stream() -> None:
    """It is found as long as there is something behind the place that is asked for."""
    mailbox = Mailbox(EventBudget(5))
    stream = mailbox.open()
    first, last = stream.append(b"a"), stream.append(b"b")
    stream.close()
    assert mailbox.find(first) == (stream, 1)
    assert mailbox.find(last) is None


def test_streams_are_bounded() -> None:
    """The oldest POST stream goes when there are too many; the GET stream never does."""
    mailbox = Mailbox(EventBudget(5))
    posts = [mailbox.open() for _ in range(40)]
    assert len(mailbox.streams) == 16
    assert [post.closed for post in posts] == [True] * 25 + [False] * 15
    assert not mailbox.standalone.closed


def test_streams_that_reached_their_clients_go_first() -> None:
    """When there are too many, what is needed least goes: what was read, what has ended, then the rest."""
    mailbox = Mailbox(EventBudget(5))
    going_on, missed, read = mailbox.open(), mailbox.open(), mailbox.open()
    missed.close()
    read.close(reached_at=0)
    for gone in ([read], [read, missed], [read, missed, going_on]):
        while len(mailbox.streams) < 16:
            mailbox.open()
        mailbox.open()
        kept_streams = list(mailbox.streams.values())
        assert [stream for stream in (read, missed, going_on) if stream not in kept_streams] == gone


def test_drop() -> None:
    """A stream that has reached its client is forgotten; a second time, nothing happens."""
    mailbox = Mailbox(EventBudget(5))
    post = mailbox.open()
    event_id = post.append(b"x")
    post.drop()
    post.drop()
    assert mailbox.find(event_id) is None
    assert list(mailbox.streams) == [0]


def test_close() -> None:
    """Closing a mailbox ends all its streams."""
    mailbox = Mailbox(EventBudget(5))
    post = mailbox.open()
    mailbox.close()
    assert post.closed
    assert mailbox.standalone.closed


# -- all mailboxes together ------------------------------------------------------------------------


def test_the_budget_empties_what_nobody_reads() -> None:
    """Over the bound for all, the stream that was written to longest ago goes first; the newest stays."""
    share = Share("events", 100)
    budget = EventBudget(5, share)
    streams = [Mailbox(budget).open() for _ in range(3)]
    for stream in streams:
        stream.append(message(40))
    assert [len(kept(stream)) for stream in streams] == [0, 1, 1]
    assert share.used_bytes == 80
    streams[0].append(message(90))
    assert [len(kept(stream)) for stream in streams] == [1, 0, 0]
    assert share.used_bytes == 90


def test_the_budget_spares_streams_that_are_read() -> None:
    """What is on its way to a client is not taken away; somebody else's is."""
    share = Share("events", 100)
    budget = EventBudget(5, share)
    read, lost, newest = [Mailbox(budget).open() for _ in range(3)]
    follower = read.take_over(0)[0]
    for stream in (read, lost, newest):
        stream.append(message(40))
    assert (kept(read), kept(lost), kept(newest)) == ([b"x" * 40], [], [b"x" * 40])
    read.leave(follower)
    newest.append(message(40))
    assert kept(read) == []


def test_the_budget_counts_what_is_there() -> None:
    """Events that are dropped, streams that are done with and mailboxes that are closed count no more."""
    share = Share("events", 1000)
    budget = EventBudget(2, share)
    mailbox = Mailbox(budget)
    mailbox.standalone.append(message(10))
    stream = mailbox.open()
    for _ in range(5):
        stream.append(message(10))
    assert share.used_bytes == 30
    stream.drop()
    assert share.used_bytes == 10
    for _ in range(20):
        mailbox.open().append(message(2))
    assert share.used_bytes == 10 + 2 * (len(mailbox.streams) - 1)
    mailbox.close()
    assert share.used_bytes == 0
    stream.append(message(2))
    assert share.used_bytes == 0


def test_the_budget_lets_go_of_what_was_read() -> None:
    """Streams that were written to their end go after a while; the others stay."""
    share = Share("events", 1000)
    budget = EventBudget(5, share)
    mailbox = Mailbox(budget)
    streams = [mailbox.open() for _ in range(4)]
    for stream in streams:
        stream.append(message(2))
    streams[0].close(reached_at=10)
    streams[1].close(reached_at=20)
    streams[2].close()
    budget.expire(9)
    assert len(mailbox.streams) == 5
    budget.expire(10)
    assert list(mailbox.streams.values())[1:] == streams[1:]
    budget.expire(1000)
    assert list(mailbox.streams.values())[1:] == streams[2:]
    assert share.used_bytes == 4


def test_a_message_for_many_counts_once() -> None:
    """What the clients of a session have in common is there once, until the last of them lets it go."""
    share = Share("events", 1000)
    budget = EventBudget(5, share)
    mailboxes = [Mailbox(budget) for _ in range(3)]
    news = message(100)
    for mailbox in mailboxes:
        mailbox.standalone.append(news)
    assert share.used_bytes == 100
    mailboxes[0].close()
    mailboxes[1].standalone.empty()
    assert share.used_bytes == 100
    mailboxes[2].close()
    assert share.used_bytes == 0


def test_slow_readers_do_not_fill_the_memory() -> None:
    """Over the bound what was taken goes first, then the older half of what its reader leaves unread."""
    share = Share("events", 100)
    budget = EventBudget(50, share)
    slow, read, newest = [Mailbox(budget).standalone for _ in range(3)]
    for stream in (slow, read, newest):
        stream.take_over(0)
    for stream in (slow, slow, slow, slow, read, read):
        stream.append(message(15))
    read.taken = 1
    newest.append(message(15))
    assert [len(kept(stream)) for stream in (slow, read, newest)] == [4, 1, 1]
    newest.append(message(15))
    assert [len(kept(stream)) for stream in (slow, read, newest)] == [2, 1, 2]
    assert share.used_bytes == 75


def test_a_share_that_shrinks_is_kept_to() -> None:
    """A smaller budget counts for what is there already, with the next round of maintenance."""
    share = Share("events", 100)
    budget = EventBudget(5, share)
    streams = [Mailbox(budget).open() for _ in range(2)]
    for stream in streams:
        stream.append(message(40))
    share.max_bytes = 50
    budget.expire(0)
    assert [len(kept(stream)) for stream in streams] == [0, 1]


def test_the_budget_makes_room_with_what_was_read() -> None:
    """Over the bound, streams that were written to their end go before anything that a client misses."""
    share = Share("events", 100)
    budget = EventBudget(5, share)
    missed, first, second, newest = [Mailbox(budget).open() for _ in range(4)]
    for stream in (missed, first, second):
        stream.append(message(30))
    first.close(reached_at=1)
    second.close(reached_at=2)
    newest.append(message(40))
    assert [len(kept(stream)) for stream in (missed, second, newest)] == [1, 1, 1]
    assert share.used_bytes == 100
    newest.append(message(40))
    assert [len(kept(stream)) for stream in (missed, newest)] == [0, 2]
    assert share.used_bytes == 80


# -- clients that take a stream from each other ----------------------------------------------------


def take_over(stream: Stream, now: float) -> int:
    return stream.take_over(now)[0]


def test_the_loser_is_told_when_to_come_back() -> None:
    """Later each time; who leaves by itself, and who takes over, is told nothing."""
    stream = Stream("x", EventBudget(5))
    followers = [take_over(stream, now) for now in (0, 1, 2, 4)]
    assert [stream.stays_away(follower) for follower in followers] == [1, 2, 4, None]
    for follower in followers:
        stream.leave(follower)
        assert stream.stays_away(follower) is None
    stream.end_following()
    assert stream._displaced == {}


def test_calm_is_told() -> None:
    """Who opens the stream in peace, after others did not, hears the usual time."""
    stream = Stream("x", EventBudget(5))
    assert stream.take_over(0)[1] is None
    follower = take_over(stream, 1)
    stream.leave(follower)
    assert stream.take_over(2)[1] is None
    stream.end_following()
    assert stream.take_over(1000)[1] == 1
    stream.end_following()
    assert stream.take_over(2000)[1] is None
