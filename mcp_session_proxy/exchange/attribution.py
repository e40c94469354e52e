"""Which modern call a message of the upstream standalone stream belongs to.

Servers may ask on the session's standalone stream, where a request names no call. If one call is running on
the session, it is meant. A session on which that was seen once begins its calls one at a time from then
on; a call whose client was asked and has not come back yet does not count as running, so it holds up
nobody. The same holds for calls of different clients, once the server has asked for roots: it knows those of
one client at a time. Answers go back under the server's own request ids: even a question that reached the
wrong call of the caller is answered right. If that call ends first, another one gets the question.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from ..aio import Signal
from ..bounds import COMPLETED_ELICITATIONS
from ..protocol import questions, revisions
from ..protocol.jsonrpc import Notification, Request
from ..upstream.session import UpstreamSession

_PATIENCE_SECONDS: Final = 10.0
_MISSING: Final = object()


class RunningCall(Protocol):
    """What is needed of a call.

    A protocol, because ``call.ModernCall``, which is one, takes its turns here: it imports this module.
    """

    session: UpstreamSession
    respondent: Hashable | None
    """Whose roots the server has to know; None for no roots."""

    @property
    def is_parkable(self) -> bool:
        """Whether the server may ask in its course."""
        ...

    def deliver(self, request: Request) -> None:
        """Take a question."""
        ...

    async def notify(self, *messages: Notification) -> None:
        """Take notifications."""
        ...


class _Turns:
    """The calls of one session: those that run, that wait for their clients, and that wait for their turn."""

    __slots__ = ("completed", "completing", "one_at_a_time", "parked", "queue", "running")

    def __init__(self) -> None:
        self.running: dict[RunningCall, None] = {}
        self.parked: dict[RunningCall, None] = {}
        self.one_at_a_time = False
        self.queue: deque[tuple[RunningCall, asyncio.Future[None]]] = deque()
        self.completed: OrderedDict[str, None] = OrderedDict()
        self.completing = Signal()

    @property
    def busy(self) -> bool:
        """Whether a call runs that the server may ask in."""
        return any(call.is_parkable for call in self.running)

    def hinders(self, call: RunningCall) -> bool:
        """Whether a call that begins now would come in the way of one that runs or waits."""
        if self.one_at_a_time:
            return self.busy or bool(self.queue)
        if call.respondent is None or not call.session.record.roots.wanted:
            return False  # a server that never asks for roots knows nobody's
        # Lists and the like are never asked in, so they are nobody's turn to wait for.
        others = (running for running in self.running if running.is_parkable)
        return bool(self.queue) or any(other.respondent != call.respondent for other in others)

    def admit(self) -> None:
        """Let the next one run, if none does. It runs from this very step on."""
        while self.queue and not self.busy:
            call, turn = self.queue.popleft()
            if not turn.done():
                self.running[call] = None
                turn.set_result(None)


class Attribution:
    """The running modern calls of every session."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[UpstreamSession, _Turns] = WeakKeyDictionary()

    async def enter(self, call: RunningCall, *, begins: bool) -> None:
        """Let the call run, as soon as it is its turn.

        One that goes on with its client's answers never waits: another call may need them. One that waits
        only for another client's calls waits for a while, and then runs beside them.
        """
        turns = self._turns_of(call.session)
        turns.parked.pop(call, None)
        if not (begins and call.is_parkable and turns.hinders(call)):
            turns.running[call] = None
            if not call.session.incarnation.held.met and call.is_parkable:
                self._take_unheard(call.session)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns.queue.append((call, turn))
        patience_seconds = None if turns.one_at_a_time or call.respondent is None else _PATIENCE_SECONDS
        try:
            async with asyncio.timeout(patience_seconds):
                await turn
        except TimeoutError:
            # Its place in the queue stays, and is passed over: with the time, its turn was cancelled.
            turns.running[call] = None
        except asyncio.CancelledError:
            self.leave(call)  # the turn may have come in the same step
            raise

    def leave(self, call: RunningCall) -> None:
        """The call has ended or is parked. Does nothing for one that is not running."""
        turns = self._turns.get(call.session)
        if turns is not None and turns.running.pop(call, _MISSING) is not _MISSING:
            turns.admit()

    def park(self, call: RunningCall) -> None:
        """The call, which has left, waits for its client, until it is entered again or has ended."""
        self._turns_of(call.session).parked[call] = None

    def end(self, call: RunningCall) -> None:
        """The call takes no questions any more."""
        turns = self._turns.get(call.session)
        if turns is not None:
            turns.parked.pop(call, None)

    def _turns_of(self, session: UpstreamSession) -> _Turns:
        turns = self._turns.get(session)
        if turns is None:
            turns = self._turns[session] = _Turns()
        return turns

    def _take_unheard(self, session: UpstreamSession) -> None:
        """Give what the server said before anybody came to the first call that it may ask in."""
        for message in session.incarnation.held.meet():
            if isinstance(message, Notification):
                self.take_notification(session, message)
            else:
                self.take_request(session, message)

    def take_request(self, session: UpstreamSession, request: Request) -> bool:
        """Give a server's request to the call that it belongs to; False if no call is running."""
        turns = self._turns.get(session)
        if turns is None:
            return False
        candidates = [call for call in turns.running if call.is_parkable]
        if not candidates:
            return False
        if request.method == revisions.LIST_ROOTS and session.record.roots.respondent is not None:
            # Whoever is being introduced answers. Calls of one client may run together for all that.
            candidates.sort(key=lambda call: call.respondent != session.record.roots.respondent)
        else:
            turns.one_at_a_time = True
        candidates[0].deliver(request)
        return True

    def hand_on(self, session: UpstreamSession, request: Request) -> bool:
        """Give a question of a call that has ended to one that has not; False if there is none.

        The server may have asked it in that one's course. That may be one that waits for its client by now,
        because another call's question was taken for its own.
        """
        if self.take_request(session, request):
            return True
        turns = self._turns.get(session)
        call = next(iter(turns.parked), None) if turns is not None else None
        if call is not None:
            call.deliver(request)
        return call is not None

    def take_notification(self, session: UpstreamSession, message: Notification) -> None:
        """Note that a URL was visited; pass a log message to the only call that is running."""
        if message.method == revisions.ELICITATION_COMPLETE:
            self._complete(session, message)
            return
        turns = self._turns.get(session)
        # Of several it could be anyone's.
        if message.method == revisions.LOG_MESSAGE and turns is not None and len(turns.running) == 1:
            call = next(iter(turns.running))
            session.spawn(call.notify(message), "log message")

    # -- URLs visited (2025-11-25, client/elicitation, "Completion Notifications") -------------------

    def _complete(self, session: UpstreamSession, message: Notification) -> None:
        identifier = questions.elicitation_id(message.params)
        if identifier is None:
            return
        turns = self._turns_of(session)
        # Kept, for the visit may be over before anybody has begun to wait for it.
        turns.completed[identifier] = None
        if len(turns.completed) > COMPLETED_ELICITATIONS:
            turns.completed.popitem(last=False)
        turns.completing.give()

    async def completion(self, session: UpstreamSession, identifier: str, patience_seconds: float) -> None:
        """Wait until the server says that this elicitation is complete, but not for ever."""
        turns = self._turns_of(session)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                while identifier not in turns.completed:
                    await turns.completing.wait()
