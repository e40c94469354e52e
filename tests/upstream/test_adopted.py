"""Sessions that stand at their server before this process has heard of them: no handshake is needed."""

import asyncio
from typing import Any

import pytest
from fakes import FakeFleet, FakeRouter, FakeServer, Holder, make_session, replica_of, say, settle, stream
from messages import notification

from mcp_session_proxy.errors import SessionLost, UpstreamProtocolError
from mcp_session_proxy.upstream.fleet import Fleet, FleetRules
from mcp_session_proxy.upstream.incarnation import Standing
from mcp_session_proxy.upstream.record import KnownSession
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

RESULT = b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}}}'


def known(**more: Any) -> KnownSession:
    """A session that the server calls s7."""
    told = (("resources/subscribe", b'{"uri":"a:1"}'),)
    facts = {
        "server": "http://fake",
        "session_id": "s7",
        "version": "2025-06-18",
        "initialize_result": RESULT,
    }
    return KnownSession(**{**facts, "told": told, **more})


async def adopted(server: FakeServer, **options: Any) -> UpstreamSession:
    server.sessions.append("s7")
    session = make_session(server, known=known(), **options)
    await session.open(NOBODY)
    return session


async def test_nothing_is_sent_but_for_the_stream() -> None:
    """It is open at once, with all that is known of it, and its GET stream is asked for."""
    server = FakeServer()
    session = await adopted(server)
    assert [str(sent) for sent in server.seen] == ["GET @s7"]
    assert session.incarnation.standing is Standing.STANDS
    assert session.version == "2025-06-18"
    assert session.incarnation.facts.offers("tools", "listChanged")
    assert session.told_lists == {"tools"}
    assert session.record.journal.requests() == list(known().told)
    session.abandon()


async def test_it_lives_like_any_other() -> None:
    """It hears its server, is asked whether it lives, and gets a goodbye."""
    server, router = FakeServer(), FakeRouter()
    server.script("GET", stream(say(notification("notifications/message")), asyncio.Event()))
    session = await adopted(server, router=router)
    await settle()
    assert len(router.routed) == 1
    assert await session.incarnation.confirm()
    await session.close("idle")
    assert server.deleted == ["s7"]


async def test_one_that_is_gone_is_opened_anew_from_its_journal() -> None:
    """Its server has lost it meanwhile: it is revived by a handshake, with the same journal."""
    server = FakeServer()
    session = await adopted(server, check_after_seconds=1.0)
    Holder(session, wanted=True)
    server.forget()
    await asyncio.sleep(2)
    incarnation = await session.ready(NOBODY)
    assert incarnation.channel.session_id == "s1"
    assert [sent.params for sent in server.posts("resources/subscribe")] == [{"uri": "a:1"}]
    session.abandon()


async def test_its_server_is_none_of_ours_any_more() -> None:
    """Nobody goes on with it; the next try is a handshake like any other."""
    server = FakeServer()
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet, known=known(server="http://former"))
    with pytest.raises(SessionLost):
        await session.open(NOBODY)
    assert server.seen == []
    await session.open(NOBODY)
    assert session.incarnation.channel.session_id == "s1"
    session.abandon()


async def test_it_is_another_callers() -> None:
    """Two callers never meet on one session, and no goodbye ends it for the other one."""
    server = FakeServer()
    fleet = Fleet([replica_of(server)], FleetRules(patience_seconds=10.0))
    other = fleet.settle("somebody else", "http://fake")
    other.channel = server.reconnect("s7")
    session = make_session(server, fleet=fleet, known=known())
    with pytest.raises(UpstreamProtocolError):
        await session.open(NOBODY)
    await session.close("test")
    assert server.seen == []
    assert fleet.replicas[0].residences == {other}
