"""One task at a server of 2025-11-25, followed until it is over, for a client that may know nothing of it.

Servers need not tell how a task stands, so they are asked (``tasks/get``), as often as they want to be; where
they tell, that is believed at once. Some ask the client on ``tasks/result``, which is opened for that as soon
as a task needs input; others refuse it until the task is over, and ask on the standalone stream
(basic/utilities/tasks, "Input Required Status").
"""

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from ..aio import Signal
from ..backoff import Backoff
from ..bounds import FAILING_SECONDS, UNKNOWN_TASKS
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
from .outlet import Outlet

_OWN_ID: Final = b"0"  # never sent: every exchange gets an id that is unique upstream
# How often a server is asked that does not say how often it wants to be; one that does is kept to these.
_UNTOLD: Final = Backoff(0.2, 2.0)
_LEAST_POLL_SECONDS: Final = 0.1
_MOST_POLL_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 5.0
_ABOUT_THE_CALLER: Final = frozenset({401, 403, 429})
# How long after its answer a call may take to become a task here; and a question that none takes is held.
ADOPTION_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 10.0
LOST: Final = "The MCP server lost the session that this task ran in. It may or may not have been executed."
FORGOTTEN: Final = "The MCP server does not know this task any more. It may or may not have been executed."


@dataclass(slots=True)
class _Foreword:
    """What a server has said of a task before it has said that there is one: what last, what it wants to ask,
    and what it has asked since.
    """

    told: LegacyTask
    announced: LegacyTask | None = None
    questions: list[Request] = field(default_factory=list)


class Followed:
    """The tasks that are followed, by session and by their ids there: whose a message of a server is."""

    def __init__(self) -> None:
        self._tasks: WeakKeyDictionary[UpstreamSession, dict[str, UpstreamTask]] = WeakKeyDictionary()
        # The answer that says that there is a task comes on another stream than what is told of it.
        self._early: WeakKeyDictionary[UpstreamSession, OrderedDict[str, _Foreword]] = WeakKeyDictionary()
        self._expected_until: WeakKeyDictionary[UpstreamSession, float] = WeakKeyDictionary()

    def expect(self, session: UpstreamSession, seconds: float = math.inf) -> None:
        """A task of ours may begin in this session within this time."""
        self._expected_until[session] = asyncio.get_running_loop().time() + seconds

    def add(self, task: "UpstreamTask") -> None:
        """Let a task hear what its server says of it."""
        self._tasks.setdefault(task.session, {})[task.task.id] = task
        early = self._early.get(task.session, OrderedDict()).pop(task.task.id, None)
        if early is None:
            return
        for told in (early.announced, early.told):
            if told is not None:
                task.note(told)
        for request in early.questions:
            task.deliver(request)
        early.questions.clear()

    def remove(self, task: "UpstreamTask") -> None:
        """It is over."""
        here = self._tasks.get(task.session, {})
        if here.get(task.task.id) is task:
            del here[task.task.id]

    def take_status(self, session: UpstreamSession, params: bytes | None) -> None:
        """A server tells how one of its tasks stands."""
        told = tasks.read_task(params)
        if told is None:
            return
        task = self._tasks.get(session, {}).get(told.id)
        if task is not None:
            task.note(told)
            return
        all_early = self._early.setdefault(session, OrderedDict())
        early = all_early.setdefault(told.id, _Foreword(told))
        early.told = told
        if told.status is TaskStatus.INPUT_REQUIRED:
            early.announced = told
        if len(all_early) > UNKNOWN_TASKS:
            _, oldest = all_early.popitem(last=False)
            _refuse_all(session, oldest)

    def take_request(self, session: UpstreamSession, request: Request) -> bool:
        """A server asks on its standalone stream: give it to the task that it belongs to, if it says so.

        Some say no more than that a task needs input, and then ask.
        """
        here = self._tasks.get(session, {})
        if not here and session not in self._early:
            return False
        named = tasks.related_task(request.params)
        if named is not None:
            task = here.get(named)
        elif request.method == revisions.LIST_ROOTS:
            return False  # asked of a client whenever its roots may have changed
        else:
            text = jsonrpc.read_string(jsonrpc.read_object(request.params).get("message"))
            task = next((each for each in here.values() if each.has_announced(text)), None)
            if task is None and self._hold(session, text, request):
                return True
            task = task or next((each for each in here.values() if each.is_about_to_ask), None)
        if task is None:
            return False
        task.deliver(request)
        return True

    def _hold(self, session: UpstreamSession, text: str | None, request: Request) -> bool:
        """Keep a question for the task that it was announced for, if that is only about to be known."""
        loop = asyncio.get_running_loop()
        if text is None or self._expected_until.get(session, 0.0) < loop.time():
            return False
        for early in self._early.get(session, {}).values():
            if early.announced is not None and early.announced.message == text:
                early.announced = None
                early.questions.append(request)
                loop.call_later(_HELD_SECONDS, _refuse_all, session, early)
                return True
        return False

    def take_stray_request(self, session: UpstreamSession, request: Request) -> bool:
        """The same for a request that no call takes: it is any task's."""
        task = next(iter(self._tasks.get(session, {}).values()), None)
        if task is None:
            return False
        task.deliver(request)
        return True


