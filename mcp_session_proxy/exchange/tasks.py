"""All tasks that clients have handles of: who may ask for which, for how long, and how many there may be.

An id is ours and says nothing: those of servers may be guessed, and are unique at one server only. It is
bound to the principal that the task was begun for; whoever else brings it is told what anybody is told who
brings one that never was, or has expired (ext-tasks, "Security Considerations").
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import msgspec

from .. import events
from ..aio import Tasks, all_of
from ..errors import InternalError, ProxyError, TooManyTasks, UnknownTask
from ..events import Observer
from ..memory import UNBOUNDED, Share
from ..protocol import revisions, tasks
from ..protocol.lifting import ServerFacts
from ..protocol.tasks import LegacyTask, TaskStatus
from ..sessions.binding import Visit
from ..sessions.stored_tasks import StoredTask
from ..upstream.question import Question
from .call import Created, ModernCall, Outcome
from .followed import Followed
from .handles import Handle, PastTask, failure
from .late_call import LateCall
from .legacy_handle import LegacyHandle
from .listening import Listener
from .stored_handles import go_on, remember_end
from .upstream_task import FollowedBefore, failure_of

# A task that is over is kept for so long at least: its client may not have asked since.
_LAST_SECONDS: Final = 60.0
# A handle waits no longer than this for its record to be stored.
_WRITE_SECONDS: Final = 2.0
# Servers have so long to take back what another process sends anew.
_PART_SECONDS: Final = 2.0


class TaskRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows. ``after_seconds`` is when a call becomes a task by itself; None for never."""

    max_tasks: int
    max_tasks_per_principal: int
    ttl_seconds: float
    after_seconds: float | None = None


