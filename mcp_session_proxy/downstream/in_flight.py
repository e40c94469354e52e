"""How many requests are under way, and how many of them one caller may have.

Each may hold a connection to the server and what was sent and said for it, also when its client has long
gone: what a legacy client asked for goes on without it. So they are bounded, those of a batch one by one.
"""

from typing import Final

from ..errors import TooManyExchanges

# Callers whom the server has not accepted yet leave this part, in hundredths, to those whom it has. Anybody
# can make up any number of them.
_FOR_ACCEPTED: Final = 25
# The last part is for callers that have few requests under way, a thirty-second of all at most: some callers
# with many must not keep the others out, not even together.
_FOR_OTHERS: Final = 25
_FEW: Final = 32


class InFlight:
    """Counts requests."""

    def __init__(self, *, max_exchanges: int, max_exchanges_per_principal: int) -> None:
        self.limit(max_exchanges=max_exchanges, max_exchanges_per_principal=max_exchanges_per_principal)
        self._count = 0
        self._strangers = 0
        self._own: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def limit(self, *, max_exchanges: int, max_exchanges_per_principal: int) -> None:
        """These limits from now on. What is under way goes on."""
        self._most = max_exchanges
        self._most_strangers = max(1, max_exchanges * (100 - _FOR_ACCEPTED) // 100)
        # Nobody gets all of it, whatever the options say: one caller must not keep the others out.
        self._busy = max(1, max_exchanges * (100 - _FOR_OTHERS) // 100)
        self._most_own = min(max_exchanges_per_principal, self._busy)
        self._few = max(1, max_exchanges // _FEW)

    def enter(self, principal: str, *, accepted: bool) -> None:
        """One more request of this caller; ``leave`` when it is over.

        Raises:
            TooManyExchanges: there are too many; this one must not begin.
        """
        own = self._own.get(principal, 0)
        if own >= self._most_own:
            raise TooManyExchanges(
                f"{own} requests of this caller are under way already (--max-exchanges-per-principal)."
            )
        if self._count >= (self._most if own < self._few else self._busy) or (
            not accepted and self._strangers >= self._most_strangers
        ):
            raise TooManyExchanges(f"{self._count} requests are under way already (--max-exchanges).")
        self._count += 1
        self._own[principal] = own + 1
        if not accepted:
            self._strangers += 1

    def leave(self, principal: str, *, accepted: bool) -> None:
        """It is over. ``accepted`` is what it was when the request began."""
        self._count -= 1
        if not accepted:
            self._strangers -= 1
        own = self._own[principal] - 1
        if own:
            self._own[principal] = own
        else:
            del self._own[principal]
