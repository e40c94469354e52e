"""The GET stream by itself; how a session lives with it is in ``test_session``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes import FakeReply, refusal, say, stream
from messages import notification

from mcp_session_proxy.errors import UpstreamProtocolError, UpstreamUnreachable
from mcp_session_proxy.protocol.jsonrpc import Message
from mcp_session_proxy.upstream.stream import StandaloneStream
from mcp_session_proxy.upstream.transport import ConnectionLost, Reply

pytestmark = pytest.mark.looptime


def first(event_id: str | None = "7") -> FakeReply:
    """A good stream that breaks."""
    return stream(say(notification("a"), event_id=event_id), 10.0, ConnectionLost())


class Scene:
    """A stream, and a server that answers its GETs in turn, and then with one that stays."""

    def __init__(self, *replies: FakeReply | Exception, gives_up: bool = False) -> None:
        self.replies = list(replies)
        self.asked: list[str | None] = []
        self.times: list[float] = []
        self.taken: list[Message] = []
        self.missed = 0
        self.looked = 0
        self.stream = StandaloneStream(
            connect=self._connect,
            take=self.taken.append,
            unreachable=lambda: gives_up,
            vanished=self._vanished,
            missed=self._miss,
        )
        self._gives_up = gives_up
        self.task = asyncio.create_task(self.stream.hold())

    @asynccontextmanager
    async def _connect(self, last_event_id: str | None) -> AsyncIterator[Reply]:
        self.asked.append(last_event_id)
        self.times.append(asyncio.get_running_loop().time())
        reply = self.replies.pop(0) if self.replies else stream(asyncio.Event())
        if isinstance(reply, FakeReply):
            reply.check_stream()
        if isinstance(reply, Exception):
            raise reply
        yield reply

    async def _vanished(self) -> bool:
        self.looked += 1
        return self._gives_up

    def _miss(self) -> None:
        self.missed += 1

    async def rest(self, seconds: float = 100_000.0) -> None:
        """Let it come to rest."""
        await asyncio.sleep(seconds)
        assert self.task.done() or self.stream.is_open
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_what_breaks_is_resumed_and_what_comes_is_taken() -> None:
    """Each connection goes on after the newest event of those before it; nothing was missed."""
    scene = Scene(first(), ConnectionLost(), stream(say(notification("b"))), refusal(503))
    await scene.rest()
    assert scene.asked == [None, "7", "7", "7", "7"]
    assert [getattr(message, "method", None) for message in scene.taken] == ["a", "b"]
    assert (scene.missed, scene.stream.gaps) == (0, 0)


async def test_what_has_no_ids_cannot_be_resumed() -> None:
    """What is back in a moment is likely complete, but nothing that is kept may rely on it."""
    scene = Scene(first(event_id=None))
    await scene.rest()
    assert (scene.missed, scene.stream.gaps) == (0, 1)


async def test_what_has_no_ids_and_was_away_for_long() -> None:
    """Then whoever listens is told."""
    scene = Scene(first(event_id=None), *(refusal(503) for _ in range(10)))
    await scene.rest()
    assert (scene.missed, scene.stream.gaps) == (1, 1)


@pytest.mark.parametrize("status", [400, 404, 405, 406, 410, 412, 416, 422, 501, 505])
async def test_a_refused_id_is_dropped(status: int) -> None:
    """At once, and whoever listens is told that something may have been missed."""
    scene = Scene(first(), refusal(status))
    await scene.rest()
    assert scene.asked == [None, "7", None]
    assert scene.missed == 1
    assert scene.times[2] - scene.times[0] < 11
    assert scene.looked == 0


async def test_an_id_that_cannot_be_sent_is_dropped() -> None:
    """Whatever the server had in mind with it."""
    scene = Scene(first("\x01"), UpstreamProtocolError("The request cannot be sent."))
    await scene.rest()
    assert scene.asked == [None, "\x01", None]


@pytest.mark.parametrize(
    ("failure", "patience"),
    [(401, 3), (403, 3), (500, 3), (409, 10), (429, 10), (503, 10), (522, 10), (None, 10)],
)
async def test_an_id_that_fails_too_often_is_dropped(failure: int | None, patience: int) -> None:
    """A server that merely starts gets more time before the id is blamed."""
    failures = [ConnectionLost() if failure is None else refusal(failure) for _ in range(patience)]
    scene = Scene(first(), *failures)
    await scene.rest()
    assert scene.asked == [None, *["7"] * patience, None]
    assert scene.missed == 1


async def test_streams_that_end_at_once_after_an_id() -> None:
    """Some servers answer like that to an id whose event they have dropped."""
    scene = Scene(first(), stream(), stream(), stream())
    await scene.rest()
    assert scene.asked == [None, "7", "7", "7", None]
    assert scene.missed == 1


async def test_polling_is_no_failure() -> None:
    """A server that ends its streams after a new id each time is resumed each time."""
    scene = Scene(*(stream(say(event_id=str(number), retry=0.2)) for number in range(50)))
    await scene.rest()
    assert scene.asked == [None, *(str(number) for number in range(50))]
    assert scene.missed == 0


async def test_the_pause_grows_up_to_a_minute() -> None:
    """And is never longer, also where the server wants more."""
    scene = Scene(stream(say(event_id="1", retry=999_999.0), 6.0), *(refusal(503) for _ in range(9)))
    await scene.rest()
    assert all(
        59 < after - before < 73 for before, after in zip(scene.times[1:], scene.times[2:], strict=False)
    )
    other = Scene(first(None), *(refusal(503) for _ in range(100)))
    await other.rest()
    pauses = [after - before for before, after in zip(other.times[1:], other.times[2:], strict=False)]
    assert pauses[0] < 0.2
    assert 59 < pauses[-1] < 73


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_may_be_gone(status: int) -> None:
    """A 404 without an id is looked into; a session that lives goes on asking."""
    scene = Scene(first(None), refusal(status))
    await scene.rest()
    assert scene.looked == 1
    assert not scene.task.done() or scene.task.cancelled()
    gone = Scene(first(None), refusal(status), gives_up=True)
    await gone.rest()
    assert len(gone.asked) == 2


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_may_be_gone_and_the_place_in_its_stream(status: int) -> None:
    """A 404 with an id may be the id's: it is dropped. When that does not help, the session is looked at."""
    scene = Scene(first(), refusal(status), refusal(status))
    await scene.rest()
    assert scene.asked[:4] == [None, "7", None, None]
    assert scene.looked == 1


