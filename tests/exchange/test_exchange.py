"""Exchanges as transcripts: what was sent upstream, what came back, what the client saw."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fakes import (
    FakeFleet,
    FakeOutlet,
    FakeReply,
    FakeRouter,
    FakeServer,
    FakeVisit,
    Holder,
    Recorder,
    Scripted,
    Sent,
    Step,
    answer,
    make_session,
    refusal,
    say,
    settle,
    stream,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import GONE, error, notification, request, result
from pipe_server import PipeServer

from mcp_session_proxy.errors import (
    Draining,
    OutcomeUnknown,
    ProxyError,
    RequestCancelled,
    SessionLost,
    UpstreamDown,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.exchange.exchange import Exchange
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Request, Response
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY, ConnectionLost

pytestmark = pytest.mark.looptime

CALL = Request(b'"client-1"', "tools/call", b'{"name":"buy","_meta":{"progressToken":"p"}}')
LIST = Request(b"7", "tools/list")
RESUMABLE = say(notification("notifications/message"), event_id="e1")


@dataclass
class Scene:
    """One exchange on an open session."""

    server: FakeServer
    session: UpstreamSession
    fleet: FakeFleet
    router: FakeRouter
    observe: Recorder
    outlet: FakeOutlet = field(default_factory=FakeOutlet)

    def exchange(self, request: Request = CALL) -> Exchange:
        token = jsonrpc.read_meta(request.params).get("progressToken")
        self.visit = FakeVisit(self.session)
        return Exchange(request, token, self.visit, self.outlet, self.observe)  # type: ignore[arg-type]

    async def run(self, request: Request = CALL) -> Response:
        response = await self.exchange(request).run()
        assert self.session.incarnation.calls.in_flight == {}
        return response

    async def fail(self, request: Request = CALL) -> ProxyError:
        with pytest.raises(ProxyError) as caught:
            await self.exchange(request).run()
        assert self.session.incarnation.calls.in_flight == {}
        return caught.value

    @property
    def sent(self) -> list[str]:
        """What was sent behind the handshake."""
        return self.server.transcript[2:]

    @property
    def retries(self) -> list[str]:
        return [event.reason for event in self.observe.named("request.retried")]


@pytest.fixture
async def at(a_server: FakeServer) -> Scene:
    """An open session, by each transport."""
    server, router, observe = a_server, FakeRouter(), Recorder()
    fleet = FakeFleet(server)
    session = make_session(server, fleet=fleet, router=router, observe=observe)
    Holder(session, wanted=True)
    await session.open(NOBODY)
    server.seen = [sent for sent in server.seen if sent.verb == "POST"]
    return Scene(server, session, fleet, router, observe)


def value(response: Response) -> Any:
    return json.loads(response.result or response.error or b"null")


# -- the way there and back ------------------------------------------------------------------------


async def test_answer(at: Scene) -> None:
    """A request goes out under an id of ours and its result comes back as it is."""
    at.server.script("tools/call", answer({"jsonrpc": "2.0", "id": 2, "result": {"text": "ü", "n": 1.50}}))
    exchange = at.exchange()
    response = await exchange.run()
    assert response.result == b'{"text": "\\u00fc", "n": 1.5}'
    assert at.sent == ["tools/call @s1"]
    sent = at.server.posts("tools/call")[0]
    assert sent.message == Request(b"2", "tools/call", b'{"name":"buy","_meta":{"progressToken":2}}')
    assert exchange.upstream_seconds is not None


async def test_parameters_are_not_touched(at: Scene) -> None:
    """Without a progress token the parameters go out byte for byte."""
    params = b'{ "name":"x",  "arguments":{"big":12345678901234567890.0100}}'
    await at.run(Request(b"1", "tools/call", params))
    await at.run(Request(b"1", "tools/list", None))
    assert [cast(Request, sent.message).params for sent in at.server.seen[2:]] == [params, None]


async def test_error_comes_back_as_it_is(at: Scene) -> None:
    """The server's own JSON-RPC error is an answer like any other."""
    body = {"jsonrpc": "2.0", "id": "?", "error": {"code": -32602, "message": "no", "data": {"x": 1}}}
    at.server.script("tools/call", answer(body))
    assert value(await at.run()) == body["error"]
    assert at.sent == ["tools/call @s1"]


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(None, marks=pytest.mark.http_only),
        pytest.param("server-error", marks=pytest.mark.http_only),
        "2",
        2,
        2.0,
    ],
)
async def test_answer_under_an_odd_id(at: Scene, identifier: object) -> None:
    """Some servers lose the id or write it otherwise; in our request's own body it is clear what is meant."""
    at.server.script("tools/call", answer({"jsonrpc": "2.0", "id": identifier, "result": {"ok": 1}}))
    assert value(await at.run()) == {"ok": 1}


