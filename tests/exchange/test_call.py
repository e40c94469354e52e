"""A modern call as a transcript: what the client is asked, what the server hears, what is executed once."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest
from fakes import (
    FakeReply,
    FakeServer,
    Recorder,
    Scripted,
    Sent,
    Step,
    answer,
    open_session,
    say,
    settle,
    stream,
)
from messages import error, notification, request, result
from modern_fakes import ADA, ASK_NAME, ASK_ROOTS, FORM, FakeChannel, Visit, modern, value

from mcp_session_proxy.errors import Draining, InvalidParams, MissingCapability, OutcomeUnknown
from mcp_session_proxy.exchange.attribution import Attribution
from mcp_session_proxy.exchange.call import Asked, ModernCall, Outcome
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol import lowering, revisions
from mcp_session_proxy.protocol.inbound import ModernRequest
from mcp_session_proxy.protocol.jsonrpc import Notification, Request, Response
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY, ConnectionLost

pytestmark = pytest.mark.looptime

GATHER_SECONDS = 0.05
WIND_DOWN_SECONDS = 2.0
NAME = request("q-1", revisions.ELICIT, **FORM)
ROOTS = request("q-2", revisions.LIST_ROOTS)
ROOTS_ANSWER = b'{"roots":[]}'
DONE = say(result({"content": []}))


class Scene:
    """One call on an open session. The server goes on each time that it is answered."""

    def __init__(self, session: UpstreamSession, server: FakeServer) -> None:
        self.session = session
        self.server = server
        self.attribution = Attribution()
        self.channel = FakeChannel()
        self.visit = Visit(session)
        self.call: ModernCall
        self.answered = asyncio.Event()
        self.room = Share("questions", 1_000_000)
        server.seen.clear()

    def begin(
        self, request: ModernRequest | None = None, *, at_hand: Mapping[str, bytes] | None = None
    ) -> ModernCall:
        request = request or modern(name="buy")
        lowered = lowering.lower_params(request)
        self.call = ModernCall(
            request, lowered, at_hand or {}, cast(Any, self.visit), self.attribution, Recorder(), self.room
        )
        return self.call

    def server_says(self, *steps: Step, method: str = "tools/call") -> None:
        """What comes on the stream of the call."""
        self.server.script(method, stream(*steps))

    def server_waits(self, answers: int = 1) -> asyncio.Event:
        """A step that lasts until the server has got so many answers."""
        enough, left = asyncio.Event(), [answers]

        def heard(_: Sent) -> FakeReply:
            left[0] -= 1
            if not left[0]:
                enough.set()
            return FakeReply(status=202, is_stream=False, content_type=None)

        self.server.script("response", *[cast(Scripted, heard)] * answers)
        return enough

    async def next(self, **answers: bytes) -> Outcome:
        """The outcome of one request of the client."""
        return await self.call.next(self.channel, answers)

    async def asked(self, **answers: bytes) -> dict[str, Any]:
        """The questions of a round, by key."""
        outcome = await self.next(**answers)
        assert isinstance(outcome, Asked), outcome
        return {key: json.loads(question) for key, question in outcome.questions.items()}

    @property
    def sent(self) -> list[str]:
        return [sent.method for sent in self.server.seen if sent.verb == "POST"]

    @property
    def answers(self) -> list[tuple[Any, Any]]:
        """What the server was answered: id and result, or id and the error's code."""
        answers = self.server.answers
        return [(number, result if error is None else error["code"]) for number, result, error in answers]

    def assert_over(self) -> None:
        """The call has ended and left nothing behind."""
        assert self.visit.ended == 1
        assert self.session.incarnation.calls.in_flight == {}
        assert not self.attribution.take_request(self.session, ASK_NAME)


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """The scene, with an open session."""
    server = FakeServer()
    async with open_session(server) as session:
        yield Scene(session, server)


# -- without questions -----------------------------------------------------------------------------


