"""The calls that wait for an answer on one incarnation of a session, and what still names one."""

import asyncio
import math
from typing import Protocol, TypeGuard
from weakref import WeakValueDictionary

from ..bounds import UNANSWERED_QUESTIONS
from ..memory import Loan
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from .record import Record


class CallHandler(Protocol):
    """Something that waits for the answer to a call, or for a task's progress after it, as an exchange does.

    It is told what arrives for that call outside of the call's own stream.
    """

    @property
    def asks(self) -> object:
        """The client session that can be asked now on the stream of its request; None if there is none."""
        ...

    def deliver(self, message: Message) -> None:
        """Take a message that belongs to this call. Must not block."""
        ...


class Calls:
    """The handlers of calls, by the id that the server knows.

    ``last_activity`` is when something was sent last, by the event loop's clock; ``acted_at`` when
    something came to its end last that may have changed something.
    """

    __slots__ = (
        "_now",
        "_record",
        "acted_at",
        "asked",
        "asked_elsewhere",
        "in_flight",
        "last_activity",
        "tokens",
    )

    def __init__(self, record: Record) -> None:
        self.in_flight: dict[int, CallHandler] = {}
        # Progress tokens, ours, that are of use after their call's end; see ``exchange.task_progress``.
        self.tokens: dict[int, CallHandler] = {}
        # What the server has asked in them, by its ids, for as long as somebody keeps the question.
        self.asked: WeakValueDictionary[bytes, Loan] = WeakValueDictionary()
        # The same from a process before this one, where nobody has the question any more.
        self.asked_elsewhere: tuple[bytes, ...] = ()
        self.last_activity = 0.0
        self.acted_at = -math.inf
        self._record = record
        self._now = asyncio.get_running_loop().time

    def __len__(self) -> int:
        return len(self.in_flight)

    def begin(self, handler: CallHandler) -> int:
        """A call begins: what names it is given to ``handler``. Gives its id, which no other ever had."""
        record = self._record
        identifier = record.next_id()
        self.in_flight[identifier] = handler
        record.requests += 1
        record.last_used = self.last_activity = self._now()
        return identifier

    def end(self, identifier: int, method: str) -> None:
        """A call of this method is over."""
        del self.in_flight[identifier]
        self.last_activity = now = self._now()
        if method not in revisions.LISTS:
            self.acted_at = now

    def unanswered(self) -> tuple[bytes, ...]:
        """The server's ids of its requests that wait for an answer."""
        return (*self.asked_elsewhere, *self.asked)[-UNANSWERED_QUESTIONS:]

    def keep_asked(self, identifier: bytes) -> None:
        """Somebody here has the question of this id after all."""
        self.asked_elsewhere = tuple(each for each in self.asked_elsewhere if each != identifier)

    def leave_asked(self, identifier: bytes) -> None:
        """Nobody has it any more, and nothing can be said to the server yet."""
        self.asked_elsewhere = (*self.asked_elsewhere, identifier)

    def take_asked_elsewhere(self) -> list[Request]:
        """What nobody but us can answer, and only with a refusal; once."""
        taken, self.asked_elsewhere = self.asked_elsewhere, ()
        return [Request(identifier, "", None) for identifier in taken]

    def act(self) -> None:
        """Something was said that may change something."""
        self.last_activity = self.acted_at = self._now()

    def touch(self) -> None:
        """Something was said, so nothing need be said for a while to keep the session alive."""
        self.last_activity = self._now()

    def are_quiet_for(self, seconds: float) -> bool:
        """Whether none waits, and nothing was sent for so long."""
        return not self.in_flight and self._now() - self.last_activity >= seconds

    def named_by(self, message: Message) -> CallHandler | None:
        """The call that a message on the standalone stream names, if it names one."""
        if isinstance(message, Response):
            # Some servers give a number back as a string.
            return self.in_flight.get(jsonrpc.read_number(message.id))
        if is_progress(message):
            return self.progressing(message)
        return None

    def progressing(self, message: Notification) -> CallHandler | None:
        """The call, or what a call has left behind, whose progress this is."""
        number = jsonrpc.read_number(jsonrpc.read_object(message.params).get("progressToken"))
        return self.in_flight.get(number) or self.tokens.get(number)


def is_progress(message: Message) -> TypeGuard[Notification]:
    """Whether a message tells of a request's progress."""
    return isinstance(message, Notification) and message.method == revisions.PROGRESS
