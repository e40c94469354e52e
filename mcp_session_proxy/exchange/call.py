"""A modern call: one exchange upstream, as many HTTP requests as the server has questions.

The upstream side runs in a task of its own and is never started twice. The HTTP side comes and goes:
each request of the client waits for the next outcome, which is the server's response or its questions
(MCP 2026-07-28, basic/patterns/mrtr). What the server says while no client listens is kept, within a
bound, for the next one.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ..aio import Signal
from ..bounds import PARKED_MESSAGES, QUESTIONS_A_CALL, QUESTIONS_A_TASK
from ..errors import InvalidParams, MissingCapability, OverBudget, ProxyError
from ..events import Observer
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc, lifting, lowering, questions, revisions, tasks
from ..protocol.inbound import ModernRequest
from ..protocol.jsonrpc import Notification, Request, Response
from ..protocol.lifting import ServerFacts
from ..protocol.progress import ProgressRun, apart
from ..protocol.tasks import LegacyTask
from ..sessions.binding import Visit
from ..tracing import UNTRACED, RequestTrace
from ..upstream.question import NO_MEMORY, TOO_MANY, Question, refuse_in_turn, refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import ArrivingResult, Caller
from .attribution import Attribution
from .exchange import Exchange
from .introduction import introduce
from .relay import PostChannel
from .unasked import SILENCE_SECONDS, Unasked
from .url_round import Stage, UrlRound

_GATHER_SECONDS: Final = 0.05
_COMPLETION_SECONDS: Final = 5.0


class Asked(NamedTuple):
    """The outcome of a round: what the client is asked, by key, as raw ``InputRequest`` objects."""

    questions: Mapping[str, bytes]


class Created(NamedTuple):
    """The outcome of a call that has become a task at its server.

    ``result`` is what the server said, raw. ``visit`` holds the session, and is to be ended with the task.
    ``questions`` came before that, and wait for answers.
    """

    task: LegacyTask
    result: bytes
    visit: Visit
    questions: Sequence[Question] = ()


Outcome: TypeAlias = Response | Asked | Created


class _Pending(dict[str, Question]):
    """The questions of a call that wait for its client, by key.

    ``spent`` are keys that are not used again, where the client may see each only once. ``strays`` are the
    server's ids of what came on its standalone stream, where it does not say in which call it asks.
    """

    spent: set[str] | None = None

    def __init__(self) -> None:
        self.strays: set[bytes] = set()

    @property
    def is_full(self) -> bool:
        """Whether there is no place for one more."""
        return len(self) >= QUESTIONS_A_CALL or len(self.spent or ()) >= QUESTIONS_A_TASK

    def expect_stray(self, identifier: bytes) -> None:
        """A question with this id is about to come, which does not say in which call it is asked."""
        if len(self.strays) < QUESTIONS_A_CALL:
            self.strays.add(identifier)

    def take_strays(self) -> list[Question]:
        """The questions that may be other calls'; they are this one's no longer."""
        strays = {key: question for key, question in self.items() if question.request.id in self.strays}
        for key in strays:
            del self[key]
        return list(strays.values())

    def key_for(self, request: Request) -> str:
        """A key for a question of the server's."""
        key = questions.key_for(request.method, request.params, self if self.spent is None else self.spent)
        if self.spent is not None:
            self.spent.add(key)
        return key


