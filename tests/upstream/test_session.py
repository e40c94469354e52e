"""One upstream session against a scripted server: handshake, stream, keep-alive, loss and revival."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from fakes import (
    FakeChannel,
    FakeFleet,
    FakeReply,
    FakeRouter,
    FakeServer,
    Holder,
    Recorder,
    Sent,
    answer,
    make_session,
    refusal,
    say,
    settle,
    stream,
)
from messages import GONE, error, notification, request, result

from mcp_session_proxy.errors import (
    Draining,
    HandshakeRefused,
    SessionLost,
    UpstreamDown,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_session_proxy.upstream.journal import Journal
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import Caller, ConnectionLost

pytestmark = pytest.mark.looptime

ALICE = Caller(headers=(("Authorization", "Bearer alice"),))


@pytest.fixture
def server(a_server: FakeServer) -> FakeServer:
    """The server, behind each transport."""
    return a_server


async def opened(server: FakeServer, **options: object) -> UpstreamSession:
    session = make_session(server, **options)  # type: ignore[arg-type]
    await session.open(ALICE)
    return session


class Call:
    """Somebody who waits for an answer."""

    asks = None

    def __init__(self) -> None:
        self.delivered: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.delivered.append(message)


class StuckServer(FakeServer):
    """Accepts connections and, but for the handshake, never answers."""

    @asynccontextmanager
    async def answered(self, sent: Sent) -> AsyncIterator[FakeReply]:
        if sent.verb == "GET" or (sent.session_id is not None and "initialized" not in sent.method):
            await asyncio.Event().wait()
        async with super().answered(sent) as reply:
            yield reply


# -- handshake -------------------------------------------------------------------------------------


@pytest.mark.http_only
async def test_handshake(server: FakeServer) -> None:
    """Initialize goes without a session id, everything after it with the server's and the version."""
    session = await opened(server)
    assert [str(sent) for sent in server.seen] == ["initialize", "notifications/initialized @s1", "GET @s1"]
    assert [sent.version for sent in server.seen] == [None, "2025-11-25", "2025-11-25"]
    assert {sent.caller for sent in server.seen} == {ALICE}
    assert server.seen[0].params["clientInfo"]["name"] == "t"
    assert json.loads(session.incarnation.initialize_result)["serverInfo"]["name"] == "fake"
    assert session.incarnation.number == 1


async def test_handshake_without_session_id() -> None:
    """A server that gives no id is served without one, and needs no goodbye."""
    server = FakeServer(stateless=True)
    session = await opened(server)
    assert session.incarnation.channel.session_id is None
    await session.close("idle")
    assert server.transcript == ["initialize", "notifications/initialized"]


@pytest.mark.http_only
async def test_handshake_over_a_stream(server: FakeServer) -> None:
    """The answer to initialize may come as an event stream, behind other messages."""
    server.script(
        "initialize",
        lambda _: stream(
            say(notification("notifications/message")), say(result(server.initialize_result)), session_id="s7"
        ),
    )
    server.sessions.append("s7")
    session = await opened(server)
    assert session.incarnation.channel.session_id == "s7"


@pytest.mark.http_only
async def test_throwaway_id_is_not_adopted(server: FakeServer) -> None:
    """An id that comes with a refusal of initialize is never used."""
    server.script("initialize", refusal(400, error(-32600, "Bad Request"), session_id="throwaway"))
    session = make_session(server)
    with pytest.raises(UpstreamRejected) as caught:
        await session.open(ALICE)
    assert caught.value.http_status == 400
    assert session.version is None
    assert server.transcript == ["initialize"]


async def test_handshake_refused_in_json_rpc(server: FakeServer) -> None:
    """The server's own error reaches whoever asked."""
    server.script("initialize", answer(error(-32602, "Unsupported protocol version")))
    with pytest.raises(HandshakeRefused) as caught:
        await opened(server)
    assert json.loads(caught.value.raw_error) == {"code": -32602, "message": "Unsupported protocol version"}


@pytest.mark.http_only
@pytest.mark.parametrize(
    "reply",
    [
        FakeReply(is_stream=False, content_type="text/html"),
        stream(say(notification("notifications/message"))),
        FakeReply(status=202),
    ],
)
async def test_handshake_without_an_answer(server: FakeServer, reply: FakeReply) -> None:
    """A server that does not answer in JSON-RPC is no MCP server."""
    server.script("initialize", reply)
    with pytest.raises(UpstreamProtocolError):
        await opened(server)


