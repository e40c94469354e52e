"""Which tokens the server has accepted, and who each of them counts as. Pure.

A claim is believed only of a token that the server has taken in a handshake, and only where it is known to
*look*: it refused a token that differed in nothing but the signature. Until then a token counts as itself,
and nothing is given to it that belongs to whoever it claims to speak for.

The first token of somebody is a principal of its own, by its bytes. Once the server has taken it, that
principal is who all further tokens with the same claim count as, each after it was accepted itself. So
nothing has to move when the second token comes, and the first costs no handshake but that of its session.

There is one such *first* at a time for each claim. Whoever brings another token with the same claim meanwhile
is asked about, and counts as the first once that has got its session, or in its place if it gets none.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, NamedTuple
from weakref import WeakSet

from ..bounds import KNOWN_CLAIMANTS, KNOWN_ISSUERS, KNOWN_TOKENS
from .identity import Claim

# How long a token without an end of its own is believed, and any token without asking again.
_ENDLESS_SECONDS: Final = 3600.0
_LONGEST_SECONDS: Final = 24 * 3600.0
# Servers allow for clocks that differ, so one that is over here may be taken there. It is asked often then.
_OVER_SECONDS: Final = 2.0


class TokenOutcome(StrEnum):
    """What was found out of a token that nobody had seen."""

    ACCEPTED = "accepted"  # it counts by what it claims
    REFUSED = "refused"  # it counts as nobody but itself
    NOT_BELIEVED = "not-believed"  # it counts by its bytes, as its issuer's are not checked


class TokenStanding:
    """Who a token counts as, until it is ``over``. ``heads`` are all that were judged by it.

    ``forget_timer`` is called when it ends: whoever set a timer for that lets go of it.

    Each of them has a ``judged_by``, which is emptied then: that is how a connection whose requests have all
    the same head learns that it has to be judged anew, without looking at a clock for each.
    """

    __slots__ = ("forget_timer", "heads", "over", "principal")

    def __init__(self, principal: str) -> None:
        self.principal = principal
        self.over = False
        self.forget_timer: Callable[[], None] = _no_timer
        self.heads: WeakSet[Judged] = WeakSet()

    def end(self) -> None:
        """It has to be found out anew who the token counts as."""
        self.over = True
        self.forget_timer()
        for head in self.heads:
            head.judged_by = None
        self.heads.clear()


def _no_timer() -> None:
    """It has no timer."""


class Judged:
    """Something that was judged by a standing, and is to be judged again when ``judged_by`` is None."""

    __slots__ = ("__weakref__", "judged_by")

    judged_by: object | None


class First(NamedTuple):
    """The first token with its claim: it counts as this ``principal``, which is its own."""

    claim: Claim
    principal: str


class Acceptance:
    """What is known of tokens, of those who have them, and of who issues them. All of it is bounded.

    Times are in seconds since 1970. Whoever keeps this calls ``end`` when the time of a standing has come.
    """

    def __init__(self) -> None:
        # By token. Anybody can make up tokens, so those that were not accepted displace none that were.
        self._accepted: OrderedDict[str, TokenStanding] = OrderedDict()
        self._strange: OrderedDict[str, TokenStanding] = OrderedDict()
        self._callers: OrderedDict[str, str] = OrderedDict()  # principals, by claim
        # Those whose claim nobody has been accepted with yet: by claim, and by principal.
        self._firsts: OrderedDict[str, First] = OrderedDict()
        self._firsts_by_principal: dict[str, First] = {}
        self._blind: OrderedDict[str, None] = OrderedDict()  # issuers

    @property
    def believed(self) -> int:
        """How many tokens count by what they claim now."""
        return len(self._accepted)

    @property
    def callers(self) -> int:
        """How many callers are known by the claims of their tokens."""
        return len(self._callers)

    @property
    def unchecked_issuers(self) -> Iterable[str]:
        """The issuers of whose tokens a server has taken one with a wrong signature, the newest first."""
        return reversed(self._blind)

    # -- tokens ----------------------------------------------------------------------------------

    def find(self, claim: Claim) -> TokenStanding | None:
        """Who this token counts as, if that is known."""
        return self._accepted.get(claim.token) or self._strange.get(claim.token)

    def stand(self, claim: Claim, principal: str, *, accepted: bool) -> TokenStanding:
        """From now on this token counts as this principal."""
        standing = TokenStanding(principal)
        for table in (self._accepted, self._strange):
            if (former := table.pop(claim.token, None)) is not None:
                former.end()
        self._keep(claim, standing, self._accepted if accepted else self._strange)
        return standing

    @staticmethod
    def _keep(claim: Claim, standing: TokenStanding, table: OrderedDict[str, TokenStanding]) -> None:
        if len(table) >= KNOWN_TOKENS:
            table.popitem(last=False)[1].end()
        table[claim.token] = standing

    def end(self, claim: Claim, standing: TokenStanding) -> None:
        """The time of a standing has come."""
        for table in (self._accepted, self._strange):
            if table.get(claim.token) is standing:
                del table[claim.token]
        standing.end()

    # -- whoever has them ------------------------------------------------------------------------

    def principal_of(self, claim: Claim) -> str | None:
        """Who tokens with this claim count as once they are accepted; None if none ever was."""
        principal = self._callers.get(claim.digest)
        if principal is not None:
            self._callers.move_to_end(claim.digest)
        return principal

    def first(self, claim: Claim) -> First | None:
        """The token that was first with this claim, as long as none with it was accepted."""
        return self._firsts.get(claim.digest)

    def first_named(self, principal: str) -> First | None:
        """The same, by the principal that it counts as."""
        return self._firsts_by_principal.get(principal)

    def note_first(self, claim: Claim, principal: str) -> None:
        """This token is the first with its claim: a handshake in its own name would accept it."""
        self._drop_first(claim.digest)
        if len(self._firsts) >= KNOWN_TOKENS:
            self.pass_over(next(iter(self._firsts.values())))
        first = self._firsts[claim.digest] = First(claim, principal)
        self._firsts_by_principal[principal] = first

    def pass_over(self, first: First) -> None:
        """Nothing has come of this one: it is judged anew when it comes again, and others may be first."""
        self._drop_first(first.claim.digest)
        if (standing := self._strange.pop(first.claim.token, None)) is not None:
            standing.end()

    def _drop_first(self, digest: str) -> None:
        if (first := self._firsts.pop(digest, None)) is not None:
            del self._firsts_by_principal[first.principal]

    def found(self, claim: Claim, principal: str) -> bool:
        """All tokens with this claim count as this principal, unless another one was faster; gives which.

        The one that was first, if it counted as another, is judged anew when it comes again.
        """
        # Who was faster stays: it has sessions already, and a second one would part them.
        if claim.digest in self._callers:
            return False
        self.remember(claim.digest, principal)
        first = self._firsts.get(claim.digest) or First(claim, principal)
        if first.principal != principal:
            self.pass_over(first)
            return True
        self._drop_first(claim.digest)
        if (standing := self._strange.pop(first.claim.token, None)) is not None:
            self._keep(first.claim, standing, self._accepted)
        return True

    def remember(self, claim: str, principal: str) -> None:
        """All tokens with this claim count as this principal, as it was found out."""
        if len(self._callers) >= KNOWN_CLAIMANTS:
            self._callers.popitem(last=False)
        self._callers[claim] = principal

    # -- who issues them -------------------------------------------------------------------------

    def is_blind(self, claim: Claim) -> bool:
        """Whether a server takes tokens of this issuer with any signature."""
        return claim.issuer in self._blind

    def note_blind(self, claim: Claim) -> None:
        """It does: nothing that such a token claims is ever believed."""
        if len(self._blind) >= KNOWN_ISSUERS:
            self._blind.popitem(last=False)
        self._blind[claim.issuer] = None
        # All of them, for a standing does not know its issuer. It happens once for each of those, and costs
        # the others' tokens one more question.
        for table in (self._accepted, self._strange):
            for standing in table.values():
                standing.end()
            table.clear()


def standing_seconds(claim: Claim, now: float) -> float:
    """For how long an accepted token needs no further look."""
    if claim.expires_at is None:
        return _ENDLESS_SECONDS
    left = min(claim.expires_at - now, _LONGEST_SECONDS)
    return left if left > 0 else _OVER_SECONDS


def is_over(claim: Claim, now: float) -> bool:
    """Whether the token has expired."""
    return claim.expires_at is not None and claim.expires_at <= now