async def test_answers_to_others_are_not_taken(at: Scene) -> None:
    """A response to another request in our body is dropped."""
    at.server.script(
        "tools/call",
        stream(say({"jsonrpc": "2.0", "id": 99, "result": {"wrong": 1}}), say(result({"right": 1}))),
    )
    assert value(await at.run()) == {"right": 1}


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        ("Tool failed", {"code": -32603, "message": "Tool failed"}),
        ({"message": "no code"}, {"code": -32603, "message": "no code"}),
        ({"code": -1, "message": "fine"}, {"code": -1, "message": "fine"}),
    ],
)
async def test_error_of_an_odd_form(at: Scene, odd: object, shown: object) -> None:
    """What the client gets is an error object, which strict clients insist on."""
    at.server.script("tools/call", answer({"jsonrpc": "2.0", "id": 2, "error": odd}))
    assert value(await at.run()) == shown


async def test_journal_records_what_the_server_agreed_to(at: Scene) -> None:
    """Subscriptions and the log level are remembered once they are granted, and only then."""
    await at.run(Request(b"1", "resources/subscribe", b'{"uri":"a"}'))
    at.server.script("resources/subscribe", answer(error(-32602, "no such resource")))
    await at.run(Request(b"2", "resources/subscribe", b'{"uri":"b"}'))
    assert at.session.record.journal.requests() == [("resources/subscribe", b'{"uri":"a"}')]


# -- what the server says meanwhile ----------------------------------------------------------------


async def test_progress_tokens_are_rewritten_both_ways(at: Scene) -> None:
    """The server sees a token of ours, the client its own, whatever stream the progress comes on."""
    go_on = asyncio.Event()
    at.server.script(
        "tools/call",
        stream(
            say(notification("notifications/progress", progressToken=2, progress=1)), go_on, say(result())
        ),
    )
    running = asyncio.create_task(at.run())
    await settle()
    message = jsonrpc.parse_message(
        json.dumps(notification("notifications/progress", progressToken=2, progress=2)).encode()
    )
    at.session.incarnation.take(message)
    await settle()
    go_on.set()
    await running
    assert at.outlet.heard == [
        {"progressToken": "p", "progress": 1},
        {"progressToken": "p", "progress": 2},
    ]


async def test_what_comes_together_goes_on_together(at: Scene) -> None:
    """Notifications of one piece of a stream are told at once, in their order with what is asked between."""

    class Counting(FakeOutlet):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[str] = []

        async def notify(self, *messages: jsonrpc.Notification) -> None:
            self.told.append(f"{len(messages)} notifications")
            await super().notify(*messages)

        async def ask(self, session: UpstreamSession, request: Request) -> None:
            self.told.append("a question")
            await super().ask(session, request)

    outlet = at.outlet = Counting()
    note, ask = notification("notifications/message"), request(5, "sampling/createMessage")
    at.server.script("tools/call", stream(say(note, note, note, ask, note, note, result())))
    await at.run()
    assert outlet.told == ["3 notifications", "a question", "2 notifications"]


@pytest.mark.parametrize("params", [None, [1, 2], "x", {}, {"progressToken": 2}])
async def test_odd_progress_does_not_hurt_the_call(at: Scene, params: object) -> None:
    """A malformed progress notification is dropped, and the answer still arrives."""
    odd = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    at.server.script("tools/call", stream(say(odd), say(result({"ok": 1}))))
    assert value(await at.run()) == {"ok": 1}


async def test_progress_nobody_asked_for_is_dropped(at: Scene) -> None:
    """A client without a progress token hears no progress."""
    at.server.script(
        "tools/list",
        stream(say(notification("notifications/progress", progressToken=2, progress=1)), say(result())),
    )
    await at.run(LIST)
    assert at.outlet.notified == []


async def test_notifications_and_questions_are_passed_on(at: Scene) -> None:
    """What the server says in the course of the call goes to the client's side of it."""
    at.server.script(
        "tools/call",
        stream(
            say(notification("notifications/message", level="info")),
            say(request("q-1", "elicitation/create", message="Sure?")),
            say(result()),
        ),
    )
    await at.run()
    assert at.outlet.heard == [{"level": "info"}]
    assert [(asked.id, asked.method) for asked in at.outlet.asked] == [(b'"q-1"', "elicitation/create")]
    assert [message.method for message in at.router.noted] == ["notifications/message"]


async def test_ping_in_the_call_is_answered_by_us(at: Scene) -> None:
    """The client never sees the server's ping."""
    at.server.script("tools/call", stream(say(request(5, "ping")), say(result())))
    await at.run()
    await settle()
    assert at.outlet.asked == []
    assert at.sent == ["tools/call @s1", "response @s1"]


