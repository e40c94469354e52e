"""What a server says before anybody is there to hear it: held, in order, within a bound.

Servers ask for roots, or tell of their lists, just after the handshake. The proxy does the handshake before
the client that it is for has got its answer, and sometimes before there is any client.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from ..bounds import UNHEARD_BYTES, UNHEARD_MESSAGES, UNHEARD_SECONDS
from ..errors import OverBudget
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc, questions
from ..protocol.jsonrpc import Notification, Request
from .record import Record


class Unheard:
    """The messages of one incarnation. ``refuse`` answers a request that nobody will hear.

    What is held counts against ``share``, which all sessions have in common.
    """

    def __init__(self, refuse: Callable[[Request], None], now: float, share: Share = UNBOUNDED) -> None:
        self.since = now
        self._refuse = refuse
        self._share = share
        self._messages: deque[tuple[Request | Notification, Loan]] = deque()
        self._bytes = 0

    def hold(self, message: Request | Notification) -> None:
        """Hold one more; the oldest go when there are too many, or all for one that is too large.

        One for which all sessions together leave no memory goes itself.
        """
        try:
            room = self._share.lend(_size(message))
        except OverBudget:
            self._let_go(message)
            return
        self._messages.append((message, room))
        self._bytes += _size(message)
        while len(self._messages) > UNHEARD_MESSAGES or self._bytes > UNHEARD_BYTES:
            oldest, _ = self._messages.popleft()
            self._bytes -= _size(oldest)
            self._let_go(oldest)

    def _let_go(self, message: Request | Notification) -> None:
        if isinstance(message, Request):
            self._refuse(message)

    def drain(self) -> list[Request | Notification]:
        """All of them, for whoever has come."""
        messages = [message for message, _ in self._messages]
        self._messages.clear()
        self._bytes = 0
        return messages

    def refuse_requests(self) -> None:
        """Let no server wait any longer. What it has merely told stays."""
        kept: list[Request | Notification] = []
        for message in self.drain():
            if isinstance(message, Request):
                self._refuse(message)
            else:
                kept.append(message)
        for message in kept:
            self.hold(message)


class Held:
    """What the server says of its own accord before anybody is there who may hear it.

    Nobody is, until ``met``. ``refuse`` answers a request that nobody will hear.
    """

    __slots__ = ("_record", "_refuse", "_unheard", "met")

    def __init__(self, record: Record, refuse: Callable[[Request], None]) -> None:
        self.met = False
        self._record = record
        self._refuse = refuse
        self._unheard: Unheard | None = None

    def hold(self, message: Request | Notification) -> None:
        """Hold one message.

        What nobody can answer who comes to this session is refused: it was opened for clients that can do
        what its ``initialize`` says.
        """
        if isinstance(message, Request) and not self._may_be_answered(message):
            self._refuse(message)
            return
        # Made for the few servers that speak before anybody is there.
        if self._unheard is None:
            now = asyncio.get_running_loop().time()
            self._unheard = Unheard(self._refuse, now, self._record.room_for_questions)
        self._unheard.hold(message)

    def _may_be_answered(self, request: Request) -> bool:
        params = jsonrpc.read_object(self._record.initialize_params)
        declared = jsonrpc.read_object(params.get("capabilities"))
        if not questions.is_question(request.method):
            return bool(declared)
        return questions.missing_capability(request.method, request.params, declared) is None

    def meet(self) -> list[Request | Notification]:
        """Somebody has come who may hear the server; gives what it said before."""
        self.met = True
        unheard, self._unheard = self._unheard, None
        return [] if unheard is None else unheard.drain()

    def expire(self, now: float) -> None:
        """Let nothing wait too long for somebody who may never come. Called regularly."""
        if self._unheard is not None and now - self._unheard.since > UNHEARD_SECONDS:
            self._unheard.refuse_requests()
            self._unheard = None


def _size(message: Request | Notification) -> int:
    return len(message.method) + len(message.params or b"")
