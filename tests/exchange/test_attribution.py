"""Which call of a session the server means when it does not say."""

import asyncio
import json
from collections.abc import Hashable
from typing import Any

import pytest
from fakes import FakeServer, make_session, settle

from mcp_session_proxy.exchange.attribution import Attribution
from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.jsonrpc import Notification, Request
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

QUESTION = Request(b"1", revisions.LIST_ROOTS)
LOG = Notification(revisions.LOG_MESSAGE, b'{"level":"info","data":"x"}')


class FakeCall:
    """Implements ``attribution.RunningCall``."""

    def __init__(
        self, session: UpstreamSession, *, is_parkable: bool = True, respondent: Hashable | None = None
    ) -> None:
        self.session = session
        self.respondent = respondent
        self.is_parkable = is_parkable
        self.delivered: list[Request] = []
        self.notified: list[Notification] = []

    def deliver(self, request: Request) -> None:
        self.delivered.append(request)

    async def notify(self, *messages: Notification) -> None:
        self.notified += messages


def completed(identifier: object) -> Notification:
    return Notification(revisions.ELICITATION_COMPLETE, json.dumps({"elicitationId": identifier}).encode())


async def opened() -> UpstreamSession:
    session = make_session(FakeServer())
    await session.open(NOBODY)
    return session


@pytest.fixture
async def session() -> UpstreamSession:
    """A session; nothing is sent on it."""
    return await opened()


@pytest.fixture
def attribution() -> Attribution:
    """One for all sessions of the test."""
    return Attribution()


async def enter(attribution: Attribution, call: FakeCall) -> "asyncio.Task[None]":
    """Begin a call as far as it gets."""
    task = asyncio.create_task(attribution.enter(call, begins=True))
    await settle()
    return task


async def serialise(attribution: Attribution, session: UpstreamSession) -> None:
    """Let the session be known for asking on its GET stream."""
    call = FakeCall(session)
    await attribution.enter(call, begins=True)
    assert attribution.take_request(session, QUESTION)
    attribution.leave(call)


# -- questions -------------------------------------------------------------------------------------


async def test_nobody_is_meant(attribution: Attribution, session: UpstreamSession) -> None:
    """Without a running call the question is somebody else's; a call that has left does not count."""
    assert not attribution.take_request(session, QUESTION)
    call = FakeCall(session)
    await attribution.enter(call, begins=True)
    attribution.leave(call)
    attribution.leave(call)
    assert not attribution.take_request(session, QUESTION)
    assert call.delivered == []


async def test_the_only_call_is_meant(attribution: Attribution, session: UpstreamSession) -> None:
    """The one call that runs on the session gets the question; calls of other sessions do not."""
    call, other = FakeCall(session), FakeCall(await opened())
    await attribution.enter(other, begins=True)
    await attribution.enter(call, begins=True)
    assert attribution.take_request(session, QUESTION)
    assert (call.delivered, other.delivered) == ([QUESTION], [])


async def test_calls_that_cannot_ask_are_not_meant(
    attribution: Attribution, session: UpstreamSession
) -> None:
    """A list that is being fetched is never the one that asks."""
    fetching, call = FakeCall(session, is_parkable=False), FakeCall(session)
    await attribution.enter(fetching, begins=True)
    assert not attribution.take_request(session, QUESTION)
    await attribution.enter(call, begins=True)
    assert attribution.take_request(session, QUESTION)
    assert (call.delivered, fetching.delivered) == ([QUESTION], [])


async def test_a_call_that_has_ended_hands_its_questions_on(
    attribution: Attribution, session: UpstreamSession
) -> None:
    """To one that runs, else to one that waits for its client; to none that has come back or ended."""
    running, parked = FakeCall(session), FakeCall(session)
    await attribution.enter(running, begins=True)
    await attribution.enter(parked, begins=True)
    attribution.leave(parked)
    attribution.park(parked)
    assert attribution.hand_on(session, QUESTION)
    assert (running.delivered, parked.delivered) == ([QUESTION], [])
    attribution.leave(running)
    assert attribution.hand_on(session, QUESTION)
    assert (running.delivered, parked.delivered) == ([QUESTION], [QUESTION])
    attribution.end(parked)
    assert not attribution.hand_on(session, QUESTION)
    attribution.park(parked)
    await attribution.enter(parked, begins=False)
    attribution.leave(parked)
    assert not attribution.hand_on(session, QUESTION)


# -- turns -----------------------------------------------------------------------------------------


async def test_calls_run_together_until_the_server_asks(
    attribution: Attribution, session: UpstreamSession
) -> None:
    """As long as the GET stream asks nothing, nobody waits for anybody."""
    for _ in range(5):
        assert (await enter(attribution, FakeCall(session))).done()


