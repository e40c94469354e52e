"""A handle of a task of a server's own (2025-11-25): how it stands, what it asks, how it ends."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..bounds import QUESTIONS_A_CALL, QUESTIONS_A_TASK
from ..errors import OverBudget
from ..events import Observer
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, lifting, questions
from ..protocol.jsonrpc import Notification, Request, Response
from ..protocol.tasks import LegacyTask, TaskOutcome
from ..sessions.binding import Visit
from ..upstream.question import NO_MEMORY, TOO_MANY, UNABLE, Question, refuse_in_turn, refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult, Caller
from .followed import Followed
from .handles import Handle
from .upstream_task import FollowedBefore, UpstreamTask

# What was heard of a task is told again for so long, or for the time in which its server wants no question.
_FRESH_SECONDS: Final = 1.0
# Nobody is told to ask more seldom, whatever the server says.
_MOST_POLL_MILLISECONDS: Final = 3_600_000


class LegacyHandle(Handle):
    """A task of the server's own. Implements ``outlet.Outlet`` for what the server says in its course.

    ``task`` is what was said of it last. ``visit`` holds the session, and is ended with the task.
    ``capabilities`` are its client's. ``before`` is what is known of it if another process has followed it.
    """

    kind = "server"
    asks = None  # a modern client is asked by its handle

    def __init__(
        self,
        task: LegacyTask,
        visit: Visit,
        *,
        principal: str,
        capabilities: Mapping[str, bytes],
        ttl_milliseconds: int | None,
        followed: Followed,
        observe: Observer,
        before: FollowedBefore | None = None,
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
        self._followed = followed
        self.upstream = UpstreamTask(
            task,
            visit,
            self,
            take_status=followed.take_status,
            observe=observe,
            on_change=self._note_change,
            on_place=lambda: self.on_note(self),
            before=before,
        )
        self.said: bytes | None = None  # in answer to the call, where its client is to be told that
        self._came = asyncio.Event()
        self._came.set()
        self._is_stale = False  # whether nothing has been heard of it since a restart
        # The first word counts: of some servers it is another one each time.
        self.created_at = self.upstream.task.created_at or self.created_at
        self._take_over()
        self.changed()

    @property
    def capabilities(self) -> bytes:
        """Those of its client, raw."""
        return jsonrpc.write_object(self._capabilities)

    def await_client(self) -> None:
        """Begin nothing before its client comes, whose credentials that takes."""
        self._came.clear()
        self._is_stale = True

    def come(self, caller: Caller) -> None:
        """Its client is here, so it can be followed."""
        super().come(caller)
        self._came.set()

    def _take_over(self) -> None:
        """What the server says of it, for the client."""
        task = self.upstream.task
        self.message = task.message
        poll = task.poll_milliseconds
        self.poll_milliseconds = None if poll is None else min(poll, _MOST_POLL_MILLISECONDS)

    def _note_change(self) -> None:
        """The server has said something of it; its end is told when there is its result, too."""
        if not self.upstream.task.status.is_final:
            self._take_over()
            self.changed()

    async def run(self) -> TaskOutcome:
        """Follow it. The session is held for as long."""
        try:
            await self._came.wait()
            outcome = await self._followed.follow(self.upstream)
            # Not where the proxy ends before: whoever goes on with the task may have the client asked again.
            self._let_go_of(self._pending.values())
            return outcome
        finally:
            self._pending.clear()
            self._visit.end()

    def leave_to_others(self) -> None:
        """Another process goes on with it."""
        self.upstream.reading.leave_to_others()

    async def pause(self) -> None:
        """Another process is about to go on with it."""
        await self.upstream.reading.pause()

    async def look(self) -> None:
        """Ask the server, unless it has just said so."""
        fresh_seconds = min(_FRESH_SECONDS, self.upstream.poll_seconds or _FRESH_SECONDS)
        fresh = not self._is_stale and self._now() - self.upstream.checked_at < fresh_seconds
        if self.ending is None and not fresh:
            await self.upstream.refresh()
            self._is_stale = False

    # -- what its client does ------------------------------------------------------------------------

    async def answer(self, answers: Mapping[str, bytes], caller: Caller) -> None:
        """Each under the server's own request id, once, though its client may leave meanwhile."""
        if self._is_stale:
            await self.look()  # it may be over
        given = [
            (question, answer)
            for key, answer in answers.items()
            if (question := self._pending.pop(key, None))
        ]
        if given:
            self.changed()
            await asyncio.wait(
                [self.upstream.session.spawn(self._give(given, caller), "answers of a client")]
            )

    async def _give(self, given: Sequence[tuple[Question, bytes]], caller: Caller) -> None:
        if self.upstream.task.status.is_final:
            self._let_go_of(question for question, _ in given)
        else:
            for question, answer in given:
                await question.answer(Response(question.request.id, result=answer), caller)
        # Only now: whoever goes on after this process asks the client once too often, and not never.
        self.on_note(self)

    async def cancel(self) -> None:
        """Ask the server to stop it; whether it does is told by how the task stands."""
        # Nothing is said in the name of a client that has not come.
        if self.ending is None and self._came.is_set():
            await self.upstream.cancel()

    async def abandon(self) -> None:
        """Nobody will ask for it any more: neither it nor what it asks is to be left behind."""
        await self.cancel()
        if self._came.is_set():
            self._let_go_of(self._pending.values())
        else:
            for question in self._pending.values():
                question.incarnation.calls.leave_asked(question.request.id)
        self._pending.clear()

    def _let_go_of(self, pending: Iterable[Question]) -> None:
        """Nobody answers these. Of a task that is over the server wants to hear nothing more: the Python
        SDK 1.x would end the whole session over it.
        """
        for question in pending:
            if self.upstream.task.status.is_final:
                question.drop()
            else:
                question.refuse()

    # -- what the server asks ------------------------------------------------------------------------

    @property
    def questions(self) -> Mapping[str, Request]:
        """What the server has asked and the client has not answered, by key."""
        return {key: question.request for key, question in self._pending.items()}

    @property
    def spent_keys(self) -> Iterable[str]:
        """The keys that no other question may have."""
        return self._keys

    @property
    def asked(self) -> Mapping[str, bytes]:
        """The questions as the client hears of them."""
        return {key: lifting.lift_question(r.method, r.params) for key, r in self.questions.items()}

    @property
    def methods_asked(self) -> Mapping[str, str]:
        """The methods of these."""
        return {key: request.method for key, request in self.questions.items()}

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Keep a question until the client, which hears of it with the task's state, has answered."""
        if self.ending is not None or not questions.is_question(request.method):
            refuse_request(session, request)
            return
        if any(question.request.id == request.id for question in self._pending.values()):
            return  # said again on a stream that is gone on with
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
        self.on_note(self)

    def keep_on(self, asked: Mapping[str, Request], keys: Iterable[str]) -> None:
        """Have the client asked what a process before this one has had it asked, under the same keys.

        ``keys`` are all that are spent. What there is no memory for is refused when the session wakes.
        """
        self._keys.update(keys, asked)
        session = self.upstream.session
        for key, request in asked.items():
            try:
                self._pending[key] = Question.keep(session, request, self._room_for_questions)
            except OverBudget:
                continue
            session.incarnation.calls.keep_asked(request.id)

    # -- what else it says ---------------------------------------------------------------------------

    async def begin(self) -> None:
        """There is no stream of this task's."""

    async def notify(self, *messages: Notification) -> None:
        """Progress and log messages are not told of tasks (ext-tasks, "Task Status Notifications")."""

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """What it has come to is kept."""
        return False
