"""Listeners of change notifications, and the upstream subscriptions that they share."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from fakes import FakeReply, FakeServer, Recorder, Sent, answer, make_session, settle
from messages import error, result
from modern_fakes import Visit

from mcp_session_proxy.errors import TooManyListeners
from mcp_session_proxy.exchange.listening import Listener, Listening
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.jsonrpc import Notification
from mcp_session_proxy.protocol.subscriptions import Filter
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

EVERYTHING = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
}
LISTS = {
    "toolsListChanged": revisions.TOOLS_CHANGED,
    "promptsListChanged": revisions.PROMPTS_CHANGED,
    "resourcesListChanged": revisions.RESOURCES_CHANGED,
}
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"


class Scene:
    """One principal's session and its listeners."""

    def __init__(self, server: FakeServer, session: UpstreamSession) -> None:
        self.server = server
        self.session = session
        self.listening = Listening(Recorder())
        self.principal = session.principal
        server.seen.clear()

    async def listen(
        self, *uris: str, lists: tuple[str, ...] = (), identifier: bytes = b"1", visit: Any = None
    ) -> Listener:
        """A listener that has been acknowledged."""
        listener = Listener(identifier, Filter(frozenset(lists), uris))
        self.listening.add(self.principal, listener)
        await self.listening.settle(listener, visit or cast(Any, Visit(self.session)))
        return listener

    def hear(self, method: str, session: UpstreamSession | None = None, **params: object) -> None:
        """The server says something."""
        message = Notification(method, json.dumps(params).encode() if params else None)
        self.listening.take_notification(self.principal, session or self.session, message)

    @property
    def sent(self) -> list[tuple[str, Any]]:
        return [(sent.method.rpartition("/")[2], (sent.params or {}).get("uri")) for sent in self.server.seen]


async def scene(capabilities: object = EVERYTHING) -> Scene:
    server = FakeServer()
    server.initialize_result = {**server.initialize_result, "capabilities": capabilities}
    session = make_session(server)
    await session.open(NOBODY)
    return Scene(server, session)


def heard(listener: Listener) -> list[tuple[str, Any]]:
    """What waits to be written: methods and parameters without the listener's own tag, which is checked."""
    found = []
    for data in listener.drain():
        message = json.loads(data)
        params = message["params"]
        assert params.pop("_meta") == {SUBSCRIPTION_KEY: json.loads(listener.id)}
        found.append((message["method"], params))
    return found


# -- promises --------------------------------------------------------------------------------------


async def test_promise() -> None:
    """What the server can do is promised, and subscribed to before."""
    at = await scene()
    listener = await at.listen("a", "b", lists=("toolsListChanged", "promptsListChanged"))
    assert listener.promised == listener.wanted
    assert at.sent == [("subscribe", "a"), ("subscribe", "b")]


@pytest.mark.parametrize("capabilities", [{}, {"resources": {}}, {"resources": {"subscribe": False}}])
async def test_servers_that_cannot(capabilities: object) -> None:
    """Of a server that cannot do it nothing is promised, and nothing is asked."""
    at = await scene(capabilities)
    listener = await at.listen("a", lists=tuple(LISTS))
    assert listener.promised == Filter(frozenset(), ())
    assert at.sent == []


async def test_resources_that_the_server_refuses() -> None:
    """A resource that the server does not subscribe to is not promised; the others are."""
    at = await scene()
    at.server.script(revisions.SUBSCRIBE, answer(error(-32602, "no")), answer(result()))
    listener = await at.listen("a", "b")
    assert listener.promised.uris == ("b",)
    assert at.listening._counts == {at.session: {"b": 1}}


# -- subscriptions ---------------------------------------------------------------------------------


async def test_one_subscription_for_all_listeners() -> None:
    """The first listener of a resource subscribes, the last unsubscribes."""
    at = await scene()
    first = await at.listen("a", "b")
    second = await at.listen("b", "c")
    assert at.sent == [("subscribe", "a"), ("subscribe", "b"), ("subscribe", "c")]
    at.server.seen.clear()
    at.listening.remove(at.principal, first)
    await settle()
    assert at.sent == [("unsubscribe", "a")]
    at.listening.remove(at.principal, second)
    await settle(50)
    assert at.sent[1:] == [("unsubscribe", "b"), ("unsubscribe", "c")]
    assert (at.listening._counts, len(at.listening)) == ({}, 0)


async def test_visits_last_until_the_goodbye() -> None:
    """The session is held until the last unsubscription has been sent."""
    at = await scene()
    visit = Visit(at.session)
    listener = await at.listen("a", visit=cast(Any, visit))
    gate = asyncio.Event()

    def late(_: Sent) -> FakeReply:
        return FakeReply([gate], is_stream=True)

    at.server.script(revisions.UNSUBSCRIBE, late)
    at.listening.remove(at.principal, listener)
    await settle()
    assert visit.ended == 0
    gate.set()
    await asyncio.sleep(60)
    assert visit.ended == 1