async def test_flood_of_progress_is_bounded(at: Scene) -> None:
    """A server that floods us on its stream while the client reads slowly does not fill our memory."""

    class Slow(FakeOutlet):
        async def notify(self, *_: object) -> None:
            await asyncio.sleep(3600)

    go_on = asyncio.Event()
    at.outlet = Slow()
    at.server.script("tools/call", stream(go_on, say(result())))
    running = asyncio.create_task(at.run())
    await settle()
    before = len(asyncio.all_tasks())
    for _ in range(5000):
        at.session.incarnation.calls.in_flight[2].deliver(
            jsonrpc.Notification("notifications/progress", b'{"progressToken":2}')
        )
    assert len(asyncio.all_tasks()) - before <= 100
    go_on.set()
    await running


# -- the at-most-once table ------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [CALL, LIST])
async def test_refused_before_any_byte_was_sent(at: Scene, request_: Request) -> None:
    """Row 1: a refused connection is tried again, whatever the method."""
    at.server.script(request_.method, *(UpstreamUnreachable("down") for _ in range(3)))
    await at.run(request_)
    assert at.sent == [f"{request_.method} @s1"] * 4
    assert at.retries == ["refused"] * 3
    assert at.server.executed[request_.method] == 1


async def test_refused_for_too_long(at: Scene) -> None:
    """Row 1, the deadline: after ten seconds the client is told that nothing was sent."""
    at.server.script("tools/call", *(UpstreamUnreachable("down") for _ in range(100)))
    assert isinstance(await at.fail(), UpstreamUnreachable)
    assert 8 < asyncio.get_running_loop().time() <= 10


async def test_refused_with_another_server_at_hand(at: Scene) -> None:
    """Row 1, elsewhere: a call that was not sent goes to another replica, with the same journal."""
    at.session.record.journal.record("resources/subscribe", b'{"uri":"a"}')
    at.fleet.elsewhere = other = FakeServer()
    at.server.script("tools/call", UpstreamUnreachable("down"))
    assert value(await at.run()) == {"from": "s1"}
    assert at.server.executed["tools/call"] == 0
    assert other.transcript == [
        "initialize",
        "notifications/initialized @s1",
        "resources/subscribe @s1",
        "tools/call @s1",
    ]


async def test_refused_without_hope(at: Scene) -> None:
    """Row 1, at once: nobody is kept waiting for a server that has been away for long."""
    at.server.script("tools/call", UpstreamUnreachable("down"))
    at.fleet.hopeless = UpstreamDown("It has been away.")
    assert isinstance(await at.fail(), UpstreamDown)
    assert asyncio.get_running_loop().time() == 0
    assert "suspect" in at.fleet.notes


@pytest.mark.parametrize("request_", [CALL, LIST])
async def test_session_gone(at: Scene, request_: Request) -> None:
    """Row 2: rejected because the session is gone, sent again once on a new one, whatever the method."""
    at.server.forget()
    assert value(await at.run(request_)) == {"from": "s2"}
    method = request_.method
    reopened = ["initialize", "notifications/initialized @s2", f"{method} @s2"]
    assert at.sent == ([f"{method} @s1"] if at.server.hears_all else []) + reopened
    assert at.server.executed[method] == 1
    assert at.retries == ["session-lost"]
    assert [event.how for event in at.observe.named("session.lost")] == [at.server.loss_shows_as]


@pytest.mark.http_only
async def test_session_gone_twice(at: Scene) -> None:
    """Row 2, once: a server that loses every session at once is not fed new ones for ever."""
    at.server.script("tools/call", refusal(404, GONE), refusal(404, GONE))
    assert isinstance(await at.fail(), SessionLost)
    assert at.sent.count("initialize") == 1


async def test_session_gone_and_not_reopened(at: Scene) -> None:
    """Row 2, in vain: the client is told that its request was not executed, and nobody gets the session."""
    at.server.forget()
    at.server.script("initialize", stream())
    assert isinstance(await at.fail(), SessionLost)
    assert at.visit.retired == 1
    assert at.server.executed["tools/call"] == 0


@pytest.mark.http_only
async def test_session_gone_and_the_server_refuses_another(at: Scene) -> None:
    """Row 2, in vain, for a reason that the client should see: the server's own status."""
    at.server.forget()
    at.server.script("initialize", refusal(401, b"Unauthorized"))
    failure = await at.fail()
    assert isinstance(failure, UpstreamRejected)
    assert failure.http_status == 401
    assert at.visit.retired == 1
    assert at.server.executed["tools/call"] == 0


async def test_everyone_who_lost_the_session_goes_on(at: Scene) -> None:
    """Row 2, together: ten calls that meet the same loss share one re-opening."""
    at.server.forget()
    responses = await asyncio.gather(*(at.exchange().run() for _ in range(10)))
    assert [value(response) for response in responses] == [{"from": "s2"}] * 10
    assert at.sent.count("initialize") == 1
    assert at.server.executed["tools/call"] == 10