async def test_turns(attribution: Attribution, session: UpstreamSession) -> None:
    """Once the server has asked there, calls that may ask begin one after the other, in their order."""
    await serialise(attribution, session)
    calls = [FakeCall(session) for _ in range(3)]
    tasks = [await enter(attribution, call) for call in calls]
    assert [task.done() for task in tasks] == [True, False, False]
    attribution.take_request(session, QUESTION)
    attribution.leave(calls[0])
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    attribution.take_request(session, QUESTION)
    assert [len(call.delivered) for call in calls] == [1, 1, 0]
    attribution.leave(calls[1])
    await settle()
    assert tasks[2].done()


async def test_a_question_that_comes_with_the_turn(
    attribution: Attribution, session: UpstreamSession
) -> None:
    """Between the end of one call and the next there is no moment in which a question belongs to none."""
    await serialise(attribution, session)
    first, second = FakeCall(session), FakeCall(session)
    await enter(attribution, first)
    await enter(attribution, second)
    attribution.leave(first)
    assert attribution.take_request(session, QUESTION)
    assert second.delivered == [QUESTION]


async def test_calls_that_cannot_ask_never_wait(attribution: Attribution, session: UpstreamSession) -> None:
    """Lists need no turn, and nobody waits for them."""
    await serialise(attribution, session)
    listing, call = FakeCall(session, is_parkable=False), FakeCall(session)
    assert (await enter(attribution, listing)).done()
    assert (await enter(attribution, call)).done()
    assert (await enter(attribution, FakeCall(session, is_parkable=False))).done()


async def test_parked_calls_hold_up_nobody(attribution: Attribution, session: UpstreamSession) -> None:
    """A call that waits for its client has left; the next one begins."""
    await serialise(attribution, session)
    parked, other = FakeCall(session), FakeCall(session)
    await attribution.enter(parked, begins=True)
    attribution.leave(parked)
    assert (await enter(attribution, other)).done()


async def test_resumed_calls_wait_for_nobody(attribution: Attribution, session: UpstreamSession) -> None:
    """A call that comes back with answers goes on at once: the one that runs may need those answers."""
    await serialise(attribution, session)
    running, resumed, third = FakeCall(session), FakeCall(session), FakeCall(session)
    await attribution.enter(running, begins=True)
    waiting = await enter(attribution, third)
    async with asyncio.timeout(1):
        await attribution.enter(resumed, begins=False)
    attribution.leave(running)
    await settle()
    assert not waiting.done()  # one still runs
    attribution.leave(resumed)
    await settle()
    assert waiting.done()


async def test_cancelled_while_waiting(attribution: Attribution, session: UpstreamSession) -> None:
    """A call whose client leaves before its turn is skipped."""
    await serialise(attribution, session)
    running, gone, next_one = FakeCall(session), FakeCall(session), FakeCall(session)
    await attribution.enter(running, begins=True)
    cancelled = await enter(attribution, gone)
    waiting = await enter(attribution, next_one)
    cancelled.cancel()
    await settle()
    attribution.leave(running)
    await settle()
    assert waiting.done()
    assert attribution.take_request(session, QUESTION)
    assert (gone.delivered, next_one.delivered) == ([], [QUESTION])


async def test_cancelled_in_the_step_of_its_turn(attribution: Attribution, session: UpstreamSession) -> None:
    """A call whose client leaves just as its turn comes passes the turn on."""
    await serialise(attribution, session)
    running, gone, next_one = FakeCall(session), FakeCall(session), FakeCall(session)
    await attribution.enter(running, begins=True)
    cancelled = await enter(attribution, gone)
    waiting = await enter(attribution, next_one)
    attribution.leave(running)
    cancelled.cancel()
    await settle()
    assert cancelled.cancelled()
    assert waiting.done()
    assert attribution.take_request(session, QUESTION)
    assert next_one.delivered == [QUESTION]


# -- notifications ---------------------------------------------------------------------------------


async def test_calls_of_different_respondents(attribution: Attribution, session: UpstreamSession) -> None:
    """The server knows the roots of one client at a time: another's call waits, the client's own do not."""
    session.record.roots.wanted = True
    mine, mine_too, theirs = (FakeCall(session, respondent=name) for name in ("me", "me", "you"))
    for call in (mine, mine_too):
        assert (await enter(attribution, call)).done()
    waiting = await enter(attribution, theirs)
    assert not waiting.done()
    attribution.leave(mine)
    await settle()
    assert not waiting.done()
    attribution.leave(mine_too)
    await settle()
    assert waiting.done()


