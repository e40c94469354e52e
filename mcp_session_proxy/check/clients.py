"""How each kind of client fares with a server: the verdicts, from what was observed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from ..protocol import jsonrpc, revisions
from .observations import Client, Observations, Play, is_tool_error, read_outcome
from .text import clean

# A handshake is slow if it takes this much longer than its two round trips.
_SLOW_SECONDS: Final = 0.1


class Verdict(StrEnum):
    """How a client fares, the worst first."""

    FAILS = "fails"
    LOSES_STATE = "loses-state"
    SLOW = "slow"
    WORKS = "works"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One kind of client and its verdict; ``text`` says why, in the server's own words where it failed."""

    client: Client
    verdict: Verdict
    text: str = ""

    @property
    def suffers(self) -> bool:
        """Whether it is worse off than a client should be."""
        return self.verdict is not Verdict.WORKS


def judge_clients(seen: Observations) -> tuple[Fate, ...]:
    """A verdict for every kind of client."""
    return tuple(_judge(seen, client, seen.plays[client]) for client in Client)


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
    for play in plays:
        if (failed := play.failed) is not None:
            return Fate(client=client, verdict=Verdict.FAILS, text=failed.complaint)
    if client is Client.MODERN and not seen.modern_versions:
        return Fate(client=client, verdict=Verdict.FAILS, text=_name_versions(seen))
    if client is not Client.KEEPS and (lost := _find_loss(seen, client, plays)):
        return Fate(client=client, verdict=Verdict.LOSES_STATE, text=lost)
    if client is Client.PER_CALL and is_slow(seen):
        return Fate(client=client, verdict=Verdict.SLOW, text=f"{_cost(seen)} before every call")
    return Fate(client=client, verdict=Verdict.WORKS, text=_praise(seen, client, plays))


def _name_versions(seen: Observations) -> str:
    raw = jsonrpc.read_object(seen.discover.result).get("supportedVersions", b"")
    named = [clean(jsonrpc.read_string(item) or "", 20) for item in jsonrpc.read_array(raw)]
    return f"{revisions.DISCOVER}: only {', '.join(named[:6]) or 'no versions'}"


def _find_loss(seen: Observations, client: Client, plays: Sequence[Play]) -> str:
    """What shows that this client's calls do not remember each other; empty if nothing does."""
    stateful = shows_state(seen)
    if stateful is None:
        # Without a call, only a new session for every call can be known to lose what sessions are for.
        if client is not Client.PER_CALL or not seen.issues_ids or seen.is_proxied:
            return ""
        slow = f", {_cost(seen)} each" if is_slow(seen) else ""
        return f"a new session for every call{slow}"
    outcomes = _outcomes(plays)
    if not stateful or len(set(outcomes)) > 1:
        return ""
    kept = _quote([read_outcome(answer.result) for answer in seen.in_session])
    return f"{seen.tool}: {_quote(outcomes)}; in one session {kept}"


def _praise(seen: Observations, client: Client, plays: Sequence[Play]) -> str:
    if client is Client.KEEPS and shows_state(seen):
        return f"{seen.tool}: {_quote([read_outcome(answer.result) for answer in seen.in_session])}"
    if client is not Client.KEEPS and shows_state(seen):
        return f"{seen.tool}: {_quote(_outcomes(plays))}"
    if client is Client.PER_CALL and handshake_seconds(seen) is not None:
        return f"{_cost(seen)} before every call"
    return ""


def _outcomes(plays: Sequence[Play]) -> list[str]:
    """Two answers that a client got one after the other."""
    return [play.outcome for play in plays[:2]]


def _quote(outcomes: Sequence[str]) -> str:
    return ", ".join(clean(outcome, 16) or "nothing" for outcome in outcomes)


def _cost(seen: Observations) -> str:
    return f"{(handshake_seconds(seen) or 0.0) * 1000:.0f} ms"