async def test_who_comes_during_a_reopening_waits(at: Scene) -> None:
    """A request that finds its session being re-opened is sent on the new one."""
    at.server.forget()
    reviving = asyncio.create_task(at.session.revive(at.session.incarnation, "ping", NOBODY))
    await asyncio.sleep(0)
    assert value(await at.run()) == {"from": "s2"}
    await reviving


@pytest.mark.http_only
async def test_suspicion_that_a_ping_dispels(at: Scene) -> None:
    """A 404 about something else reaches the client; the session stays."""
    at.server.script("tools/call", refusal(404, b"no such page"))
    failure = await at.fail()
    assert isinstance(failure, UpstreamRejected)
    assert failure.http_status == 404
    assert at.sent == ["tools/call @s1", "ping @s1"]


@pytest.mark.http_only
async def test_suspicion_that_a_ping_confirms(at: Scene) -> None:
    """A bare 404 for a session that is gone counts as a loss."""
    at.server.forget()
    at.server.script("tools/call", refusal(404))
    assert value(await at.run()) == {"from": "s2"}
    assert at.sent[:2] == ["tools/call @s1", "ping @s1"]


async def test_loss_in_disguise(at: Scene) -> None:
    """An answer that is an error about the session is believed once a ping says the same."""
    at.server.sessions.clear()
    at.server.script("tools/call", answer(error(-32600, "missing or invalid Mcp-Session-Id session")))
    assert value(await at.run()) == {"from": "s2"}
    assert at.sent[:3] == ["tools/call @s1", "ping @s1", "initialize"]
    assert at.server.executed["tools/call"] == 1
    if isinstance(at.server, PipeServer):
        assert len(at.server.pipes) == 1


async def test_error_of_a_tool_about_sessions_of_its_own(at: Scene) -> None:
    """A 200 with an error about some session is the tool's own as long as ours lives."""
    at.server.script("tools/call", answer(error(-32000, "The browser session has crashed")))
    assert value(await at.run())["message"] == "The browser session has crashed"
    assert at.sent == ["tools/call @s1", "ping @s1"]


async def test_error_after_output_is_no_loss(at: Scene) -> None:
    """A call that has said something was begun: its error is never a reason to send it again."""
    at.server.sessions.clear()
    at.server.script(
        "tools/call", stream(say(notification("notifications/message")), say(error(-1, "Session not found")))
    )
    assert value(await at.run())["message"] == "Session not found"
    assert at.sent == ["tools/call @s1"]


@pytest.mark.http_only
@pytest.mark.parametrize(
    "broken",
    [
        ConnectionLost(),
        stream(),
        stream(ConnectionLost()),
        stream(say(notification("notifications/message")), ConnectionLost()),
        FakeReply(status=202, is_stream=False),
        answer({"hello": "world"}),
        FakeReply([say(b"<html>")], is_stream=False, content_type="text/html"),
    ],
    ids=["lost", "ends", "breaks", "breaks-late", "accepted", "odd-json", "html"],
)
async def test_lost_after_sending(at: Scene, broken: Scripted) -> None:
    """Rows 4 and 5: a read is sent again once; a call is not, and the client is told."""
    at.server.script("tools/list", broken)
    assert value(await at.run(LIST)) == {"from": "s1"}
    assert at.sent == ["tools/list @s1"] * 2
    assert at.retries == ["read-repeated"]

    at.server.script("tools/call", broken)
    failure = await at.fail()
    assert isinstance(failure, OutcomeUnknown)
    assert at.sent[2:] == ["tools/call @s1", "ping @s1"]
    assert [event.method for event in at.observe.named("request.replay_refused")] == ["tools/call"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda: ConnectionLost(),
        lambda: stream(ConnectionLost()),
        lambda: stream(say(notification("notifications/message")), ConnectionLost()),
    ],
    ids=["lost", "breaks", "breaks-late"],
)
async def test_lost_together_with_the_session(at: Scene, broken: Callable[[], Scripted]) -> None:
    """Rows 4 and 5, where the session goes on or ends with what it was sent on: a call is not sent again."""
    at.server.script("tools/list", broken())
    assert value(await at.run(LIST)) in ({"from": "s1"}, {"from": "s2"})
    assert "read-repeated" in at.retries
    assert sum(sent.startswith("tools/list") for sent in at.sent) == 2

    at.server.script("tools/call", broken())
    assert isinstance(await at.fail(), OutcomeUnknown)
    assert [event.method for event in at.observe.named("request.replay_refused")] == ["tools/call"]
    assert sum(sent.startswith("tools/call") for sent in at.sent) == 1
    assert isinstance(await at.run(), Response)


