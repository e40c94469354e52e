"""What a client's handle of a task stands for: how the task stands, what it asks, what it has come to.

Clients of the extension ask by the id (``tasks/get``), answer what they are asked (``tasks/update``) and may
give a task up (``tasks/cancel``); who listens is told of each change. What carries the task out is one of
two: a task of the server's own (``LegacyHandle``), or a call that has taken long (``late_call``).
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from ..bounds import QUESTIONS_A_CALL, QUESTIONS_A_TASK
from ..errors import INTERNAL_ERROR, InvalidParams, OverBudget, ProxyError
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc, lifting, questions, tasks
from ..protocol.jsonrpc import Notification, Request, Response
from ..protocol.lifting import ServerFacts
from ..protocol.tasks import TaskOutcome, TaskState, TaskStatus
from ..sessions.binding import Visit
from ..upstream.question import NO_MEMORY, TOO_MANY, UNABLE, Question, refuse_in_turn, refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult, Caller
from .listening import Listener
from .upstream_task import UpstreamTask

_ID_BYTES: Final = 18  # 144 bits: nobody finds another one's by trying
# What was heard of a task is told again for so long, or for the time in which its server wants no question.
_FRESH_SECONDS: Final = 1.0
NO_FACTS: Final = ServerFacts(None, {}, None)
_NO_ROOM: Final = (
    "The task was carried out, but its result was dropped: there is no room for it in its share of "
    "--memory-budget."
)


def now_as_text() -> str:
    """This moment, as tasks tell times (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Handle(ABC):
    """A task of one principal. ``on_change`` is told of each change, and must not block.

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
        self.facts = NO_FACTS if session is None else session.incarnation.facts
        self.created_at = self.updated_at = now_as_text()
        self.began = self._now()
        self.ttl_milliseconds = ttl_milliseconds
        self.poll_milliseconds: int | None = None
        self.message: str | None = None
        self.outcome: TaskOutcome | None = None
        self.listeners: dict[Listener, None] = {}
        self.on_change: Callable[[Handle], None] = lambda _: None
        self._results = results
        self._room: Loan | None = None
        self._shown: object = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"

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

    def changed(self) -> None:
        """Something has happened: tell of it, if its client can see that."""
        shown = (self.status, self.message, tuple(self.asked))
        if shown != self._shown:
            self._shown = shown
            self.updated_at = now_as_text()
            self.on_change(self)

    def settle(self, outcome: TaskOutcome) -> None:
        """It has ended so. What comes later changes nothing."""
        if self.outcome is not None:
            return
        try:
            self._room = self._results.lend(len(outcome.payload or b""))
        except OverBudget:
            outcome = tasks.failed(tasks.write_error(_NO_ROOM))
        if outcome.status is TaskStatus.FAILED and outcome.payload is not None:
            outcome = outcome._replace(payload=lifting.lift_error(outcome.payload, {}).raw)
        if outcome.status is TaskStatus.COMPLETED:
            # It is what the call would have been answered with, in the words of its client's revision.
            result = lifting.lift_result(outcome.payload or b"{}", self.facts, None)
            outcome = outcome._replace(payload=result)
        self.outcome = outcome
        self.message = outcome.message
        self.changed()

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

    def leave(self) -> None:
        """It is forgotten: whatever is held for it is let go."""
        for listener in self.listeners:
            listener.notice()
        self.listeners.clear()


class LegacyHandle(Handle):
    """A task of the server's own. Implements ``outlet.Outlet`` for what the server says in its course.

    ``visit`` holds the session, and is ended with the task. ``capabilities`` are its client's.
    """

    kind = "server"

    def __init__(
        self,
        visit: Visit,
        *,
        principal: str,
        capabilities: Mapping[str, bytes],
        ttl_milliseconds: int | None,
        follow: Callable[["LegacyHandle", Visit], UpstreamTask],
        results: Share = UNBOUNDED,
        room_for_questions: Share = UNBOUNDED,
    ) -> None:
        super().__init__(
            principal=principal, session=visit.session, ttl_milliseconds=ttl_milliseconds, results=results
        )
        self._visit = visit
        self._capabilities = capabilities
        self._room_for_questions = room_for_questions
        self._pending: dict[str, Question] = {}
        self._keys: set[str] = set()
        self.upstream = follow(self, visit)
        self.said: bytes | None = None  # in answer to the call, where its client is to be told that
        self._came = asyncio.Event()
        self._came.set()
        self._take_over()
        self.changed()

    @property
    def capabilities(self) -> bytes:
        """Those of its client, raw."""
        return jsonrpc.write_object(self._capabilities)

    def await_client(self) -> None:
        """Begin nothing before its client comes, whose credentials that takes."""
        self._came.clear()

    def come(self, caller: Caller) -> None:
        """Its client is here, so it can be followed."""
        super().come(caller)
        self._came.set()

    def _take_over(self) -> None:
        """What the server says of it, for the client."""
        task = self.upstream.task
        self.created_at = task.created_at or self.created_at
        self.message = task.message
        self.poll_milliseconds = task.poll_milliseconds

    def note_change(self) -> None:
        """The server has said something of it; its end is told when there is its result, too."""
        if not self.upstream.task.status.is_final:
            self._take_over()
            self.changed()

    @property
    def asked(self) -> Mapping[str, bytes]:
        """What the server has asked and the client has not answered."""
        requests = {key: question.request for key, question in self._pending.items()}
        return {key: lifting.lift_question(r.method, r.params) for key, r in requests.items()}

    @property
    def methods_asked(self) -> Mapping[str, str]:
        """The methods of these."""
        return {key: question.request.method for key, question in self._pending.items()}

    async def run(self) -> TaskOutcome:
        """Follow it. The session is held for as long."""
        try:
            await self._came.wait()
            outcome = await self.upstream.follow()
            # Not where the proxy ends before: whoever goes on with the task may have the client asked again.
            self._let_go_of(self._pending.values())
            return outcome
        finally:
            self._pending.clear()
            self._visit.end()

    def _let_go_of(self, pending: Iterable[Question]) -> None:
        """Nobody answers these. Of a task that is over the server wants to hear nothing more: the Python
        SDK 1.x would end the whole session over it.
        """
        for question in pending:
            if self.upstream.task.status.is_final:
                question.drop()
            else:
                question.refuse()

    async def look(self) -> None:
        """Ask the server, unless it has just said so."""
        fresh_seconds = min(_FRESH_SECONDS, self.upstream.poll_seconds or _FRESH_SECONDS)
        if self.outcome is None and self._now() - self.upstream.checked_at >= fresh_seconds:
            await self.upstream.refresh()

    async def answer(self, answers: Mapping[str, bytes], caller: Caller) -> None:
        """Each under the server's own request id, once."""
        given = [
            (question, answer)
            for key, answer in answers.items()
            if (question := self._pending.pop(key, None))
        ]
        if given:
            self.changed()
        if self.upstream.task.status.is_final:
            self._let_go_of(question for question, _ in given)
            return
        for question, answer in given:
            await question.answer(Response(question.request.id, result=answer), caller)

    async def cancel(self) -> None:
        """Ask the server to stop it; whether it does is told by how the task stands."""
        # Nothing is said in the name of a client that has not come.
        if self.outcome is None and self._came.is_set():
            await self.upstream.cancel()

    # -- what the server says ------------------------------------------------------------------------

    async def begin(self) -> None:
        """There is no stream of this task's."""

    async def notify(self, *messages: Notification) -> None:
        """Progress and log messages are not told of tasks (ext-tasks, "Task Status Notifications")."""

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """What it has come to is kept."""
        return False

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Keep a question until the client, which hears of it with the task's state, has answered."""
        if self.outcome is not None or not questions.is_question(request.method):
            refuse_request(session, request)
            return
        refusal, question = None, None
        if questions.missing_capability(request.method, request.params, self._capabilities) is not None:
            refusal = UNABLE
        elif len(self._pending) >= QUESTIONS_A_CALL or len(self._keys) >= QUESTIONS_A_TASK:
            refusal = TOO_MANY
        else:
            try:
                question = Question.keep(session, request, self._room_for_questions)
            except OverBudget:
                refusal = NO_MEMORY
        if question is None:
            await refuse_in_turn(session, request, refusal or UNABLE)
            return
        self.keep(question)

    def keep(self, question: Question) -> None:
        """Have the client asked, under a key that is used for nothing else."""
        request = question.request
        key = questions.key_for(request.method, request.params, self._keys)
        self._keys.add(key)
        self._pending[key] = question
        self.changed()


class PastTask(Handle):
    """A task from before a restart of which only the end is known."""

    kind = "call"

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


def failure_of(error: ProxyError) -> TaskOutcome:
    """A task that has ended in an error of ours, as any request would be told."""
    return tasks.failed(jsonrpc.read_object(jsonrpc.write_error(b"0", error))["error"])


def failure(code: int, message: str) -> TaskOutcome:
    """A task that has ended in an error of ours."""
    error = {"code": b"%d" % (code or INTERNAL_ERROR), "message": jsonrpc.quote(message)}
    return tasks.failed(jsonrpc.write_object(error))