async def test_answer(at: Scene) -> None:
    """A call that asks nothing is answered in its first round."""
    at.server_says(DONE)
    at.begin(modern(name="buy", token="mine"))
    assert value(await at.next()) == {"content": []}
    (sent,) = at.server.posts("tools/call")
    assert sent.params == {"name": "buy", "_meta": {"progressToken": 2}}
    at.assert_over()


async def test_error_of_the_server(at: Scene) -> None:
    """A JSON-RPC error is a response like any other."""
    at.server.script("tools/call", answer(error(-32602, "no such tool")))
    at.begin()
    assert value(await at.next())["message"] == "no such tool"
    at.assert_over()


async def test_no_answer(at: Scene) -> None:
    """When the answer is lost the client learns that the outcome is unknown; nothing is sent again."""
    at.server_says(say(notification(revisions.LOG_MESSAGE)), ConnectionLost("gone"))
    at.begin()
    with pytest.raises(OutcomeUnknown):
        await at.next()
    await settle()
    assert at.sent.count("tools/call") == 1
    at.assert_over()


async def test_given_up(at: Scene) -> None:
    """When the proxy leaves, whoever waits gets its error and the server is told."""
    at.server_says(60.0, DONE)
    at.begin()
    waiting = asyncio.create_task(at.next())
    await settle()
    at.call.give_up(Draining("bye"))
    with pytest.raises(Draining):
        await waiting
    await settle()
    assert at.sent == ["tools/call", "notifications/cancelled"]
    at.assert_over()


# -- rounds ----------------------------------------------------------------------------------------


async def test_one_round(at: Scene) -> None:
    """The server's question is the outcome; the answer is posted under its id; the call goes on."""
    at.server_says(say(NAME), at.server_waits(), DONE)
    at.begin()
    assert await at.asked() == {"name": {"method": "elicitation/create", "params": FORM}}
    assert (at.call.rounds, at.visit.ended) == (1, 0)
    await asyncio.sleep(3600)  # however long the user takes
    assert value(await at.next(name=ADA)) == {"content": []}
    assert at.answers == [("q-1", json.loads(ADA))]
    assert at.sent == ["tools/call", "response"]
    at.assert_over()


async def test_answers_are_passed_as_they_are(at: Scene) -> None:
    """The bytes of the client's answer reach the server."""
    at.server_says(say(NAME), at.server_waits(), DONE)
    at.begin()
    await at.asked()
    raw = b'{"action":"accept","content":{"n":1.50e0,"x":"\\u00fc"},"more":[]}'
    await at.next(name=raw)
    assert at.server.posts("response")[0].message == Response(b'"q-1"', result=raw)


async def test_questions_that_come_together_travel_together(at: Scene) -> None:
    """Within a short time the server's questions are gathered."""
    at.server_says(say(NAME), 0.03, say(ROOTS), at.server_waits(2), DONE)
    at.begin()
    assert set(await at.asked()) == {"name", "roots_list"}
    assert value(await at.next(name=ADA, roots_list=ROOTS_ANSWER)) == {"content": []}
    assert at.answers == [("q-1", json.loads(ADA)), ("q-2", {"roots": []})]
    at.assert_over()


async def test_gathering_is_short(at: Scene, looptime: Any) -> None:
    """A question alone is not held back for longer than the gathering takes."""
    at.server_says(say(NAME), 60.0, DONE)
    at.begin()
    began = float(looptime)
    await at.asked()
    assert float(looptime) - began == pytest.approx(GATHER_SECONDS, abs=0.01)


async def test_one_round_after_the_other(at: Scene) -> None:
    """A server that asks again after an answer gets another round."""
    first, second = at.server_waits(), asyncio.Event()

    def accept(_: Sent) -> FakeReply:
        second.set()
        return FakeReply(status=202, is_stream=False)

    at.server.script("response", accept)
    at.server_says(say(NAME), first, say(ROOTS), second, DONE)
    at.begin()
    assert set(await at.asked()) == {"name"}
    assert set(await at.asked(name=ADA)) == {"roots_list"}
    assert value(await at.next(roots_list=ROOTS_ANSWER)) == {"content": []}
    assert at.call.rounds == 3
    assert at.sent.count("tools/call") == 1


