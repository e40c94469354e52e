"""Answers to requests of a server's that nobody will answer, even if there are thousands.

Each of them may hold up a call at the server, so none is left without an answer as long as there is room to
remember that it is owed one; but a server that asks without end must neither fill the memory nor take all
the connections to itself.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from ..aio import Tasks
from ..bounds import REFUSAL_BYTES, REFUSALS_AT_ONCE, WAITING_REFUSALS
from ..errors import INTERNAL_ERROR, OverBudget
from ..memory import Loan, Share
from ..protocol import jsonrpc
from ..protocol.jsonrpc import Request

_NOBODY: Final = "No client is there to answer this request."


class Refusing:
    """Refuses the requests of one incarnation.

    ``post`` sends one message, and raises nothing. It runs in ``tasks``, together with everything else that
    is sent in the background. What waits its turn counts against ``room``.
    """

    __slots__ = ("_post", "_room", "_tasks", "_waiting")

    def __init__(self, post: Callable[[bytes], Awaitable[object]], tasks: Tasks, room: Share) -> None:
        self._post = post
        self._tasks = tasks
        self._room = room
        self._waiting: deque[tuple[bytes, Loan]] = deque()

    def refuse(self, request: Request) -> None:
        """Refuse one: at once, or after the others, or not at all where there are too many."""
        body = jsonrpc.write_plain_error(request.id, INTERNAL_ERROR, _NOBODY)
        # At once as long as that leaves room for answers to pings, which have to be in time.
        if len(self._tasks) < REFUSALS_AT_ONCE:
            self._tasks.spawn(self._send(body), "refuse")
        # A refusal has the id of what it refuses, which is the server's choice and may be long.
        elif len(self._waiting) < WAITING_REFUSALS and len(body) <= REFUSAL_BYTES:
            self._refuse_later(body)

    def _refuse_later(self, body: bytes) -> None:
        try:
            room = self._room.lend(len(body))
        except OverBudget:
            return
        self._waiting.append((body, room))
        # One task for all who wait, so that they take one connection.
        if len(self._waiting) == 1:
            self._tasks.spawn(self._refuse_the_rest(), "refuse the rest")

    async def _refuse_the_rest(self) -> None:
        while self._waiting:
            await self._post(self._waiting[0][0])
            # After it was sent, so that the next one to come sees that somebody is at it.
            self._waiting.popleft()

    # For a task it takes a coroutine, and ``post`` may be any callable.
    async def _send(self, body: bytes) -> None:
        await self._post(body)
