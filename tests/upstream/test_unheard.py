"""What servers say before anybody is there: in the handshake, and on the GET stream after it."""

import asyncio
from typing import Any

import pytest
from fakes import FakeReply, FakeRouter, FakeServer, make_session, say, settle, stream
from messages import notification, request, result

from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol.jsonrpc import Notification, Request
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY
from mcp_session_proxy.upstream.unheard import Unheard

pytestmark = pytest.mark.looptime

CAPABLE = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"t","version":"1"}}'
)
ROOTS = request("r-1", "roots/list")
NEWS = notification("notifications/tools/list_changed")
NOBODY_THERE = [("r-1", "No client is there to answer this request.")]


class Scene:
    """A session to a server that talks early."""

    def __init__(self, params: bytes = CAPABLE) -> None:
        self.server = FakeServer()
        self.router = FakeRouter()
        self.session = make_session(self.server, router=self.router, initialize_params=params)

    async def open(self) -> UpstreamSession:
        await self.session.open(NOBODY)
        return self.session

    @property
    def routed(self) -> list[str]:
        return [getattr(message, "method", "response") for message in self.router.routed]

    @property
    def answers(self) -> list[Any]:
        """What the server was answered: id, and the result or the error's message."""
        answers = self.server.answers
        return [(number, result if error is None else error["message"]) for number, result, error in answers]


async def test_what_comes_with_the_answer_to_initialize() -> None:
    """It is given on, in order, once the session stands; pings are answered at once."""
    at = Scene()
    at.server.sessions.append("x")
    said = [say(request(7, "ping")), say(NEWS), say(ROOTS), say(result(at.server.initialize_result))]
    at.server.script("initialize", stream(*said, session_id="x"))
    await at.open()
    assert at.routed == ["notifications/tools/list_changed", "roots/list"]
    await settle()
    assert at.answers == [(7, {})]
    assert at.session.incarnation.number == 1
    at.session.abandon()


async def test_a_server_that_waits_within_initialize() -> None:
    """Nobody can answer before it is done, so it is refused after a moment, and goes on."""
    at = Scene()
    at.server.sessions.append("x")

    def wait(sent: object) -> FakeReply:
        refused = asyncio.Event()

        async def watch() -> None:
            while not at.answers:
                await asyncio.sleep(0.1)
            refused.set()

        at.task = asyncio.create_task(watch())  # type: ignore[attr-defined]
        return stream(say(ROOTS, NEWS), refused, say(result(at.server.initialize_result)), session_id="x")

    at.server.script("initialize", wait)
    await at.open()
    assert asyncio.get_running_loop().time() < 2
    assert at.answers == NOBODY_THERE
    assert at.routed == ["notifications/tools/list_changed"]
    at.session.abandon()


async def test_a_server_that_asks_before_it_takes_initialized() -> None:
    """It asks on the GET stream, which is there for it, and its question is for the client."""
    at = Scene()
    answered = asyncio.Event()
    at.server.script("notifications/initialized", stream(answered))
    at.server.script("GET", stream(say(ROOTS), asyncio.Event()))
    await at.open()
    assert asyncio.get_running_loop().time() < 2
    assert at.routed == ["roots/list"]
    answered.set()
    await settle()
    assert len(at.server.gets()) == 1
    at.session.abandon()


async def test_what_comes_with_the_answer_to_initialized() -> None:
    """A server may speak on that stream, too, for as long as it likes."""
    at = Scene()
    at.server.script("notifications/initialized", stream(say(NEWS), 5.0, say(ROOTS)))
    await at.open()
    assert at.routed == ["notifications/tools/list_changed"]
    await asyncio.sleep(6)
    assert at.routed == ["notifications/tools/list_changed", "roots/list"]
    at.session.abandon()


async def test_a_slow_answer_to_initialized() -> None:
    """It is waited for where the server asks nothing: it may not be ready before."""
    at = Scene()
    at.server.script("notifications/initialized", lambda _: SlowReply())
    await at.open()
    assert asyncio.get_running_loop().time() == pytest.approx(0, abs=0.1)
    at.session.abandon()


class SlowReply(FakeReply):
    """Taken at once, and its body never ends."""

    async def read(self) -> None:
        await asyncio.Event().wait()


async def test_held_until_somebody_comes() -> None:
    """In order, and given once."""
    session = await Scene().open()
    assert not session.incarnation.held.met
    for number in range(3):
        session.incarnation.held.hold(Request(b"%d" % number, "roots/list"))
        session.incarnation.held.hold(Notification("notifications/message"))
    assert [type(message) for message in session.incarnation.held.meet()] == [Request, Notification] * 3
    assert session.incarnation.held.met
    assert session.incarnation.held.meet() == []
    session.abandon()


@pytest.mark.parametrize(
    ("params", "method"),
    [(CAPABLE, "elicitation/create"), (b'{"capabilities":{}}', "roots/list"), (b"{}", "x/other")],
)
async def test_what_nobody_will_answer_is_refused(params: bytes, method: str) -> None:
    """The session was opened for clients that cannot."""
    at = Scene(params)
    session = await at.open()
    session.incarnation.held.hold(Request(b'"r-1"', method))
    await settle()
    assert at.answers == NOBODY_THERE
    assert session.incarnation.held.meet() == []
    session.abandon()


async def test_nobody_comes() -> None:
    """The server is not kept waiting for ever."""
    at = Scene()
    session = await at.open()
    session.incarnation.held.hold(Request(b'"r-1"', "roots/list"))
    session.tick(asyncio.get_running_loop().time())
    await asyncio.sleep(601)
    session.tick(asyncio.get_running_loop().time())
    await settle()
    assert at.answers == NOBODY_THERE
    session.abandon()


async def test_another_incarnation_has_other_questions() -> None:
    """What the lost one asked means nothing any more."""
    at = Scene()
    session = await at.open()
    session.incarnation.held.hold(Request(b'"r-1"', "roots/list"))
    at.server.forget()
    await session.revive(session.incarnation, "404", NOBODY)
    assert session.incarnation.held.meet() == []
    session.abandon()


def test_the_bounds() -> None:
    """The oldest go first, in number and in bytes, and servers that wait hear of it."""
    refused: list[Request] = []
    unheard = Unheard(refused.append, 0.0)
    for number in range(150):
        unheard.hold(Request(b"%d" % number, "roots/list"))
    assert [request.id for request in refused] == [b"%d" % number for number in range(50)]
    unheard.hold(Notification("notifications/message", b"x" * 200_000))
    unheard.hold(Notification("notifications/message", b"y" * 200_000))
    assert [message.params for message in unheard.drain()] == [b"y" * 200_000]
    unheard.hold(Request(b"1", "roots/list", b"x" * 1_000_000))
    assert unheard.drain() == []
    assert len(refused) == 151


def test_the_share() -> None:
    """What all sessions hold together has a share: over it, what comes next goes, nothing that is held."""
    share, refused = Share("questions", 100), list[Request]()
    one, other = Unheard(refused.append, 0.0, share), Unheard(refused.append, 0.0, share)
    one.hold(Request(b"1", "roots/list", b"x" * 80))
    other.hold(Request(b"2", "roots/list", b"x" * 80))
    other.hold(Notification("notifications/message", b"x" * 80))
    assert [request.id for request in refused] == [b"2"]
    assert len(one.drain()) == 1
    assert share.used_bytes == 0
    other.hold(Request(b"3", "roots/list", b"x" * 80))
    assert share.used_bytes == 90
    del other
    assert share.used_bytes == 0