class Handles:
    """The handles, by id. ``rules`` may be replaced at any time.

    Their results count against ``results``, what their clients are asked against ``questions``.
    """

    def __init__(
        self,
        rules: TaskRules,
        observe: Observer,
        *,
        followed: Followed,
        results: Share = UNBOUNDED,
        questions: Share = UNBOUNDED,
    ) -> None:
        self.rules = rules
        self._observe = observe
        self.followed = followed
        self._results = results
        self._questions = questions
        self._handles: dict[str, Handle] = {}
        self._per_principal: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._background = Tasks()
        self._closing = False
        # Where a task is noted (None once it is forgotten), by principal and id: see ``stored_handles``.
        self.note: Callable[[str, str, Handle | None], None] = lambda *_: None
        # Waits until all that was noted is written, as far as that is possible now.
        self.written: Callable[[], Awaitable[None]] | None = None
        # A visit to the upstream session of a tag, for a task from before a restart.
        self.hold: Callable[[str], Visit | None] = lambda _: None

    def __len__(self) -> int:
        return len(self._handles)

    def count_by_status(self) -> Mapping[str, int]:
        """How many stand how."""
        counted = Counter(handle.status for handle in self._handles.values())
        return {status.value: counted[status] for status in TaskStatus}

    def are_offered(self, facts: ServerFacts) -> bool:
        """Whether calls to a server of which this is known may become tasks."""
        rules = self.rules
        return rules.max_tasks > 0 and (
            rules.after_seconds is not None or tasks.runs_tasks(facts.capabilities)
        )

    # -- coming and going ----------------------------------------------------------------------------

    def check_room(self, principal: str) -> None:
        """Refuse a task before anything is begun for it.

        Raises:
            TooManyTasks: there are as many as there may be.
        """
        rules, own = self.rules, self._per_principal.get(principal, 0)
        if len(self._handles) >= rules.max_tasks or own >= rules.max_tasks_per_principal:
            raise TooManyTasks(
                "There are as many tasks as there may be. Ask for those that are over, or wait."
            )

    def adopt(
        self,
        created: LegacyTask,
        visit: Visit,
        principal: str,
        capabilities: Mapping[str, bytes],
        asked: Iterable[Question] = (),
    ) -> LegacyHandle:
        """The handle of a task that a server has begun for a client with these capabilities; the visit is
        ended with the task. ``asked`` is what the server has asked already.

        Raises:
            TooManyTasks: over a limit; the server is told to cancel it.
        """
        handle = self._make(created, visit, principal, capabilities)
        for question in asked:
            handle.keep(question)
        try:
            self.check_room(principal)
        except TooManyTasks:
            self._background.spawn(_give_up(handle, visit), "cancel a task")
            raise
        self.begin(handle)
        return handle

    def _make(
        self,
        task: LegacyTask,
        visit: Visit,
        principal: str,
        capabilities: Mapping[str, bytes],
        before: FollowedBefore | None = None,
    ) -> LegacyHandle:
        ttl_milliseconds = task.ttl_milliseconds
        if ttl_milliseconds is not None:
            ttl_milliseconds = min(ttl_milliseconds, round(self.rules.ttl_seconds * 1000))
        return LegacyHandle(
            task,
            visit,
            principal=principal,
            capabilities=capabilities,
            ttl_milliseconds=ttl_milliseconds,
            followed=self.followed,
            observe=self._observe,
            before=before,
            results=self._results,
            room_for_questions=self._questions,
        )

    def begin(self, handle: Handle) -> None:
        """From now on its client may ask for it."""
        self._handles[handle.id] = handle
        self._per_principal[handle.principal] = self._per_principal.get(handle.principal, 0) + 1
        handle.on_change, handle.on_note = self._tell, self._note
        self._expire_in(handle, self.rules.ttl_seconds)
        self._observe(events.TaskBegun(kind=handle.kind, session=handle.tag))
        self._note(handle)
        self._runs[handle.id] = self._background.spawn(self._carry_out(handle), "task")

    async def take_after(
        self, seconds: float, call: ModernCall, round_: "asyncio.Task[Outcome]", principal: str
    ) -> Outcome | Handle:
        """What a round of a call comes to within this time, or the handle of what goes on after it.

        Where there may be no more tasks, the client waits on. Cancelling this cancels the round.
        """
        try:
            await asyncio.wait([round_], timeout=seconds)
            if round_.done():
                return await round_
            self.check_room(principal)
        except TooManyTasks:
            return await round_
        except asyncio.CancelledError:
            round_.cancel()
            raise
        late = LateCall(
            call,
            round_,
            principal=principal,
            ttl_milliseconds=round(self.rules.ttl_seconds * 1000),
            results=self._results,
        )
        self.begin(late)
        await self._hand_over(late)
        return late

    async def _carry_out(self, handle: Handle) -> None:
        try:
            outcome = await handle.run()
        except ProxyError as error:
            outcome = failure_of(error)
        except Exception as error:
            self._observe(events.Crashed(where="task", error=repr(error)))
            outcome = failure(InternalError.code, "The proxy failed. Its log has the details.")
        if handle.id in self._handles and handle.outcome is None:
            handle.end(outcome)
            # What its client has heard of the end it hears from whoever comes after this process, too.
            self._note(handle)
            await self._wait_until_written()
            handle.settle()
        if handle.id not in self._handles:
            return
        if not (isinstance(handle, PastTask) and handle.is_old):
            self._observe(_end_of(handle, handle.status.value))
        ttl_seconds = self.rules.ttl_seconds
        if handle.ttl_milliseconds is not None:
            ttl_seconds = min(ttl_seconds, handle.ttl_milliseconds / 1000)
        left_seconds = handle.began + ttl_seconds - asyncio.get_running_loop().time()
        self._expire_in(handle, max(left_seconds, min(_LAST_SECONDS, self.rules.ttl_seconds)))

    def _expire_in(self, handle: Handle, seconds: float) -> None:
        if (timer := self._timers.pop(handle.id, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[handle.id] = loop.call_later(seconds, self._drop, handle, "expired")

    def _drop(self, handle: Handle, status: str) -> None:
        """Nobody may ask for it any more; one that has not ended yet ends so."""
        run = self._runs[handle.id]
        self._forget(handle)
        if handle.outcome is None:
            self._observe(_end_of(handle, status))
            self._background.spawn(_abandon(handle, run), "abandon a task")

    def _forget(self, handle: Handle) -> None:
        if self._handles.pop(handle.id, None) is None:
            return
        if not self._closing:
            self.note(handle.principal, handle.id, None)
        self._timers.pop(handle.id).cancel()
        self._runs.pop(handle.id, None)
        left = self._per_principal[handle.principal] - 1
        if left:
            self._per_principal[handle.principal] = left
        else:
            del self._per_principal[handle.principal]
        handle.leave()

    async def part(self, principal: str | None = None) -> None:
        """Before another process goes on with the tasks of a principal, or with all."""
        parting = [
            handle
            for handle in self._handles.values()
            if handle.ending is None and principal in (None, handle.principal)
        ]
        if self.written is not None and parting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PART_SECONDS):
                    await all_of(handle.pause() for handle in parting)
            for handle in parting:
                self._note(handle)

    def close(self) -> None:
        """The proxy ends: nobody can ask it for them any more. What is stored of them stays."""
        self._closing = True
        for handle in list(self._handles.values()):
            handle.leave_to_others()
            self._forget(handle)
        self._background.cancel()

    async def keep(self, created: Created, principal: str, capabilities: Mapping[str, bytes]) -> Handle:
        """The handle of a task that a call has become at its server.

        Where tasks outlive the proxy, it is not given before the task would (ext-tasks, "Task Creation"); a
        store that is away keeps nobody waiting for long.

        Raises:
            TooManyTasks: over a limit; the server is told to cancel it.
        """
        handle = self.adopt(created.task, created.visit, principal, capabilities, created.questions)
        handle.said = created.result
        await self._hand_over(handle)
        return handle

    async def _hand_over(self, handle: Handle) -> None:
        """Before a client is given a handle. One that leaves meanwhile will never ask for the task."""
        try:
            await self._wait_until_written()
        except asyncio.CancelledError:
            if handle.id in self._handles:
                self._drop(handle, "cancelled")
            raise

    def _note(self, handle: Handle) -> None:
        """What is known of it is to outlive the proxy."""
        if self.written is not None:
            handle.noted = object()
            self.note(handle.principal, handle.id, handle)

    async def make_certain(self, handle: Handle) -> None:
        """Before its client hears how it stands: what it is asked, whoever comes after asks it, too."""
        noted = handle.noted
        if noted is not None and handle.asked:
            await self._wait_until_written()
            if handle.noted is noted:
                handle.noted = None

    async def _wait_until_written(self) -> None:
        if self.written is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    await self.written()

    # -- from before a restart -----------------------------------------------------------------------

    def readmit(self, stored: StoredTask, age_seconds: float) -> bool:
        """Go on with a task from before a restart, if it is of use yet.

        A task of a server's is followed as soon as its client comes. A call that was under way is lost with
        the process that made it.
        """
        if age_seconds >= self.rules.ttl_seconds or stored.id in self._handles:
            return False
        handle = go_on(stored, self.hold, self._make) or remember_end(stored, self._results)
        handle.go_on_as(stored.id, stored.created_at, stored.updated_at, age_seconds)
        self.begin(handle)
        self._expire_in(handle, self.rules.ttl_seconds - age_seconds)
        return True

    def count_of(self, principal: str) -> int:
        """How many tasks a principal has."""
        return self._per_principal.get(principal, 0)

    def of(self, principal: str) -> list[Handle]:
        """The tasks of a principal."""
        return [handle for handle in self._handles.values() if handle.principal == principal]

    def let_go(self, principal: str) -> None:
        """Somebody else goes on with the tasks of a principal: nothing is said of that to server or store."""
        closing, self._closing = self._closing, True
        for handle in self.of(principal):
            run = self._runs[handle.id]
            handle.leave_to_others()
            self._forget(handle)
            run.cancel()
        self._closing = closing

    # -- what clients ask ----------------------------------------------------------------------------

    def find(self, identifier: str, principal: str) -> Handle:
        """The principal's task of this id.

        Raises:
            UnknownTask: it has none; whether somebody else has is not told.
        """
        handle = self._handles.get(identifier)
        if handle is None or handle.principal != principal:
            raise UnknownTask("Task not found")
        return handle

    # -- who listens ---------------------------------------------------------------------------------

    def listen(self, listener: Listener, identifiers: Iterable[str], principal: str) -> tuple[str, ...]:
        """Tell this listener of these tasks from now on; gives those that are the principal's."""
        own = [
            handle
            for identifier in identifiers
            if (handle := self._handles.get(identifier)) is not None and handle.principal == principal
        ]
        for handle in own:
            handle.listeners[listener] = None
        return tuple(handle.id for handle in own)

    def tell_now(self, listener: Listener, identifiers: Iterable[str]) -> None:
        """Tell it how these stand: what happened since its client has heard of them may have been missed."""
        for identifier in identifiers:
            if (handle := self._handles.get(identifier)) is not None:
                listener.put(revisions.TASK_NEWS, tasks.write_news(handle.state))

    def unlisten(self, listener: Listener, identifiers: Iterable[str]) -> None:
        """It has gone."""
        for identifier in identifiers:
            if (handle := self._handles.get(identifier)) is not None:
                handle.listeners.pop(listener, None)

    @staticmethod
    def _tell(handle: Handle) -> None:
        if handle.listeners:
            params = tasks.write_news(handle.state)
            for listener in handle.listeners:
                listener.put(revisions.TASK_NEWS, params)


def _end_of(handle: Handle, status: str) -> events.TaskEnded:
    seconds = asyncio.get_running_loop().time() - handle.began
    return events.TaskEnded(kind=handle.kind, status=status, session=handle.tag, seconds=seconds)


async def _abandon(handle: Handle, run: "asyncio.Task[None]") -> None:
    """Nobody can ask for it any more, so nobody wants it."""
    await handle.abandon()
    run.cancel()


async def _give_up(handle: LegacyHandle, visit: Visit) -> None:
    with visit:
        await handle.abandon()
