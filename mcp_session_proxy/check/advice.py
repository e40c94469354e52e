"""What to do about a server: the command, the flags that suit it, and why. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..protocol.lost import Verdict
from ..settings.values import show_duration
from .audience import calls_itself, is_for_another
from .clients import ClientVerdict, Fate, handshake_seconds, is_slow, shows_state, tool_complaint
from .families import Kinship
from .observations import Client, Entrance, Observations, Sent, read_outcome
from .starting import Start, judge_start
from .text import clean
from .versions import refused_versions

PROGRAM: Final = "mcp-session-proxy"
# The advice to start the proxy.
NEED_PROXY: Final = frozenset({"proxy", "modern-clients"})
_DEFAULT_KEEPALIVE_SECONDS: Final = 120.0
_DEFAULT_HANDSHAKE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice: a stable word for programs, the flags of ``serve`` that it names, and why."""

    key: str
    text: str
    flags: tuple[str, ...] = ()


_HELPED: Final = {
    Client.KEEPS: "do not expect their notifications to be refused",
    Client.NO_COOKIES: "keep no cookies",
    Client.OPENAI: "use a session they have deleted",
    Client.PER_CALL: "open a session for every call (state is handed on, and the handshake done once)",
    Client.LEAVES: "leave without ending their session",
    Client.FORGETFUL: "never send the id back",
    Client.STALE: "keep an old id",
    Client.MODERN: "are modern",
}


def command(seen: Observations, upstream_flags: Sequence[str] = ()) -> str:
    """The proxy's command line in front of this server, with what it cannot do without."""
    needed = _SHARED if seen.has_one_session else ()
    return " ".join([PROGRAM, "serve", seen.url, *upstream_flags, *needed])


def advise(
    seen: Observations, fates: Sequence[Fate], kinship: Kinship | None, *, has_credentials: bool
) -> tuple[Advice, ...]:
    """The advice about a server itself."""
    advice = [_judge_need(seen, fates)]
    suffering = _clients(fates, ClientVerdict.FAILS, ClientVerdict.LOSES_STATE, ClientVerdict.SLOW)
    if suffering and (Client.KEEPS not in suffering or _refuses_notifications_only(seen)):
        advice += _advise_flags(seen, kinship)
        if not has_credentials and seen.issues_ids and not seen.has_one_session:
            advice.append(
                Advice(
                    key="callers",
                    flags=("--anonymous isolate",),
                    text="Callers without credentials count as one party and share sessions. Only where they "
                    "are strangers to each other:",
                )
            )
    return tuple(advice)


def suggest_call(seen: Observations) -> str | None:
    """What a call could have shown, or did not show; None if there is nothing to say."""
    if (complaint := tool_complaint(seen)) is not None:
        return f"{seen.tool} shows nothing about state, as it fails: {complaint}"
    if not (seen.issues_ids or seen.is_proxied):
        return None
    shown = shows_state(seen)
    if shown is None:
        return (
            "Whether tools remember was not tried. --call NAME calls one that is harmless."
            if seen.tools
            else None
        )
    if not shown:
        return (
            f"{seen.tool} gave one answer twice in a session: it keeps no state there, or does not show it."
        )
    apart = {read_outcome(play.steps[-1].answer.result) for play in seen.plays[Client.PER_CALL]}
    if len(apart) > 1 and not seen.is_proxied:
        return (
            f"{seen.tool} answers differently in new sessions, too, so that it shows nothing about the state "
            "of a session: it depends on the time, on chance, or on what all sessions share."
        )
    return None


# -- whether it needs the proxy ---------------------------------------------------------------------