async def test_hang_up_in_the_handshake_counts_as_unreachable(server: FakeServer) -> None:
    """Nothing of a user's was executed, so whoever waits may try again."""
    server.script("initialize", stream(ConnectionLost()))
    with pytest.raises(UpstreamUnreachable):
        await opened(server)


@pytest.mark.http_only
async def test_half_opened_session_is_given_back(server: FakeServer) -> None:
    """A handshake that fails after the server gave an id does not leave a session behind."""
    server.script("notifications/initialized", refusal(404, GONE), ConnectionLost())
    session = make_session(server)
    with pytest.raises(UpstreamProtocolError):
        await session.open(ALICE)
    with pytest.raises(UpstreamUnreachable):
        await session.open(ALICE)
    await session.open(ALICE)
    assert server.deleted == ["s1", "s2"]
    assert server.sessions == ["s3"]


async def test_silent_handshake_times_out() -> None:
    """A server that never answers initialize is given up after a minute, or what the operator says."""
    now = asyncio.get_running_loop().time
    for options, seconds in (({}, 60.0), ({"handshake_timeout_seconds": 7.0}, 7.0)):
        server, began = FakeServer(), now()
        server.script("initialize", stream(asyncio.Event()))
        with pytest.raises(UpstreamTimeout, match=rf"handshake within {seconds:g} s.*--handshake-timeout"):
            await opened(server, **options)
        assert now() - began == pytest.approx(seconds)


async def test_restoring_has_a_deadline(server: FakeServer) -> None:
    """A server that does not take the journal in time does not keep the client waiting for ever."""
    session = await opened(server, handshake_timeout_seconds=7.0)
    lost = Journal()
    lost.record("resources/subscribe", b'{"uri":"a:1"}')
    server.script("resources/subscribe", stream(asyncio.Event()))
    with pytest.raises(UpstreamTimeout, match="--handshake-timeout"):
        await session.restore(lost)
    assert asyncio.get_running_loop().time() == pytest.approx(7.0)
    session.abandon()


async def test_a_re_opening_is_tried_as_long_as_a_request_may_wait(server: FakeServer) -> None:
    """While the server takes no connections; a handshake that it has begun has its own time."""
    session = await opened(server, patience_seconds=20.0)
    began = asyncio.get_running_loop().time()

    def refuse(_: Sent) -> FakeReply:
        if asyncio.get_running_loop().time() - began < 15.0:
            server.script("initialize", refuse)
            raise UpstreamUnreachable("refused")
        return server.open_session().after(25.0)

    server.script("initialize", refuse)
    server.forget()
    await session.revive(session.incarnation, "404", ALICE)
    assert asyncio.get_running_loop().time() - began > 40.0
    assert session.incarnation.number == 2
    session.abandon()


@pytest.mark.http_only
async def test_server_that_forgets_at_once(server: FakeServer) -> None:
    """A session that is unknown straight after the handshake is no 404 of the client's."""
    server.script("notifications/initialized", refusal(404, GONE))
    with pytest.raises(UpstreamProtocolError, match="name its replicas"):
        await opened(server)


async def test_fleet_is_told(server: FakeServer) -> None:
    """Whoever decides where sessions live knows how each handshake went, and when a session has left."""
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet)
    server.script("initialize", UpstreamUnreachable("down"))
    with pytest.raises(UpstreamUnreachable):
        await session.open(ALICE)
    await session.open(ALICE)
    await session.close("idle")
    assert fleet.notes == ["place", "failed: upstream-unreachable", "place", "opened", "left"]


@pytest.mark.http_only
@pytest.mark.parametrize("how", ["abandon", "close"])
async def test_fleet_is_told_of_a_handshake_that_is_given_up(server: FakeServer, how: str) -> None:
    """A session that never came about does not count as living anywhere."""
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet)
    server.script("notifications/initialized", stream(1.0))
    opening = asyncio.create_task(session.open(ALICE))
    await settle(2)
    if how == "abandon":
        session.abandon()
    await session.close("shutdown")
    await asyncio.gather(opening, return_exceptions=True)
    assert fleet.notes[-1] == "left"
    session.abandon()


@pytest.mark.http_only
@pytest.mark.parametrize("version", [7, "", "x" * 65, "2025\r\nX-Evil: 1", None])
async def test_odd_version_is_not_repeated(server: FakeServer, version: object) -> None:
    """A protocol version that cannot be a header's value is not made one."""
    server.initialize_result = {"protocolVersion": version}
    session = await opened(server)
    assert session.version is None


