"""The GET stream by itself; how a session lives with it is in ``test_session``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes import FakeReply, notification, refusal, say, stream

from mcp_session_proxy.errors import UpstreamUnreachable
from mcp_session_proxy.protocol.jsonrpc import Message
from mcp_session_proxy.upstream.stream import GetStream
from mcp_session_proxy.upstream.transport import ConnectionLost, Reply

pytestmark = pytest.mark.looptime


class Scene:
    """A stream, and a server that answers its GETs in turn."""

    def __init__(self, *replies: FakeReply | Exception, gives_up: bool = False) -> None:
        self.replies = list(replies)
        self.asked: list[str | None] = []
        self.taken: list[Message] = []
        self.stream = GetStream(connect=self._connect, take=self.taken.append, unreachable=lambda: gives_up)

    @asynccontextmanager
    async def _connect(self, last_event_id: str | None) -> AsyncIterator[Reply]:
        self.asked.append(last_event_id)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        yield reply


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_refusal_for_good_is_told(status: int) -> None:
    """The status that ended it is the session's to judge."""
    scene = Scene(refusal(status))
    assert await scene.stream.hold() == status
    assert not scene.stream.is_open


async def test_what_breaks_is_resumed_and_what_comes_is_taken() -> None:
    """Each connection goes on after the newest event of those before it."""
    first = stream(say(notification("a"), event_id="7"), ConnectionLost())
    scene = Scene(first, ConnectionLost(), stream(say(notification("b"))), refusal(405))
    assert await scene.stream.hold() == 405
    assert scene.asked == [None, "7", "7", "7"]
    assert [getattr(message, "method", None) for message in scene.taken] == ["a", "b"]


@pytest.mark.parametrize(("gives_up", "tries"), [(True, 1), (False, 2)])
async def test_a_server_that_takes_no_connections(*, gives_up: bool, tries: int) -> None:
    """Whoever knows of another server ends it; otherwise it is tried again."""
    scene = Scene(UpstreamUnreachable("no"), refusal(405), gives_up=gives_up)
    assert await scene.stream.hold() == (None if gives_up else 405)
    assert len(scene.asked) == tries


@pytest.mark.parametrize(
    ("reply", "seconds"), [(stream(asyncio.Event()), 0.0), (ConnectionLost(), 0.0), (None, 0.5)]
)
async def test_it_is_waited_for_a_moment(reply: FakeReply | Exception | None, seconds: float) -> None:
    """Until it stands or has failed; a server that says nothing at all is not waited for."""
    scene = Scene()
    never = asyncio.Event()

    @asynccontextmanager
    async def silent(_: str | None) -> AsyncIterator[Reply]:
        await never.wait()
        yield FakeReply()

    if reply is None:
        scene.stream._connect = silent
    else:
        scene.replies.append(reply)
    loop = asyncio.get_running_loop()
    started = loop.time()
    task = loop.create_task(scene.stream.hold())
    await scene.stream.tried()
    assert loop.time() - started == pytest.approx(seconds)
    assert scene.stream.is_open == isinstance(reply, FakeReply)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
