"""A client's ``ping``, answered with what is known of the server and nothing sent for it.

It says two things: that the server can be reached, and that it accepts this caller. The first is known from
the monitors. The second is known once a handshake for the caller has succeeded; until then, the server has to
be asked, as whoever pings would find it out from it directly (a 401 with its challenge, say). Platforms ping
in the background for ever, so what was found out is remembered for a while.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from ..bounds import PINGED_CALLERS
from ..sessions.binding import Binder
from ..sessions.identity import Principal
from .request import ClientRequest

_REMEMBERED_SECONDS: Final = 300.0


class Pings:
    """Knows what can be said to a ping. ``check_up`` raises while no server takes connections."""

    def __init__(self, *, binder: Binder, check_up: Callable[[], None]) -> None:
        self.check_up = check_up
        self._binder = binder
        self._accepted: dict[str, float] = {}  # when, by the digest of the principal

    def is_accepted(self, request: ClientRequest) -> bool:
        """Whether the server is known to accept this caller."""
        if request.client is not None and not request.client.record.adopted:
            return True  # it was given its id after a handshake
        digest = request.principal.digest
        if self._binder.pool.books.has_open(digest):
            return True
        since = self._accepted.get(digest)
        return since is not None and _now() - since < _REMEMBERED_SECONDS

    def note_accepted(self, principal: Principal) -> None:
        """The server accepts this caller."""
        # It goes to the end of the order in which they are forgotten.
        self._accepted.pop(principal.digest, None)
        if len(self._accepted) >= PINGED_CALLERS:
            del self._accepted[next(iter(self._accepted))]
        self._accepted[principal.digest] = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