async def test_missing_answers_are_asked_again(at: Scene) -> None:
    """What was not answered stays asked; what nobody asked is ignored."""
    at.server_says(say(NAME, ROOTS), at.server_waits(2), DONE)
    at.begin()
    assert set(await at.asked()) == {"name", "roots_list"}
    assert set(await at.asked(roots_list=ROOTS_ANSWER, unknown=b"{}")) == {"name"}
    assert set(await at.asked()) == {"name"}
    assert value(await at.next(name=ADA)) == {"content": []}
    assert [identifier for identifier, _ in at.answers] == ["q-2", "q-1"]


async def test_equal_questions_get_different_keys(at: Scene) -> None:
    """Two forms with the same title are told apart, and each answer finds its own."""
    again = request("q-9", revisions.ELICIT, **FORM)
    at.server_says(say(NAME, again), at.server_waits(2), DONE)
    at.begin()
    assert set(await at.asked()) == {"name", "name_2"}
    await at.next(name_2=b'{"action":"decline"}', name=ADA)
    assert dict(at.answers) == {"q-1": json.loads(ADA), "q-9": {"action": "decline"}}


async def test_the_response_comes_before_the_answer(at: Scene) -> None:
    """A server that stops waiting for the answer ends the call; its response is the outcome."""
    at.server_says(say(NAME), 0.01, DONE)
    at.begin()
    assert value(await at.next()) == {"content": []}
    at.assert_over()


async def test_unfit_answers(at: Scene) -> None:
    """An answer without the form of one is refused before anything is done with it."""
    at.server_says(say(NAME), at.server_waits(), DONE)
    at.begin()
    await at.asked()
    with pytest.raises(InvalidParams):
        at.call.check_answers({"name": b"3"})
    at.call.check_answers({"name": ADA, "unknown": b"3"})
    assert at.answers == []


async def test_a_question_on_the_get_stream(at: Scene) -> None:
    """A question that came without naming a call is asked like the others."""
    at.server_says(at.server_waits(), DONE)
    at.begin()
    waiting = asyncio.create_task(at.asked())
    await settle()
    assert at.attribution.take_request(at.session, ASK_ROOTS)
    assert set(await waiting) == {"roots_list"}
    assert value(await at.next(roots_list=ROOTS_ANSWER)) == {"content": []}
    assert at.answers == [("q-2", {"roots": []})]


@pytest.mark.parametrize("is_parked", [False, True])
async def test_a_question_of_another_call(at: Scene, is_parked: bool) -> None:
    """A call that was asked what belongs to another one, and is answered itself, hands it on."""
    at.server_says(*([say(NAME)] if is_parked else []), at.server_waits(2 if is_parked else 1), DONE)
    other = at.begin()
    other_asked = asyncio.create_task(at.asked())
    await settle()
    if is_parked:
        assert set(await other_asked) == {"name"}
        other.park()
    server_goes_on = asyncio.Event()
    at.server_says(server_goes_on, DONE)
    at.begin()
    answering = asyncio.create_task(at.next())
    await settle()
    at.call.deliver(ASK_ROOTS)
    await settle()
    server_goes_on.set()
    assert value(await answering) == {"content": []}
    at.call = other
    if is_parked:
        other_asked = asyncio.create_task(at.asked(name=ADA))
    assert set(await other_asked) == {"roots_list"}
    assert value(await at.next(roots_list=ROOTS_ANSWER)) == {"content": []}
    assert at.answers == [("q-1", json.loads(ADA)), ("q-2", {"roots": []})][not is_parked :]


# -- answers at hand -------------------------------------------------------------------------------


async def test_answers_at_hand(at: Scene) -> None:
    """A client that answers before it was asked has its answer given as soon as the server asks."""
    at.server_says(say(NAME), at.server_waits(), DONE)
    at.begin(at_hand={"name": ADA, "unknown": b"{}"})
    assert value(await at.next()) == {"content": []}
    assert at.answers == [("q-1", json.loads(ADA))]
    assert at.call.rounds == 1