async def test_a_server_that_asks_for_no_roots(attribution: Attribution, session: UpstreamSession) -> None:
    """It knows nobody's, so calls of all clients run together until it asks."""
    mine, theirs, another = (FakeCall(session, respondent=name) for name in ("me", "you", "she"))
    for call in (mine, theirs):
        assert (await enter(attribution, call)).done()
    session.record.roots.asked(b"1")
    waiting = await enter(attribution, another)
    assert not waiting.done()
    attribution.leave(mine)
    attribution.leave(theirs)
    await settle()
    assert waiting.done()


@pytest.mark.looptime
async def test_another_respondent_s_long_call(attribution: Attribution, session: UpstreamSession) -> None:
    """It is not waited for without end."""
    session.record.roots.wanted = True
    mine, theirs = (FakeCall(session, respondent=name) for name in ("me", "you"))
    await enter(attribution, mine)
    waiting = await enter(attribution, theirs)
    await asyncio.sleep(9)
    assert not waiting.done()
    await asyncio.sleep(1)
    await settle()
    assert waiting.done()
    attribution.leave(theirs)
    attribution.leave(mine)
    assert (await enter(attribution, FakeCall(session, respondent="you"))).done()


async def test_roots_are_asked_of_the_respondent(attribution: Attribution, session: UpstreamSession) -> None:
    """A question about roots goes to the call whose client is being introduced."""
    mine, theirs = (FakeCall(session, respondent=name) for name in ("me", "you"))
    await enter(attribution, mine)
    entering = await enter(attribution, theirs)
    await asyncio.sleep(11)  # it comes in though the other one runs, since that takes too long
    await settle()
    assert entering.done()
    session.record.roots.respondent = "you"
    assert attribution.take_request(session, Request(b"1", revisions.LIST_ROOTS))
    assert (len(mine.delivered), len(theirs.delivered)) == (0, 1)


async def test_log_messages_of_the_only_call(attribution: Attribution, session: UpstreamSession) -> None:
    """A log message on the GET stream belongs to the call that runs, if there is exactly one."""
    attribution.take_notification(session, LOG)
    call, other = FakeCall(session), FakeCall(session)
    await attribution.enter(call, begins=True)
    attribution.take_notification(session, LOG)
    await settle()
    assert call.notified == [LOG]
    await attribution.enter(other, begins=True)
    attribution.take_notification(session, LOG)
    attribution.take_notification(session, Notification(revisions.TOOLS_CHANGED))
    await settle()
    assert (call.notified, other.notified) == ([LOG], [])


async def test_visits(attribution: Attribution, session: UpstreamSession) -> None:
    """A call that waits for a visit goes on when the server says that it was made."""
    waiting = asyncio.create_task(attribution.completion(session, "a", 30))
    await settle()
    attribution.take_notification(session, completed("b"))
    await settle()
    assert not waiting.done()
    attribution.take_notification(session, completed("a"))
    await settle()
    assert waiting.done()


async def test_visits_made_before(attribution: Attribution, session: UpstreamSession) -> None:
    """A visit that was made before anybody asked for it needs no waiting."""
    attribution.take_notification(session, completed("a"))
    async with asyncio.timeout(0.01):
        await attribution.completion(session, "a", 30)


async def test_visits_that_the_server_never_confirms(
    attribution: Attribution, session: UpstreamSession, looptime: Any
) -> None:
    """Servers need not tell; after a while the call is tried without."""
    await attribution.completion(session, "a", 30)
    assert looptime == 30


async def test_visits_of_other_sessions(
    attribution: Attribution, session: UpstreamSession, looptime: Any
) -> None:
    """What one session completes says nothing about another's."""
    attribution.take_notification(make_session(FakeServer()), completed("a"))
    await attribution.completion(session, "a", 3)
    assert looptime == 3


@pytest.mark.parametrize("identifier", [None, 3, ["a"]])
async def test_odd_completions(
    attribution: Attribution, session: UpstreamSession, identifier: object
) -> None:
    """A completion that names nothing is nothing."""
    attribution.take_notification(session, completed(identifier))
    attribution.take_notification(session, Notification(revisions.ELICITATION_COMPLETE))


async def test_two_wait_for_one_visit(attribution: Attribution, session: UpstreamSession) -> None:
    """Both calls that wait for the same visit go on."""
    both = [asyncio.create_task(attribution.completion(session, "a", 30)) for _ in range(2)]
    await settle()
    attribution.take_notification(session, completed("a"))
    async with asyncio.timeout(1):
        await asyncio.gather(*both)


async def test_of_two_that_wait_for_one_url_the_second_outlasts_the_first(
    attribution: Attribution, session: UpstreamSession
) -> None:
    """One that gives up takes nobody along: the other hears that the URL was visited."""
    hasty = asyncio.create_task(attribution.completion(session, "a", 3))
    patient = asyncio.create_task(attribution.completion(session, "a", 30))
    await hasty
    attribution.take_notification(session, completed("a"))
    await patient
    assert asyncio.get_running_loop().time() == pytest.approx(3)