async def test_ids_are_unique(server: FakeServer) -> None:
    """No two requests of a session ever have the same id, over all its incarnations."""
    session = await opened(server)
    taken = [session.incarnation.calls.begin(Call()) for _ in range(3)]
    await session.incarnation.confirm()
    server.forget()
    await session.revive(session.incarnation, "404", ALICE)
    ids = [int(sent.message.id) for sent in server.seen if isinstance(sent.message, Request)]
    assert len(set(ids + taken)) == len(ids) + len(taken)


async def test_slow_stream_does_not_hold_up_the_handshake() -> None:
    """A GET that sends no header for long is not waited for longer than a moment."""
    session = await opened(StuckServer())
    assert asyncio.get_running_loop().time() == pytest.approx(0.5)
    session.abandon()


# -- closing ---------------------------------------------------------------------------------------


async def test_close_says_goodbye_once() -> None:
    """Closing sends one DELETE, stops the stream, and is told once."""
    server, observe, router = FakeServer(), Recorder(), FakeRouter()
    reply = stream(asyncio.Event())
    server.script("GET", reply)
    session = await opened(server, observe=observe, router=router)
    assert session.streaming
    await session.close("idle")
    await session.close("idle")
    await settle()
    assert server.deleted == ["s1"]
    assert observe.names == ["session.closed"]
    assert observe.events[0].reason == "idle"
    assert router.changes == [(1, True)]
    assert session.closed
    assert reply.closed
    assert not session.streaming


@pytest.mark.parametrize(
    "trouble", [refusal(405), refusal(500), ConnectionLost(), UpstreamUnreachable("down"), TimeoutError()]
)
async def test_close_ignores_trouble(server: FakeServer, trouble: FakeReply | BaseException) -> None:
    """A server that takes no DELETE, or is down, changes nothing for us."""
    session = await opened(server)
    server.script("DELETE", trouble)
    await session.close("idle")
    assert session.closed


async def test_close_while_opening(server: FakeServer) -> None:
    """A session closed during its handshake is DELETEd as soon as that is through."""
    go_on = asyncio.Event()
    server.script("notifications/initialized", stream(go_on))
    server.script("GET", stream(asyncio.Event()))

    session = make_session(server)
    opening = asyncio.create_task(session.open(ALICE))
    while not server.posts("initialize"):
        await asyncio.sleep(0)
    await session.close("evicted")
    assert server.deleted == []
    with pytest.raises(Draining):
        await opening
    assert server.deleted == ["s1"]
    assert server.sessions == []
    await settle()
    assert not session.streaming


async def test_abandon_then_close_gives_the_session_back(server: FakeServer) -> None:
    """At a shutdown in the middle of a handshake, the server is told about the session it opened."""
    session = make_session(server)
    server.script("GET", stream(asyncio.Event()))
    opening = asyncio.create_task(session.open(ALICE))
    while not server.sessions:
        await asyncio.sleep(0)
    await settle(2)
    session.abandon()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await session.close("shutdown")
    assert server.deleted == ["s1"]
    assert server.sessions == []


async def test_abandon_stops_everything(server: FakeServer) -> None:
    """An abandoned session leaves no task behind."""
    server.script("GET", stream(asyncio.Event()))
    session = await opened(server)
    before = len(asyncio.all_tasks())
    session.abandon()
    await settle()
    assert len(asyncio.all_tasks()) == before - 1
    assert server.deleted == []


# -- posts in the background -----------------------------------------------------------------------


@pytest.mark.http_only
async def test_telling_gives_whether_it_was_taken(server: FakeServer) -> None:
    """A notification that cannot be delivered is no error, but is known."""
    session = await opened(server)
    body = b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}'
    server.script(
        "notifications/roots/list_changed", refusal(400), ConnectionLost(), UpstreamUnreachable("down")
    )
    assert [await session.incarnation.tell(body) for _ in range(4)] == [False, False, False, True]


async def test_background_posts_are_bounded(server: FakeServer) -> None:
    """A server that asks and never reads the answers does not fill our memory."""
    session = await opened(server)
    session.incarnation.channel = FakeChannel(StuckServer(), "s1")
    for _ in range(1000):
        session.incarnation.answer_ping(Request(b"1", "ping"))
    await settle()
    assert len(asyncio.all_tasks()) < 110
    session.abandon()