async def test_visits_of_listeners_without_resources() -> None:
    """A listener of lists lets go of its session as soon as it leaves."""
    at = await scene()
    visit = Visit(at.session)
    listener = await at.listen(lists=("toolsListChanged",), visit=cast(Any, visit))
    at.listening.remove(at.principal, listener)
    at.listening.leave(listener)
    assert visit.ended == 1


async def test_somebody_comes_as_the_last_one_goes() -> None:
    """A resource that is wanted again before the unsubscription was sent stays subscribed."""
    at = await scene()
    first = await at.listen("a")
    at.listening.remove(at.principal, first)
    second = await at.listen("a")
    await settle(50)
    assert second.promised.uris == ("a",)
    kinds = [kind for kind, _ in at.sent]
    assert kinds[-1] == "subscribe"


async def test_closed_sessions_need_no_goodbye() -> None:
    """Nothing is sent on a session that is closed."""
    at = await scene()
    visit = Visit(at.session)
    listener = await at.listen("a", visit=cast(Any, visit))
    at.session.abandon()
    at.server.seen.clear()
    at.listening.remove(at.principal, listener)
    await settle()
    assert at.sent == []
    assert (visit.ended, at.listening._counts) == (1, {})


@pytest.mark.parametrize("moment", [0, 1])
async def test_the_client_leaves_in_the_middle(moment: int) -> None:
    """A listener that leaves while it is being subscribed leaves no subscription behind."""
    at = await scene()
    replies: list[Any] = [answer(result()), FakeReply([60.0])]
    at.server.script(revisions.SUBSCRIBE, *replies[1 - moment :])
    listener = Listener(b"1", Filter(frozenset(), ("a", "b")))
    visit = Visit(at.session)
    at.listening.add(at.principal, listener)
    settling = asyncio.create_task(at.listening.settle(listener, cast(Any, visit)))
    await settle()
    settling.cancel()
    await settle()
    at.listening.remove(at.principal, listener)
    await settle(50)
    assert at.listening._counts == {}
    assert visit.ended == 1
    if moment:
        assert ("unsubscribe", "a") in at.sent


# -- what is heard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", sorted(LISTS))
async def test_lists(wanted: str) -> None:
    """A listener hears of the lists that it asked for, and of no others."""
    at = await scene()
    listener = await at.listen(lists=(wanted,), identifier=b'"sub"')
    for method in LISTS.values():
        at.hear(method)
    at.hear(revisions.RESOURCE_UPDATED, uri="a")
    at.hear("notifications/whatever")
    assert heard(listener) == [(LISTS[wanted], {})]


async def test_lists_from_another_session() -> None:
    """A change that another session of the caller heard of concerns its listeners, too."""
    at = await scene()
    listener = await at.listen(lists=("toolsListChanged",))
    at.hear(revisions.TOOLS_CHANGED, session=make_session(FakeServer()))
    assert heard(listener) == [(revisions.TOOLS_CHANGED, {})]


async def test_other_callers_hear_nothing() -> None:
    """What one caller's session says is not for another caller's listeners."""
    at = await scene()
    listener = await at.listen("a", lists=("toolsListChanged",))
    message = Notification(revisions.TOOLS_CHANGED)
    at.listening.take_notification("somebody else", at.session, message)
    assert heard(listener) == []


async def test_resources() -> None:
    """An update reaches the listeners of that resource on that session, with all that the server said."""
    at = await scene()
    one, other, both = await at.listen("a"), await at.listen("b"), await at.listen("a", "b")
    at.hear(revisions.RESOURCE_UPDATED, uri="a", title="A")
    at.hear(revisions.RESOURCE_UPDATED, uri="b", session=make_session(FakeServer()))
    at.hear(revisions.RESOURCE_UPDATED)
    expected = [(revisions.RESOURCE_UPDATED, {"uri": "a", "title": "A"})]
    assert (heard(one), heard(other), heard(both)) == (expected, [], expected)


async def test_parts_of_resources() -> None:
    """An update may name a part of what was subscribed to (schema, ResourceUpdatedNotificationParams)."""
    at = await scene()
    folder, other = await at.listen("file:///src"), await at.listen("file:///srv")
    at.hear(revisions.RESOURCE_UPDATED, uri="file:///src/main.rs")
    assert heard(folder) == [(revisions.RESOURCE_UPDATED, {"uri": "file:///src/main.rs"})]
    assert heard(other) == []


