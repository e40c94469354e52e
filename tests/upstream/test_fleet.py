"""Several equal servers: where sessions go, when they move, and when nobody is kept waiting."""

import asyncio
from typing import Any

import pytest
from fakes import FakeChannel, FakeServer, Recorder, answer, make_session, settle, stream
from messages import result
from yarl import URL

from mcp_session_proxy.errors import (
    INTERNAL_ERROR,
    Draining,
    HandshakeRefused,
    UpstreamDown,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.upstream.breaker import BreakerRules, Breakers, BreakerState
from mcp_session_proxy.upstream.fleet import Fleet, FleetRules, Replica, Residence, Server
from mcp_session_proxy.upstream.monitor import always_there
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

SILENT = UpstreamTimeout("silent")


def reached(name: str, server: FakeServer | None = None) -> Server:
    """How a server is reached; nobody looks whether it is up."""
    return Server(name=name, transport=server or FakeServer(), probe=always_there, url=URL(f"{name}/mcp?k=v"))


def fleet_of(count: int = 1, *, threshold: int = 2, patience_seconds: float = 10.0) -> Fleet:
    """A fleet whose servers were all seen up."""
    replicas = []
    for number in range(count):
        breaker = Breakers(BreakerRules(threshold=threshold, reset_seconds=30.0))
        replica = Replica(reached(f"http://r{number}"), breaker, Recorder())
        replica.monitor.up = True
        replicas.append(replica)
    return Fleet(replicas, FleetRules(patience_seconds=patience_seconds))


def go_down(replica: Replica) -> None:
    replica.monitor.up = False
    replica.monitor.down_since = asyncio.get_running_loop().time()


def place(fleet: Fleet, principal: str = "p", session_id: str | None = "s1") -> Residence:
    """A handshake begins, and the server gives an id."""
    place = fleet.place(principal)
    transport = place.replica.transport
    assert isinstance(transport, FakeServer)
    place.channel = FakeChannel(transport, session_id, "2025-11-25")
    return place


def opened(fleet: Fleet, principal: str = "p", session_id: str | None = "s1") -> Residence:
    """A handshake has succeeded."""
    there = place(fleet, principal, session_id)
    there.opened()
    return there


def settled(fleet: Fleet, count: int) -> list[Residence]:
    """Sessions that were opened one after another."""
    return [opened(fleet) for _ in range(count)]


def counts(fleet: Fleet) -> list[int]:
    return [len(replica.residences) for replica in fleet.replicas]


async def test_sessions_are_spread() -> None:
    """A new session goes to the server with the fewest; one that leaves makes room."""
    fleet = fleet_of(3)
    places = settled(fleet, 7)
    assert counts(fleet) == [3, 2, 2]
    for there in places[:3]:
        there.leave()
        there.leave()
    assert counts(fleet) == [2, 1, 1]
    settled(fleet, 2)
    assert counts(fleet) == [2, 2, 2]


async def test_servers_that_are_down_get_nothing() -> None:
    """What is known to be down is passed over; what was not looked at yet is not."""
    fleet = fleet_of(3)
    go_down(fleet.replicas[0])
    fleet.replicas[1].monitor.up = None
    settled(fleet, 4)
    assert counts(fleet) == [0, 2, 2]
    assert fleet.ready == 1
    assert not fleet.known


async def test_servers_that_hang() -> None:
    """After a long time without even a refusal, nobody is kept waiting for one more."""
    fleet = fleet_of(2)
    for replica in fleet.replicas:
        go_down(replica)
        replica.monitor.hangs = True
    settled(fleet, 1)
    await asyncio.sleep(11)
    with pytest.raises(UpstreamDown):
        place(fleet)


async def test_all_down_for_a_moment() -> None:
    """While there is hope, handshakes are tried all the same: one of the servers may just come back."""
    fleet = fleet_of(2)
    for replica in fleet.replicas:
        go_down(replica)
    settled(fleet, 2)
    assert counts(fleet) == [1, 1]
    await asyncio.sleep(11)
    with pytest.raises(UpstreamDown) as caught:
        fleet.check_worth_waiting()
    assert caught.value.http_status == 503
    assert int(caught.value.headers()["Retry-After"]) > 0
    settled(fleet, 1)  # a try costs nothing where it is refused at once
    fleet.replicas[1].monitor.down_since = None
    fleet.check_worth_waiting()


async def test_server_that_fails_handshakes_is_left_alone() -> None:
    """Its share goes to the others; when the time is up it gets one try."""
    fleet = fleet_of(2)
    bad = fleet.replicas[0]
    for _ in range(2):
        there = place(fleet)
        assert there.replica is bad
        there.failed(SILENT)
    settled(fleet, 3)
    assert counts(fleet) == [0, 3]
    await asyncio.sleep(31)
    one = place(fleet)
    assert one.replica is bad
    assert place(fleet).replica is not bad
    one.opened()
    assert bad.breakers.common.state is BreakerState.CLOSED


async def test_all_servers_fail_handshakes() -> None:
    """Then nobody waits, and the answer says why and for how long."""
    fleet = fleet_of(1)
    for _ in range(2):
        place(fleet).failed(SILENT)
    await asyncio.sleep(9.5)
    with pytest.raises(UpstreamDown, match="upstream-timeout") as caught:
        place(fleet)
    assert caught.value.headers()["Retry-After"] == "21"
    assert counts(fleet) == [0]


@pytest.mark.parametrize(
    "error",
    [
        None,
        UpstreamUnreachable("down"),
        UpstreamRejected(401, b"", None, {}, None),
        UpstreamRejected(429, b"", None, {}, None),
        UpstreamRejected(404, b"", None, {}, None),
        HandshakeRefused(b"{}"),
        HandshakeRefused(b"{}", INTERNAL_ERROR),
        Draining("The session was closed while it was being opened."),
    ],
)
async def test_what_says_nothing_of_the_servers_health(error: Any) -> None:
    """Refused connections are the monitor's business, and one client's mistakes are not another's."""
    fleet = fleet_of(1)
    for _ in range(5):
        place(fleet).failed(error)
    assert fleet.replicas[0].breakers.shown(0.0).state is BreakerState.CLOSED
    assert counts(fleet) == [0]


def fail(fleet: Fleet, principal: str, *, times: int = 1, error: Any = None) -> None:
    """Handshakes of this caller that the server answers with an error."""
    for _ in range(times):
        place(fleet, principal).failed(error or UpstreamRejected(500, b"", None, {}, None))


async def test_a_caller_that_is_answered_with_errors_is_alone_with_them() -> None:
    """However often one caller's handshakes fail, another one's are tried; its own are left alone."""
    fleet = fleet_of(1, threshold=3)
    fail(fleet, "malformed", times=3)
    with pytest.raises(UpstreamDown, match="upstream-rejected"):
        place(fleet, "malformed")
    for number in range(5):
        opened(fleet, f"good {number}")
    with pytest.raises(UpstreamDown):  # its own count is not for others to reset
        place(fleet, "malformed")


async def test_a_server_that_fails_everybody_is_left_alone() -> None:
    """Errors for several callers in a row are the server's, except to those whom it has accepted before."""
    fleet = fleet_of(1, threshold=3)
    opened(fleet, "known")
    for number in range(3):
        fail(fleet, f"stranger {number}")
    with pytest.raises(UpstreamDown):
        place(fleet, "another stranger")
    place(fleet, "known")


async def test_errors_while_others_succeed_are_not_the_servers() -> None:
    """What succeeds in between shows that the server is well."""
    fleet = fleet_of(1, threshold=3)
    for number in range(10):
        fail(fleet, f"stranger {number}")
        opened(fleet, "good")
    place(fleet, "newcomer")


async def test_silence_concerns_everybody() -> None:
    """A server that does not answer one caller answers no other, whomever it accepted before."""
    fleet = fleet_of(1, threshold=3)
    opened(fleet, "known")
    fail(fleet, "p", times=3, error=SILENT)
    with pytest.raises(UpstreamDown):
        place(fleet, "known")


async def test_callers_that_fail_are_remembered_within_a_bound() -> None:
    """Made-up callers do not fill the memory."""
    fleet = fleet_of(1, threshold=1_000_000)
    for number in range(10_100):
        fail(fleet, f"stranger {number}")
    assert len(fleet.replicas[0].breakers._own) == 10_000


@pytest.mark.parametrize("outcome", ["opened", "failed", "given up"])
async def test_trial_of_a_session_that_has_left(outcome: str) -> None:
    """A session that is closed in the middle of the one trial does not leave the server shut out for ever."""
    fleet = fleet_of(1)
    breaker = fleet.replicas[0].breakers.common
    for _ in range(2):
        breaker.failed(SILENT, 0.0)
    await asyncio.sleep(31)
    there = place(fleet)
    there.leave()
    if outcome == "opened":
        there.opened()
    else:
        there.failed(SILENT if outcome == "failed" else None)
    await asyncio.sleep(31)
    assert not breaker.is_open(asyncio.get_running_loop().time())
    assert counts(fleet) == [0]


async def test_moving() -> None:
    """A session may move when its server is down and another one is up, and is counted there then."""
    fleet = fleet_of(2)
    there, other = settled(fleet, 2)
    assert not there.can_move
    go_down(fleet.replicas[0])
    assert there.can_move
    assert not other.can_move
    there.leave()
    assert not there.can_move
    there = opened(fleet)
    assert counts(fleet) == [0, 2]
    go_down(fleet.replicas[1])
    assert not there.can_move


async def test_suspicion_makes_the_monitor_look() -> None:
    """A refused connection is reason enough to look at the server now."""
    fleet = fleet_of(2)
    there, other = settled(fleet, 2)
    there.suspect()
    other.leave()
    other.suspect()
    assert [replica.monitor._look.is_set() for replica in fleet.replicas] == [True, False]


async def test_best() -> None:
    """What belongs to no session goes to the first server that is not down, else to the first."""
    fleet = fleet_of(2)
    first, second = fleet.replicas
    assert fleet.best() is first
    go_down(first)
    assert fleet.best() is second
    go_down(second)
    assert fleet.best() is first


@pytest.mark.parametrize("session_id", ["s1", None])
async def test_sessions_tell_whether_modern_requests_pass(session_id: str | None) -> None:
    """A server of both eras whose living sessions have ids is stateful: it is not asked for one more."""
    fleet = fleet_of()
    [replica] = fleet.replicas
    server = replica.transport
    assert isinstance(server, FakeServer)
    opened(fleet, session_id=session_id)
    server.script("server/discover", answer(result({"supportedVersions": ["2026-07-28"]})))
    server.script("initialize", answer(result({"protocolVersion": "2025-11-25", "capabilities": {}})))
    assert await replica.era.ask(NOBODY, "alice") is (session_id is None)
    assert len(server.posts("initialize")) == (0 if session_id else 1)


async def test_what_the_server_needs_is_told_once() -> None:
    """An event says what was found, and again when a handshake shows that it has changed."""
    observe = Recorder()
    server = FakeServer(stateless=True)
    breakers = Breakers(BreakerRules(threshold=2, reset_seconds=30.0))
    replica = Replica(reached("http://r", server), breakers, observe)
    fleet = Fleet([replica], FleetRules(patience_seconds=10.0))
    server.script("server/discover", answer(result({"supportedVersions": ["2026-07-28"]})))
    for _ in range(2):
        await replica.era.ask(NOBODY, "alice")
    for _ in range(2):
        opened(fleet, session_id="s1")
    told = [(event.upstream, event.modern_requests) for event in observe.named("upstream.era")]
    assert told == [("http://r", "passed"), ("http://r", "translated")]


def test_repr() -> None:
    """The debug line shows where, whether it is up, and how many live there, but no query string."""

    async def show() -> str:
        breaker = Breakers(BreakerRules(threshold=1, reset_seconds=1.0))
        return repr(Replica(reached("http://h:1"), breaker, Recorder()))

    assert asyncio.run(show()) == "<Replica http://h:1 up=None sessions=0>"


async def test_session_closed_in_the_middle_of_its_trial() -> None:
    """The real session, too, tells how the one trial ended when it is closed while it is re-opened."""
    fleet = fleet_of(1)
    [replica] = fleet.replicas
    server = replica.transport
    assert isinstance(server, FakeServer)
    session = make_session(server, fleet=fleet)
    await session.open(NOBODY)
    for _ in range(2):
        replica.breakers.common.failed(SILENT, asyncio.get_running_loop().time())
    await asyncio.sleep(31)
    server.script("initialize", stream(asyncio.Event()))
    session.spawn(session.revive(session.incarnation, "404", NOBODY), "revive")
    await settle()
    assert replica.breakers.common.state is BreakerState.HALF_OPEN
    await session.close("killed")
    await settle()
    assert not replica.breakers.common.is_open(asyncio.get_running_loop().time())
    assert counts(fleet) == [0]