def _judge_need(seen: Observations, fates: Sequence[Fate]) -> Advice:
    suffering = _clients(fates, ClientVerdict.FAILS, ClientVerdict.LOSES_STATE, ClientVerdict.SLOW)
    untried = _clients(fates, ClientVerdict.NOT_TRIED)
    if not suffering and not untried:
        return Advice(
            key="no-proxy", text="Every kind of client works with this server as it is: it needs no proxy."
        )
    if not suffering:
        return Advice(
            key="not-tried",
            text="Every kind of client is answered by this server as it is. Whether some lose state was not "
            "tried (--call NAME); if they do, the proxy keeps it for them.",
        )
    if not seen.hello.is_answered:
        return Advice(
            key="modern-only",
            text="This server speaks the modern protocol only. The proxy passes that through and cannot help "
            "older clients.",
        )
    if any(play.lost_its_session for play in seen.plays[Client.KEEPS]):
        return Advice(
            key="replicas",
            text="The server does not know the session that it has just opened. Are these several replicas, "
            "and may each request reach another one? Let what is in front of them stick by the header "
            "Mcp-Session-Id or by a cookie, or name them all to the proxy: serve URL URL URL.",
        )
    if Client.KEEPS in suffering and not _refuses_notifications_only(seen):
        return Advice(
            key="server-fails",
            text="Even a client that does everything right fails here, and the proxy cannot help with that. "
            "See the server's log, and whether it wants a credential (--header).",
        )
    if not seen.issues_ids and set(suffering) <= {Client.MODERN}:
        return Advice(
            key="modern-clients",
            text="This server issues no session ids, so only modern clients need the proxy.",
        )
    text = f"With the proxy in front, these work too: clients that {_name(suffering)}."
    if untried:
        text += (
            " Whether others lose state was not tried (--call NAME); if so, the proxy keeps it: clients that "
            f"{_name(untried)}."
        )
    return Advice(key="proxy", text=f"{text} Start it with:")


def _refuses_notifications_only(seen: Observations) -> bool:
    """Whether all that a good client stumbles over is that it may not say ``notifications/initialized``."""
    (play,) = seen.plays[Client.KEEPS]
    return all(step.is_fine or step.sent is Sent.NOTIFICATION for step in play.steps)


def _clients(fates: Sequence[Fate], *verdicts: ClientVerdict) -> list[Client]:
    return [fate.client for fate in fates if fate.verdict in verdicts]


def _name(clients: Sequence[Client]) -> str:
    return ", ".join(_HELPED[client] for client in clients if client in _HELPED)


# -- which flags suit it ----------------------------------------------------------------------------

_SHARED: Final = ("--sharing shared",)
_HELD: Final = "The proxy's pings (--keepalive, every 2 minutes) keep idle sessions from expiring."


def _advise_flags(seen: Observations, kinship: Kinship | None) -> Iterator[Advice]:
    if seen.has_one_session:
        yield _advise_one_session(seen)
    elif is_slow(seen) and seen.issues_ids:
        yield Advice(
            key="slow-handshake",
            flags=("--sharing fresh", "--min-idle 3"),
            text=f"Opening a session takes {(handshake_seconds(seen) or 0) * 1000:.0f} ms. The proxy "
            "does that once and hands the session on. Only where every call needs a session never used "
            "before, have some ready:",
        )
    if (start := judge_start(seen)) is not None:
        yield _advise_start(start)
    yield from _advise_long_handshake(seen)
    if refusals := refused_versions(seen):
        yield Advice(
            key="strict-versions",
            text=f"The server refuses whoever asks for {' or '.join(refusals)}, instead of answering with a "
            "version of its own. Through the proxy, requests without a session and modern ones work, as it "
            f"asks for {seen.asked_version} itself; who asks for a refused version is refused there, too.",
        )
    if seen.cookies and Client.NO_COOKIES in seen.plays:
        yield from _advise_cookies(seen)
    if seen.ping is not None and not seen.ping.is_answered:
        yield Advice(
            key="no-ping",
            flags=("--check-after 0",),
            text="The server does not answer pings, so do not check quiet sessions with one:",
        )
    yield from _advise_idle(seen, kinship)
    streams = seen.streams
    if streams is not None and streams.second is not None and not streams.second.is_stream:
        yield Advice(
            key="second-stream",
            text="The server refuses a second GET. The proxy holds the one stream itself, and clients "
            "may open theirs as often as they like.",
        )
    if seen.modern_versions:
        yield _advise_eras(seen)
    if seen.entrance is not None:
        yield from _advise_audience(seen.entrance)
    if seen.moved_to is not None:
        yield Advice(
            key="redirect", text="Some clients do not follow the redirect. The proxy does, for them."
        )
    if seen.issues_ids and not seen.unknown.is_answered and seen.unknown.loss is Verdict.ALIVE:
        yield Advice(
            key="unknown-dialect",
            text="The proxy does not know this server's words for a lost session, and notices one late, if "
            "at all. Please report them.",
        )