@pytest.mark.parametrize("uri", ["nobody:wants", "a:" + "/" * 20_000, "/?#" * 3000])
async def test_an_update_that_nobody_wants(uri: str) -> None:
    """It is looked up and not searched for: its cost does not grow with what all listeners wait for."""
    here = await scene()
    listener = Listener(b"1", Filter(frozenset(), ()))
    here.listening.add(here.principal, listener)
    listener.wanted = Filter(frozenset(), tuple(f"mine:{n}" for n in range(500)))
    await here.listening.settle(listener, cast(Any, Visit(here.session)))
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        here.hear(revisions.RESOURCE_UPDATED, uri=uri)
    finally:
        sys.setprofile(None)
    assert calls < 300
    assert heard(listener) == []


async def test_waiting_for_news() -> None:
    """Whoever writes the stream is woken by the next notification, and by the end."""
    at = await scene()
    listener = await at.listen(lists=("toolsListChanged",))
    waiting = asyncio.create_task(listener.news())
    await settle()
    assert not waiting.done()
    at.hear(revisions.TOOLS_CHANGED)
    await settle()
    assert waiting.done()
    async with asyncio.timeout(1):
        await listener.news()  # it has not been read yet
    heard(listener)
    waiting = asyncio.create_task(listener.news())
    await settle()
    at.listening.close()
    await settle()
    assert (waiting.done(), listener.ended) == (True, True)


async def test_a_slow_listener() -> None:
    """A listener that does not read is dropped with all that waited for it; the others go on."""
    at = await scene()
    slow, quick = await at.listen(lists=("toolsListChanged",)), await at.listen(lists=("toolsListChanged",))
    for _ in range(1000):
        at.hear(revisions.TOOLS_CHANGED)
        assert len(heard(quick)) == 1
    assert not slow.overrun
    at.hear(revisions.TOOLS_CHANGED)
    assert (slow.overrun, slow.drain(), quick.overrun) == (True, [], False)


async def test_limit() -> None:
    """One caller cannot open listeners without end; another caller still can."""
    at = await scene()
    for _ in range(2000):
        at.listening.add("ada", Listener(b"1", Filter(frozenset(), ())))
    with pytest.raises(TooManyListeners):
        at.listening.add("ada", Listener(b"1", Filter(frozenset(), ())))
    at.listening.add("bob", Listener(b"1", Filter(frozenset(), ())))
    assert len(at.listening) == 2001


# -- sessions come and go --------------------------------------------------------------------------


@pytest.fixture
def everything_changed() -> Callable[[Listener], bool]:
    """Whether a listener was told that all it asked for may have changed."""

    def check(listener: Listener) -> bool:
        expected: list[Any] = [(LISTS[name], {}) for name in LISTS if name in listener.promised.lists]
        expected += [(revisions.RESOURCE_UPDATED, {"uri": uri}) for uri in listener.promised.uris]
        return heard(listener) == expected != []

    return check


async def test_a_session_that_was_opened_anew(everything_changed: Callable[[Listener], bool]) -> None:
    """Something may have been missed: its listeners are told that everything changed. Others are not."""
    at = await scene()
    listener = await at.listen("a", "b", lists=("promptsListChanged",))
    elsewhere = await at.listen("a", visit=cast(Any, Visit((await scene()).session)))
    at.listening.session_changed(at.session)
    assert everything_changed(listener)
    assert heard(elsewhere) == []
    assert not listener.session_closed


async def test_a_session_that_was_closed(everything_changed: Callable[[Listener], bool]) -> None:
    """A listener whose session was closed has none until it is given another, and is told then."""
    at = await scene()
    listener = await at.listen("a")
    waiting = asyncio.create_task(listener.news())
    await settle()
    at.session.abandon()
    at.listening.session_changed(at.session)
    await settle()
    assert (waiting.done(), listener.session_closed, heard(listener)) == (True, True, [])
    at.listening.leave(listener)
    assert not listener.session_closed
    session = make_session(at.server)
    await session.open(NOBODY)
    await at.listening.settle(listener, cast(Any, Visit(session)))
    at.listening.tell_all_changed(listener)
    assert everything_changed(listener)
    assert ("subscribe", "a") in at.sent


async def test_two_at_once_share_a_refusal() -> None:
    """Two listeners that want the same resource at the same time are promised the same: here nothing."""
    at = await scene()
    at.server.script(revisions.SUBSCRIBE, answer(error(-32602, "no")))
    one, other = await asyncio.gather(
        at.listen("x://a", identifier=b"1"), at.listen("x://a", identifier=b"2")
    )
    assert one.promised.uris == other.promised.uris == ()
    assert [method for method, _ in at.sent] == ["subscribe"]


def test_what_waits_for_a_listener_counts() -> None:
    """It is given back once it is read; over the share, the listener that does not read is dropped."""
    share = Share("events", 1000)
    listener = Listener(b"1", Filter(frozenset(), ()), share)
    listener.put(revisions.TOOLS_CHANGED, None)
    assert share.used_bytes > 0
    listener.drain()
    assert share.used_bytes == 0
    while not listener.overrun:
        listener.put(revisions.TOOLS_CHANGED, None)
    assert share.used_bytes == 0
