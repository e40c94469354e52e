"""What an operator may do to the running proxy."""

from collections.abc import Callable

from ..downstream.endpoint import Endpoint
from ..errors import OutcomeUnknown
from ..sessions import upkeep
from ..sessions.pool import Pool
from .acting import Acted, Action


class Operator:
    """The operator's hand. Nothing here blocks.

    ``stop`` asks whoever runs the proxy to end it, which drains it.
    """

    def __init__(self, *, pool: Pool, endpoint: Endpoint, stop: Callable[[], None]) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._stop = stop

    def act(self, action: Action, session: str | None) -> Acted:
        """Do any of these; gives what came of it."""
        if action is Action.RECONNECT:
            return Acted(sessions=self.reconnect())
        if action is Action.KILL:
            return Acted(closed=session is not None and self.kill(session))
        self.pause() if action is Action.PAUSE else self.resume()
        return Acted(paused=action is Action.PAUSE)

    def pause(self) -> None:
        """Give sessions to nobody until ``resume``: requests wait."""
        self._pool.pause()

    def resume(self) -> None:
        """End a pause."""
        self._pool.resume()

    def reconnect(self) -> int:
        """Replace every upstream session when nobody holds it; gives how many there are."""
        return upkeep.reconnect(self._pool)

    def kill(self, session: str) -> bool:
        """Close the upstream session with this tag at once; gives whether there was one.

        Whoever waits for it is told that the outcome is unknown.
        """
        if not upkeep.kill(self._pool, session):
            return False
        for exchange in self._endpoint.exchanges():
            if exchange.session.tag == session:
                exchange.give_up(OutcomeUnknown("An operator closed the session that was working on this."))
        return True

    def drain(self) -> int:
        """Finish what is in flight and end, as on SIGTERM; gives how many requests are in flight."""
        self._stop()
        return len(self._endpoint.exchanges())
