"""Whether a server takes a caller: one handshake, ended at once, and what came of it.

Nothing is done on the session that it opens. It is ended like any other, unless the server has given it the
id of one that somebody has: a goodbye would end that.
"""

from enum import Enum

from ..errors import ProxyError, UpstreamTimeout, UpstreamUnreachable
from .fleet import Fleet, Replica
from .handshake import open_and_close
from .transport import Caller, Channel, Concern, ConnectionLost, Refused


class Outcome(Enum):
    """What a server did with a caller."""

    TAKEN = "taken"
    REFUSED = "refused"  # over who it is, and nothing else


class Trials:
    """Tries callers. ``params`` are those of ``initialize``, in a version that the server may choose."""

    def __init__(self, fleet: Fleet, params: bytes) -> None:
        self._fleet = fleet
        self._params = params

    def all_check(self, issuer: str) -> bool:
        """Whether every server is known to check the signatures of this issuer's tokens."""
        return all(issuer in replica.checks for replica in self._fleet.replicas)

    async def hold(
        self, principal: str, caller: Caller, timeout_seconds: float, params: bytes | None = None
    ) -> tuple[Outcome, Replica]:
        """Try a caller at the server where a session of its would be opened now.

        ``principal`` is whose failure it is if that fails, for the breakers. ``params`` are those of a client
        of its, for a server that takes no others.

        Raises:
            UpstreamError: nothing was learnt, neither good nor bad: the server is away, slow or full, or
                refuses this handshake for another reason.
        """
        residence = self._fleet.place(principal)
        try:
            channel = await self._shake_hands(residence.replica, caller, timeout_seconds, params)
        except BaseException as error:
            residence.opening_failed(error)
            raise
        if channel is None:
            # What a server has against one caller says nothing of its health.
            residence.failed(None)
            return Outcome.REFUSED, residence.replica
        # For this step only: whoever is given the same id meanwhile would take it for another caller's.
        residence.channel = channel
        residence.opened()
        residence.leave()
        return Outcome.TAKEN, residence.replica

    async def hold_at(
        self, replica: Replica, caller: Caller, timeout_seconds: float, params: bytes | None = None
    ) -> Outcome:
        """The same at one server, for a caller whose failure would say nothing of anybody.

        Raises as ``hold``.
        """
        channel = await self._shake_hands(replica, caller, timeout_seconds, params)
        return Outcome.REFUSED if channel is None else Outcome.TAKEN

    async def _shake_hands(
        self, replica: Replica, caller: Caller, timeout_seconds: float, params: bytes | None
    ) -> Channel | None:
        """What a handshake has opened, ended already; None if the server does not want this caller."""
        try:
            return await open_and_close(
                replica.transport,
                caller,
                lambda handshake: handshake.initialize_in(replica.versions, params or self._params),
                timeout_seconds=timeout_seconds,
                is_somebodys=lambda channel: _is_somebodys(channel, replica),
            )
        except ProxyError as error:
            # What a refusal was about, the error for the client does not tell.
            if isinstance(error.__cause__, Refused) and error.__cause__.concern is Concern.CALLER:
                return None
            raise
        except ConnectionLost as error:
            raise UpstreamUnreachable("The MCP server closed the connection during the handshake.") from error
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The MCP server did not finish the handshake within {timeout_seconds:g} s, "
                "which is what --handshake-timeout allows."
            ) from error


def _is_somebodys(channel: Channel, replica: Replica) -> bool:
    """Whether the server has given the session an id that somebody's has."""
    identifier = channel.session_id
    return identifier is not None and any(
        residence.session_id == identifier for residence in replica.residences
    )
