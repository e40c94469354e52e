"""A server's request on its way to a client, and the way back for the answer.

It is answered once: by its client, or by us with an error. What is said to a session that was re-opened
meanwhile would mean nothing there, so it is not sent.
"""

from typing import Final, NamedTuple

from ..errors import INTERNAL_ERROR
from ..memory import Loan, Share
from ..protocol import jsonrpc
from ..protocol.jsonrpc import Request, Response
from .incarnation import Incarnation
from .session import UpstreamSession
from .transport import Caller

UNABLE: Final = "The client did not declare that it can answer this request."
NO_MEMORY: Final = "There is no memory left for requests that wait for clients' answers."
TOO_MANY: Final = "Too many requests of this call wait for the client's answers already."


class Question(NamedTuple):
    """A server's request that waits for an answer, on the incarnation of the session that asked.

    ``room`` is its place in the memory, for as long as it waits.
    """

    session: UpstreamSession
    incarnation: Incarnation
    request: Request
    room: Loan

    @classmethod
    def keep(cls, session: UpstreamSession, request: Request, share: Share) -> "Question":
        """A question that has just been asked. Raises OverBudget: there is no memory for it."""
        room = share.lend(len(request.params or b"") + len(request.id))
        session.incarnation.calls.asked[request.id] = room
        return cls(session, session.incarnation, request, room)

    async def answer(self, response: Response, caller: Caller) -> None:
        """Give the server a client's response, under the server's own id.

        ``caller`` is that of the request that brought it.
        """
        if self.incarnation.stands:
            await self.incarnation.tell(jsonrpc.write_response(self.request.id, response), caller)
            self.session.record.roots.answered(self.request.id)

    def refuse(self) -> None:
        """Tell the server that nobody will answer."""
        if self.incarnation.stands:
            refuse_request(self.session, self.request)

    def drop(self) -> None:
        """Nobody will answer, and the server does not wait for that any more."""
        if self.incarnation.stands:
            self.session.record.roots.answered(self.request.id)


def refuse_request(session: UpstreamSession, request: Request) -> None:
    """Answer a server's request that nobody will answer."""
    session.incarnation.refuse(request)


async def refuse_in_turn(session: UpstreamSession, request: Request, reason: str) -> None:
    """As ``refuse_request``, and wait until the server has taken it.

    So a server that asks without end is read no faster than it is refused, and nothing is left unanswered.
    """
    await session.incarnation.tell(jsonrpc.write_plain_error(request.id, INTERNAL_ERROR, reason))
    session.record.roots.answered(request.id)