async def test_post_that_hangs_is_given_up(server: FakeServer) -> None:
    """A notification that the server never accepts ends after 10 seconds."""
    session = await opened(server)
    session.incarnation.channel = FakeChannel(StuckServer(), "s1")
    assert not await session.incarnation.tell(b'{"jsonrpc":"2.0","method":"notifications/x"}')
    assert asyncio.get_running_loop().time() == pytest.approx(10)


# -- the GET stream --------------------------------------------------------------------------------


async def test_ping_on_the_stream_is_answered() -> None:
    """The server's ping is answered at once, under its own id, and nobody else hears of it."""
    server, router = FakeServer(), FakeRouter()
    server.script("GET", stream(say(request("p-1", "ping")), asyncio.Event()))
    session = await opened(server, router=router)
    await settle()
    assert [cast(Response, sent.message).id for sent in server.posts("response")] == [b'"p-1"']
    assert router.routed == []
    session.abandon()


async def test_messages_go_to_the_call_they_name() -> None:
    """Progress goes to its call; everything else to the router."""
    server, router = FakeServer(), FakeRouter()
    go_on = asyncio.Event()
    server.script(
        "GET",
        stream(
            go_on,
            say(
                notification("notifications/progress", progressToken=2, progress=1),
                notification("notifications/progress", progressToken="2", progress=2),
                notification("notifications/progress", progressToken=99, progress=3),
                notification("notifications/progress", progressToken={"odd": 1}),
                {"jsonrpc": "2.0", "method": "notifications/progress", "params": [1]},
                notification("notifications/tools/list_changed"),
                request(1, "roots/list"),
                {"jsonrpc": "2.0", "id": 2, "result": {}},
                {"jsonrpc": "2.0", "id": "x", "result": {}},
            ),
            asyncio.Event(),
        ),
    )
    session = await opened(server, router=router)
    call = Call()
    identifier = session.incarnation.calls.begin(call)
    assert identifier == 2
    go_on.set()
    await settle()
    told = [m.params or b"" for m in call.delivered if isinstance(m, Notification)]
    assert [json.loads(params)["progress"] for params in told] == [1, 2]
    assert len(call.delivered) == 3  # and the response
    assert len(router.routed) == 3  # progress of nothing is dropped
    session.incarnation.calls.end(identifier, "tools/call")
    assert session.incarnation.calls.in_flight == {}
    session.abandon()


@pytest.mark.http_only
async def test_broken_stream_is_resumed(server: FakeServer) -> None:
    """After a break the stream is opened again, from the last event on."""
    server.script(
        "GET",
        stream(say(notification("notifications/a"), event_id="7"), ConnectionLost()),
        stream(say(notification("notifications/b"), event_id="8")),
        UpstreamUnreachable("down"),
        stream(asyncio.Event()),
    )
    session = await opened(server)
    await asyncio.sleep(5)
    assert [sent.last_event_id for sent in server.gets()] == [None, "7", "8", "8"]
    assert session.streaming
    session.abandon()


@pytest.mark.http_only
async def test_server_decides_how_soon_the_stream_is_resumed(server: FakeServer) -> None:
    """The stream's own retry time is waited for."""
    server.script("GET", stream(say(retry=3.0)), stream(asyncio.Event()))
    session = await opened(server)
    await asyncio.sleep(2.9)
    assert len(server.gets()) == 1
    await asyncio.sleep(0.2)
    assert len(server.gets()) == 2
    session.abandon()


@pytest.mark.http_only
async def test_streams_that_end_at_once_are_opened_ever_more_rarely(server: FakeServer) -> None:
    """A server that accepts every GET and ends it at once is not hammered."""
    server.script("GET", *(stream() for _ in range(1000)))
    session = await opened(server)
    await asyncio.sleep(600)
    assert 15 < len(server.gets()) < 40
    session.abandon()


@pytest.mark.http_only
async def test_long_lived_stream_is_reopened_at_once(server: FakeServer) -> None:
    """A stream that something in between cuts every few minutes comes back in a moment."""
    server.script("GET", *(stream(125.0) for _ in range(3)), stream(asyncio.Event()))
    session = await opened(server)
    await asyncio.sleep(3 * 125.0 + 1)
    assert len(server.gets()) == 4
    session.abandon()


