"""What to do about what was found: the command, the flags that suit this server, and why. Pure."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from ..protocol.lost import Verdict as Loss
from ..values import show_duration
from .clients import Fate, Verdict, handshake_seconds, is_slow, shows_state, tool_complaint
from .families import Kinship
from .observations import Client, Observations

PROGRAM: Final = "mcp-session-proxy"
# The advice to start the proxy.
NEED_PROXY: Final = frozenset({"proxy", "modern-clients"})
_DEFAULT_KEEPALIVE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice: a stable word for programs, the flags of ``serve`` that it names, and why."""

    key: str
    text: str
    flags: tuple[str, ...] = ()


_HELPED: Final = {
    Client.OPENAI: "use a session they have deleted",
    Client.PER_CALL: "open a session for every call (state is handed on, and the handshake done once)",
    Client.FORGETFUL: "never send the id back",
    Client.STALE: "keep an old id",
    Client.MODERN: "are modern",
}


def command(shown_url: str, upstream_flags: Sequence[str] = ()) -> str:
    """The proxy's command line in front of this server."""
    return " ".join([PROGRAM, "serve", shown_url, *upstream_flags])


def advise(
    seen: Observations, fates: Sequence[Fate], kinship: Kinship | None, *, has_credentials: bool
) -> tuple[Advice, ...]:
    """The advice about a server itself."""
    suffering = {fate.client for fate in fates if fate.suffers}
    if seen.is_proxied:
        return _advise_proxied(fates)
    advice = [_judge_need(seen, suffering)]
    if suffering and Client.KEEPS not in suffering:
        advice += _advise_flags(seen, kinship)
        if not has_credentials and seen.issues_ids:
            advice.append(
                Advice(
                    key="callers",
                    flags=("--anonymous isolate",),
                    text="Callers without credentials count as one party and share sessions. Only where "
                    "they are strangers to each other:",
                )
            )
    return tuple(advice)


def advise_through(seen: Observations, fates: Sequence[Fate]) -> tuple[Advice, ...]:
    """The advice about a proxy in front of it."""
    if not seen.is_proxied:
        return (
            Advice(key="not-this-proxy", text=f"What answers at {seen.url} does not seem to be {PROGRAM}."),
        )
    return _advise_proxied(fates)


def _judge_need(seen: Observations, suffering: AbstractSet[Client]) -> Advice:
    if not suffering:
        return Advice(
            key="no-proxy", text="Every kind of client works with this server as it is: it needs no proxy."
        )
    if not seen.hello.is_answered:
        return Advice(
            key="modern-only",
            text="This server speaks the modern protocol only. The proxy passes that through and cannot help "
            "older clients.",
        )
    if Client.KEEPS in suffering:
        return Advice(
            key="server-fails",
            text="Even a client that does everything right fails here, and the proxy cannot help with that. "
            "See the server's log, and whether it wants a credential (--header).",
        )
    if not seen.issues_ids and suffering <= {Client.MODERN}:
        return Advice(
            key="modern-clients",
            text="This server keeps no sessions, so only modern clients need the proxy.",
        )
    helped = ", ".join(words for client, words in _HELPED.items() if client in suffering)
    return Advice(
        key="proxy",
        text=f"With the proxy in front, these work too: clients that {helped}. Start it with:",
    )


def _advise_flags(seen: Observations, kinship: Kinship | None) -> list[Advice]:
    advice = []
    if is_slow(seen) and seen.issues_ids:
        advice.append(
            Advice(
                key="slow-handshake",
                flags=("--sharing fresh", "--min-idle 3"),
                text=f"Opening a session takes {(handshake_seconds(seen) or 0) * 1000:.0f} ms. The proxy "
                "does that once and hands the session on. Only where every call needs a session never used "
                "before, have some ready:",
            )
        )
    if seen.ping is not None and not seen.ping.is_answered:
        advice.append(
            Advice(
                key="no-ping",
                flags=("--check-after 0",),
                text="The server does not answer pings, so do not check quiet sessions with one:",
            )
        )
    advice += _advise_idle(seen, kinship)
    streams = seen.streams
    if streams is not None and streams.second is not None and not streams.second.is_stream:
        advice.append(
            Advice(
                key="second-stream",
                text="The server refuses a second GET. The proxy holds the one stream itself, and clients "
                "may open theirs as often as they like.",
            )
        )
    if seen.modern_versions:
        advice.append(
            Advice(
                key="modern-server",
                text="The server speaks the modern protocol itself: modern requests pass through unchanged, "
                "without a session.",
            )
        )
    if seen.moved_to is not None:
        advice.append(
            Advice(key="redirect", text="Some clients do not follow the redirect. The proxy does, for them.")
        )
    if seen.issues_ids and not seen.unknown.is_answered and seen.unknown.loss is Loss.ALIVE:
        advice.append(
            Advice(
                key="unknown-dialect",
                text="The proxy would not notice that this server has lost a session: its words for that are "
                "not known yet. Please report them.",
            )
        )
    return advice


def _advise_idle(seen: Observations, kinship: Kinship | None) -> list[Advice]:
    if not seen.issues_ids:
        return []
    if seen.idle is not None and not seen.idle.answer.is_answered:
        seconds = seen.idle.seconds
        if seconds > _DEFAULT_KEEPALIVE_SECONDS:
            return [Advice(key="idle", text=_HELD)]
        flag = f"--keepalive {show_duration(max(1.0, seconds // 2))}"
        return [Advice(key="idle", flags=(flag,), text="Idle sessions expire soon; ping them more often:")]
    known = None if kinship is None else kinship.family.known
    if seen.idle is None and known is not None and " min" in known.idle_expiry:
        return [Advice(key="idle", text=_HELD)]
    return []


_HELD: Final = "The proxy's pings (--keepalive, every 2 minutes) keep idle sessions from expiring."


def _advise_proxied(fates: Sequence[Fate]) -> tuple[Advice, ...]:
    verdicts = {fate.client: fate.verdict for fate in fates}
    advice = []
    if verdicts[Client.STALE] is Verdict.FAILS:
        advice.append(
            Advice(
                key="unknown-session",
                flags=("--unknown-session adopt",),
                text="The proxy turns away ids that it does not know. To let old ids go on working:",
            )
        )
    if Verdict.LOSES_STATE in verdicts.values():
        advice.append(
            Advice(
                key="sharing",
                flags=("--sharing handover",),
                text="The proxy gives every call a session of its own. To let state survive from one "
                "to the next:",
            )
        )
    if not advice and any(fate.suffers for fate in fates):
        advice.append(
            Advice(key="see-log", text="Something is wrong behind the proxy. See its log and its /readyz.")
        )
    return tuple(advice)


def suggest_call(seen: Observations) -> str | None:
    """How to see what cannot be seen without calling a tool; None if that is no use."""
    if (complaint := tool_complaint(seen)) is not None:
        return f"{seen.tool} shows nothing about state, as it fails: {complaint}"
    if shows_state(seen) is not None or not seen.tools or not (seen.issues_ids or seen.is_proxied):
        return None
    return "Whether tools remember was not measured. --call NAME calls one that is harmless."