def _advise_one_session(seen: Observations) -> Advice:
    text = "The server can have one session only. Let all clients share it:"
    if not seen.plays[Client.PER_CALL][0].steps[0].is_fine:
        text = (
            "The server can have one session only, and does not free it after DELETE: this check has used it "
            "up, so restart the server first. Then let all clients share it:"
        )
    return Advice(key="one-session", flags=_SHARED, text=text)


def _advise_start(start: Start) -> Advice:
    return Advice(
        key="slow-start",
        text=f"The first session took {start.first_seconds:.1f} s, later ones do not: the server had to "
        "start. The proxy waits for that (--handshake-timeout, 1 minute) and keeps the session for whoever "
        "comes later.",
    )


def _advise_long_handshake(seen: Observations) -> Iterator[Advice]:
    longest = max(seen.hello.seconds, handshake_seconds(seen) or 0.0)
    if longest > _DEFAULT_HANDSHAKE_SECONDS / 2:
        yield Advice(
            key="handshake-timeout",
            flags=(f"--handshake-timeout {show_duration(float(round(longest * 3)))}",),
            text=f"Opening a session took up to {longest:.0f} s, and the proxy waits for 1 minute. To have "
            "it wait longer:",
        )


def _advise_cookies(seen: Observations) -> Iterator[Advice]:
    names = ", ".join(clean(name, 30) for name in seen.cookies[:5])
    if any(play.failed is not None for play in seen.plays[Client.NO_COOKIES]):
        yield Advice(
            key="cookies",
            text=f"Sessions are bound to a cookie ({names}), as behind a balancer that sticks by it, and "
            "many clients keep none. The proxy keeps each session's cookies and sends them back.",
        )


def _advise_audience(entrance: Entrance) -> Iterator[Advice]:
    resource = calls_itself(entrance)
    if resource is None or is_for_another(entrance):
        return
    yield Advice(
        key="audience",
        text=f"Tokens for this server are for {resource}. Clients of the proxy get theirs for its public URL "
        "(--public-url); a server that checks the audience refuses them (401 invalid_token) until it is told "
        "that URL as its own name. Whether this one checks was not tried: that takes a token for another.",
    )


def _advise_eras(seen: Observations) -> Advice:
    if not seen.issues_ids:
        text = (
            "The server speaks the modern protocol itself: modern requests pass through unchanged, without a "
            "session."
        )
    else:
        text = (
            "The server speaks the modern protocol, too, in which it has no sessions. As it issues sessions "
            "to older clients, the proxy gives modern ones such sessions, with their state (--upstream-era "
            "auto, the default). With --upstream-era modern, their requests pass through unchanged instead."
        )
    return Advice(key="modern-server", text=text)


def _advise_idle(seen: Observations, kinship: Kinship | None) -> Iterator[Advice]:
    if not seen.issues_ids or seen.ping is None or not seen.ping.is_answered:
        return
    if seen.idle is not None:
        seconds = seen.idle.seconds
        if seen.idle.answer.is_answered:
            return
        if seconds > _DEFAULT_KEEPALIVE_SECONDS:
            yield Advice(key="idle", text=_HELD)
        else:
            flag = f"--keepalive {show_duration(max(1.0, seconds // 2))}"
            yield Advice(key="idle", flags=(flag,), text="Idle sessions expire soon; ping them more often:")
    elif kinship is not None and kinship.known is not None and " min" in kinship.known.idle_expiry:
        yield Advice(key="idle", text=_HELD)
