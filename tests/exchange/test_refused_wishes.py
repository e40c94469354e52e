"""What a client wants to be told of, as far as the server takes it; the rest is shown on the wire."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fakes import FakeServer, open_session
from legacy_scene import Scene

from mcp_session_proxy.errors import UpstreamTimeout
from mcp_session_proxy.exchange.listening import Listening
from mcp_session_proxy.exchange.wishes import Wishes
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol.jsonrpc import Request, Response

pytestmark = pytest.mark.looptime

AGREED, REFUSED = Response(b"1", result=b"{}"), Response(b"1", error=b'{"code":-1,"message":"no"}')


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """The scene, with an open session."""
    server = FakeServer()
    async with open_session(server) as session:
        yield Scene(session, server)


def subscribe(uri: str) -> Request:
    return Request(b"1", "resources/subscribe", json.dumps({"uri": uri}).encode())


@pytest.mark.parametrize("ends", ["refused", "fails"])
async def test_what_the_server_does_not_take_is_not_kept(at: Scene, ends: str) -> None:
    """However many resources a client asks for in vain, nothing of them is kept, nor counted."""
    share = Share("subscriptions", 10_000)
    listening = Listening(lambda _: None)
    wishes = Wishes(binder=cast(Any, None), listening=listening, observe=lambda _: None, room=share)
    client = at.client()

    async def send(_: Request) -> Response:
        if ends == "fails":
            raise UpstreamTimeout("slow")
        return REFUSED

    for number in range(100):
        try:
            await wishes.ask(client, at.session, subscribe(f"a:{number}"), send)
        except UpstreamTimeout:
            continue
    assert client.record.wishes is not None
    assert client.record.wishes.subscriptions == {}
    assert share.used_bytes == 0


async def test_what_was_agreed_to_before_stays(at: Scene) -> None:
    """A second request for the same that fails takes nothing from what the first one got."""
    share = Share("subscriptions", 10_000)
    listening = Listening(lambda _: None)
    wishes = Wishes(binder=cast(Any, None), listening=listening, observe=lambda _: None, room=share)
    client = at.client()
    answers = [AGREED, REFUSED]

    async def send(asked: Request) -> Response:
        response = answers.pop(0)
        if response is AGREED:
            at.session.record.journal.record(asked.method, asked.params)
        return response

    for _ in range(2):
        await wishes.ask(client, at.session, subscribe("a:1"), send)
    assert client.record.wishes is not None
    assert list(client.record.wishes.subscriptions) == ["a:1"]
    assert share.used_bytes == len(b'{"uri":"a:1"}')