@pytest.mark.parametrize("status", [405, 400, 403, 501, 404])
async def test_stream_that_is_not_offered_is_asked_for_seldom(status: int) -> None:
    """On a living session the refusal means nothing else; a server that is deployed anew may offer one."""
    server, observe, router = FakeServer(), Recorder(), FakeRouter()
    server.script("GET", refusal(status))
    session = await opened(server, observe=observe, router=router)
    await asyncio.sleep(100)
    assert len(server.gets()) == 1
    assert len(server.posts("ping")) == (1 if status == 404 else 0)
    assert observe.events == []
    server.script("GET", refusal(status), stream(asyncio.Event()))
    await asyncio.sleep(700)
    assert session.streaming
    assert len(server.gets()) == 3
    assert router.changes == [(1, False)]  # whatever the server said before that
    session.abandon()


@pytest.mark.http_only
async def test_json_instead_of_a_stream(server: FakeServer) -> None:
    """A 200 that is no event stream is a refusal, too."""
    server.script("GET", answer({"status": "ok"}))
    session = await opened(server)
    await asyncio.sleep(100)
    assert len(server.gets()) == 1
    session.abandon()


@pytest.mark.http_only
@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_stream_refused_for_now_is_asked_for_again(server: FakeServer, status: int) -> None:
    """A conflict with a dead predecessor, or a busy server, passes."""
    server.script("GET", stream(1.0), refusal(status), refusal(status), stream(asyncio.Event()))
    session = await opened(server)
    await asyncio.sleep(5)
    assert len(server.gets()) == 4
    assert session.streaming
    session.abandon()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 500, 503])
async def test_stream_that_stood_once_is_asked_for_without_end(status: int) -> None:
    """However it is refused and for how long: about once in a minute, and it stands again when it can."""
    server, router = FakeServer(), FakeRouter()
    server.script("GET", stream(60.0), *(refusal(status) for _ in range(50)), stream(asyncio.Event()))
    session = await opened(server, router=router)
    await asyncio.sleep(1800)
    assert 25 < len(server.gets()) < 45
    assert not session.streaming
    await asyncio.sleep(1800)
    assert session.streaming
    assert router.changes == [(1, False)]  # something may have been missed
    session.abandon()


async def test_lost_session_that_nobody_holds_leaves(server: FakeServer) -> None:
    """A 404 on the stream, confirmed by a ping, ends a session that nobody holds."""
    server.script("GET", stream(10.0))
    session = await opened(server)
    keeper = Holder(session)
    await asyncio.sleep(5)
    server.forget()
    await asyncio.sleep(10)
    assert keeper.told == ["stream"]
    assert len(server.posts("initialize")) == 1
    session.abandon()


async def test_lost_session_that_is_held_is_opened_again() -> None:
    """Somebody who only listens gets a new session with the same journal, without asking."""
    server, observe, router = FakeServer(), Recorder(), FakeRouter()
    server.script("GET", stream(10.0))
    session = await opened(server, observe=observe, router=router)
    Holder(session, wanted=True)
    session.record.journal.record("resources/subscribe", b'{"uri":"a:1"}')
    await asyncio.sleep(5)
    server.forget()
    server.script("GET", refusal(404, GONE), stream(asyncio.Event()))
    await asyncio.sleep(10)
    assert session.incarnation.channel.session_id == "s2"
    assert session.incarnation.number == 2
    assert session.streaming
    assert [sent.params for sent in server.posts("resources/subscribe")] == [{"uri": "a:1"}]
    assert observe.names == ["session.lost", "session.opened"]
    assert router.changes == [(2, False)]
    session.abandon()


# -- keep-alive ------------------------------------------------------------------------------------


async def test_quiet_session_is_pinged(server: FakeServer) -> None:
    """A session is pinged when it was quiet for the keep-alive time, and not before."""
    session = await opened(server)
    loop = asyncio.get_running_loop()
    for _ in range(300):
        await asyncio.sleep(1)
        session.tick(loop.time())
    assert len(server.posts("ping")) == 2
    session.abandon()


async def test_session_with_a_call_in_flight_is_not_pinged(server: FakeServer) -> None:
    """A call keeps its session alive."""
    session = await opened(server)
    session.incarnation.calls.begin(Call())
    await asyncio.sleep(300)
    session.tick(asyncio.get_running_loop().time())
    await settle()
    assert server.posts("ping") == []
    session.abandon()


async def test_what_the_server_says_does_not_replace_a_ping(server: FakeServer) -> None:
    """Some servers count only what they receive: a chatty stream does not keep a session alive."""
    chatter = [step for _ in range(20) for step in (10.0, say(notification("notifications/message")))]
    server.script("GET", stream(*chatter, asyncio.Event()))
    session = await opened(server)
    await asyncio.sleep(125)
    session.tick(asyncio.get_running_loop().time())
    await settle()
    assert len(server.posts("ping")) == 1
    session.abandon()