class UpstreamTask:
    """One task. ``outlet`` is its client's side, which is asked; ``task`` is what was said of it last.

    ``visit`` is for as long as it is followed; whoever had it made ends that. ``on_change`` is told of each
    change. Implements ``outlet.Outlet`` for the requests about it.
    """

    def __init__(
        self,
        task: LegacyTask,
        visit: Visit,
        outlet: Outlet,
        *,
        followed: Followed,
        observe: Observer,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.task = task
        self.session = visit.session
        self.checked_at = self._now()
        self._incarnation = visit.session.incarnation
        self._visit = visit
        self._outlet = outlet
        self._followed = followed
        self._observe = observe
        self._on_change = on_change
        self._news = Signal()
        self._changes = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Response | None] | None = None  # of ``tasks/result``, before the end
        self._may_read = True
        self._asks = False
        self._announced: str | None = None
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

    async def follow(self) -> TaskOutcome:
        """How it has ended. What the server asks meanwhile goes to the outlet. Raises nothing but
        a cancellation, of which the server hears nothing.
        """
        self._followed.add(self)
        pause_seconds = 0.0
        try:
            while True:
                if self._trouble is not None:
                    return self._trouble
                if self.task.status.is_final:
                    return await self._result()
                if self._reading is not None and self._reading.done():
                    if (outcome := await self._read_early()) is not None:
                        return outcome
                    continue
                if self.task.status is TaskStatus.INPUT_REQUIRED and self._reading is None and self._may_read:
                    self._reading = asyncio.create_task(self._inquire(revisions.TASK_RESULT))
                    self._reading.add_done_callback(self._news.give)
                pause_seconds = self.poll_seconds or _UNTOLD.after(pause_seconds)
                if not await self._something_happens(pause_seconds):
                    await self.refresh()
        finally:
            self._followed.remove(self)
            for task in (self._reading, self._refreshing):
                if task is not None:
                    task.cancel()

    async def _something_happens(self, seconds: float) -> bool:
        """Wait for news, and no longer than this; gives whether there are any."""
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
        assert self._reading is not None
        response, self._reading = self._reading.result(), None
        self._may_read = False
        await self.refresh()
        if self._trouble is not None:
            return self._trouble
        if response is None:
            return None
        if self.task.status.is_final:
            return tasks.judge(self.task, response)
        if response.result is None:
            return None  # it is opened again when the task stands otherwise
        # A result is one, whatever the server says of the task.
        return tasks.judge(self.task._replace(status=TaskStatus.COMPLETED), response)

    async def _result(self) -> TaskOutcome:
        """The result of a task that is over, or why there is none."""
        if self.task.status is TaskStatus.CANCELLED:
            return TaskOutcome(TaskStatus.CANCELLED, message=self.task.message)
        pause_seconds = 0.0
        while self._trouble is None:
            if self._reading is None:
                response = await self._inquire(revisions.TASK_RESULT)
            else:
                response, self._reading = await self._reading, None
                if response is not None and response.result is None:
                    continue  # it was asked for before the end, which some servers refuse
            if response is not None and response.error is not None and self._is_elsewhere:
                return tasks.failed(tasks.write_error(LOST))
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
            self._may_read = True
        self._asks = told.status is TaskStatus.INPUT_REQUIRED
        if self._asks:
            self._announced = told.message
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
            self._end(tasks.failed(tasks.write_error(LOST if self._is_elsewhere else FORGOTTEN)))
        else:
            self._failed("The MCP server does not say how the task stands.")

    def _is_unknown(self, error: bytes) -> bool:
        """Whether the server means that there is no such task; one that has lost its session may say so in
        any words.
        """
        return jsonrpc.read_error(error).code == INVALID_PARAMS or self._is_elsewhere

    async def _inquire(self, method: str) -> Response | None:
        """The response to a request about this task; None where there is none, which is noted."""
        request = Request(_OWN_ID, method, tasks.name_task(self.task.id))
        exchange = Exchange(request, None, self._visit, self, self._observe)
        # Those of whoever has called last: a task may outlive the token that it was begun with.
        exchange.caller = self.session.record.credentials
        try:
            return await exchange.run()
        except SessionLost:
            self._end(tasks.failed(tasks.write_error(LOST)))
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
        """Nothing begins by the requests about a task."""

    async def notify(self, *messages: Notification) -> None:
        """Pass on what the server tells meanwhile; how the task stands is for us."""
        others = [message for message in messages if message.method != revisions.TASK_STATUS]
        for message in messages:
            if message.method == revisions.TASK_STATUS:
                self._followed.take_status(self.session, message.params)
        if others:
            await self._outlet.notify(*others)

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Have the client asked, as if no task was involved."""
        self._asks, self._announced = False, None
        params = tasks.without_related_task(request.params)
        await self._outlet.ask(session, Request(request.id, request.method, params))

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """What a task has come to is looked at first."""
        return False

    def deliver(self, request: Request) -> None:
        """Take a question that came on the standalone stream."""
        self._asks, self._announced = False, None
        self.session.spawn(self.ask(self.session, request), "question of a task")

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


def _refuse_all(session: UpstreamSession, early: _Foreword) -> None:
    """Nobody will answer what was asked in the course of this."""
    for request in early.questions:
        refuse_request(session, request)
    early.questions.clear()


def unknown_outcome(outcome: TaskOutcome) -> OutcomeUnknown | None:
    """The error of ours that a task has ended in, if it is one that may have been executed."""
    message = None if outcome.payload is None else jsonrpc.read_error(outcome.payload).message
    return OutcomeUnknown(message) if message in (LOST, FORGOTTEN) else None
