"""Calls that wait for their clients' answers, and the sealed states that bring the clients back.

A ``requestState`` is signed, expires, is bound to the principal and to what was asked for, is fresh in
every round and good for one use (MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements"). It holds
a random id and the time, and nothing else: the call it stands for lives here, with what the state is bound
to, and ends when its client does not come back.
"""

import asyncio
import hashlib
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from itsdangerous import BadData, SignatureExpired, TimestampSigner, URLSafeTimedSerializer

from .. import events
from ..errors import OverBudget, StateRefused, TooManyParked, TooManyRounds
from ..events import Observer
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc
from ..protocol.inbound import ModernRequest
from ..store.clock import steady
from ..upstream.session import UpstreamSession
from .call import ModernCall

# What a retry of the same request has anew.
_NOT_SALIENT: Final = ("_meta", "inputResponses", "requestState")
_SEALED: Final = re.compile(r"[A-Za-z0-9_.-]+")
_ID_BYTES: Final = 12
# What is larger is compared as it was written: the same client writes the same thing in the same way.
_MAX_CANONICAL_BYTES: Final = 64 * 1024


class ParkingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows. ``timeout_seconds`` are for each round that a client takes to answer;
    ``max_rounds`` is how often a server may ask in one call.
    """

    timeout_seconds: float
    max_parked: int
    max_parked_per_principal: int
    max_rounds: int


class _StateSigner(TimestampSigner):
    """Tells a state's age by a clock that nobody sets: no call is lost over that."""

    def get_timestamp(self) -> int:
        return int(steady())


class _ParkedCall(msgspec.Struct):
    call: ModernCall
    principal: str
    digest: str
    timer: asyncio.TimerHandle
    room: Loan