async def test_keep_alive_finds_a_lost_session(server: FakeServer) -> None:
    """A ping that is answered "session not found" ends an idle session."""
    session = await opened(server)
    keeper = Holder(session)
    server.sessions.clear()
    await asyncio.sleep(130)
    session.tick(asyncio.get_running_loop().time())
    await settle()
    assert keeper.told == ["ping"]


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, b"Unauthorized"),
        refusal(503, b"Session service unavailable"),
        refusal(500),
        refusal(400, b"Bad Request"),
        answer(error(-32601, "Method not found")),
        stream(),
        ConnectionLost(),
        UpstreamUnreachable("down"),
        UpstreamTimeout("silent"),
    ],
)
async def test_trouble_is_no_loss(server: FakeServer, reply: FakeReply | BaseException) -> None:
    """A ping that fails for another reason says nothing about the session."""
    session = await opened(server)
    server.script("ping", reply)
    assert await session.incarnation.confirm()
    session.abandon()


@pytest.mark.http_only
@pytest.mark.parametrize(
    "reply",
    [
        refusal(404, GONE),
        refusal(404, b""),
        refusal(400, error(-32000, "Bad Request: No valid session ID provided")),
        refusal(401, b"Unauthorized: Session not found"),
        answer(error(-32600, "missing or invalid Mcp-Session-Id session")),
        stream(say({"error": "Session not found"})),
    ],
)
async def test_loss_is_confirmed(server: FakeServer, reply: FakeReply) -> None:
    """A ping that is answered in any dialect of "session gone" is believed."""
    session = await opened(server)
    server.script("ping", reply)
    assert not await session.incarnation.confirm()
    session.abandon()


async def test_keep_alive_does_not_drop_a_session_that_was_just_reopened(server: FakeServer) -> None:
    """The ping of an old incarnation says nothing about the new one."""
    session = await opened(server)
    keeper = Holder(session)
    go_on = asyncio.Event()

    def slowly(_: object) -> FakeReply:
        return stream(go_on, say(error(-32600, "Session not found")))

    server.script("ping", slowly)
    await asyncio.sleep(130)
    session.tick(asyncio.get_running_loop().time())
    await settle()
    server.forget()
    await session.revive(session.incarnation, "404", ALICE)
    go_on.set()
    await settle()
    assert keeper.told == []
    session.abandon()


# -- loss and revival ------------------------------------------------------------------------------


async def test_one_ping_for_all_who_ask(server: FakeServer) -> None:
    """Everyone who suspects a loss at the same time waits for the same ping."""
    session = await opened(server)
    assert await asyncio.gather(*(session.incarnation.confirm() for _ in range(10))) == [True] * 10
    assert len(server.posts("ping")) == 1
    assert await session.incarnation.confirm()
    assert len(server.posts("ping")) == 2
    former = session.incarnation
    await session.revive(former, "test", ALICE)
    assert not await former.confirm()
    assert len(server.posts("ping")) == 2
    session.abandon()


async def test_one_reopening_for_all_who_noticed() -> None:
    """Everyone who noticed the same loss gets the same new session."""
    server, observe = FakeServer(), Recorder()
    session = await opened(server, observe=observe)
    server.forget()
    former = session.incarnation
    await asyncio.gather(*(session.revive(former, "404", ALICE) for _ in range(10)))
    await session.revive(former, "404", ALICE)
    assert server.sessions == ["s2"]
    assert len(observe.named("session.lost")) == 1
    assert server.posts("initialize")[1].session_id is None
    session.abandon()


async def test_whoever_leaves_does_not_stop_the_reopening(server: FakeServer) -> None:
    """A cancelled waiter leaves the re-opening to the others."""
    session = await opened(server)
    server.forget()
    first = asyncio.create_task(session.revive(session.incarnation, "404", ALICE))
    second = asyncio.create_task(session.revive(session.incarnation, "404", ALICE))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert session.incarnation.number == 2
    session.abandon()


