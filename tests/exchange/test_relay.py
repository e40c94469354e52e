"""A legacy client's side of an exchange: on the POST's stream, else on the GET stream, else not at all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fakes import FakeServer, open_session, settle
from legacy_scene import NEWS, NOBODY_THERE, ROOTS, Scene
from modern_fakes import FakeChannel

from mcp_session_proxy.exchange.relay import Relay
from mcp_session_proxy.protocol.jsonrpc import Response
from mcp_session_proxy.sessions.client import Farewell
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """The scene, with an open session."""
    server = FakeServer()
    async with open_session(server) as session:
        yield Scene(session, server)


async def test_notifications_go_to_the_post(at: Scene) -> None:
    """What the server says in the course of a call is written on that call's stream."""
    channel = FakeChannel()
    await Relay(channel, None, at.session, at.delivery).notify(NEWS)
    assert [message["method"] for message in channel.sent] == [NEWS.method]


async def test_questions_go_to_the_post(at: Scene) -> None:
    """The client is asked on the stream of its call, and its answer finds the server."""
    client, channel = at.client(), FakeChannel()
    await Relay(channel, client, at.session, at.delivery).ask(at.session, ROOTS)
    assert channel.sent == [{"jsonrpc": "2.0", "id": 1, "method": "roots/list"}]
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert at.answers == [("r-1", {})]


async def test_questions_go_to_the_get_stream_instead(at: Scene) -> None:
    """A client that wants JSON for its call is asked on its GET stream, if that is open."""
    client = at.client(listens=True)
    await Relay(FakeChannel(takes=False), client, at.session, at.delivery).ask(at.session, ROOTS)
    assert [message["id"] for message in at.heard(client)] == [1]
    assert at.answers == []


async def test_questions_that_reach_nobody(at: Scene) -> None:
    """Without a stream, without a session, or for a forgotten client, the server gets an error at once."""
    forgotten = at.client()
    forgotten.farewell = Farewell.FORGOTTEN
    for client in (at.client(), None, forgotten):
        takes = client is not None and client.forgotten
        relay = Relay(FakeChannel(takes=takes), client, at.session, at.delivery)
        await relay.ask(at.session, ROOTS)
    await settle()
    assert at.answers == [("r-1", NOBODY_THERE)] * 3


async def test_cancelled_while_asking(at: Scene) -> None:
    """An exchange that ends while its client is being asked ends in a cancellation, not in a hang."""

    class Slow(FakeChannel):
        async def send(self, *_: bytes) -> bool:
            await asyncio.sleep(3600)
            return True

    asking = asyncio.create_task(
        Relay(cast(Any, Slow()), at.client(), at.session, at.delivery).ask(at.session, ROOTS)
    )
    await settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
