"""A circuit breaker over handshakes: a server that keeps failing them is left alone for a while. Pure.

Refused connections do not count: they are cheap, and the monitor sees when they cease. What counts are
handshakes that were accepted and then failed: time-outs, errors of the server's, answers that are not MCP.

A server that stays silent is silent to everybody. One that answers with an error may mean the caller: some
answer 500 to a token that they cannot read. So an answer counts against its caller, and against the server
only once it was given to several callers in a row, with no handshake of anybody's succeeding in between;
and whom the server has accepted before is not shut out for what others were answered.
"""

from collections import OrderedDict
from enum import StrEnum

import msgspec

from ..bounds import FAILED_CALLERS
from ..errors import ProxyError, UpstreamTimeout


class BreakerState(StrEnum):
    """Whether handshakes may be tried."""

    CLOSED = "closed"  # all is well
    OPEN = "open"  # none may, until the time is up
    HALF_OPEN = "half-open"  # one is being tried


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many failures in a row are too many, and how long a server is left alone then."""

    threshold: int
    reset_seconds: float


class Breaker:
    """Counts failures in a row. Times are by whatever clock the caller uses, in seconds.

    ``rules`` may be replaced at any time.
    """

    __slots__ = ("_failures", "_retry_at", "_state", "last_error", "rules")

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
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
        """A handshake succeeded: the row of failures is over."""
        self._state = BreakerState.CLOSED
        self._failures = 0
        self.last_error = None

    def undecided(self) -> None:
        """A handshake ended without saying anything of the server's health: the next one may be tried."""
        # The open time is over already, so the next one is the trial.
        if self._state is BreakerState.HALF_OPEN:
            self._state = BreakerState.OPEN

    def failed(self, error: ProxyError, now: float) -> None:
        """A handshake failed."""
        self._failures += 1
        self.last_error = error
        if self._state is BreakerState.HALF_OPEN or self._failures >= self.rules.threshold:
            self._state = BreakerState.OPEN
            self._retry_at = now + self.rules.reset_seconds

    def retry_after_seconds(self, now: float) -> float:
        """How long until a handshake may be tried again."""
        return max(0.0, self._retry_at - now)


class Breakers:
    """One server's breaker for all callers, and one for each caller that was answered with errors."""

    def __init__(self, rules: BreakerRules) -> None:
        self.common = Breaker(rules)
        self._own: OrderedDict[str, Breaker] = OrderedDict()
        self._accepted: OrderedDict[str, None] = OrderedDict()
        self._answered: set[str] = set()  # with an error, since a handshake succeeded last
        self._latest: Breaker | None = None  # the caller's that failed last, unless one has succeeded since

    @property
    def rules(self) -> BreakerRules:
        """What all of them go by; may be replaced at any time."""
        return self.common.rules

    @rules.setter
    def rules(self, rules: BreakerRules) -> None:
        for breaker in (self.common, *self._own.values()):
            breaker.rules = rules

    def is_open(self, now: float, principal: str) -> bool:
        """Whether no handshake of this caller may be tried now. Asking changes nothing."""
        own = self._own.get(principal)
        if own is not None and own.is_open(now):
            return True
        if not self.common.is_open(now):
            return False
        silent = isinstance(self.common.last_error, UpstreamTimeout)
        return silent or principal not in self._accepted

    def begin(self, now: float, principal: str) -> None:
        """A handshake of this caller is tried."""
        self.common.begin(now)
        if (own := self._own.get(principal)) is not None:
            own.begin(now)

    def succeeded(self, principal: str) -> None:
        """It succeeded: the server is well, and has accepted this caller."""
        self.common.succeeded()
        self._own.pop(principal, None)
        self._answered.clear()
        self._latest = None
        self._accepted[principal] = None
        self._accepted.move_to_end(principal)
        if len(self._accepted) > FAILED_CALLERS:
            self._accepted.popitem(last=False)

    def undecided(self, principal: str) -> None:
        """It ended without saying anything of the server's health."""
        self.common.undecided()
        if (own := self._own.get(principal)) is not None:
            own.undecided()

    def failed(self, error: ProxyError, now: float, principal: str) -> None:
        """It failed: by an answer, which counts against the caller, or by silence, against the server."""
        if isinstance(error, UpstreamTimeout):
            self.common.failed(error, now)
            return
        own = self._own.get(principal)
        if own is None:
            own = self._own[principal] = Breaker(self.rules)
            if len(self._own) > FAILED_CALLERS:
                self._own.popitem(last=False)
        own.failed(error, now)
        self._latest = own
        # However often one caller fails, to the others that is once.
        if self.common.state is BreakerState.HALF_OPEN or principal not in self._answered:
            self.common.failed(error, now)
        if len(self._answered) < FAILED_CALLERS:
            self._answered.add(principal)

    def shown(self, now: float) -> Breaker:
        """The one that says most of how the server does: that of all, or of the caller that failed last."""
        if self._latest is None or self.common.is_open(now) or not self._latest.is_open(now):
            return self.common
        return self._latest

    def first_to_close(self, now: float, principal: str) -> Breaker:
        """The one that this caller waits for."""
        own = self._own.get(principal)
        return own if own is not None and own.is_open(now) else self.common