async def test_journal_is_replayed(server: FakeServer) -> None:
    """Log level and subscriptions are told to the new session, once, whatever it says to them."""
    session = await opened(server)
    session.record.journal.record("logging/setLevel", b'{"level":"debug"}')
    session.record.journal.record("resources/subscribe", b'{"uri":"a:1","_meta":{"progressToken":5}}')
    session.record.journal.record("resources/subscribe", b'{"uri":"a:2"}')
    session.record.journal.record("resources/unsubscribe", b'{"uri":"a:2"}')
    server.forget()
    server.script("logging/setLevel", answer(error(-32601, "Method not found")))
    await session.revive(session.incarnation, "404", ALICE)
    assert server.transcript[2:] == [
        "initialize",
        "notifications/initialized @s2",
        "logging/setLevel @s2",
        "resources/subscribe @s2",
    ]
    assert server.posts("resources/subscribe")[-1].params == {
        "uri": "a:1"
    }  # without the progress token of the first time
    session.abandon()


async def test_reopening_waits_for_a_restarting_server(server: FakeServer) -> None:
    """While the server refuses connections, it is tried again for some seconds."""
    session = await opened(server)
    server.forget()
    server.script("initialize", *(UpstreamUnreachable("down") for _ in range(5)))
    await session.revive(session.incarnation, "404", ALICE)
    assert session.incarnation.number == 2
    session.abandon()


async def test_reopening_that_fails_is_told(server: FakeServer) -> None:
    """A server that stays down ends the re-opening, and everyone who waits hears why."""
    session = await opened(server)
    server.forget()
    server.script("initialize", *(UpstreamUnreachable("It is down.") for _ in range(100)))
    outcomes = await asyncio.gather(
        session.revive(session.incarnation, "404", ALICE),
        session.revive(session.incarnation, "404", ALICE),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [SessionLost, SessionLost]
    assert "It is down." in str(outcomes[0])
    assert 9 < asyncio.get_running_loop().time() < 11
    session.abandon()


async def test_ready_waits_for_the_reopening(server: FakeServer) -> None:
    """Who comes during a re-opening waits for it, and shares its outcome."""
    session = await opened(server)
    await session.ready(ALICE)
    server.forget()
    go_on = asyncio.Event()
    server.script(
        "initialize", lambda _: stream(go_on, say(result(server.initialize_result)), session_id="x")
    )
    server.sessions.append("x")
    Holder(session, wanted=True)
    session.lost(session.incarnation, "404")
    await settle()
    waiting = asyncio.create_task(session.ready(ALICE))
    await settle()
    assert not waiting.done()
    go_on.set()
    await waiting
    assert server.sessions == ["x"]
    session.abandon()


async def test_refused_session_moves() -> None:
    """When its server takes no connections and another one does, the session goes on there."""
    server, other = FakeServer(), FakeServer()
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet)
    await session.open(ALICE)
    session.record.journal.record("logging/setLevel", b'{"level":"info"}')
    fleet.elsewhere = other
    await session.refused(ALICE)
    assert cast(Any, session.incarnation.channel).server is other
    assert session.incarnation.number == 2
    assert other.transcript == ["initialize", "notifications/initialized @s1", "logging/setLevel @s1"]
    session.abandon()


async def test_refused_session_without_another_server(server: FakeServer) -> None:
    """It stays where it is, unless there is no hope any more."""
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet)
    await session.open(ALICE)
    await session.refused(ALICE)
    fleet.hopeless = UpstreamDown("It has been away for long.")
    with pytest.raises(UpstreamDown):
        await session.refused(ALICE)
    assert session.incarnation.number == 1
    assert fleet.notes.count("suspect") == 2
    session.abandon()


async def test_quiet_session_is_looked_at_before_it_is_used(server: FakeServer) -> None:
    """A session that was quiet for long is pinged first, and re-opened when it is gone."""
    session = await opened(server, check_after_seconds=30.0)
    await session.ready(ALICE)
    assert server.posts("ping") == []
    await asyncio.sleep(31)
    await session.ready(ALICE)
    await session.ready(ALICE)
    assert len(server.posts("ping")) == 1
    server.forget()
    await asyncio.sleep(31)
    await session.ready(ALICE)
    assert server.sessions == ["s2"]
    session.abandon()


@pytest.mark.http_only
async def test_reopening_in_the_background_that_fails_gives_the_session_up(server: FakeServer) -> None:
    """Whoever keeps a session that is beyond help hears so."""
    session = await opened(server)
    keeper = Holder(session, wanted=True)
    server.forget()
    server.script("initialize", refusal(500))
    session.lost(session.incarnation, "stream")
    await settle(50)
    assert keeper.failures == [UpstreamRejected]


async def test_closed_session_is_not_reopened(server: FakeServer) -> None:
    """A call that outlives its session does not open one that nobody would ever close."""
    session = await opened(server)
    await session.close("lost")
    with pytest.raises(SessionLost):
        await session.revive(session.incarnation, "404", ALICE)
    session.lost(session.incarnation, "404")
    await settle()
    assert server.sessions == []
    assert len(server.posts("initialize")) == 1


