"""What a server says before anybody is there to hear it: held, in order, within a bound.

Servers ask for roots, or tell of their lists, just after the handshake. The proxy does the handshake before
the client that it is for has got its answer, and sometimes before there is any client.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import OverBudget
from ..memory import UNBOUNDED, Loan, Share
from ..protocol.jsonrpc import Notification, Request

_MAX_MESSAGES: Final = 100
_MAX_BYTES: Final = 256 * 1024


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
        while len(self._messages) > _MAX_MESSAGES or self._bytes > _MAX_BYTES:
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


def _size(message: Request | Notification) -> int:
    return len(message.method) + len(message.params or b"")