@pytest.mark.parametrize(
    "method",
    ["tools/call", "resources/subscribe", "logging/setLevel", "tasks/cancel", "custom/method", "sampling/x"],
)
async def test_only_reads_are_repeated(at: Scene, method: str) -> None:
    """Row 5: whatever is not a read by protocol is not sent a second time."""
    at.server.script(method, ConnectionLost())
    assert isinstance(await at.fail(Request(b"1", method, b"{}")), OutcomeUnknown)
    assert at.sent[0] == f"{method} @s1"
    assert at.sent.count(f"{method} @s1") == 1


@pytest.mark.http_only
async def test_read_that_is_lost_twice(at: Scene) -> None:
    """Row 4, once: a read that is lost again ends in an error."""
    at.server.script("tools/list", ConnectionLost(), stream())
    assert isinstance(await at.fail(LIST), OutcomeUnknown)
    assert at.sent.count("tools/list @s1") == 2


async def test_lost_call_looks_after_the_session(at: Scene) -> None:
    """A call lost to a restart is answered, and the next one finds a new session."""

    def crash(_: Sent) -> FakeReply:
        at.server.forget()
        raise ConnectionLost

    at.server.script("tools/call", crash)
    assert isinstance(await at.fail(), OutcomeUnknown)
    await settle(50)
    assert at.server.sessions == ["s2"]
    assert value(await at.run()) == {"from": "s2"}
    assert at.server.posts("tools/call")[1].session_id == "s2"


async def test_server_that_falls_silent(at: Scene) -> None:
    """After the time limit the client is told, and the server is told to stop."""
    at.server.script(
        "tools/call", stream(say(notification("notifications/message")), UpstreamTimeout("silent"))
    )
    assert isinstance(await at.fail(), UpstreamTimeout)
    await settle()
    assert at.sent == ["tools/call @s1", "notifications/cancelled @s1"]
    assert at.server.seen[-1].params == {"requestId": 2, "reason": "timeout"}


async def test_event_over_the_limit(at: Scene) -> None:
    """A stream that cannot be read on is an error, and no reason to send again."""
    at.server.script("tools/list", stream(UpstreamProtocolError("too large")))
    assert isinstance(await at.fail(LIST), UpstreamProtocolError)
    assert at.sent == ["tools/list @s1"]


@pytest.mark.http_only
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 502, 503])
async def test_other_refusals_reach_the_client(at: Scene, status: int) -> None:
    """A refusal that has nothing to do with the session is passed on, and nothing is sent again."""
    at.server.script("tools/call", refusal(status, b"no"))
    assert isinstance(await at.fail(), UpstreamRejected)
    assert at.sent == ["tools/call @s1"]


async def test_closed_session(at: Scene) -> None:
    """A call whose session the proxy has closed meanwhile is answered, and opens nothing."""
    at.server.script("tools/call", refusal(404, GONE))
    await at.session.close("lost")
    assert isinstance(await at.fail(), SessionLost)
    assert at.server.sessions == []


async def test_session_closed_while_in_doubt(at: Scene) -> None:
    """Closing a session while a ping is under way ends in an answer, not in a cancellation."""
    at.server.script("tools/call", ConnectionLost())
    at.server.script("ping", stream(asyncio.Event()))
    failing = asyncio.create_task(at.fail())
    await settle()
    await at.session.close("lost")
    assert isinstance(await failing, OutcomeUnknown)


# -- answers and progress on other streams -------------------------------------------------------------


@pytest.mark.parametrize("identifier", [b"2", b'"2"'])
async def test_answer_on_the_get_stream(at: Scene, identifier: bytes) -> None:
    """A server that has lost the stream of the call may answer there; nothing is cancelled."""
    at.server.script("tools/call", stream(asyncio.Event()))
    running = asyncio.create_task(at.run())
    await settle()
    at.session.incarnation.take(Response(identifier, result=b'{"ok":1}'))
    at.session.incarnation.take(Response(identifier, result=b'{"ok":2}'))
    assert value(await running) == {"ok": 1}
    await settle()
    assert at.sent == ["tools/call @s1"]


@pytest.mark.http_only
async def test_error_on_the_get_stream_while_the_answer_is_looked_for(at: Scene) -> None:
    """It is an answer like any other, in whatever form."""
    at.server.script("tools/call", stream(say(event_id="e1", retry=20.0)))
    running = asyncio.create_task(at.run())
    await settle()
    at.session.incarnation.take(Response(b"2", error=b'"no"'))
    assert value(await running) == {"code": -32603, "message": "no"}


async def test_answer_on_the_get_stream_to_a_call_that_is_given_up(at: Scene) -> None:
    """What ended first counts."""
    at.server.script("tools/call", stream(asyncio.Event()))
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    exchange.give_up(Draining("The proxy is shutting down."))
    at.session.incarnation.take(Response(b"2", result=b"{}"))
    with pytest.raises(Draining):
        await running


