"""Where the messages of an upstream GET stream go."""

from typing import Any, cast

import pytest
from fakes import FakeServer, make_session

from mcp_session_proxy.exchange.routing import Router
from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY


class Ears:
    """Everybody who may hear something; keeps who heard what."""

    def __init__(self, *, takes_requests: bool = False) -> None:
        self.heard: list[tuple[str, str]] = []
        self._takes_requests = takes_requests

    def router(self) -> Router:
        return Router(
            delivery=cast(Any, _Delivery(self)),
            attribution=cast(Any, _Attribution(self)),
            catalog=cast(Any, _Catalog(self)),
            listening=cast(Any, _Listening(self)),
        )


class _Ear:
    def __init__(self, ears: Ears) -> None:
        self._ears = ears

    def _note(self, what: str) -> None:
        self._ears.heard.append((type(self).__name__[1:].lower(), what))


class _Delivery(_Ear):
    def knows(self, session: UpstreamSession) -> bool:
        return True

    can_ask = knows

    def session_changed(self, session: UpstreamSession) -> None:
        self._note("changed")

    def route(self, session: UpstreamSession, message: Message) -> None:
        self._note(getattr(message, "method", "response"))


class _Attribution(_Ear):
    def take_request(self, session: UpstreamSession, request: Request) -> bool:
        self._note(request.method)
        return self._ears._takes_requests

    def take_notification(self, session: UpstreamSession, message: Notification) -> None:
        self._note(message.method)


class _Catalog(_Ear):
    def session_changed(self, session: UpstreamSession) -> None:
        self._note("changed")

    def take_notification(self, method: str) -> None:
        self._note(method)


class _Listening(_Ear):
    def take_notification(self, principal: str, session: UpstreamSession, message: Notification) -> None:
        assert principal == session.principal
        self._note(message.method)

    def session_changed(self, session: UpstreamSession) -> None:
        self._note("changed")


@pytest.fixture
async def session() -> UpstreamSession:
    session = make_session(FakeServer())
    await session.open(NOBODY)
    return session


async def test_everybody_hears_of_a_change(session: UpstreamSession) -> None:
    """A notification goes to the running call, the catalogue, the listeners and the legacy clients."""
    ears = Ears()
    ears.router().route(session, Notification(revisions.TOOLS_CHANGED))
    assert sorted(ears.heard) == [
        (who, revisions.TOOLS_CHANGED) for who in ("attribution", "catalog", "delivery", "listening")
    ]


async def test_a_question_for_a_modern_call(session: UpstreamSession) -> None:
    """A request that a running modern call takes is nobody else's."""
    ears = Ears(takes_requests=True)
    ears.router().route(session, Request(b"1", revisions.LIST_ROOTS))
    assert ears.heard == [("attribution", revisions.LIST_ROOTS)]


async def test_a_question_for_a_legacy_client(session: UpstreamSession) -> None:
    """A request that no modern call takes is for the legacy clients, or is refused there."""
    ears = Ears()
    ears.router().route(session, Request(b"1", revisions.LIST_ROOTS))
    assert ears.heard == [("attribution", revisions.LIST_ROOTS), ("delivery", revisions.LIST_ROOTS)]


async def test_responses(session: UpstreamSession) -> None:
    """A response that names no call in flight is passed along, where it ends."""
    ears = Ears()
    ears.router().route(session, Response(b"1", result=b"{}"))
    assert ears.heard == [("delivery", "response")]


async def test_changes_are_noted(session: UpstreamSession) -> None:
    """What is said in the course of a call is heard by the catalogue and the listeners as well."""
    ears = Ears()
    ears.router().note_change(session, Notification(revisions.RESOURCE_UPDATED))
    assert sorted(who for who, _ in ears.heard) == ["catalog", "listening"]


async def test_a_session_that_changed(session: UpstreamSession) -> None:
    """The listeners, the catalogue and the legacy clients are told of sessions that were re-opened."""
    ears = Ears()
    ears.router().session_changed(session)
    assert sorted(ears.heard) == [(who, "changed") for who in ("catalog", "delivery", "listening")]
