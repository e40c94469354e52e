"""What a client's handle of a task stands for: how the task stands, what it asks, what it has come to.

Clients of the extension ask by the id (``tasks/get``), answer what they are asked (``tasks/update``) and may
give a task up (``tasks/cancel``); who listens is told of each change. What carries the task out is one of
two: a task of the server's own (``legacy_handle``), or a call that has taken long (``late_call``).
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from ..errors import INTERNAL_ERROR, InvalidParams, OverBudget
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc, lifting, questions, tasks
from ..protocol.lifting import ServerFacts
from ..protocol.tasks import TaskOutcome, TaskState, TaskStatus
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from .listening import Listener

_ID_BYTES: Final = 18  # 144 bits: nobody finds another one's by trying
_NO_ROOM: Final = (
    "The task was carried out, but its result was dropped: there is no room for it in its share of "
    "--memory-budget."
)


def now_as_text() -> str:
    """This moment, as tasks tell times (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Handle(ABC):
    """A task of one principal. ``on_change`` is told of each change, ``on_note`` when another process would
    need to know something else to go on with it; neither may block.

    ``facts`` are of the server that carries it out; ``results`` is what results that are kept take.
    """

    kind: str
    """What carries it out, as events name it."""

    def __init__(
        self,
        *,
        principal: str,
        session: UpstreamSession | None,
        ttl_milliseconds: int | None,
        results: Share = UNBOUNDED,
    ) -> None:
        self.id = secrets.token_urlsafe(_ID_BYTES)
        self.principal = principal
        self.session = session
        self.facts = ServerFacts(None, {}, None) if session is None else session.incarnation.facts
        self.created_at = self.updated_at = now_as_text()
        self.began = self._now()
        self.ttl_milliseconds = ttl_milliseconds
        self.poll_milliseconds: int | None = None
        self.message: str | None = None
        self.outcome: TaskOutcome | None = None
        # The same, and when, before anybody may know: that has to be as certain as it is to be told.
        self.ending: tuple[TaskOutcome, str] | None = None
        self.listeners: dict[Listener, None] = {}
        self.on_change: Callable[[Handle], None] = lambda _: None
        self.on_note: Callable[[Handle], None] = lambda _: None
        self.noted: object = None  # what is to be written of it; None once it is
        self._results = results
        self._room: Loan | None = None
        self._shown: object = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:4]}>"

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def tag(self) -> str:
        """The tag of its upstream session; a dash where that is gone."""
        return "-" if self.session is None else self.session.tag

    def come(self, caller: Caller) -> None:
        """Its client is here: it may go on for longer than the token is good that it was begun with."""
        if self.session is not None:
            self.session.record.credentials = caller.credentials

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def status(self) -> TaskStatus:
        """How it stands for its client: it needs input only where there is a question to be answered."""
        if self.outcome is not None:
            return self.outcome.status
        return TaskStatus.INPUT_REQUIRED if self.asked else TaskStatus.WORKING

    @property
    @abstractmethod
    def asked(self) -> Mapping[str, bytes]:
        """What the client is asked, by key, as raw ``InputRequest`` objects."""

    @property
    def state(self) -> TaskState:
        """All that its client may hear of it."""
        if self.outcome is not None:
            detail = self.outcome.payload
        else:
            detail = jsonrpc.write_object(asked) if (asked := self.asked) else None
        return TaskState(
            self.id,
            self.status,
            self.message,
            self.created_at,
            self.updated_at,
            self.ttl_milliseconds,
            self.poll_milliseconds,
            detail,
        )

    @abstractmethod
    async def run(self) -> TaskOutcome:
        """Carry it out to its end. Cancelling this leaves it behind: the server is not told."""

    @abstractmethod
    async def look(self) -> None:
        """Find out how it stands, where that is not known as it happens."""

    def _show(self) -> tuple[TaskStatus, str | None, tuple[str, ...]]:
        """What of it a client may see change."""
        return self.status, self.message, tuple(self.asked)

    def changed(self) -> None:
        """Something has happened: tell of it, if its client can see that."""
        shown = self._show()
        if shown != self._shown:
            self._shown = shown
            self.updated_at = now_as_text()
            self.on_change(self)

    def end(self, outcome: TaskOutcome) -> None:
        """It has ended so, now. What comes later changes nothing; its client hears of it with ``settle``."""
        self.ending = self._lift(outcome), now_as_text()

    def _lift(self, outcome: TaskOutcome) -> TaskOutcome:
        """How it has ended, in the words of its client's revision, if there is room to keep that."""
        try:
            self._room = self._results.lend(len(outcome.payload or b""))
        except OverBudget:
            outcome = tasks.failed(tasks.write_error(_NO_ROOM))
        if outcome.status is TaskStatus.FAILED and outcome.payload is not None:
            return outcome._replace(payload=lifting.lift_error(outcome.payload, {}).raw)
        if outcome.status is TaskStatus.COMPLETED:
            # It is what the call would have been answered with.
            return outcome._replace(payload=lifting.lift_result(outcome.payload or b"{}", self.facts, None))
        return outcome

    def settle(self) -> None:
        """Its client may hear that it has ended."""
        assert self.ending is not None
        self.outcome, self.updated_at = self.ending
        self.message = self.outcome.message
        self._shown = self._show()
        self.on_change(self)

    def go_on_as(self, identifier: str, created_at: str, updated_at: str, age_seconds: float) -> None:
        """It is the task of this id, which a process before this one has given its client."""
        self.id, self.created_at = identifier, created_at
        self.updated_at = updated_at or self.updated_at
        self.began -= age_seconds
        self._shown = self._show()

    async def pause(self) -> None:  # noqa: B027
        """Another process is about to go on with it: what the server says between the two is to be kept."""

    def leave_to_others(self) -> None:  # noqa: B027 - most say nothing to a server when they end here
        """Another process may go on with it: what ends here is not for the server to hear of."""

    # -- what its client does ------------------------------------------------------------------------

    def check_answers(self, answers: Mapping[str, bytes]) -> None:
        """Refuse answers (raw, by key) that have not the form of their question's.

        Raises:
            InvalidParams: one has not; none is given.
        """
        for key, method in self.methods_asked.items():
            if key in answers and not questions.is_fit_answer(method, answers[key]):
                raise InvalidParams(f"The answer {key[:100]!r} does not have the form of a {method} result.")

    @property
    @abstractmethod
    def methods_asked(self) -> Mapping[str, str]:
        """The methods of the questions, by key."""

    @abstractmethod
    async def answer(self, answers: Mapping[str, bytes], caller: Caller) -> None:
        """Give the server its client's answers; those to nothing are dropped."""

    @abstractmethod
    async def cancel(self) -> None:
        """Its client does not want it any more."""

    async def abandon(self) -> None:
        """Nobody will ask for it any more."""
        await self.cancel()

    def leave(self) -> None:
        """It is forgotten: whatever is held for it is let go."""
        for listener in self.listeners:
            listener.notice()
        self.listeners.clear()