@pytest.mark.parametrize("token", [3, "3", 99, "p", None, {"a": 1}, True])
async def test_progress_that_is_not_this_calls(at: Scene, token: object) -> None:
    """Progress under any token but ours for this request is not taken for its own."""
    said = say(notification("notifications/progress", progressToken=token, progress=1))
    at.server.script("tools/call", stream(said, say(result())))
    await at.run()
    assert at.outlet.notified == []


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.http_only
async def test_broken_stream_is_resumed(at: Scene) -> None:
    """Row 3: a stream with event ids is continued from the last one, and the call is not sent again."""
    at.server.script("tools/call", stream(RESUMABLE, ConnectionLost()))
    at.server.script(
        "GET",
        stream(say(notification("notifications/message"), event_id="e2")),
        stream(say(result({"ok": 1}))),
    )
    assert value(await at.run()) == {"ok": 1}
    assert at.sent == ["tools/call @s1"]
    gets = at.server.gets()
    assert [sent.last_event_id for sent in gets] == ["e1", "e2"]
    assert all(sent.for_answer for sent in gets)
    assert at.retries == ["stream-resumed"] * 2
    assert len(at.outlet.notified) == 2


@pytest.mark.http_only
async def test_server_that_ends_its_streams_is_polled(at: Scene) -> None:
    """A server that closes the stream on purpose says when to come back."""
    at.server.script("tools/call", stream(say(event_id="e1", retry=20.0)))
    at.server.script("GET", stream(say(event_id="e2")), stream(say(result())))
    await at.run()
    assert asyncio.get_running_loop().time() == pytest.approx(40, abs=0.1)


@pytest.mark.http_only
@pytest.mark.parametrize(
    "gets",
    [
        [UpstreamUnreachable("down")] * 99,
        [ConnectionLost()] * 99,
        [refusal(503)] * 99,
        [stream(ConnectionLost()) for _ in range(99)],
        [refusal(404, GONE)],
        [refusal(400)],
        [refusal(405)],
        [refusal(204)],
        [answer({"x": 1})],
        [UpstreamProtocolError("redirected")],
    ],
    ids=[
        "unreachable",
        "lost",
        "busy",
        "breaks",
        "gone",
        "id-refused",
        "not-offered",
        "end",
        "json",
        "redirect",
    ],
)
async def test_resuming_in_vain(at: Scene, gets: list[Scripted]) -> None:
    """However a continuation fails, the request was sent: it never looks as if it had not been."""
    at.server.script("tools/call", stream(RESUMABLE, ConnectionLost()))
    at.server.script("GET", *gets)
    assert isinstance(await at.fail(), OutcomeUnknown)
    assert at.sent[0] == "tools/call @s1"
    assert at.sent.count("tools/call @s1") == 1
    assert asyncio.get_running_loop().time() < 130
    assert len(at.server.gets()) == 1 or len(at.server.gets()) > 20


@pytest.mark.http_only
async def test_resumed_stream_that_stays_silent(at: Scene) -> None:
    """A continuation on which nothing ever comes ends like any other silence."""
    at.server.script("tools/call", stream(RESUMABLE))
    at.server.script("GET", stream(UpstreamTimeout("silent")))
    assert isinstance(await at.fail(), UpstreamTimeout)
    assert len(at.server.gets()) == 1


# -- cancellation ----------------------------------------------------------------------------------


async def test_client_cancels(at: Scene) -> None:
    """The server is told, under our id; an answer that still comes is passed on."""
    go_on = asyncio.Event()
    at.server.script("tools/call", stream(go_on, say(error(-32800, "cancelled"))))
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    await exchange.cancel(b'{"requestId":"client-1","reason":"bored"}', NOBODY)
    await settle()
    assert at.server.seen[-1].params == {"requestId": 2, "reason": "bored"}
    go_on.set()
    assert value(await running)["code"] == -32800


async def test_client_cancels_and_the_server_is_silent(at: Scene) -> None:
    """Five seconds later the client gets an answer, and the connection is given up."""
    reply = stream(asyncio.Event())
    at.server.script("tools/call", reply)
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    await exchange.cancel(b'{"requestId":"client-1"}', NOBODY)
    with pytest.raises(RequestCancelled):
        await running
    assert asyncio.get_running_loop().time() == pytest.approx(5)
    assert reply.closed is at.server.hears_all
    assert at.session.incarnation.calls.in_flight == {}
    await settle()
    assert at.sent == ["tools/call @s1", "notifications/cancelled @s1"]


async def test_client_cancels_before_anything_was_sent(at: Scene) -> None:
    """A call that waits for its server to come up is not sent after it was cancelled."""
    at.server.script("tools/call", *(UpstreamUnreachable("down") for _ in range(3)))
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await asyncio.sleep(0.1)
    await exchange.cancel(b'{"requestId":"client-1"}', NOBODY)
    with pytest.raises(RequestCancelled):
        await running
    await asyncio.sleep(10)
    assert at.server.executed["tools/call"] == 0
    assert at.server.posts("notifications/cancelled") == []


