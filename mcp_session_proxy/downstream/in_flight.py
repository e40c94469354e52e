"""How many requests are under way, and how many of them one caller may have.

Each may hold a connection to the server and what was sent and said for it, also when its client has long
gone: what a legacy client asked for goes on without it. So they are bounded, those of a batch one by one.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from ..errors import TooManyExchanges

# Callers whom the server has not accepted yet leave this part, in hundredths, to those whom it has. Anybody
# can make up any number of them.
_FOR_ACCEPTED: Final = 25
# The last part is for callers that have few requests under way, a thirty-second of all at most: some callers
# with many must not keep the others out, not even together.
_FOR_OTHERS: Final = 25
_FEW: Final = 32
# Of that, the last of all (1 of this many) is for callers with nothing under way: dozens with a few each must
# not keep the others out, either.
_FOR_THE_FIRST: Final = 16


class ExchangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests may be under way, and how many of them one caller may have."""

    max_exchanges: int
    max_exchanges_per_principal: int


class InFlight:
    """The counts: of all, of callers whom the server has not accepted, of each caller; and their limits.

    ``is_accepted`` says of a caller, by its digest, whether the server has accepted it. ``rules`` may be
    replaced at any time; what is under way goes on.
    """

    def __init__(self, rules: ExchangeLimits, *, is_accepted: Callable[[str], bool]) -> None:
        self.is_accepted = is_accepted
        self.rules = rules
        self.count = 0
        self.strangers = 0
        self.own: dict[str, int] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def rules(self) -> ExchangeLimits:
        """The limits."""
        return self._rules

    @rules.setter
    def rules(self, rules: ExchangeLimits) -> None:
        self._rules = rules
        self.most = most = rules.max_exchanges
        self.most_strangers = max(1, most * (100 - _FOR_ACCEPTED) // 100)
        # Nobody gets all of it, whatever the options say: one caller must not keep the others out.
        self.busy = max(1, most * (100 - _FOR_OTHERS) // 100)
        self.most_own = min(rules.max_exchanges_per_principal, self.busy)
        self.few = max(1, most // _FEW)
        self.most_with_few = most - most // _FOR_THE_FIRST

    def room(self, principal: str) -> int:
        """How many more of this caller can begin now, at most; looked at one by one, it may be fewer."""
        own = self.own.get(principal, 0)
        return min(self.most_own - own, max(self.busy - self.count, self.few - own))

    def no_room(self, principal: str) -> TooManyExchanges:
        """The error about one more of this caller."""
        own = self.own.get(principal, 0)
        if own >= self.most_own:
            return TooManyExchanges(
                f"{own} requests of this caller are under way already (--max-exchanges-per-principal)."
            )
        return TooManyExchanges(f"{self.count} requests are under way already (--max-exchanges).")


class UnderWay(msgspec.Struct):
    """One request of a caller, named by its digest: ``with`` this around it. It is made for one ``with``.

    On entry it raises TooManyExchanges where there are too many; the request must not begin then. Whether the
    caller is accepted is asked once: it leaves the count that it has come into, whatever happens meanwhile.
    """

    counts: InFlight
    principal: str
    accepted: bool = False

    def __enter__(self) -> None:
        counts, principal = self.counts, self.principal
        own = counts.own.get(principal, 0)
        if own >= counts.most_own:
            raise counts.no_room(principal)
        self.accepted = accepted = counts.is_accepted(principal)
        room = counts.busy
        if own < counts.few:
            room = counts.most_with_few if own else counts.most
        if counts.count >= room or (not accepted and counts.strangers >= counts.most_strangers):
            raise counts.no_room(principal)
        counts.count += 1
        counts.own[principal] = own + 1
        if not accepted:
            counts.strangers += 1

    def __exit__(self, *_: object) -> None:
        counts, principal = self.counts, self.principal
        counts.count -= 1
        if not self.accepted:
            counts.strangers -= 1
        own = counts.own[principal] - 1
        # Nothing is remembered of a caller that has nothing under way.
        if own:
            counts.own[principal] = own
        else:
            del counts.own[principal]
