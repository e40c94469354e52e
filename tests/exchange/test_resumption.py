"""Answers that come in a later stream than the first: how long they are looked for, and at what pace."""

import asyncio
import json
from collections.abc import Callable

import pytest
from fakes import (
    FakeOutlet,
    FakeReply,
    FakeServer,
    FakeVisit,
    Recorder,
    Scripted,
    make_session,
    refusal,
    say,
    settle,
    stream,
)
from messages import error, notification, result

from mcp_session_proxy.errors import (
    OutcomeUnknown,
    ProxyError,
    RequestCancelled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.exchange.exchange import Exchange
from mcp_session_proxy.protocol.jsonrpc import Request
from mcp_session_proxy.upstream.transport import NOBODY, Caller, ConnectionLost

pytestmark = pytest.mark.looptime

CALL = Request(b"1", "tools/call", b'{"name":"slow"}')


class Scene:
    """A call whose server ends the first stream after an event id, and answers GETs as scripted."""

    def __init__(self, *, silence_seconds: float = 600.0, retry_seconds: float | None = 0.5) -> None:
        self.server = FakeServer()
        self.server.silence_seconds = silence_seconds
        self.session = make_session(self.server)
        self.observe = Recorder()
        self.outlet = FakeOutlet()
        self.first = stream(say(event_id="e1", retry=retry_seconds))

    async def begin(self, *gets: Scripted, request: Request = CALL) -> None:
        self.server.script("GET", stream(asyncio.Event()))  # the session's own, which is another matter
        await self.session.open(NOBODY)
        self.server.seen.clear()
        self.server.script(request.method, self.first)
        self.server.script("GET", *gets)
        visit = FakeVisit(self.session)
        self.exchange = Exchange(request, None, visit, self.outlet, self.observe)  # type: ignore[arg-type]
        self.began = asyncio.get_running_loop().time()

    async def run(self, *gets: Scripted, request: Request = CALL) -> object:
        """The value of the result."""
        await self.begin(*gets, request=request)
        response = await self.exchange.run()
        return json.loads(response.result or response.error or b"null")

    async def fail(self, *gets: Scripted) -> ProxyError:
        """The error, and that the call went out once."""
        await self.begin(*gets)
        with pytest.raises(ProxyError) as caught:
            await self.exchange.run()
        assert len(self.server.posts("tools/call")) == 1
        assert self.session.incarnation.calls.in_flight == {}
        return caught.value

    @property
    def took_seconds(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    @property
    def asked(self) -> list[str | None]:
        return [sent.last_event_id for sent in self.server.gets()]


def nothing() -> FakeReply:
    """A stream that opens and ends."""
    return stream()


def done() -> FakeReply:
    """The stream with the answer."""
    return stream(say(result({"done": True})))


# -- polling -----------------------------------------------------------------------------------------


async def test_a_server_is_polled_at_its_own_pace() -> None:
    """Streams that end without anything new are no failures: it is asked until the answer comes."""
    at = Scene(retry_seconds=2.0)
    assert await at.run(*(nothing() for _ in range(200)), done()) == {"done": True}
    assert at.asked == ["e1"] * 201
    assert at.took_seconds == pytest.approx(402, abs=0.1)
    assert len(at.server.posts("tools/call")) == 1
    assert [event.reason for event in at.observe.named("request.retried")] == ["stream-resumed"]


async def test_the_newest_id_and_pace_count() -> None:
    """Each stream may say where to go on, and when."""
    at = Scene(retry_seconds=None)
    polls = [stream(say(event_id="e2", retry=5.0)), stream(say(event_id="e3")), stream(), done()]
    assert await at.run(*polls) == {"done": True}
    assert at.asked == ["e1", "e2", "e3", "e3"]
    assert at.took_seconds == pytest.approx(15.1)


@pytest.mark.parametrize(
    ("retry", "polls", "seconds"),
    [(None, 10, 13.1), (0.0, 10, 13.1), (0.5, 10, 5.0), (999_999.0, 2, 60.0)],
    ids=["none", "at-once", "half-a-second", "eleven-days"],
)
async def test_the_pace_is_sensible(retry: float | None, polls: int, seconds: float) -> None:
    """A server that names no pace, or a senseless one, is neither hammered nor left alone for ever."""
    at = Scene(retry_seconds=retry)
    await at.run(*(nothing() for _ in range(polls - 1)), done())
    assert at.took_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("with_ids", [False, True])
async def test_polling_is_bounded(*, with_ids: bool) -> None:
    """The mere opening of streams is no sign of life, also under ever new ids."""
    at = Scene(silence_seconds=30.0, retry_seconds=1.0)
    polls = [stream(say(event_id=f"n{n}" if with_ids else None)) for n in range(100)]
    assert isinstance(await at.fail(*polls), UpstreamTimeout)
    assert at.took_seconds == pytest.approx(30)
    assert len(at.asked) == pytest.approx(30, abs=1)
    await settle()
    assert [sent.method for sent in at.server.seen[-1:]] == ["notifications/cancelled"]


async def test_a_pace_that_is_longer_than_the_request_may_take() -> None:
    """It is asked once more all the same, before the request's time is over."""
    at = Scene(silence_seconds=8.0, retry_seconds=60.0)
    assert await at.run(done()) == {"done": True}
    assert at.took_seconds == pytest.approx(4)


async def test_messages_are_signs_of_life() -> None:
    """A call that tells of its progress in every stream may go on for ever."""
    at = Scene(silence_seconds=10.0, retry_seconds=5.0)
    log = notification("notifications/message", level="info")
    assert await at.run(*(stream(say(log)) for _ in range(50)), done()) == {"done": True}
    assert at.took_seconds == pytest.approx(255)
    assert len(at.outlet.notified) == 50


async def test_comments_on_a_stream_that_stands_are_signs_of_life() -> None:
    """A stream with heartbeats that is cut now and then goes on like one that is not."""
    at = Scene(silence_seconds=20.0, retry_seconds=1.0)
    beating = [stream(say(), 15.0, say(), 15.0, say(), ConnectionLost()) for _ in range(5)]
    assert await at.run(*beating, done()) == {"done": True}
    assert at.took_seconds > 150


async def test_comments_alone_are_signs_of_life_for_a_while() -> None:
    """However the streams are cut, ten times the patience is the end where no message comes."""
    at = Scene(silence_seconds=20.0, retry_seconds=1.0)
    beating = [stream(say(), 15.0, say(), 15.0, say()) for _ in range(20)]
    assert isinstance(await at.fail(*beating), UpstreamTimeout)
    assert at.took_seconds == pytest.approx(200, abs=1)


async def test_a_stream_that_stands_and_is_silent() -> None:
    """Silence before a stream and on it are one silence."""
    at = Scene(silence_seconds=20.0, retry_seconds=1.0)
    assert isinstance(await at.fail(*(nothing() for _ in range(9)), stream(asyncio.Event())), UpstreamTimeout)
    assert at.took_seconds == pytest.approx(20)


async def test_an_error_is_an_answer() -> None:
    """So is a JSON-RPC error that comes in a later stream."""
    at = Scene()
    assert await at.run(nothing(), stream(say(error(-32000, "no")))) == {"code": -32000, "message": "no"}


async def test_a_stream_without_an_id_is_not_polled() -> None:
    """There is nothing to ask for."""
    at = Scene()
    at.first = stream(say(retry=1.0))
    assert isinstance(await at.fail(done()), OutcomeUnknown)
    assert at.asked == []


async def test_an_id_that_is_taken_back() -> None:
    """A stream that resets its id cannot be resumed any more; what came before still can."""
    at = Scene()
    assert await at.run(stream(say()), done()) == {"done": True}


# -- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [408, 409, 423, 425, 429, 502, 503, 504, 520, 530, UpstreamUnreachable("down"), ConnectionLost(), None],
)
async def test_what_passes_is_tried_again(failure: int | Exception | None) -> None:
    """With a pause that grows, for as long as a restart takes."""
    at = Scene(retry_seconds=None)

    def fail() -> Scripted:
        if failure is None:
            return stream(ConnectionLost())
        return refusal(failure) if isinstance(failure, int) else failure

    assert await at.run(*(fail() for _ in range(20)), done()) == {"done": True}
    assert 60 < at.took_seconds < 100
    assert at.asked == ["e1"] * 21


async def test_a_server_that_crashes_over_the_resumption() -> None:
    """500 may pass, too, but not as much time is given to it."""
    at = Scene(retry_seconds=None)
    assert await at.run(*(refusal(500) for _ in range(6)), done()) == {"done": True}
    other = Scene(retry_seconds=None)
    assert isinstance(await other.fail(*(refusal(500) for _ in range(99))), OutcomeUnknown)
    assert 15 <= other.took_seconds < 21


OLD, NEW = (Caller(headers=(("Authorization", token),)) for token in ("old", "new"))
MARK = ("X-Request-Mark", "1")


async def test_a_call_that_outlives_its_token() -> None:
    """It is gone on with under the token that its caller has by now, and otherwise with its own headers."""
    at = Scene()
    await at.begin(nothing(), refusal(401), done())
    at.exchange.caller = Caller(headers=(*OLD.headers, MARK), reduced=OLD)
    at.session.record.credentials = NEW
    response = await at.exchange.run()
    assert json.loads(response.result or b"") == {"done": True}
    old, new = (*OLD.headers, MARK), (*NEW.headers, MARK)
    assert [sent.caller.headers for sent in at.server.gets()] == [old, old, new]


async def test_a_caller_that_is_not_taken_any_more() -> None:
    """Neither under its former token nor under the newest one: the answer is lost."""
    at = Scene()
    await at.begin(refusal(403), refusal(401), done())
    at.exchange.caller, at.session.record.credentials = OLD, NEW
    with pytest.raises(OutcomeUnknown):
        await at.exchange.run()
    assert [sent.caller.headers for sent in at.server.gets()] == [OLD.headers, NEW.headers]


async def test_only_failures_in_a_row_count() -> None:
    """A stream that stands in between, though it brings nothing, shows that the server is there."""
    at = Scene()
    failing: list[Scripted] = [refusal(503) for _ in range(20)]
    assert await at.run(*failing, nothing(), *failing, nothing(), *failing, done()) == {"done": True}
    assert at.took_seconds > 180


@pytest.mark.parametrize(("silence", "seconds"), [(600.0, 120), (20.0, 20)])
async def test_failing_is_bounded(silence: float, seconds: float) -> None:
    """By two minutes, and by the time that the request may take: the outcome is unknown then."""
    at = Scene(silence_seconds=silence)
    assert isinstance(await at.fail(*[UpstreamUnreachable("down")] * 100), OutcomeUnknown)
    assert at.took_seconds == pytest.approx(seconds, abs=5)


async def test_a_session_that_was_opened_anew() -> None:
    """Another incarnation knows nothing of the request: it is not asked under the former's ids."""
    at = Scene()
    await at.begin(*(nothing() for _ in range(3)), refusal(405), done())
    running = asyncio.create_task(at.exchange.run())
    await asyncio.sleep(1.6)
    at.server.forget()
    await at.session.revive(at.session.incarnation, "test", NOBODY)
    with pytest.raises(OutcomeUnknown):
        await running
    assert at.asked == ["e1", "e1", "e1", None]


async def test_a_read_is_made_again_once_its_answer_is_lost() -> None:
    """Where the server refuses to go on."""
    at = Scene()
    answer = await at.run(nothing(), refusal(400), request=Request(b"1", "tools/list"))
    assert answer == {"from": "s1"}
    assert len(at.server.posts("tools/list")) == 2


# -- the end from outside --------------------------------------------------------------------------------


@pytest.mark.parametrize("poll", [nothing, lambda: stream(asyncio.Event()), lambda: refusal(503)])
async def test_a_client_cancels_while_its_answer_is_looked_for(poll: Callable[[], FakeReply]) -> None:
    """Between two streams and on one: the server is told, and gets five seconds to answer."""
    at = Scene()
    await at.begin(*(poll() for _ in range(100)))
    running = asyncio.create_task(at.exchange.run())
    await asyncio.sleep(3)
    await at.exchange.cancel(b'{"requestId":1}', NOBODY)
    with pytest.raises(RequestCancelled):
        await running
    assert at.took_seconds == pytest.approx(8)
    assert len(at.server.posts("notifications/cancelled")) == 1


@pytest.mark.parametrize("poll", [nothing, lambda: stream(asyncio.Event())])
async def test_a_client_leaves_while_its_answer_is_looked_for(poll: Callable[[], FakeReply]) -> None:
    """At once, and the server is told."""
    at = Scene()
    await at.begin(*(poll() for _ in range(100)))
    running = asyncio.create_task(at.exchange.run())
    await asyncio.sleep(3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await settle()
    assert len(at.server.posts("notifications/cancelled")) == 1
    assert at.session.incarnation.calls.in_flight == {}
