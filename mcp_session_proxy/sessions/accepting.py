"""Finds out who tokens count as: asks the server, once for each, and waits where that takes time.

What is known is in ``acceptance``; here the server is asked. All who bring a token at once wait for one
question about it. A server that is away, slow or full has said nothing: its error is for the caller, and
nothing is kept of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from .. import events
from ..aio import Tasks
from ..backoff import Backoff
from ..bounds import NEW_TOKENS, NEW_TOKENS_A_CLAIMANT, TOKEN_HANDSHAKES
from ..errors import ProxyError, TooManyWaiters, UpstreamUnreachable
from ..events import Observer
from ..protocol.tokens import damage
from ..upstream.fleet import Replica
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from ..upstream.trial import Outcome, Trials
from . import sole, upkeep
from .acceptance import Acceptance, TokenStanding, is_over, standing_seconds
from .identity import Claim, Principal
from .pool import Pool

_K = TypeVar("_K")
_T = TypeVar("_T")

_RETRIES: Final = Backoff(0.05, 1.0)
_FOUNDING: Final = Backoff(0.5, 30.0)
_FOUNDING_TRIES: Final = 6
# A token that was refused is asked about again then, and counts as itself until then.
_REFUSED_SECONDS: Final = 2.0
_UNVERIFIED_SECONDS: Final = 10.0
_AUTHORIZATION: Final = "authorization"
_MAX_ISSUER_CHARS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRules:
    """How long a handshake may take, and how long a server that takes no connections is waited for."""

    handshake_timeout_seconds: float
    patience_seconds: float


class Acceptances:
    """Judges tokens. ``rules`` may be replaced at any time; ``clock`` gives seconds since 1970.

    With ``verify``, which is given the value of an ``Authorization`` header, the server is asked nothing.
    """

    def __init__(
        self,
        rules: AcceptanceRules,
        *,
        trials: Trials,
        pool: Pool,
        observe: Observer,
        verify: Callable[[str], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self._trials = trials
        self._pool = pool
        self._observe = observe
        self._verify = verify
        self._clock = clock
        # Told of a claim of which an accepted token has shown who all that claim the same count as.
        self.on_found: list[Callable[[str, str], None]] = []
        self._known = Acceptance()
        self._turns = asyncio.Semaphore(TOKEN_HANDSHAKES)
        self._asking: dict[Claim, asyncio.Task[TokenStanding]] = {}
        self._founding: dict[str, asyncio.Task[None]] = {}  # by claim
        self._questions: dict[tuple[str, str], asyncio.Task[bool]] = {}  # by server and issuer
        self._tasks = Tasks()
        pool.on_opened.append(self._opened)

    # -- what is known ---------------------------------------------------------------------------

    def judge(self, claim: Claim, shown: Principal) -> TokenStanding | None:
        """Who the bearer of a token counts as; None where the server has to be asked first.

        ``shown`` is the principal by the bytes of all credentials. It stands for nobody else, so it is safe
        to use for the first token with its claim; for any other there is another principal of this kind,
        which nothing can belong to.
        """
        known = self._known
        standing = known.find(claim)
        if standing is not None:
            return standing
        if self._verify is not None:
            return None
        if known.is_blind(claim):
            return TokenStanding(shown.digest)
        # While the first token is being asked about, a second one waits: that decides who it counts as.
        if known.principal_of(claim) is not None or claim.digest in self._founding:
            return None
        now = self._clock()
        if is_over(claim, now):
            return TokenStanding(claim.token)
        known.await_founder(claim, shown.digest)
        return self._stand(claim, shown.digest, standing_seconds(claim, now), accepted=False)

    def _stand(self, claim: Claim, principal: str, seconds: float, *, accepted: bool) -> TokenStanding:
        standing = self._known.stand(claim, principal, accepted=accepted)
        loop = asyncio.get_running_loop()
        standing.forget_timer = loop.call_later(seconds, self._known.end, claim, standing).cancel
        return standing

    # -- the first token -------------------------------------------------------------------------

    def _opened(self, principal: str, caller: Caller, session: UpstreamSession) -> None:
        """A handshake has succeeded. If its token was the first with its claim, that is accepted by it."""
        claim, replica = self._known.take_founder(principal), session.replica
        if claim is None or replica is None or self._known.principal_of(claim) is not None:
            return
        if claim.issuer in replica.checks:
            self._note_found(claim, principal)
        elif claim.digest not in self._founding and len(self._founding) < NEW_TOKENS:
            founding = self._tasks.spawn(self._found(claim, principal, caller, replica), "first token")
            self._founding[claim.digest] = founding
            founding.add_done_callback(lambda task: _drop(self._founding, claim.digest, task))

    def _note_found(self, claim: Claim, principal: str) -> None:
        if self._known.found(claim, principal):
            for told in self.on_found:
                told(claim.digest, principal)

    def remember(self, claim: str, principal: str) -> None:
        """Who tokens with this claim count as, each once it was accepted, is known from before a restart."""
        self._known.remember(claim, principal)

    async def _found(self, claim: Claim, principal: str, caller: Caller, replica: Replica) -> None:
        """Find out whether the server would have refused this token with another signature."""
        pause_seconds = 0.0
        for _ in range(_FOUNDING_TRIES):
            try:
                if await self._checks(replica, claim, caller):
                    self._note_found(claim, principal)
                return
            except ProxyError:
                pause_seconds = _FOUNDING.after(pause_seconds)
            await asyncio.sleep(pause_seconds)

    async def _checks(self, replica: Replica, claim: Claim, caller: Caller) -> bool:
        """Whether this server refuses a token that it takes, once its signature is damaged.

        It is asked once for each issuer, however many bring such tokens at the same time.

        Raises:
            UpstreamError: it did neither.
        """
        if claim.issuer in replica.checks:
            return True
        place = (replica.name, claim.issuer)
        question = self._questions.get(place)
        if question is None:
            question = self._tasks.spawn(self._ask_with_damage(replica, claim, caller), "damaged token")
            self._questions[place] = question
            question.add_done_callback(lambda task: _drop(self._questions, place, task))
        # Others wait for the same: one that leaves must not take the question along.
        return await asyncio.shield(question)

    async def _ask_with_damage(self, replica: Replica, claim: Claim, caller: Caller) -> bool:
        async with self._turns:
            seconds = self.rules.handshake_timeout_seconds
            outcome = await self._trials.hold_at(replica, _with_damaged_token(caller), seconds)
        if outcome is Outcome.REFUSED:
            replica.checks.add(claim.issuer)
            return True
        if not self._known.is_blind(claim):
            self._known.note_blind(claim)
            self._observe(events.TokensNotChecked(issuer=claim.issuer[:_MAX_ISSUER_CHARS]))
        return False

    # -- every further one -----------------------------------------------------------------------

    async def ask(self, claim: Claim, shown: Principal, caller: Caller) -> TokenStanding:
        """Who the bearer of a token counts as that ``judge`` could not tell. One question for all who ask.

        Raises:
            UpstreamError: the server is away, slow or full, so nothing is known.
            TooManyWaiters: too many tokens are being asked about.
        """
        asking = self._asking.get(claim)
        if asking is None:
            # Whoever makes up tokens in somebody's name keeps nobody else from its sessions.
            claimants = sum(other.digest == claim.digest for other in self._asking)
            if len(self._asking) >= NEW_TOKENS or claimants >= NEW_TOKENS_A_CLAIMANT:
                raise TooManyWaiters("Too many new tokens at once. Try again shortly.")
            asking = self._tasks.spawn(self._ask(claim, shown, caller), "new token")
            self._asking[claim] = asking
            asking.add_done_callback(lambda task: _drop(self._asking, claim, task))
        return await asyncio.shield(asking)

    async def _ask(self, claim: Claim, shown: Principal, caller: Caller) -> TokenStanding:
        if self._verify is not None:
            return await self._verified(claim, shown, caller, self._verify)
        if (founding := self._founding.get(claim.digest)) is not None:
            await asyncio.wait([founding], timeout=self.rules.patience_seconds)
        # Whatever came of that, and if it takes too long, what is known has to be looked at anew.
        standing = self.judge(claim, shown)
        if standing is not None:
            return standing
        principal = self._known.principal_of(claim)
        if principal is None or not await self._is_accepted(claim, caller):
            if self._known.is_blind(claim):
                return TokenStanding(shown.digest)
            return self._stand(claim, claim.token, _REFUSED_SECONDS, accepted=False)
        self._tell(principal, "accepted")
        upkeep.renew_credentials(self._pool, principal, caller)
        return self._stand(claim, principal, standing_seconds(claim, self._clock()), accepted=True)

    async def _verified(
        self, claim: Claim, shown: Principal, caller: Caller, verify: Callable[[str], Awaitable[bool]]
    ) -> TokenStanding:
        """Who a token counts as that can be checked here: nothing but its claim is needed for that.

        One that is not good counts by its bytes and goes to the server, which says what is wrong with it.
        """
        token = next(value for name, value in caller.headers if name.lower() == _AUTHORIZATION)
        if not await verify(token):
            self._tell(shown.digest, "refused")
            return self._stand(claim, shown.digest, _UNVERIFIED_SECONDS, accepted=False)
        self._tell(claim.digest, "accepted")
        upkeep.renew_credentials(self._pool, claim.digest, caller)
        return self._stand(claim, claim.digest, standing_seconds(claim, self._clock()), accepted=True)

    async def _is_accepted(self, claim: Claim, caller: Caller) -> bool:
        """Whether the server takes this very token, and looks at such. Raises UpstreamError."""
        try:
            outcome, replica = await self._try_patiently(claim, caller)
        except ProxyError as error:
            # It has looked at the token before it said so, since it would have refused a wrong one.
            if sole.refuses_another(error) and self._trials.all_check(claim.issuer):
                return True
            raise
        if outcome is Outcome.REFUSED:
            self._tell(claim.token, "refused")
            return False
        return await self._checks(replica, claim, caller)

    async def _try_patiently(self, claim: Claim, caller: Caller) -> tuple[Outcome, Replica]:
        """Try the token; a server that takes no connections is waited for, as for a session."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.rules.patience_seconds
        pause_seconds = 0.0
        while True:
            try:
                async with self._turns:
                    return await self._trials.hold(claim.token, caller, self.rules.handshake_timeout_seconds)
            except UpstreamUnreachable:
                # The pause is outside of the turn: a server that is away keeps no other handshake waiting.
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() + pause_seconds >= deadline:
                    raise
            await asyncio.sleep(pause_seconds)

    def _tell(self, principal: str, outcome: str) -> None:
        tag = Principal(digest=principal, anonymous=False).tag
        self._observe(events.TokenJudged(principal=tag, outcome=outcome))

    def close(self) -> None:
        """Ask nothing any more."""
        self._tasks.cancel()


def _drop(tasks: dict[_K, asyncio.Task[_T]], key: _K, task: asyncio.Task[_T]) -> None:
    """A task is over. Whoever waits for it has got what it raises; maybe nobody does."""
    del tasks[key]
    if not task.cancelled():
        task.exception()


def _with_damaged_token(caller: Caller) -> Caller:
    return Caller(
        headers=tuple(
            (name, damage(value) if name.lower() == _AUTHORIZATION else value)
            for name, value in caller.headers
        ),
        query=caller.query,
    )
