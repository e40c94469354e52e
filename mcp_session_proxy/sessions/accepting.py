"""Finds out who tokens count as: asks the server, once for each, and waits where that takes time.

What is known is in ``acceptance``; here the server is asked. All who bring a token at once wait for one
question about it. A server that is away, slow or full has said nothing: its error is for the caller, and
nothing is kept of it.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from .. import events
from ..aio import Signal, Tasks
from ..backoff import Backoff
from ..bounds import (
    NEW_TOKENS,
    NEW_TOKENS_A_CLAIMANT,
    TOKEN_HANDSHAKES,
    TOKEN_HANDSHAKES_A_CLAIMANT,
)
from ..errors import HandshakeRefused, ProxyError, TooManyWaiters, UpstreamUnreachable
from ..events import Observer
from ..protocol.tokens import damage
from ..upstream.fleet import Replica
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from ..upstream.trial import Outcome, Trials
from . import sole, upkeep
from .acceptance import Acceptance, TokenOutcome, TokenStanding, is_over, standing_seconds
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
# A token that is over stays so. It is looked at again because clocks may be set.
_OVER_SECONDS: Final = 60.0
_AUTHORIZATION: Final = "authorization"
_MAX_ISSUER_CHARS: Final = 200


class AcceptanceRules(msgspec.Struct, frozen=True, kw_only=True):
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
        self.known = Acceptance()
        self.judged: Counter[TokenOutcome] = Counter()  # new tokens, since the beginning
        self._turns = asyncio.Semaphore(TOKEN_HANDSHAKES)
        self._turns_by_claim: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._first_decided = Signal()
        self._asking: dict[Claim, asyncio.Task[TokenStanding]] = {}
        self._founding: dict[str, asyncio.Task[None]] = {}  # by claim
        self._questions: dict[tuple[str, str], asyncio.Task[bool]] = {}  # by server and issuer
        self._tasks = Tasks()
        pool.on_opened.append(self._opened)
        pool.on_failed.append(self._failed)

    @property
    def asking(self) -> int:
        """How many tokens the server is being asked about."""
        return len(self._asking) + len(self._founding)

    # -- what is known ---------------------------------------------------------------------------

    def judge(self, claim: Claim, shown: Principal) -> TokenStanding | None:
        """Who the bearer of a token counts as; None where the server has to be asked first.

        ``shown`` is the principal by the bytes of all credentials. It stands for nobody else, so it is safe
        to use for the first token with its claim; for any other there is another principal of this kind,
        which nothing can belong to.
        """
        known = self.known
        standing = known.find(claim)
        if standing is not None:
            return standing
        if self._verify is not None:
            return None
        now = self._clock()
        if known.is_blind(claim):
            return self._disbelieve(claim, shown)
        if known.principal_of(claim) is not None:
            return None
        first = known.first(claim)
        if first is not None and first.claim.token != claim.token:
            return None
        if is_over(claim, now):
            return TokenStanding(claim.token)
        known.note_first(claim, shown.digest)
        return self._stand(claim, shown.digest, standing_seconds(claim, now), accepted=False)

    def _disbelieve(self, claim: Claim, shown: Principal) -> TokenStanding:
        """Nothing that a token claims counts, since its issuer's are not checked; its end does all the same.

        What was kept for it until then may be what the server refuses it from then on.
        """
        now = self._clock()
        if is_over(claim, now):
            return self._stand(claim, claim.token, _OVER_SECONDS, accepted=False)
        self._tell(shown.digest, TokenOutcome.NOT_BELIEVED)
        return self._stand(claim, shown.digest, standing_seconds(claim, now), accepted=False)

    def _stand(self, claim: Claim, principal: str, seconds: float, *, accepted: bool) -> TokenStanding:
        standing = self.known.stand(claim, principal, accepted=accepted)
        loop = asyncio.get_running_loop()
        standing.forget_timer = loop.call_later(seconds, self.known.end, claim, standing).cancel
        return standing

    # -- the first token -------------------------------------------------------------------------

    def _opened(self, principal: str, caller: Caller, session: UpstreamSession) -> None:
        """A handshake has succeeded. If its token was the first with its claim, that is accepted by it."""
        first, residence = self.known.first_named(principal), session.residence
        if first is None or residence is None:
            return
        claim, replica = first.claim, residence.replica
        if claim.issuer in replica.checks:
            self._believe(claim, principal)
        elif claim.digest not in self._founding and len(self._founding) < NEW_TOKENS:
            founding = self._tasks.spawn(self._found(claim, principal, caller, replica), "first token")
            self._founding[claim.digest] = founding
            founding.add_done_callback(lambda task: _drop(self._founding, claim.digest, task))
            founding.add_done_callback(self._first_decided.give)
        self._first_decided.give()

    def _failed(self, principal: str) -> None:
        """A handshake has failed. If nothing else is there or comes of a first token, others may be first."""
        first, books = self.known.first_named(principal), self._pool.books
        if first is not None and not books.has_open(principal) and not books.is_opening(principal):
            self.known.pass_over(first)
        self._first_decided.give()

    def remember(self, claim: str, principal: str) -> None:
        """Who tokens with this claim count as, each once it was accepted, is known from before a restart."""
        self.known.remember(claim, principal)

    async def _found(self, claim: Claim, principal: str, caller: Caller, replica: Replica) -> None:
        """Find out whether the server would have refused this token with another signature."""
        pause_seconds = 0.0
        for _ in range(_FOUNDING_TRIES):
            try:
                if await self._checks(replica, claim, caller):
                    self._believe(claim, principal)
                return
            except ProxyError:
                pause_seconds = _FOUNDING.after(pause_seconds)
            await asyncio.sleep(pause_seconds)

    def _believe(self, claim: Claim, principal: str) -> None:
        """The first token with its claim is accepted."""
        if self._note_found(claim, principal):
            self._tell(principal, TokenOutcome.ACCEPTED)

    def _note_found(self, claim: Claim, principal: str) -> bool:
        """As ``Acceptance.found``, for everybody who is told of that."""
        if not self.known.found(claim, principal):
            return False
        for told in self.on_found:
            told(claim.digest, principal)
        return True

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
            damaged = _with_damaged_token(caller)
            try:
                outcome = await self._trials.hold_at(replica, damaged, seconds)
            except HandshakeRefused:
                # Not over who it is. Some servers want clients that can do something: it has taken those.
                params = self._params_of(claim)
                if params is None:
                    raise
                outcome = await self._trials.hold_at(replica, damaged, seconds, params)
        if outcome is Outcome.REFUSED:
            replica.checks.add(claim.issuer)
            return True
        if not self.known.is_blind(claim):
            self.known.note_blind(claim)
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
        known = self.known
        deadline = asyncio.get_running_loop().time() + self.rules.patience_seconds
        await self._wait_for_first(claim, deadline)
        # Whatever came of that, and if it takes too long, what is known has to be looked at anew.
        if (standing := self.judge(claim, shown)) is not None:
            return standing
        if not await self._is_accepted(claim, caller, deadline):
            if known.is_blind(claim):
                return self._disbelieve(claim, shown)
            return self._stand(claim, claim.token, _REFUSED_SECONDS, accepted=False)
        # The first one may have begun to open its session only while this one was asked about.
        await self._wait_for_first(claim, deadline)
        principal = known.principal_of(claim) or self._succeed(claim, shown)
        self._tell(principal, TokenOutcome.ACCEPTED)
        upkeep.renew_credentials(self._pool, principal, caller)
        return self._stand(claim, principal, standing_seconds(claim, self._clock()), accepted=True)

    async def _wait_for_first(self, claim: Claim, deadline: float) -> None:
        """Wait until it is known what comes of another token with this claim that was first.

        Its bearer is on its way to a session of the same caller's, so who comes meanwhile goes there, too,
        instead of being a second one. That takes a handshake at most: a first one that gets no further keeps
        nobody waiting.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._is_under_way(claim):
                    await self._first_decided.wait()

    def _is_under_way(self, claim: Claim) -> bool:
        first = self.known.first(claim)
        return (
            first is not None
            and first.claim.token != claim.token
            and (claim.digest in self._founding or self._pool.books.is_opening(first.principal))
        )

    def _succeed(self, claim: Claim, shown: Principal) -> str:
        """A token was accepted before the one that was first with its claim; gives who such count as."""
        first = self.known.first(claim)
        # The server has taken that one, too, though it was not known then whether it looks.
        taken = first is not None and self._pool.books.has_open(first.principal)
        principal = first.principal if first is not None and taken else shown.digest
        self._note_found(claim, principal)
        return principal

    async def _verified(
        self, claim: Claim, shown: Principal, caller: Caller, verify: Callable[[str], Awaitable[bool]]
    ) -> TokenStanding:
        """Who a token counts as that can be checked here: nothing but its claim is needed for that.

        One that is not good counts by its bytes and goes to the server, which says what is wrong with it.
        """
        token = next(value for name, value in caller.headers if name.lower() == _AUTHORIZATION)
        if not await verify(token):
            self._tell(shown.digest, TokenOutcome.REFUSED)
            now = self._clock()
            if is_over(claim, now):
                return self._stand(claim, claim.token, _UNVERIFIED_SECONDS, accepted=False)
            seconds = min(standing_seconds(claim, now), _UNVERIFIED_SECONDS)
            return self._stand(claim, shown.digest, seconds, accepted=False)
        self._tell(claim.digest, TokenOutcome.ACCEPTED)
        upkeep.renew_credentials(self._pool, claim.digest, caller)
        return self._stand(claim, claim.digest, standing_seconds(claim, self._clock()), accepted=True)

    async def _is_accepted(self, claim: Claim, caller: Caller, deadline: float) -> bool:
        """Whether the server takes this very token, and looks at such. Raises UpstreamError."""
        try:
            outcome, replica = await self._try_patiently(claim, caller, deadline)
        except ProxyError as error:
            # It has looked at the token before it said so, since it would have refused a wrong one.
            if sole.refuses_another(error) and self._trials.all_check(claim.issuer):
                return True
            raise
        if outcome is Outcome.REFUSED:
            self._tell(claim.token, TokenOutcome.REFUSED)
            return False
        return await self._checks(replica, claim, caller)

    async def _try_patiently(self, claim: Claim, caller: Caller, deadline: float) -> tuple[Outcome, Replica]:
        """Try the token; a server that takes no connections is waited for, as for a session."""
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        params: bytes | None = None
        # One claim's turns first: many tokens with it must not stand in everybody's line.
        turns = self._turns_by_claim.setdefault(claim.digest, asyncio.Semaphore(TOKEN_HANDSHAKES_A_CLAIMANT))
        while True:
            try:
                async with turns, self._turns:
                    seconds = self.rules.handshake_timeout_seconds
                    return await self._trials.hold(claim.token, caller, seconds, params)
            except HandshakeRefused:
                # As for a damaged one.
                tried, params = params, self._params_of(claim)
                if tried is not None or params is None:
                    raise
                continue
            except UpstreamUnreachable:
                # The pause is outside of the turn: a server that is away keeps no other handshake waiting.
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() + pause_seconds >= deadline:
                    raise
            await asyncio.sleep(pause_seconds)

    def _params_of(self, claim: Claim) -> bytes | None:
        """The parameters with which a session of this caller's was opened, if there is one."""
        first = self.known.first(claim)
        principal = self.known.principal_of(claim) if first is None else first.principal
        for key, demand in self._pool.queue.demands.items():
            if key.principal == principal:
                return demand.profile.params
        return None

    def _tell(self, principal: str, outcome: TokenOutcome) -> None:
        self.judged[outcome] += 1
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