@pytest.mark.parametrize("unfit", [b"3", b'{"action":"maybe"}', ROOTS_ANSWER])
async def test_unfit_answers_at_hand(at: Scene, unfit: bytes) -> None:
    """An answer at hand that does not fit is as good as none: the client is asked."""
    at.server_says(say(NAME), at.server_waits(), DONE)
    at.begin(at_hand={"name": unfit})
    assert set(await at.asked()) == {"name"}


async def test_an_answer_at_hand_is_good_once(at: Scene) -> None:
    """A server that asks the same again gets the client's answer of then."""
    first = at.server_waits()
    at.server_says(say(NAME), first, say(request("q-3", revisions.ELICIT, **FORM)), 60.0, DONE)
    at.begin(at_hand={"name": ADA})
    assert set(await at.asked()) == {"name"}
    assert at.answers == [("q-1", json.loads(ADA))]


# -- what cannot be asked --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tools/list", "completion/complete"])
async def test_methods_that_may_not_ask(at: Scene, method: str) -> None:
    """In the course of a list nobody is asked: the server gets an error, the call goes on."""
    at.server_says(say(NAME), at.server_waits(), DONE, method=method)
    at.begin(modern(method))
    assert value(await at.next()) == {"content": []}
    assert at.answers == [("q-1", -32603)]


async def test_requests_that_are_no_questions(at: Scene) -> None:
    """What a client could not answer in a retry is refused; the call goes on."""
    at.server_says(say(request("q-5", "tasks/get")), at.server_waits(), DONE)
    at.begin()
    assert value(await at.next()) == {"content": []}
    assert at.answers == [("q-5", -32603)]


async def test_pings_are_answered(at: Scene) -> None:
    """A ping in the course of a call is nobody's question."""
    at.server_says(say(request("p", "ping")), at.server_waits(), DONE)
    at.begin()
    assert value(await at.next()) == {"content": []}
    assert at.answers == [("p", {})]


ONLY_ROOTS = modern(name="buy", capabilities={"roots": {}})
REFUSED = "The client did not declare that it can answer this request."


async def test_a_server_that_goes_on_without_an_answer(at: Scene) -> None:
    """A question that the client cannot answer is refused, and what the call gives in the end counts."""
    at.server_says(say(NAME), at.server_waits(), 1.0, DONE)
    at.begin(ONLY_ROOTS)
    assert value(await at.next()) == {"content": []}
    assert at.answers == [("q-1", -32603)]
    at.assert_over()


async def test_a_server_that_says_something_meanwhile(at: Scene) -> None:
    """As long as it is heard of, the call may go on."""
    news = say(notification(revisions.LOG_MESSAGE, level="info", data=1))
    at.server_says(say(NAME), 1.5, news, 1.5, news, 1.5, DONE)
    at.begin(ONLY_ROOTS)
    assert value(await at.next()) == {"content": []}


async def test_missing_capability(at: Scene, looptime: Any) -> None:
    """A call that does not go on without the answer fails for want of the capability, and is cancelled."""
    at.server_says(say(NAME), 60.0, DONE)
    at.begin(ONLY_ROOTS)
    with pytest.raises(MissingCapability) as caught:
        await at.next()
    assert caught.value.data["requiredCapabilities"] == {"elicitation": {"form": {}}}
    assert looptime == pytest.approx(WIND_DOWN_SECONDS)
    await asyncio.sleep(1)
    assert at.sent == ["tools/call", "response", revisions.CANCELLED]
    at.assert_over()


FAILED: list[Any] = [
    error(-32603, "cannot"),
    error(-32002, REFUSED),
    result({"content": [{"type": "text", "text": f"Error executing tool buy: {REFUSED}"}], "isError": True}),
]


@pytest.mark.parametrize("answer", FAILED)
async def test_an_error_over_a_refused_question(at: Scene, answer: Any) -> None:
    """An error, or a result that repeats why, says that the server needs what the client cannot do."""
    at.server_says(say(NAME), at.server_waits(), say({**answer, "id": 2}))
    at.begin(ONLY_ROOTS)
    with pytest.raises(MissingCapability):
        await at.next()
    at.assert_over()