async def test_cancelled_call_is_not_sent_again(at: Scene) -> None:
    """A call that is cancelled and then rejected with its session is not repeated."""
    go_on = asyncio.Event()

    def gone(_: Sent) -> FakeReply:
        at.server.sessions.clear()
        return stream(go_on, say(error(-32600, "Session not found")))

    at.server.script("tools/call", gone)
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    await exchange.cancel(b'{"requestId":"client-1"}', NOBODY)
    go_on.set()
    with pytest.raises(RequestCancelled):
        await running
    assert len(at.server.posts("tools/call")) == 1


async def test_cancelling_what_is_over_does_nothing(at: Scene) -> None:
    """A cancellation that crosses the answer is dropped."""
    exchange = at.exchange()
    await exchange.cancel(b"{}", NOBODY)
    await exchange.run()
    await exchange.cancel(b"{}", NOBODY)
    exchange.give_up(Draining("too late"))
    await settle()
    assert at.sent == ["tools/call @s1"]


async def test_give_up(at: Scene) -> None:
    """At a shutdown the exchange ends at once with the error it is given, and the server is told."""
    at.server.script("tools/call", stream(asyncio.Event()))
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    exchange.give_up(Draining("The proxy is shutting down."))
    exchange.give_up(Draining("Again."))
    with pytest.raises(Draining, match="shutting down"):
        await running
    await settle()
    assert at.sent == ["tools/call @s1", "notifications/cancelled @s1"]


async def test_cancel_and_give_up_at_once(at: Scene) -> None:
    """Whatever ends an exchange twice in the same step ends it once."""
    at.server.script("tools/call", stream(asyncio.Event()))
    exchange = at.exchange()
    running = asyncio.create_task(exchange.run())
    await settle()
    exchange.give_up(Draining("The proxy is shutting down."))
    await asyncio.sleep(0)
    exchange.give_up(Draining("Again."))
    await exchange.cancel(b"{}", NOBODY)
    with pytest.raises(Draining):
        await running


async def test_task_that_is_cancelled_tells_the_server(at: Scene) -> None:
    """When the exchange's own task ends (its client has left for good), the server is told."""
    reply = stream(asyncio.Event())
    at.server.script("tools/call", reply)
    running = asyncio.create_task(at.exchange().run())
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await settle()
    assert at.sent == ["tools/call @s1", "notifications/cancelled @s1"]
    assert at.server.seen[-1].params["requestId"] == 2
    assert reply.closed is at.server.hears_all
    assert at.session.incarnation.calls.in_flight == {}


# -- never twice -----------------------------------------------------------------------------------

FAULTS = st.sampled_from(
    [
        "fine",
        "fine-after-interim",
        "refused",
        "lost-unread",
        "lost-executed",
        "ends",
        "ends-resumable",
        "breaks-resumable",
        "gone",
        "gone-bare",
        "gone-in-200",
        "gone-after-interim",
        "restart-while-executing",
        "silent",
        "rejected-executed",
        "answers-others",
        "too-large",
    ]
)
GETS = st.sampled_from(["answers", "refused", "lost", "gone", "empty", "new-event", "not-offered", "silent"])
PINGS = st.sampled_from(["alive", "gone", "lost", "refused", "error"])
HANDSHAKES = st.sampled_from(["fine", "refused", "500", "lost", "no-answer"])


