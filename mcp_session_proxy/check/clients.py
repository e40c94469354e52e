"""How each kind of client fares with a server: the verdicts, from what was observed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Final

from ..protocol import jsonrpc, revisions
from .observations import Client, Observations, Play, is_tool_error, read_outcome
from .text import clean

# A handshake is slow if it takes this much longer than its two round trips.
_SLOW_SECONDS: Final = 0.1
# Those that open a session for every call.
_OPENING: Final = frozenset({Client.PER_CALL, Client.LEAVES})
# Those whose calls do not name a session that they share.
_SESSION_ELSEWHERE: Final = _OPENING | {Client.MODERN}


class ClientVerdict(StrEnum):
    """How a client fares, the worst first."""

    FAILS = "fails"
    LOSES_STATE = "loses-state"
    SLOW = "slow"
    NOT_TRIED = "not-tried"  # it is answered; whether it loses state only a call can show
    WORKS = "works"


class State(StrEnum):
    """What becomes of the state that a client's call left in its session."""

    KEPT = "kept"
    LOST = "lost"
    NOT_TRIED = "not-tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One kind of client and its verdict; ``text`` says why, in the server's own words where it failed.

    ``state`` is None where there is none to keep, or the client does not get that far.
    """

    client: Client
    verdict: ClientVerdict
    text: str = ""
    state: State | None = None

    @property
    def suffers(self) -> bool:
        """Whether it is known to be worse off than a client should be."""
        return self.verdict not in (ClientVerdict.WORKS, ClientVerdict.NOT_TRIED)


def judge_clients(seen: Observations) -> tuple[Fate, ...]:
    """A verdict for every kind of client that was played."""
    return tuple(_judge(seen, client, seen.plays[client]) for client in Client if client in seen.plays)


def handshake_seconds(seen: Observations) -> float | None:
    """What opening a session costs; None if the server has no handshake."""
    plays = [play for play in seen.plays[Client.PER_CALL] if play.steps[0].is_fine]
    return median(play.handshake_seconds for play in plays) if plays else None


def is_slow(seen: Observations) -> bool:
    """Whether opening a session costs much more than the way there and back."""
    seconds = handshake_seconds(seen)
    if seconds is None:
        return False
    round_trip = 0.0 if seen.ping is None or not seen.ping.is_answered else seen.ping.seconds
    return seconds - 2 * round_trip > _SLOW_SECONDS


def shows_state(seen: Observations) -> bool | None:
    """Whether the tool that was called remembers within a session; None if no call of it went well."""
    if not seen.in_session or tool_complaint(seen) is not None:
        return None
    within = [read_outcome(answer.result) for answer in seen.in_session]
    return len(set(within)) > 1


def tool_complaint(seen: Observations) -> str | None:
    """What the tool that was called complained of, if it did."""
    for answer in seen.in_session:
        if not answer.is_answered:
            return str(answer)
        if is_tool_error(answer.result):
            return clean(read_outcome(answer.result))
    return None


def _judge(seen: Observations, client: Client, plays: Sequence[Play]) -> Fate:
    if client is Client.MODERN and seen.discover.is_answered and not seen.modern_versions:
        return Fate(client=client, verdict=ClientVerdict.FAILS, text=_name_versions(seen))
    for play in plays:
        if (failed := play.failed) is not None:
            return Fate(client=client, verdict=ClientVerdict.FAILS, text=failed.complaint)
        if (version := play.unknown_version) is not None:
            return Fate(client=client, verdict=ClientVerdict.FAILS, text=_name_unknown(version))
    state = _follow_state(seen, client, plays)
    verdict = _weigh(seen, client, state)
    return Fate(client=client, verdict=verdict, text=_explain(seen, client, plays, state), state=state)


def _name_unknown(version: str) -> str:
    return f"{revisions.INITIALIZE}: answered in version {clean(version, 20)!r}, which no client knows"


def _name_versions(seen: Observations) -> str:
    raw = jsonrpc.read_object(seen.discover.result).get("supportedVersions", b"")
    named = [clean(jsonrpc.read_string(item) or "", 20) for item in jsonrpc.read_array(raw)]
    return f"{revisions.DISCOVER}: only {', '.join(named[:6]) or 'no versions'}"


def _follow_state(seen: Observations, client: Client, plays: Sequence[Play]) -> State | None:
    """What the calls show, and without them only whether there is something that they could show."""
    shown = shows_state(seen)
    if shown is None:
        return State.NOT_TRIED if seen.issues_ids and client is not Client.NO_COOKIES else None
    if not shown or client is Client.NO_COOKIES:
        return None
    if client is Client.KEEPS:
        return State.KEPT
    if len(plays) < 2:  # nothing to compare
        return State.NOT_TRIED
    return State.KEPT if _find_repetition(plays) is None else State.LOST


def _find_repetition(plays: Sequence[Play]) -> tuple[str, str] | None:
    """Two conversations in a row with the same answer: the second knew nothing of the first.

    The very first may still have found what another client had left.
    """
    pairs = pairwise(play.outcome for play in plays)
    return next((pair for pair in pairs if pair[0] == pair[1]), None)


def _weigh(seen: Observations, client: Client, state: State | None) -> ClientVerdict:
    """The verdict about a client all of whose requests are answered."""
    if state is State.LOST:
        return ClientVerdict.LOSES_STATE
    if client not in _OPENING:
        return ClientVerdict.WORKS
    if state is State.NOT_TRIED and not seen.is_proxied:
        # A session for every call is what state gets lost by; that it does is only inferred.
        return ClientVerdict.NOT_TRIED
    return ClientVerdict.SLOW if is_slow(seen) else ClientVerdict.WORKS


def _explain(seen: Observations, client: Client, plays: Sequence[Play], state: State | None) -> str:
    cost = f"{_cost(seen)} before every call" if client in _OPENING and _has_cost(seen) else ""
    if state is State.NOT_TRIED:
        return _explain_ignorance(seen, client, cost)
    if state is None:
        return cost
    kept = _quote([read_outcome(answer.result) for answer in seen.in_session])
    if client is Client.KEEPS:
        return f"{seen.tool}: {kept}"
    if state is State.KEPT:
        return f"{seen.tool}: {_quote([play.outcome for play in plays[:2]])}"
    slowly = f"; {cost}" if is_slow(seen) else ""
    return f"{seen.tool}: {_quote(_find_repetition(plays) or ())}; in one session {kept}{slowly}"


def _explain_ignorance(seen: Observations, client: Client, cost: str) -> str:
    """Why there is no verdict, or what the verdict does not cover."""
    if client not in _SESSION_ELSEWHERE:
        return ""
    why = "not tried (use --call)" if seen.tool is None else "not seen, as the tool fails"
    if client in _OPENING and not seen.is_proxied:
        return f"{why}: {cost}"
    return "; ".join(filter(None, (cost, f"state: {why}")))


def _quote(outcomes: Sequence[str]) -> str:
    return ", ".join(clean(outcome, 16) or "nothing" for outcome in outcomes)


def _has_cost(seen: Observations) -> bool:
    return handshake_seconds(seen) is not None


def _cost(seen: Observations) -> str:
    return f"{(handshake_seconds(seen) or 0.0) * 1000:.0f} ms"