@pytest.mark.parametrize(
    "own",
    [
        {"content": [{"type": "text", "text": "no such book"}], "isError": True},
        {"content": [{"type": "text", "text": f"I did without: {REFUSED}"}]},
        {"content": [], "isError": False, "said": REFUSED},
    ],
)
async def test_results_of_their_own(at: Scene, own: Any) -> None:
    """A result that is about something else, or no failure, is the call's."""
    at.server_says(say(NAME), at.server_waits(), say({"jsonrpc": "2.0", "id": 2, "result": own}))
    at.begin(ONLY_ROOTS)
    assert value(await at.next()) == own


@pytest.mark.parametrize("pause", [0.0, 0.02])
async def test_one_of_two_capabilities_is_missing(at: Scene, pause: float) -> None:
    """The client is asked what it can answer; the call fails if it then does not go on without the rest."""
    at.server_says(say(ROOTS), pause, say(NAME), 60.0, DONE)
    at.begin(ONLY_ROOTS)
    [key] = (await at.asked()).values()
    assert key["method"] == "roots/list"
    await asyncio.sleep(30)  # the client takes its time, which is not the server's silence
    with pytest.raises(MissingCapability):
        await at.next(roots_list=b'{"roots":[]}')
    assert sorted(at.answers) == [("q-1", -32603), ("q-2", {"roots": []})]


async def test_all_that_is_missing_is_named(at: Scene) -> None:
    """Whatever was refused in the course of the call."""
    ask_model = request("q-9", "sampling/createMessage", messages=[], maxTokens=1, tools=[])
    url = request("q-8", "elicitation/create", mode="url", message="m", url="https://x", elicitationId="e")
    at.server_says(say(NAME), say(ask_model), say(url), 60.0)
    at.begin(ONLY_ROOTS)
    with pytest.raises(MissingCapability) as caught:
        await at.next()
    assert caught.value.data["requiredCapabilities"] == {
        "elicitation": {"form": {}, "url": {}},
        "sampling": {"tools": {}},
    }


# -- too many questions ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_too_many_questions(at: Scene) -> None:
    """A hundred wait for the client's answers; the rest is refused, one after the other."""
    flood = [request(f"q-{n}", revisions.ELICIT, **FORM) for n in range(1000)]
    at.server_says(say(*flood), at.server_waits(1000), DONE)
    at.begin()
    asked = await at.asked()
    assert len(asked) == 100
    assert list(asked)[:3] == ["name", "name_2", "name_3"]
    await asyncio.sleep(1)
    assert [code for _, code in at.answers] == [-32603] * 900
    assert value(await at.next(**dict.fromkeys(asked, ADA))) == {"content": []}


@pytest.mark.slow
async def test_too_many_questions_on_the_get_stream(at: Scene) -> None:
    """There, too, a hundred reach the client and the rest is refused, though nothing slows the server."""
    at.server_says(at.server_waits(4900), 1.0, DONE)
    at.begin()
    asking = asyncio.create_task(at.asked())
    await settle()
    for number in range(5000):
        question = Request(b'"q-%d"' % number, revisions.ELICIT, json.dumps(FORM).encode())
        assert at.attribution.take_request(at.session, question)
    assert len(await asking) == 100
    await asyncio.sleep(60)
    assert len(at.answers) == 4900
    assert len({identifier for identifier, _ in at.answers}) == 4900


async def test_too_many_urls(at: Scene) -> None:
    """Nor is a client sent to more places than that."""
    urls = [
        {"mode": "url", "message": "m", "url": f"https://x/{n}", "elicitationId": f"{n}"} for n in range(1000)
    ]
    failure = {**error(-32042, "visit first"), "id": 2}
    failure["error"]["data"] = {"elicitations": urls}
    at.server_says(say(failure))
    at.begin()
    assert len(await at.asked()) == 100