class Chaos(FakeServer):
    """A server and a network that fail as they are told, and count what was really executed."""

    def __init__(self, posts: list[str], gets: list[str], pings: list[str], handshakes: list[str]) -> None:
        super().__init__()
        for fault in posts:
            self.script("tools/call", self._post(fault))
        for fault in gets:
            self.script("GET", self._get(fault))
        for fault in pings:
            self.script("ping", self._ping(fault))
        for fault in handshakes:
            self.script("initialize", self._shake(fault))

    def _post(self, fault: str) -> Scripted:
        def post(sent: Sent) -> FakeReply:
            if fault == "refused":
                raise UpstreamUnreachable("down")
            if fault == "lost-unread":
                raise ConnectionLost
            if fault in ("gone", "gone-bare", "gone-in-200") or sent.session_id not in self.sessions:
                self.forget()
                if fault == "gone-in-200":
                    return answer(error(-32600, "Session not found"))
                return refusal(404, b"" if fault == "gone-bare" else GONE)
            self.executed["tools/call"] += 1
            if fault == "restart-while-executing":
                self.forget()
                raise ConnectionLost
            return self._executed(fault)

        return post

    @staticmethod
    def _executed(fault: str) -> FakeReply:
        interim = say(notification("notifications/message"))
        replies: dict[str, list[Step]] = {
            "fine-after-interim": [interim, say(result())],
            "lost-executed": [ConnectionLost()],
            "ends": [interim],
            "ends-resumable": [RESUMABLE],
            "breaks-resumable": [RESUMABLE, ConnectionLost()],
            "gone-after-interim": [interim, say(error(-32600, "Session not found"))],
            "silent": [interim, UpstreamTimeout("silent")],
            "answers-others": [say({"jsonrpc": "2.0", "id": 4711, "result": {}})],
            "too-large": [UpstreamProtocolError("too large")],
        }
        if fault == "rejected-executed":
            return refusal(500, b"crashed")
        return stream(*replies.get(fault, [say(result())]))

    @staticmethod
    def _get(fault: str) -> Scripted:
        scripted: dict[str, Scripted] = {
            "answers": stream(say(result())),
            "refused": UpstreamUnreachable("down"),
            "lost": ConnectionLost(),
            "gone": refusal(404, GONE),
            "empty": stream(),
            "new-event": stream(say(event_id="e9")),
            "not-offered": refusal(405),
            "silent": stream(UpstreamTimeout("silent")),
        }
        return scripted[fault]

    @staticmethod
    def _ping(fault: str) -> Scripted:
        scripted: dict[str, Scripted] = {
            "alive": answer(result()),
            "gone": refusal(404, GONE),
            "lost": ConnectionLost(),
            "refused": UpstreamUnreachable("down"),
            "error": answer(error(-32601, "no ping here")),
        }
        return scripted[fault]

    def _shake(self, fault: str) -> Scripted:
        scripted: dict[str, Scripted] = {
            "refused": UpstreamUnreachable("down"),
            "500": refusal(500),
            "lost": ConnectionLost(),
            "no-answer": stream(),
        }
        return scripted.get(fault, lambda _: self.open_session())


# What can happen on a pipe: no statuses, nothing to resume, and the session ends with what carries it.
PIPE_FAULTS = st.sampled_from(
    [
        "fine",
        "fine-after-interim",
        "refused",
        "lost-unread",
        "lost-executed",
        "gone-in-200",
        "gone-after-interim",
        "restart-while-executing",
        "silent",
        "answers-others",
        "too-large",
    ]
)
PIPE_PINGS = st.sampled_from(["alive", "lost", "refused", "error"])
PIPE_HANDSHAKES = st.sampled_from(["fine", "refused", "lost", "no-answer"])


class PipeChaos(Chaos, PipeServer):
    """The same behind pipes."""


@settings(max_examples=400, deadline=None)
@given(
    posts=st.lists(FAULTS, min_size=1, max_size=6),
    gets=st.lists(GETS, max_size=5),
    pings=st.lists(PINGS, max_size=3),
    handshakes=st.lists(HANDSHAKES, max_size=4),
)
@pytest.mark.slow
async def test_a_call_is_executed_at_most_once_and_answered_exactly_once(
    posts: list[str], gets: list[str], pings: list[str], handshakes: list[str]
) -> None:
    """Whatever goes wrong in whatever order: never twice, always an answer, and the answer is true."""
    server = Chaos(posts, gets, pings, ["fine", *handshakes])
    server.script_first("GET", refusal(405))  # the session's own stream
    await call_amid(server)


@settings(max_examples=400, deadline=None)
@given(
    posts=st.lists(PIPE_FAULTS, min_size=1, max_size=6),
    pings=st.lists(PIPE_PINGS, max_size=3),
    handshakes=st.lists(PIPE_HANDSHAKES, max_size=4),
)
@pytest.mark.slow
async def test_at_most_once_holds_on_a_pipe(
    posts: list[str], pings: list[str], handshakes: list[str]
) -> None:
    """The same where one wire carries all that a session says, and breaks with all of it."""
    server = PipeChaos(posts, [], pings, ["fine", *handshakes])
    server.silence_seconds = 100.0
    await call_amid(server)


async def call_amid(server: FakeServer) -> None:
    """One call, and what must be true of its outcome."""
    session = make_session(server)
    await session.open(NOBODY)
    exchange = Exchange(CALL, b'"p"', FakeVisit(session), FakeOutlet(), Recorder())  # type: ignore[arg-type]
    outcome: Response | ProxyError
    try:
        async with asyncio.timeout(600):
            outcome = await exchange.run()
    except ProxyError as failure:
        outcome = failure
    await asyncio.sleep(60)

    executed = server.executed["tools/call"]
    assert executed <= 1
    if isinstance(outcome, Response):
        assert outcome.result is None or executed == 1
    if isinstance(outcome, UpstreamUnreachable | SessionLost):
        assert executed == 0
    assert session.incarnation.calls.in_flight == {}
    session.abandon()
    await settle()