@pytest.mark.parametrize(("gives_up", "tries"), [(True, 1), (False, 2)])
async def test_a_server_that_takes_no_connections(*, gives_up: bool, tries: int) -> None:
    """Whoever knows of another server ends it; otherwise it is tried again."""
    scene = Scene(UpstreamUnreachable("no"), gives_up=gives_up)
    await scene.rest()
    assert len(scene.asked) == tries


@pytest.mark.parametrize(
    ("reply", "seconds"), [(stream(asyncio.Event()), 0.0), (ConnectionLost(), 0.0), (None, 0.5)]
)
async def test_it_is_waited_for_a_moment(reply: FakeReply | Exception | None, seconds: float) -> None:
    """Until it stands or has failed; a server that says nothing at all is not waited for."""
    never = asyncio.Event()
    scene = Scene()

    @asynccontextmanager
    async def silent(_: str | None) -> AsyncIterator[Reply]:
        await never.wait()
        yield FakeReply()

    if reply is None:
        scene.stream._connect = silent
    else:
        scene.replies.append(reply)
    started = asyncio.get_running_loop().time()
    await scene.stream.tried()
    assert asyncio.get_running_loop().time() - started == pytest.approx(seconds)
    assert scene.stream.is_open == isinstance(reply, FakeReply)
    scene.task.cancel()
    await asyncio.gather(scene.task, return_exceptions=True)