async def test_questions_have_a_share_of_the_memory(at: Scene) -> None:
    """Over it the server is refused, and the call goes on with those that its client was asked."""
    at.room.max_bytes = 200
    at.server_says(
        say(*[request(f"q-{n}", revisions.ELICIT, **FORM) for n in range(10)]), at.server_waits(10), DONE
    )
    at.begin()
    asked = await at.asked()
    assert 0 < len(asked) < 10
    await settle()
    assert [code for _, code in at.answers] == [-32603] * (10 - len(asked))
    assert value(await at.next(**dict.fromkeys(asked, ADA))) == {"content": []}
    assert at.room.used_bytes == 0


# -- what the server says meanwhile ----------------------------------------------------------------


async def test_progress(at: Scene) -> None:
    """Progress is written under the client's token, as it comes."""
    at.server_says(say(notification(revisions.PROGRESS, progressToken=2, progress=1)), DONE)
    at.begin(modern(name="buy", token="mine"))
    await at.next()
    params = {"progressToken": "mine", "progress": 1}
    assert at.channel.sent == [{"jsonrpc": "2.0", "method": revisions.PROGRESS, "params": params}]


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        (None, []),
        ("debug", ["debug", "info", "warning", "emergency", "odd"]),
        ("warning", ["warning", "emergency", "odd"]),
        ("emergency", ["emergency", "odd"]),
    ],
)
async def test_log_level(at: Scene, wanted: str | None, heard: list[str]) -> None:
    """Log messages are passed from the level that this request asked for; without one, none is."""
    levels = ["debug", "info", "warning", "emergency", "odd"]
    notes = [notification(revisions.LOG_MESSAGE, level=level, data=1) for level in levels]
    at.server_says(say(*notes), DONE)
    at.begin(modern(name="buy", log_level=wanted))
    await at.next()
    assert [message["params"]["level"] for message in at.channel.sent] == heard


async def test_other_notifications_are_for_listeners(at: Scene) -> None:
    """What belongs on a `subscriptions/listen` stream is not written on a call's."""
    news = (revisions.TOOLS_CHANGED, revisions.RESOURCE_UPDATED, "notifications/whatever")
    at.server_says(say(*[notification(method) for method in news]), DONE)
    at.begin(modern(name="buy", log_level="debug"))
    await at.next()
    assert at.channel.sent == []
    assert [message.method for message in at.session.router.noted] == list(news)  # type: ignore[attr-defined]


PROGRESS = [say(notification(revisions.PROGRESS, progressToken=2, progress=n)) for n in (1, 2, 3)]


@pytest.mark.parametrize(("token", "heard"), [("second", [2, 3]), (7, [2, 3]), (None, []), ("first", [2, 3])])
async def test_kept_for_the_next_round(at: Scene, token: object, heard: list[int]) -> None:
    """What comes while the client is away is kept for its retry, under its own token or not at all."""
    at.server_says(PROGRESS[0], say(NAME), 1.0, PROGRESS[1], at.server_waits(), PROGRESS[2], DONE)
    at.begin(modern(name="buy", token="first"))
    await at.asked()
    assert [m["params"]["progress"] for m in at.channel.sent] == [1]
    await asyncio.sleep(10)
    at.channel = FakeChannel()
    at.call.go_on_for(modern(name="buy", token=token), NOBODY)
    await at.next(name=ADA)
    assert [m["params"]["progress"] for m in at.channel.sent] == heard
    assert all(m["params"]["progressToken"] == token for m in at.channel.sent)


@pytest.mark.parametrize(("level", "heard"), [("info", ["error"]), ("emergency", []), (None, [])])
async def test_kept_log_messages(at: Scene, level: str | None, heard: list[str]) -> None:
    """What was kept is passed as far as the retry itself asks for it."""
    note = say(notification(revisions.LOG_MESSAGE, level="error", data=1))
    at.server_says(say(NAME), 1.0, note, at.server_waits(), DONE)
    at.begin(modern(name="buy", log_level="debug"))
    await at.asked()
    await asyncio.sleep(10)
    at.call.go_on_for(modern(name="buy", log_level=level), NOBODY)
    await at.next(name=ADA)
    assert [m["params"]["level"] for m in at.channel.sent] == heard