class ModernCall:
    """One call of a modern client. Implements ``outlet.Outlet`` for its exchange.

    ``lowered`` are the raw parameters for the server. ``at_hand`` are answers, by key, to questions that the
    client expects: the server gets them as soon as it asks. ``trace`` is that of the client's latest request.
    ``respondent`` is whose roots the server has to know before it works on the call; None for no roots.
    What is kept for the client, questions and messages, counts against ``share``. ``make_exchange`` is how
    the call is carried out.
    """

    trace: RequestTrace = UNTRACED
    respondent: Hashable | None = None
    asks = None  # ``attribution`` knows which call a question belongs to
    rounds = 0
    _abandoned = False
    _task: asyncio.Task[Response] | None = None
    _channel: PostChannel | None = None

    def __init__(
        self,
        modern: ModernRequest,
        lowered: bytes | None,
        at_hand: Mapping[str, bytes],
        visit: Visit,
        attribution: Attribution,
        observe: Observer,
        share: Share = UNBOUNDED,
        make_exchange: Callable[..., Exchange] = Exchange,
    ) -> None:
        self._share = share
        self.modern = modern
        self.session = visit.session
        self.facts: ServerFacts = visit.session.incarnation.facts
        self.caller = visit.caller  # of the request that the client waits on
        self._visit: Visit | None = visit
        self._attribution = attribution
        self.exchange = make_exchange(
            Request(modern.request.id, modern.request.method, lowered),
            modern.progress_token,
            visit,
            self,
            observe,
        )
        self._kept: deque[tuple[Notification, Loan]] = deque(maxlen=PARKED_MESSAGES)
        self._pending = _Pending()
        self._at_hand = dict(at_hand)
        self.urls = UrlRound(share)
        self._unasked = Unasked()
        self.news = Signal()

    def __repr__(self) -> str:
        return f"<ModernCall {self.modern.request.method} rounds={self.rounds} asked={len(self._pending)}>"

    @property
    def upstream_seconds(self) -> float | None:
        """How long the server took, once the exchange is over."""
        return self.exchange.upstream_seconds

    @property
    def is_parkable(self) -> bool:
        """Whether the server may ask the client in the course of this call."""
        return self.modern.request.method in revisions.PARKABLE_METHODS

    # -- rounds ----------------------------------------------------------------------------------

    async def next(self, channel: PostChannel, answers: Mapping[str, bytes]) -> Outcome:
        """The next outcome; what the server says meanwhile is written to ``channel``.

        ``answers`` are the client's to the questions of the round before, raw, by key: unknown ones are
        ignored, missing ones stay asked.

        Cancelling this gives the call up: the server is told that its client has gone.

        The exchange is a task, and not awaited here, because it outlives this: when the server asks, this
        returns, the HTTP response ends, and the call goes on waiting for its answer at the server. So it is
        begun once, in the first round, whatever the number of rounds; the one exception is a call that the
        server refused before doing anything, until its client has visited URLs.

        Raises:
            ProxyError: there is no response; the call is over.
        """
        self.rounds += 1
        try:
            # Its turn first: an answer may have the server ask the next thing at once.
            await self._attribution.enter(self, begins=self._task is None)
            self._channel = channel
            # Before anything newer can come on the channel: in the order in which the server said it.
            while self._kept:
                kept, _ = self._kept.popleft()
                if self._wants(kept):
                    await channel.send(*self._lift(kept))
            if answers:
                await self._answer(answers)
            # The silence so far was the client's, which took its time to answer.
            if self._unasked.required:
                self._unasked.heard()
            if self._task is None:
                work = self.exchange.run(self.trace)
                if self.respondent is not None and self.is_parkable:
                    work = self._introduced(work, self.respondent)
                self._task = asyncio.get_running_loop().create_task(work)
                self._task.add_done_callback(self.news.give)
            return await self._outcome(self._task)
        except (asyncio.CancelledError, Exception):
            # Whatever ends the round ends the call: without a state its client could not come back to it.
            self.abandon()
            raise
        finally:
            self._channel = None
            self._attribution.leave(self)

    async def _introduced(self, work: Coroutine[Any, Any, Response], client: Hashable) -> Response:
        """The exchange, once the server knows the client's roots. It asks for them in this call."""
        try:
            await introduce(self.session, client, self.caller)
        except BaseException:
            # Never begun: asyncio would warn of a coroutine that nobody has awaited.
            work.close()
            raise
        return await work

    async def _outcome(self, task: asyncio.Task[Response]) -> Outcome:
        while not (task.done() or self._pending):
            await (self._hear_on() if self._unasked.required else self.news.wait())
        if not task.done():
            try:
                # A round costs the client a request: questions that come together share one.
                async with asyncio.timeout(_GATHER_SECONDS):
                    while not task.done():
                        await self.news.wait()
            except TimeoutError:
                return Asked(self.asked)
        try:
            response = task.result()
        finally:
            del task  # its error leads to this frame, which must not lead back
        if self._unasked.explains(response):
            raise MissingCapability(self._unasked.required)
        urls = lifting.required_urls(response)[:QUESTIONS_A_CALL]
        # Once only: a user who has declined must not be asked again by the same call.
        if urls and self.urls.stage is not Stage.DECLINED and self.is_parkable:
            return Asked(self.urls.ask(urls, self.modern.capabilities, self._pending.spent))
        if self.exchange.may_become_task:
            created = tasks.read_created(response.result)
            if created is not None and response.result is not None and self._visit is not None:
                visit, self._visit = self._visit, None
                pending = tuple(self._pending.values())
                self._pending.clear()
                self._end()
                return Created(created, response.result, visit, pending)
        if self._pending.strays:
            # The server has answered this call: what it asked without saying where may be another call's.
            self._attribution.leave(self)
            for question in self._pending.take_strays():
                if question.incarnation.stands:
                    self._attribution.hand_on(self.session, question.request)
        self._end()
        return response

    async def _hear_on(self) -> None:
        """Wait until something happens, but no longer than the server may be silent after a refusal.

        Raises:
            MissingCapability: the client could not be asked, and nothing has been heard of the call since.
        """
        loop = asyncio.get_running_loop()
        while (until := self._unasked.until) > loop.time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    return await self.news.wait()
        raise MissingCapability(self._unasked.required)

    def park(self) -> None:
        """The client has been asked, and the call waits for it to come back."""
        self.trace.parks()
        self._attribution.park(self)

    def go_on_for(self, modern: ModernRequest, caller: Caller, trace: RequestTrace = UNTRACED) -> None:
        """The client has come back with this request: its id, its progress token and its headers are others.

        The request that is under way upstream keeps its own headers.
        """
        self.modern = modern
        self.caller = caller
        # What the server knows is our id, so the client may choose another token each time.
        self.exchange.token = modern.progress_token
        trace.resumes(self.trace)
        self.trace = trace

    # -- a call that goes on as a task of ours -----------------------------------------------------

    def go_on_unheard(self) -> None:
        """Nobody listens to the call any more: its client asks for it as a task, from this round on.

        What the server tells meanwhile is dropped, and no key is used for two questions.
        """
        self._channel = UNHEARD
        self._kept.clear()
        self._pending.spent = set(self._pending)

    @property
    def asked(self) -> Mapping[str, bytes]:
        """What the client is asked, by key, as raw ``InputRequest`` objects."""
        requests = {key: question.request for key, question in self._pending.items()}
        lifted = {key: lifting.lift_question(r.method, r.params) for key, r in requests.items()}
        return {**lifted, **self.urls.asked}

    @property
    def methods_asked(self) -> Mapping[str, str]:
        """The methods of the questions, by key."""
        asked = {key: question.request.method for key, question in self._pending.items()}
        return asked | dict.fromkeys(self.urls.keys, revisions.ELICIT)

    @property
    def is_over(self) -> bool:
        """Whether the server has answered, or cannot any more."""
        return self._task is not None and self._task.done()

    # -- answers ---------------------------------------------------------------------------------

    def check_answers(self, answers: Mapping[str, bytes]) -> None:
        """Refuse answers (raw, by key) that have not the form of their question's.

        Raises:
            InvalidParams: one has not; the call waits on.
        """
        asked = self.methods_asked
        for key, answer in answers.items():
            method = asked.get(key)
            if method is not None and not questions.is_fit_answer(method, answer):
                raise InvalidParams(f"The answer {key[:100]!r} does not have the form of a {method} result.")

    async def _answer(self, answers: Mapping[str, bytes]) -> None:
        for key, answer in answers.items():
            question = self._pending.pop(key, None)
            if question is not None:
                self._pending.strays.discard(question.request.id)
                await question.answer(Response(question.request.id, result=answer), self.caller)
        elicitations = self.urls.answer(answers)
        if elicitations is not None:
            await self._begin_anew(elicitations)

    async def _begin_anew(self, elicitations: Sequence[str]) -> None:
        """The client has visited every URL that the server wants visited before it does anything.

        A server may tell when it knows of the visit itself; until then it would only ask again, so that is
        waited for, for a moment. The request that is made is the client's present one, with its own metadata
        and headers: the former was refused, and its client may know more now.
        """
        for identifier in elicitations:
            await self._attribution.completion(self.session, identifier, _COMPLETION_SECONDS)
        self._task = None
        request = self.modern.request
        self.exchange.request = Request(request.id, request.method, lowering.lower_params(self.modern))
        self.exchange.caller = self.caller

    # -- what the server says meanwhile ------------------------------------------------------------

    async def begin(self) -> None:
        """Modern clients cannot come back to a stream (MCP 2026-07-28, basic/transports)."""

    async def notify(self, *messages: Notification) -> None:
        """Pass progress, and log messages as far as the client asked for them; nothing else.

        What comes while no client listens is kept as the server said it: the request that it will be told
        to may have another progress token or log level, or none.
        """
        if self._unasked.required:
            self._unasked.heard()
        # Only what the client's present request asked for.
        wanted = [message for message in messages if self._wants(message)]
        if not wanted:
            return
        if self._channel is not None:
            await self._channel.send(*itertools.chain.from_iterable(map(self._lift, wanted)))
            return
        for note in itertools.chain.from_iterable(map(apart, wanted)):
            with contextlib.suppress(OverBudget):  # without room it is dropped, as without a listener
                self._kept.append((note, self._share.lend(len(note.params or b""))))

    def _wants(self, message: Notification) -> bool:
        """Whether the client's present request asked for this."""
        if message.method == revisions.PROGRESS:
            return self.modern.progress_token is not None
        is_log = message.method == revisions.LOG_MESSAGE
        return is_log and _is_loud_enough(message.params, self.modern.log_level)

    def _lift(self, message: Notification) -> Sequence[bytes]:
        """A notification, or a run of them, as of the client's present request."""
        if isinstance(message, ProgressRun):
            # Which has its token already; and nearly always there is nothing else to change.
            if not lifting.may_name_subscription(message.lines):
                return message.texts
            return [text for note in message.apart() for text in self._lift(note)]
        token = self.modern.progress_token if message.method == revisions.PROGRESS else None
        params = lifting.lift_notification(message.params, token)
        return [jsonrpc.write_notification(message.method, params)]

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        """Take a question of the server's; the client gets it as the outcome of this round."""
        if self._abandoned or not self.is_parkable or not questions.is_question(request.method):
            refuse_request(session, request)
            return
        missing = questions.missing_capability(request.method, request.params, self.modern.capabilities)
        if missing is not None:
            await self._unasked.refuse(session, request, missing)
            self.news.give()
            return
        if self._pending.is_full:
            await refuse_in_turn(session, request, TOO_MANY)
            return
        key = self._pending.key_for(request)
        try:
            question = Question.keep(session, request, self._share)
        except OverBudget:
            await refuse_in_turn(session, request, NO_MEMORY)
            return
        answer = self._at_hand.pop(key, None)
        if answer is not None and questions.is_fit_answer(request.method, answer):
            await question.answer(Response(question.request.id, result=answer), self.caller)
        else:
            self._pending[key] = question
            self.news.give()

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """Lifting a result needs all of it."""
        return False

    def deliver(self, request: Request) -> None:
        """Take a question that came on the upstream standalone stream."""
        self._pending.expect_stray(request.id)
        self.exchange.deliver(request)

    # -- the end -----------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The client is gone, or did not come back, or cannot answer: wind the call down."""
        self.trace.unparks("abandoned")
        self._attribution.end(self)
        self._abandoned = True
        asked = bool(self._pending) or self._unasked.may_yet_end
        for question in self._pending.values():
            question.refuse()
        self._pending.clear()
        task = self._task
        if task is None or (task.done() and not self.exchange.may_become_task):
            self._end()
        else:
            self.session.spawn(self._wind_down(task, asked), "wind down")

    async def _wind_down(self, task: asyncio.Task[Response], asked: bool) -> None:
        """Let the call end by itself where its question was refused, else cancel it.

        Both at once would be one too many: some servers break over a request that is cancelled while it is
        being answered with an error (python mcp 1.30 loses the session).
        """
        try:
            if asked:
                await asyncio.wait([task], timeout=SILENCE_SECONDS)
            task.cancel()
            await asyncio.wait([task])
            if self.exchange.may_become_task and not task.cancelled() and task.exception() is None:
                # A task was begun before anybody heard that its client had left.
                await self.exchange.undo(task.result())
        finally:
            task.cancel()
            self._end()

    def give_up(self, error: ProxyError) -> None:
        """End the call with an error for whoever waits for it."""
        self.exchange.give_up(error)

    def _end(self) -> None:
        self._attribution.end(self)
        if self._task is not None and self._task.done():
            if not self._task.cancelled():
                self._task.exception()
            # Its error leads to the frames of this call: let go, both are freed at once.
            self._task = None
        if self._visit is not None:
            visit, self._visit = self._visit, None
            visit.end()
        self.exchange.detach_outlet()  # it points at this call: let go, both are freed at once


class _Nowhere:
    """Where what a task's server says goes. Implements ``relay.PostChannel``."""

    takes_messages = False

    async def begin(self) -> None:
        """Nobody can come back to it."""

    async def send(self, *_: bytes) -> bool:
        """Nobody takes it."""
        return False

    async def pass_on(self, opening: bytes, coming: ArrivingResult) -> bool:  # noqa: ARG002
        """Nobody takes it as it comes."""
        return False


UNHEARD: Final[PostChannel] = _Nowhere()


def _is_loud_enough(params: bytes | None, wanted: str | None) -> bool:
    if wanted is None:
        return False
    level = jsonrpc.read_string(jsonrpc.read_object(params).get("level"))
    levels = revisions.LOG_LEVELS
    return level not in levels or levels.index(level) >= levels.index(wanted)
