"""Sessions on which a server refuses everything, in words that nobody knows."""

import asyncio

import pytest
from fakes import FakeReply, FakeServer, Recorder, Sent, make_session, refusal

from mcp_session_proxy.upstream.deadlock import Refusals
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY, Refused

pytestmark = pytest.mark.looptime


def refused(status: int, headers: dict[str, str] | None = None) -> Refused:
    """A refusal on a session."""
    return refusal(status, b"no", headers=headers or {}).refusal().refused(sent_session_id=True)


class Scene:
    """A session that its server has lost, and a server that says so in its own way."""

    def __init__(self, status: int, *, headers: dict[str, str] | None = None) -> None:
        self.server = FakeServer()
        self.observe = Recorder()
        self.session = make_session(self.server, observe=self.observe)
        self.status = status
        self.headers = headers or {}
        self.given_up = 0

    async def open(self) -> UpstreamSession:
        await self.session.open(NOBODY)
        self.session.watch(self._revive)
        self.lost = self.session.incarnation.channel.session_id
        for what in ("ping", "tools/call"):
            self.server.script(what, *[self.answer] * 1000)
        return self.session

    def _revive(self, how: str) -> None:
        """What the pool does with a session that somebody holds."""
        self.given_up += 1
        self.session.spawn(self.session.revive(self.session.incarnation, how, NOBODY), "revive")

    def answer(self, sent: Sent) -> FakeReply:
        if sent.session_id == self.lost:
            return refusal(self.status, b"Computer says no", headers=self.headers)
        return self.server.usual(sent)

    async def refuse(self, times: int, seconds: float) -> None:
        """Be refused so many times, over some time."""
        for _ in range(times):
            self.session.incarnation.note_refusal(refused(self.status, self.headers))
            await asyncio.sleep(seconds / times)


@pytest.mark.parametrize("status", [400, 409, 418, 500, 502, 503, 504])
async def test_a_session_that_is_refused_for_ever(status: int) -> None:
    """It is opened anew, and the session that was opened to find out is ended."""
    at = Scene(status)
    session = await at.open()
    await at.refuse(6, 8.0)
    assert session.incarnation.number == 2
    assert [event.how for event in at.observe.named("session.lost")] == ["refusals"]
    assert at.server.deleted == ["s2"]
    assert session.incarnation.channel.session_id == "s3"
    session.abandon()


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_other_matters(status: int) -> None:
    """What is about the caller, or the rate, is not about the session."""
    at = Scene(status)
    session = await at.open()
    await at.refuse(50, 500.0)
    assert session.incarnation.number == 1
    assert len(at.server.posts("initialize")) == 1
    session.abandon()


async def test_a_server_that_opens_no_other() -> None:
    """It is in trouble as a whole: the session may well live on."""
    at = Scene(503)
    session = await at.open()
    at.server.script("initialize", *(refusal(503) for _ in range(100)))
    await at.refuse(50, 500.0)
    assert session.incarnation.number == 1
    assert at.given_up == 0
    session.abandon()


async def test_a_ping_that_is_answered() -> None:
    """The server refuses certain requests only."""
    at = Scene(500)
    session = await at.open()
    at.lost = "another"
    await at.refuse(50, 500.0)
    assert session.incarnation.number == 1
    assert len(at.server.posts("initialize")) == 1
    session.abandon()


async def test_a_server_that_says_when_to_come_back() -> None:
    """It is busy, and is believed for a minute."""
    at = Scene(503, headers={"Retry-After": "5"})
    session = await at.open()
    await at.refuse(20, 50.0)
    assert session.incarnation.number == 1
    await at.refuse(20, 50.0)
    assert session.incarnation.number == 2
    session.abandon()


async def test_keep_alive_notices() -> None:
    """Pings that are refused count, so that a session nobody calls does not stay dead either."""
    at = Scene(503)
    session = await at.open()
    for _ in range(4):
        await asyncio.sleep(130)
        session.tick(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
    assert session.incarnation.number == 2
    session.abandon()


def test_in_a_row() -> None:
    """Other answers in between, or other refusals, begin the count anew; so do moments."""
    refusals = Refusals()
    assert [refusals.note(refused(500), now) for now in (0.0, 1.0, 2.0, 6.0)] == [False] * 3 + [True]
    assert not refusals.note(refused(502), 100.0)
    refusals.clear()
    assert not refusals.note(refused(500), 101.0)
    assert not refusals.note(refused(500), 110.0)
    assert not refusals.note(refused(429), 120.0)
    assert refusals.count == 0