class Parking:
    """All parked calls, by the id inside their state. ``rules`` may be replaced at any time.

    What their clients sent counts against ``share`` for as long as they are parked. States are sealed with
    the ``secret`` that all members of a cluster have, and name the ``member`` that holds the call.
    """

    def __init__(
        self,
        rules: ParkingLimits,
        observe: Observer,
        share: Share = UNBOUNDED,
        *,
        secret: bytes | None = None,
        member: str = "",
    ) -> None:
        self.rules = rules
        self._member = member
        self._share = share
        self._observe = observe
        # Random where nothing is kept: a state from before a restart opens nothing, for its call is gone.
        key = secrets.token_bytes(32) if secret is None else secret
        self._seal = URLSafeTimedSerializer(key, salt="requestState", signer=_StateSigner)
        # Told of the session of a call that is parked.
        self.on_parked: list[Callable[[UpstreamSession], None]] = []
        self._parked: dict[str, _ParkedCall] = {}
        self._per_principal: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def has(self, principal: str) -> bool:
        """Whether a call of this principal is parked."""
        return principal in self._per_principal

    def sessions(self) -> Iterator[UpstreamSession]:
        """The upstream session of each parked call."""
        return (parked.call.session for parked in self._parked.values())

    def park(self, call: ModernCall, principal: str) -> str:
        """Keep a call until its client comes back; gives the ``requestState`` for it.

        Raises:
            TooManyParked, TooManyRounds, OverBudget: over a limit; the call has been given up.
        """
        error: TooManyParked | TooManyRounds | None = None
        if call.rounds > self.rules.max_rounds:
            error = TooManyRounds(
                f"The server may ask {self.rules.max_rounds} times in one call, and asked once more."
            )
        elif (
            len(self._parked) >= self.rules.max_parked
            or self._per_principal.get(principal, 0) >= self.rules.max_parked_per_principal
        ):
            error = TooManyParked("Too many calls wait for their clients' answers. Try again later.")
        try:
            if error is not None:
                raise error
            room = self._share.lend(len(call.modern.request.params or b""))
        except (TooManyParked, TooManyRounds, OverBudget) as refusal:
            self._observe(events.Parked(outcome=refusal.reason))
            call.abandon()
            raise
        identifier = f"{self._member}.{secrets.token_urlsafe(_ID_BYTES)}"
        timer = asyncio.get_running_loop().call_later(self.rules.timeout_seconds, self._expire, identifier)
        self._parked[identifier] = _ParkedCall(call, principal, _digest(call.modern), timer, room)
        self._per_principal[principal] = self._per_principal.get(principal, 0) + 1
        call.park()
        for told in self.on_parked:
            told(call.session)
        self._observe(events.Parked(outcome="parked"))
        return self._seal.dumps(identifier)

    def find(self, state: str, principal: str, modern: ModernRequest) -> tuple[str, ModernCall]:
        """The call behind a ``requestState``, and its id here. It stays parked until ``take``.

        Raises:
            StateRefused: changed, expired, used, unknown, of another principal or another request.
        """
        try:
            if not _SEALED.fullmatch(state):  # lenient base64 would skip what does not belong there
                raise BadData("not a seal")
            # Rounded up, for the seal counts in whole seconds and must not be over before its call.
            identifier: str = self._seal.loads(state, max_age=math.ceil(self.rules.timeout_seconds))
        except SignatureExpired as error:
            raise self._refuse("This requestState has expired. Make the call again.") from error
        except (BadData, ValueError, TypeError) as error:
            raise self._refuse(
                "This requestState was not issued here, or the proxy was restarted since. "
                "Make the call again."
            ) from error
        parked = self._parked.get(identifier)
        # Its principal is served here now, so whoever held its calls has let go of them.
        if parked is None and identifier.partition(".")[0] != self._member:
            raise self._refuse(
                "The proxy that held this call is gone, and the call has been given up. Make the call again."
            )
        if parked is None:
            raise self._refuse("This requestState has been used, or has expired. Make the call again.")
        # A seal proves that we made it, and not who brings it.
        if parked.principal != principal:
            raise self._refuse("This requestState belongs to another caller.")
        if parked.digest != _digest(modern):
            raise self._refuse("This requestState belongs to another request.")
        return identifier, parked.call

    def _refuse(self, text: str) -> StateRefused:
        self._observe(events.Parked(outcome="refused"))
        return StateRefused(text)

    def take(self, identifier: str) -> None:
        """The call goes on: its state is spent."""
        self._remove(identifier)
        self._observe(events.Parked(outcome="resumed"))

    def _expire(self, identifier: str) -> None:
        parked = self._remove(identifier)
        if parked is not None:
            self._observe(events.Parked(outcome="expired"))
            parked.call.abandon()

    def _remove(self, identifier: str) -> _ParkedCall | None:
        parked = self._parked.pop(identifier, None)
        if parked is None:
            return None
        parked.timer.cancel()
        left = self._per_principal[parked.principal] - 1
        if left:
            self._per_principal[parked.principal] = left
        else:
            del self._per_principal[parked.principal]
        return parked

    def give_up(self, principal: str) -> None:
        """Give up every parked call of this principal."""
        if self.has(principal):
            for identifier, parked in list(self._parked.items()):
                if parked.principal == principal:
                    self._expire(identifier)

    def close(self) -> None:
        """Give up every parked call."""
        for identifier in list(self._parked):
            self._expire(identifier)


def _digest(modern: ModernRequest) -> str:
    """What was asked for: method and parameters, whatever their order and spacing."""
    salient: Mapping[str, bytes] = {
        key: value for key, value in modern.params.items() if key not in _NOT_SALIENT
    }
    state = hashlib.blake2b(digest_size=16)
    state.update(modern.request.method.encode())
    state.update(b"\0")
    for key in sorted(salient):
        value = salient[key]
        for part in (key.encode(), value if len(value) > _MAX_CANONICAL_BYTES else jsonrpc.canonical(value)):
            state.update(b"%d:" % len(part))
            state.update(part)
    return state.hexdigest()