class PastTask(Handle):
    """A task from before a restart of which only the end is known. ``info`` is how its server calls itself.

    ``is_old`` if it had ended before, so that its end has been told of.
    """

    def __init__(
        self,
        kind: str,
        *,
        principal: str,
        ttl_milliseconds: int | None,
        info: bytes | None,
        is_old: bool,
        results: Share = UNBOUNDED,
    ) -> None:
        super().__init__(
            principal=principal, session=None, ttl_milliseconds=ttl_milliseconds, results=results
        )
        self.kind = kind
        self.is_old = is_old
        self.facts = ServerFacts(info, {}, None)

    @property
    def asked(self) -> Mapping[str, bytes]:
        """Nothing any more."""
        return {}

    @property
    def methods_asked(self) -> Mapping[str, str]:
        """Nothing any more."""
        return {}

    async def run(self) -> TaskOutcome:
        """It is over."""
        assert self.outcome is not None
        return self.outcome

    async def look(self) -> None:
        """There is nothing to be found out."""

    async def answer(self, answers: Mapping[str, bytes], caller: Caller) -> None:
        """Nothing was asked."""

    async def cancel(self) -> None:
        """It is over."""


def failure(code: int, message: str) -> TaskOutcome:
    """A task that has ended in an error of ours."""
    error = {"code": b"%d" % (code or INTERNAL_ERROR), "message": jsonrpc.quote(message)}
    return tasks.failed(jsonrpc.write_object(error))
