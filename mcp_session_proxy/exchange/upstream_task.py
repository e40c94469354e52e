"""One task at a server of 2025-11-25, followed until it is over, for a client that may know nothing of it.

Servers need not tell how a task stands, so they are asked (``tasks/get``), as often as they want to be; where
they tell, that is believed at once. Some ask the client on ``tasks/result``, which is opened for that as soon
as a task needs input; others refuse it until the task is over, and ask on the standalone stream
(basic/utilities/tasks, "Input Required Status").
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Final

import msgspec

from ..aio import Signal, Tasks
from ..backoff import Backoff
from ..bounds import FAILING_SECONDS
from ..errors import INVALID_PARAMS, OutcomeUnknown, ProxyError, SessionLost, UpstreamRejected
from ..events import Observer
from ..protocol import jsonrpc, revisions, tasks
from ..protocol.jsonrpc import Notification, Request, Response
from ..protocol.tasks import LegacyTask, TaskOutcome, TaskStatus
from ..sessions.binding import Visit
from ..upstream.question import refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult
from .exchange import Exchange
from .inquiry import OWN_ID, OwnExchange
from .outlet import Outlet
from .result_stream import Reading, ResultExchange, ResultPlace

# How often a server is asked that does not say how often it wants to be; one that does is kept to these.
_UNTOLD: Final = Backoff(0.2, 2.0)
_LEAST_POLL_SECONDS: Final = 0.1
_MOST_POLL_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 5.0
_ABOUT_THE_CALLER: Final = frozenset({401, 403, 429})
# Questions of the standalone stream that are on their way to the client.
_MAX_DELIVERIES: Final = 100
# What a server has asked before a restart, and nobody knows any more, it may ask again within this time.
_DUE_SECONDS: Final = 10.0
LOST: Final = "The MCP server lost the session that this task ran in. It may or may not have been executed."
FORGOTTEN: Final = "The MCP server does not know this task any more. It may or may not have been executed."
QUESTION_LOST: Final = (
    "The MCP server waits for an answer to what it asked before the proxy was restarted, and that is lost. "
    "The task was cancelled. It may or may not have been executed."
)


class FollowedBefore(msgspec.Struct):
    """What is known of a task that a process before this one has followed, until the server has said more.

    ``reading`` is where that was in ``tasks/result``. ``knows_no_question``: if the server waits for an
    answer, nobody knows to what, and that is waited for until ``due_until``, on the clock of the loop.
    """

    reading: ResultPlace | None
    knows_no_question: bool
    due_until: float = math.inf

    def waits(self, now: float) -> None:
        """The server waits for an answer."""
        if self.knows_no_question and self.due_until == math.inf:
            self.due_until = now + _DUE_SECONDS


class UpstreamTask:
    """One task. ``outlet`` is the side of its client, which is asked; ``task`` is what the server said last.

    ``visit`` holds the session while the task is followed; the code that made the task ends it.
    ``take_status`` gets what the server says, in answers about this task, of the state of any task.
    ``reading`` is the request ``tasks/result`` as long as the task is not over. ``on_change`` is called at
    each change, and ``on_place`` when another process could go on with ``tasks/result`` from a new place.
    Implements ``outlet.Outlet`` for the requests about the task.
    """

    asks = None  # it is the request that began the task that has a client

    def __init__(
        self,
        task: LegacyTask,
        visit: Visit,
        outlet: Outlet,
        *,
        take_status: Callable[[UpstreamSession, bytes | None], None],
        observe: Observer,
        on_change: Callable[[], None] = lambda: None,
        on_place: Callable[[], None] = lambda: None,
        before: FollowedBefore | None = None,
    ) -> None:
        self.task = task
        self.session = visit.session
        self.checked_at = self._now()
        self._incarnation = visit.session.incarnation
        self._visit = visit
        self._outlet = outlet
        self._take_status = take_status
        self._observe = observe
        self._on_change = on_change
        self._on_place = on_place
        self._news = Signal()
        self._refreshing: asyncio.Task[None] | None = None
        self.reading = Reading(None if before is None else before.reading)
        self._deliveries = Tasks()
        self._asks = False
        self._announced: str | None = None
        self._before = before  # until the server has asked since, or waits for nothing
        self._failing_since: float | None = None
        self._trouble: TaskOutcome | None = None

    def __repr__(self) -> str:
        return f"<UpstreamTask {self.task.id} {self.task.status}>"

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def is_about_to_ask(self) -> bool:
        """Whether the server has said that the task needs input, and has not asked since."""
        return self._asks

    def has_announced(self, text: str | None) -> bool:
        """Whether the server has said that it will ask this. FastMCP does, but may tell of other things
        before it asks.
        """
        return text is not None and text == self._announced

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the session that the task runs in was lost, and is another one by now."""
        return self.session.incarnation is not self._incarnation

    @property
    def poll_seconds(self) -> float | None:
        """How long the server wants us to wait before it is asked again; None if it has not said."""
        poll = self.task.poll_milliseconds
        return None if poll is None else min(max(poll / 1000, _LEAST_POLL_SECONDS), _MOST_POLL_SECONDS)

    # -- until it is over ------------------------------------------------------------------------

    async def run(self) -> TaskOutcome:
        """How it has ended. What the server asks meanwhile goes to the outlet. Raises nothing but
        a cancellation, of which the server hears nothing.

        Only ``Followed.follow`` calls this: it lets the task hear what comes on the standalone stream.
        """
        pause_seconds = 0.0
        try:
            if self._before is not None:
                await self.refresh()
            while True:
                if self._trouble is not None:
                    return self._trouble
                if self.task.status.is_final:
                    return await self._result()
                if self._before is not None and self._now() >= self._before.due_until:
                    await self.cancel()
                    return unknown(QUESTION_LOST)
                if self.reading.is_over:
                    if (outcome := await self._read_early()) is not None:
                        return outcome
                    continue
                if self.reading.is_wanted(asks=self.task.status is TaskStatus.INPUT_REQUIRED):
                    self.reading.begin(self._ask_for_result(), self._news.give)
                pause_seconds = self.poll_seconds or _UNTOLD.after(pause_seconds)
                if not await self._something_happens(pause_seconds):
                    await self.refresh()
        finally:
            self.reading.cancel()
            if self._refreshing is not None:
                self._refreshing.cancel()

    async def _something_happens(self, seconds: float) -> bool:
        """Wait for news, and no longer than this; gives whether there are any."""
        if self._before is not None:
            seconds = min(seconds, self._before.due_until - self._now())
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _read_early(self) -> TaskOutcome | None:
        """``tasks/result``, which was opened for its questions, has been answered: is that the end?

        Servers that give it only when the task is over refuse it before.
        """
        response = await self.reading.take()
        self.reading.may_begin = self.reading.is_paused
        await self.refresh()
        if self._trouble is not None:
            return self._trouble
        if response is None or response.result is None:
            # It is asked for again where the task stands otherwise, as it may by now: it was refused before.
            return None
        if self.task.status.is_final:
            return tasks.judge(self.task, response)
        # A result is one, whatever the server says of the task.
        return tasks.judge(self.task._replace(status=TaskStatus.COMPLETED), response)

    async def _result(self) -> TaskOutcome:
        """The result of a task that is over, or why there is none."""
        if self.task.status is TaskStatus.CANCELLED:
            return TaskOutcome(TaskStatus.CANCELLED, message=self.task.message)
        pause_seconds = 0.0
        while self._trouble is None:
            if not self.reading.is_under_way:
                response = await self._ask_for_result()
            else:
                response = await self.reading.take()
                if response is not None and response.result is None:
                    continue  # it was asked for before the end, which some servers refuse
            if response is not None and response.error is not None and self._is_elsewhere:
                return unknown(LOST)
            if response is not None:
                return tasks.judge(self.task, response)
            pause_seconds = _UNTOLD.after(pause_seconds)
            await asyncio.sleep(pause_seconds)
        return self._trouble

    # -- what the server says of it ----------------------------------------------------------------

    def note(self, told: LegacyTask) -> None:
        """The server has said how it stands. Nothing follows what is final."""
        former = self.task
        if former.status.is_final:
            return
        self.task = former.followed_by(told)
        self.checked_at = self._now()
        self._failing_since = None
        if told.status is not former.status:
            self.reading.may_begin = True
        self._asks = told.status is TaskStatus.INPUT_REQUIRED
        if self._asks:
            self._announced = told.message
            if self._before is not None:
                self._before.waits(self.checked_at)
        else:
            self._before = None
        if self.task != former:
            self._on_change()
            if told.status is not former.status:
                self._news.give()

    async def refresh(self) -> None:
        """Ask the server how it stands: once for all who ask at the same time. Raises nothing."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._refreshing)
            return
        # Cancelled is whoever asks, or the question because nobody follows the task any more.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    def _refreshed(self, _: asyncio.Task[None]) -> None:
        self._refreshing = None

    async def _refresh(self) -> None:
        response = await self._inquire(revisions.TASK_GET)
        if response is None:
            return
        told = tasks.read_task(response.result)
        if told is not None:
            asks = self._asks
            self.note(told._replace(id=self.task.id))
            # A server that has said so is still about to ask, though it does not say so when it is asked.
            self._asks = self._asks or (asks and not told.status.is_final)
        elif response.error is not None and self._is_unknown(response.error):
            self._end(unknown(LOST if self._is_elsewhere else FORGOTTEN))
        else:
            self._failed("The MCP server does not say how the task stands.")

    def _is_unknown(self, error: bytes) -> bool:
        """Whether the server means that there is no such task; one that has lost its session may say so in
        any words.
        """
        return jsonrpc.read_error(error).code == INVALID_PARAMS or self._is_elsewhere

    async def _ask_for_result(self) -> Response | None:
        """What ``tasks/result`` is answered, in the end; None as for ``_inquire``."""
        former = self.reading.take_former()
        request = Request(OWN_ID, revisions.TASK_RESULT, tasks.name_task(self.task.id))
        # In another session than that one the server would not know the place.
        place = None if self._is_elsewhere else former
        exchange = ResultExchange(request, self._visit, self, self._observe, place)
        self.reading.is_at(exchange)
        return await self._response_to(exchange)

    async def _inquire(self, method: str) -> Response | None:
        """The response to a request about this task; None where there is none, which is noted."""
        params = tasks.name_task(self.task.id)
        return await self._response_to(OwnExchange(method, params, self._visit, self, self._observe))

    async def _response_to(self, exchange: Exchange) -> Response | None:
        # Those of whoever has called last: a task may outlive the token that it was begun with.
        exchange.caller = self.session.record.credentials
        try:
            return await exchange.run()
        except SessionLost:
            self._end(unknown(LOST))
        except UpstreamRejected as rejected:
            # About the caller or the moment, and not the task: who comes next may bring another token.
            if rejected.upstream_status not in _ABOUT_THE_CALLER:
                self._failed(rejected.message)
        except ProxyError as error:
            self._failed(error.message)
        return None

    def _failed(self, message: str) -> None:
        """The server could not be asked, or said nonsense; if that goes on for long, the task is given up."""
        now = self._now()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= FAILING_SECONDS:
            self._end(tasks.failed(tasks.write_error(message)))

    def _end(self, outcome: TaskOutcome) -> None:
        self._trouble = outcome
        self._news.give()

    # -- what it asks ------------------------------------------------------------------------------

    async def begin(self) -> None:
        """``tasks/result`` can be gone on with from here on."""
        self._on_place()

    async def notify(self, *messages: Notification) -> None:
        """Pass on what the server tells meanwhile; how the task stands is for us."""
        others = [message for message in messages if message.method != revisions.TASK_STATUS]
        for message in messages:
            if message.method == revisions.TASK_STATUS:
                self._take_status(self.session, message.params)
        if others:
            await self._outlet.notify(*others)

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Have the client asked, as if no task was involved."""
        self._asks, self._announced = False, None
        self._before = None
        params = tasks.without_related_task(request.params)
        await self._outlet.ask(session, Request(request.id, request.method, params))

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """What a task has come to is looked at first."""
        return False

    def deliver(self, request: Request) -> None:
        """Take a question that came on the standalone stream."""
        self._asks, self._announced = False, None
        # Nothing slows a server down there that asks faster than it is answered.
        if len(self._deliveries) >= _MAX_DELIVERIES:
            refuse_request(self.session, request)
            return
        self._deliveries.keep(self.session.spawn(self.ask(self.session, request), "question of a task"))

    # -- giving it up ------------------------------------------------------------------------------

    async def cancel(self) -> None:
        """Have the server stop it; one that is over already cannot be stopped, which is no error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                response = await self._inquire(revisions.TASK_CANCEL)
                if response is None:
                    return
                told = tasks.read_task(response.result)
                if told is not None:
                    self.note(told._replace(id=self.task.id))
                else:
                    await self.refresh()


def failure_of(error: ProxyError) -> TaskOutcome:
    """A task that has ended in an error of ours, as any request would be told."""
    return tasks.failed(jsonrpc.read_object(jsonrpc.write_error(b"0", error))["error"])


def unknown(message: str) -> TaskOutcome:
    """A task that has ended, and may or may not have been executed."""
    return failure_of(OutcomeUnknown(message))


def unknown_outcome(outcome: TaskOutcome) -> OutcomeUnknown | None:
    """The error of ours that a task has ended in, if it is one that may have been executed."""
    message = None if outcome.payload is None else jsonrpc.read_error(outcome.payload).message
    return OutcomeUnknown(message) if message in (LOST, FORGOTTEN) else None