@pytest.mark.http_only
async def test_close_during_the_reopening(server: FakeServer) -> None:
    """A re-opening that is under way is finished, so that its session can be given back as well."""
    session = await opened(server)
    server.forget()
    go_on = asyncio.Event()
    server.script("initialize", lambda _: FakeReply([go_on, say(result())], session_id="s2"))
    server.sessions.append("s2")
    waiting = asyncio.create_task(session.revive(session.incarnation, "404", ALICE))
    await settle()
    closing = asyncio.create_task(session.close("once"))
    await settle()
    assert not closing.done()
    go_on.set()
    await closing
    assert server.deleted == ["s2"]
    assert server.transcript[-2:] == ["initialize", "DELETE @s2"]
    with pytest.raises(SessionLost):
        await waiting


@pytest.mark.parametrize("trouble", [stream(asyncio.Event()), UpstreamUnreachable("down")])
async def test_close_during_a_reopening_that_leads_nowhere(
    server: FakeServer, trouble: FakeReply | BaseException
) -> None:
    """A server that hangs or is away does not hold up the end, and whoever waits gets an error."""
    session = await opened(server)
    server.forget()
    server.script("initialize", *([trouble] * 100))
    waiting = asyncio.create_task(session.revive(session.incarnation, "404", ALICE))
    await settle()
    before = asyncio.get_running_loop().time()
    await session.close("shutdown")
    assert asyncio.get_running_loop().time() - before <= 3
    with pytest.raises(SessionLost):
        await waiting
    await asyncio.sleep(60)
    assert server.sessions == []


async def test_close_during_the_confirmation(server: FakeServer) -> None:
    """Whoever waits for a ping that is called off goes on with what the server said, and is not cancelled."""
    session = await opened(server)
    server.script("ping", stream(asyncio.Event()))
    waiting = asyncio.create_task(session.incarnation.confirm())
    await settle()
    await session.close("shutdown")
    assert await waiting is True
    assert await session.incarnation.confirm() is True  # and nothing is sent any more
    assert len(server.posts("ping")) == 1


@pytest.mark.parametrize("what", ["revive", "confirm"])
async def test_cancellation_is_never_swallowed(server: FakeServer, what: str) -> None:
    """Cancelled together with what it waits for, a task is cancelled all the same."""
    session = await opened(server)
    server.script("ping", stream(asyncio.Event()))
    server.script("initialize", stream(asyncio.Event()))
    waiting = asyncio.create_task(
        session.revive(session.incarnation, "404", ALICE)
        if what == "revive"
        else session.incarnation.confirm()
    )
    await settle()
    session.abandon()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_restore(server: FakeServer) -> None:
    """A new session is told what a lost one had been told, and remembers it itself."""
    session = await opened(server)
    lost = Journal()
    lost.record("resources/subscribe", b'{"uri":"a:1"}')
    await session.restore(lost)
    assert server.transcript[-1] == "resources/subscribe @s1"
    assert session.record.journal.requests() == lost.requests()
    server.script("resources/subscribe", ConnectionLost())
    with pytest.raises(UpstreamUnreachable):
        await session.restore(lost)
    session.abandon()


def test_repr_names_the_session() -> None:
    """The debug line shows the tag, the incarnation and the calls, and no credential."""

    async def show() -> str:
        session = make_session(FakeServer())
        session.record.credentials = ALICE
        return repr(session)

    shown = asyncio.run(show())
    assert shown.endswith(".0 in_flight=0>")
    assert "alice" not in shown


@pytest.mark.slow
async def test_refusing_thousands(server: FakeServer) -> None:
    """Whatever a server asks of nobody is answered with an error, though not all at once."""
    session = make_session(server)
    await session.open(ALICE)
    at_once: list[int] = []

    def heard(_: Sent) -> FakeReply:
        at_once.append(len(session.incarnation.tasks))
        return FakeReply([0.001], status=202, is_stream=False, content_type=None)

    server.script("response", *[heard] * 3000)
    for number in range(3000):
        session.incarnation.refuse(Request(b"%d" % number, "roots/list"))
    await asyncio.sleep(10)
    ids = [sent.message.id for sent in server.posts("response") if isinstance(sent.message, Response)]
    assert sorted(ids, key=int) == [b"%d" % number for number in range(3000)]
    assert max(at_once) < 60
    await session.close("test")