async def test_a_listeners_name_means_nothing_here(at: Scene) -> None:
    """A server that names a listener in a message of a call does not mislead the client."""
    meta = {"io.modelcontextprotocol/subscriptionId": 1, "x": 2}
    at.server_says(say(notification(revisions.LOG_MESSAGE, level="error", data=1, _meta=meta)), DONE)
    at.begin(modern(name="buy", log_level="debug"))
    await at.next()
    assert at.channel.sent[0]["params"] == {"level": "error", "data": 1, "_meta": {"x": 2}}


async def test_not_everything_is_kept(at: Scene) -> None:
    """A server that talks on and on while the client is away does not fill the memory; the newest is kept."""
    notes = [notification(revisions.PROGRESS, progressToken=2, progress=n) for n in range(1000)]
    at.server_says(say(NAME), 1.0, say(*notes), at.server_waits(), DONE)
    at.begin(modern(name="buy", token="t"))
    await at.asked()
    await asyncio.sleep(10)
    await at.next(name=ADA)
    assert [m["params"]["progress"] for m in at.channel.sent] == list(range(744, 1000))


# -- the client leaves -----------------------------------------------------------------------------


async def test_the_client_leaves(at: Scene) -> None:
    """Closing the response cancels the call at the server, at once."""
    at.server_says(60.0, DONE)
    at.begin()
    waiting = asyncio.create_task(at.next())
    await settle()
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    await asyncio.sleep(0.1)
    assert at.sent == ["tools/call", "notifications/cancelled"]
    (cancelled,) = at.server.posts("notifications/cancelled")
    assert cancelled.params["requestId"] == 2
    at.assert_over()


async def test_the_client_leaves_before_its_turn(at: Scene) -> None:
    """A call that never began has nothing to cancel."""
    first = modern(name="first")
    at.server_says(60.0, DONE)
    at.begin(first)
    running = asyncio.create_task(at.next())
    await settle()
    at.attribution.take_request(at.session, ASK_NAME)  # from now on, one at a time
    other = Scene(at.session, at.server)
    other.attribution = at.attribution
    other.begin()
    waiting = asyncio.create_task(other.next())
    await settle()
    waiting.cancel()
    await settle()
    assert other.visit.ended == 1
    assert at.sent == []
    running.cancel()
    await asyncio.sleep(3)


async def test_the_client_does_not_come_back(at: Scene) -> None:
    """A call that is given up while parked has its questions refused, and ends by itself."""
    at.server_says(say(NAME, ROOTS), at.server_waits(2), 0.5, DONE)
    at.begin()
    await at.asked()
    at.call.abandon()
    await asyncio.sleep(1)
    assert at.answers == [("q-1", -32603), ("q-2", -32603)]
    assert "notifications/cancelled" not in at.sent
    at.assert_over()


async def test_a_server_that_does_not_end_by_itself(at: Scene) -> None:
    """A call that goes on after its question was refused is cancelled, after a while."""
    at.server_says(say(NAME), 600.0, DONE)
    at.begin()
    await at.asked()
    at.call.abandon()
    await asyncio.sleep(WIND_DOWN_SECONDS - 0.1)
    assert at.sent == ["tools/call", "response"]
    await asyncio.sleep(0.2)
    assert at.sent == ["tools/call", "response", "notifications/cancelled"]
    at.assert_over()


async def test_the_session_is_lost_while_parked(at: Scene) -> None:
    """A client that comes back to a lost call learns that its outcome is unknown; nothing is repeated."""
    at.server_says(say(NAME), 1.0, ConnectionLost("gone"))
    at.begin()
    await at.asked()
    await asyncio.sleep(2)
    with pytest.raises(OutcomeUnknown):
        await at.next(name=ADA)
    assert at.sent.count("tools/call") == 1
    await settle()
    at.assert_over()


