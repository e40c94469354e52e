"""A circuit breaker over handshakes: a server that keeps failing them is left alone for a while. Pure.

Refused connections do not count: they are cheap, and the monitor sees when they cease. What counts are
handshakes that were accepted and then failed: time-outs, errors of the server's, answers that are not MCP.
"""

from enum import StrEnum

from ..errors import ProxyError


class BreakerState(StrEnum):
    """Whether handshakes may be tried."""

    CLOSED = "closed"  # all is well
    OPEN = "open"  # none may, until the time is up
    HALF_OPEN = "half-open"  # one is being tried


class Breaker:
    """Counts failures in a row. Times are by whatever clock the caller uses, in seconds.

    ``threshold`` and ``reset_seconds`` may be changed at any time.
    """

    __slots__ = ("_failures", "_retry_at", "_state", "last_error", "reset_seconds", "threshold")

    def __init__(self, *, threshold: int, reset_seconds: float) -> None:
        self.threshold = threshold
        self.reset_seconds = reset_seconds
        self._failures = 0
        self._retry_at = 0.0
        self._state = BreakerState.CLOSED
        self.last_error: ProxyError | None = None

    @property
    def state(self) -> BreakerState:
        """Where the breaker is."""
        return self._state

    def is_open(self, now: float) -> bool:
        """Whether no handshake may be tried now. Asking changes nothing."""
        if self._state is BreakerState.OPEN:
            return now < self._retry_at
        return self._state is BreakerState.HALF_OPEN

    def begin(self, now: float) -> None:
        """A handshake is tried; after an open time it is the only one until its outcome is known."""
        if self._state is BreakerState.OPEN and now >= self._retry_at:
            self._state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """A handshake succeeded."""
        self._state = BreakerState.CLOSED
        self._failures = 0
        self.last_error = None

    def undecided(self) -> None:
        """A handshake ended without saying anything of the server's health: the next one may be tried."""
        if self._state is BreakerState.HALF_OPEN:
            self._state = BreakerState.OPEN

    def failed(self, error: ProxyError, now: float) -> None:
        """A handshake failed."""
        self._failures += 1
        self.last_error = error
        if self._state is BreakerState.HALF_OPEN or self._failures >= self.threshold:
            self._state = BreakerState.OPEN
            self._retry_at = now + self.reset_seconds

    def retry_after_seconds(self, now: float) -> float:
        """How long until a handshake may be tried again."""
        return max(0.0, self._retry_at - now)
