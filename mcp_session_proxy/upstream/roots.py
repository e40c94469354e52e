"""Whose roots a server knows, and how it comes to know another client's.

A server asks for the roots once and keeps them. When its session goes to another client, it has to be told
that they have changed, to ask that client, and to have its answer, before it works for it (MCP 2025-11-25,
client/roots, "Root List Changes"). Sessions whose client declares no roots cost nothing here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from ..aio import Signal

# A server that asks at all asks as soon as it is told.
_ASK_SECONDS: Final = 0.5
# Clients answer by themselves; a server that gets no answer works with what it has.
_ANSWER_SECONDS: Final = 10.0
_SOMEBODY: Final = "somebody"


class RootsTalk:
    """What is said about roots on one upstream session. ``respondent`` is who answers for them now.

    ``wanted``: the server has asked for roots on this session, so it may know somebody's.
    """

    __slots__ = ("_asked", "_asks_at_once", "_introducing", "_news", "_open", "_turn", "respondent", "wanted")

    def __init__(self) -> None:
        self.respondent: Hashable | None = None
        self.wanted = False
        self._turn = asyncio.Lock()
        self._asked = False  # since it was told
        self._open: set[bytes] = set()
        self._asks_at_once = True  # as far as is known
        self._introducing = False
        self._news = Signal()

    def know_somebodys(self) -> None:
        """The server knows the roots of a client that this process has never met."""
        self.wanted, self.respondent = True, _SOMEBODY

    def asked(self, identifier: bytes) -> None:
        """The server asks for the roots, in a request of this raw id."""
        self.wanted = True
        if self._introducing:
            self._asked = True
            self._open.add(identifier)
            self._news.give()

    def answered(self, identifier: bytes) -> None:
        """A request of the server's has an answer."""
        if identifier in self._open:
            self._open.discard(identifier)
            self._news.give()

    async def pass_to(self, respondent: Hashable, tell: Callable[[], Awaitable[bool]]) -> None:
        """Have the server know this one's roots.

        ``tell`` sends ``roots/list_changed``, and gives whether it arrived. All who ask for the same at the
        same time wait for it; it is bounded.
        """
        async with self._turn:
            if self.respondent is None:
                self.respondent = respondent  # the server has asked nobody yet, or asks in its own time
            # Whoever had the turn before has often introduced the same one.
            if self.respondent == respondent:
                return
            former, self.respondent = self.respondent, respondent
            told = False
            try:
                # What it has asked until now was the former one's to answer.
                self._asked = False
                self._open.clear()
                self._introducing = True
                told = await tell()
                if told:
                    await self._let_it_ask()
            finally:
                self._introducing = False
                # The server still knows the former one's, so the next call tells it again.
                if not told:
                    self.respondent = former

    async def settled(self) -> None:
        """Wait until nobody is being introduced."""
        if self._turn.locked():
            async with self._turn:
                return

    async def _let_it_ask(self) -> None:
        patience_seconds = _ASK_SECONDS if self._asks_at_once else 0.0
        # Whoever did not ask at once is not waited for the next time.
        self._asks_at_once = await self._until(lambda: self._asked, patience_seconds)
        await self._until(lambda: not self._open, _ANSWER_SECONDS)

    async def _until(self, condition: Callable[[], bool], patience_seconds: float) -> bool:
        try:
            async with asyncio.timeout(patience_seconds):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            return False
        return True