async def test_an_answer_for_a_session_that_was_opened_anew(at: Scene) -> None:
    """A question of a lost session is not answered on the new one, where its id means something else."""
    at.server_says(say(NAME), 1.0, ConnectionLost("gone"))
    at.begin()
    await at.asked()
    await at.session.revive(at.session.incarnation, "test", NOBODY)
    await asyncio.sleep(2)
    with pytest.raises(OutcomeUnknown):
        await at.next(name=ADA)
    assert at.answers == []


# -- pages to visit first --------------------------------------------------------------------------


def visit_first(*identifiers: str) -> FakeReply:
    """The error that demands visits."""
    pages = [
        {"mode": "url", "url": f"https://x/{i}", "message": "m", "elicitationId": i} for i in identifiers
    ]
    failed = error(-32042, "visit first")
    failed["error"]["data"] = {"elicitations": pages}
    return answer(failed)


def visited(identifier: str) -> Notification:
    params = json.dumps({"elicitationId": identifier}).encode()
    return Notification(revisions.ELICITATION_COMPLETE, params)


ACCEPT = b'{"action":"accept"}'


async def test_visits_are_asked_for(at: Scene) -> None:
    """The error becomes questions; once the pages were visited the call is made again, for the first time."""
    at.server.script("tools/call", visit_first("a", "b"), answer(result({"content": []})))
    at.begin()
    asked = await at.asked()
    assert [question["params"]["url"] for question in asked.values()] == ["https://x/a", "https://x/b"]
    assert all("elicitationId" not in question["params"] for question in asked.values())
    for identifier in ("a", "b"):
        at.attribution.take_notification(at.session, visited(identifier))
    assert value(await at.next(**dict.fromkeys(asked, ACCEPT))) == {"content": []}
    assert at.sent == ["tools/call", "tools/call"]
    at.assert_over()


async def test_what_is_sent_after_a_visit(at: Scene) -> None:
    """The call is made anew as the client makes it now: with the metadata of the retry."""
    failed = {**error(-32042, "visit first"), "id": 2}
    failed["error"]["data"] = {"elicitations": [{"mode": "url", "message": "m", "url": "https://x"}]}
    at.server_says(say(failed))
    at.begin(modern(name="buy", token="first"))
    [key] = await at.asked()
    at.call.go_on_for(modern(name="buy", identifier=2), NOBODY)
    at.server_says(DONE)
    await at.next(**{key: b'{"action":"accept"}'})
    metas = [sent.params.get("_meta") for sent in at.server.posts("tools/call")]
    assert metas == [{"progressToken": 2}, None]


async def test_a_visit_that_is_confirmed_later(at: Scene, looptime: Any) -> None:
    """The call is made again as soon as the server says that the page was visited."""
    at.server.script("tools/call", visit_first("a"), answer(result({"content": []})))
    at.begin()
    (key,) = await at.asked()
    waiting = asyncio.create_task(at.next(**{key: ACCEPT}))
    await asyncio.sleep(1)
    assert at.sent == ["tools/call"]
    at.attribution.take_notification(at.session, visited("a"))
    assert value(await waiting) == {"content": []}


async def test_a_visit_that_is_declined(at: Scene) -> None:
    """A user who does not want to visit the page gets the server's error; nothing is sent again."""
    at.server.script("tools/call", visit_first("a"))
    at.begin()
    (key,) = await at.asked()
    assert value(await at.next(**{key: b'{"action":"decline"}'}))["code"] == -32042
    assert at.sent == ["tools/call"]
    at.assert_over()


async def test_a_visit_that_is_not_answered(at: Scene) -> None:
    """A retry without an answer is asked again."""
    at.server.script("tools/call", visit_first("a"))
    at.begin()
    asked = await at.asked()
    assert await at.asked() == asked
    assert at.sent == ["tools/call"]


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
async def test_a_client_that_visits_nothing(at: Scene, capabilities: object) -> None:
    """A client that cannot show pages is told what it would have to be able to do."""
    at.server.script("tools/call", visit_first("a"))
    at.begin(modern(name="buy", capabilities=capabilities))
    with pytest.raises(MissingCapability) as caught:
        await at.next()
    assert caught.value.data["requiredCapabilities"] == {"elicitation": {"url": {}}}
    await settle()
    at.assert_over()
