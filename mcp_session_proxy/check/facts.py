"""What a server is and how it behaves, a line for each: from observations to words. Pure."""

from dataclasses import dataclass
from typing import Final

from ..protocol import jsonrpc, lost
from ..protocol.lifting import read_server_facts
from ..settings.values import show_duration
from .audience import calls_itself, is_for_another
from .clients import handshake_seconds
from .families import Kinship, describe_id
from .observations import Client, Entrance, Observations, ServerAnswer, Streams, TokensSeen
from .starting import judge_start
from .text import clean, name_and_version
from .versions import refused_versions

# What the proxy makes of the answer to an id that the server does not know.
_RECOGNISED: Final = {
    lost.Verdict.GONE: "the proxy takes that for a lost session",
    lost.Verdict.SUSPECT: "the proxy makes sure with a ping",
    lost.Verdict.ALIVE: "the proxy does not take that for a lost session",
}
# What says who it is, rather than how it behaves.
IDENTITY: Final = frozenset({"server", "family", "versions", "capabilities"})
_SWITCHES: Final = ("subscribe", "listChanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of the report. ``status`` is that of the HTTP answer, where it is about a single one.

    What was not ``measured`` is known of such servers in general.
    """

    key: str
    label: str
    text: str
    status: int | None = None
    measured: bool = True


def list_facts(seen: Observations, kinship: Kinship | None) -> tuple[Fact, ...]:
    """What was seen of the server itself, in the order in which people ask; nothing for what was not seen."""
    facts = [
        Fact(key="server", label="Server", text=_name(seen)),
        Fact(key="family", label="Made with", text="not recognised" if kinship is None else str(kinship)),
        Fact(key="versions", label="Versions", text=_versions(seen)),
        Fact(key="capabilities", label="Offers", text=_capabilities(seen)),
    ]
    if seen.moved_to is not None:
        facts.append(Fact(key="redirect", label="Redirects to", text=clean(seen.moved_to)))
    if seen.hello.is_answered:
        facts += _session_facts(seen)
    facts += _idle_facts(seen, kinship)
    return tuple(facts)


def _session_facts(seen: Observations) -> list[Fact]:
    facts = [Fact(key="session_ids", label="Session ids", text=describe_id(seen.hello.session_id))]
    facts += _opening_facts(seen)
    facts += [
        Fact(key="unknown_id", label="An unknown id", text=_unknown(seen), status=seen.unknown.status),
        Fact(key="missing_id", label="No id", text=_outcome(seen.missing), status=seen.missing.status),
    ]
    if seen.entrance is not None:
        facts += _door_facts(seen.entrance)
    if seen.tokens is not None:
        facts += _token_facts(seen.tokens)
    facts += _delete_facts(seen)
    if seen.streams is not None:
        facts += _stream_facts(seen.streams)
    if seen.ping is not None:
        facts.append(Fact(key="ping", label="ping", text=_ping(seen.ping), status=seen.ping.status))
    return facts


def _opening_facts(seen: Observations) -> list[Fact]:
    """Sessions: how long one takes, in which versions, beside others, and what they are bound to."""
    facts = []
    if (start := judge_start(seen)) is not None:
        text = f"{start.first_seconds:.1f} s; later ones {start.later_seconds * 1000:.0f} ms"
        facts.append(Fact(key="start", label="The first session", text=text))
    if (seconds := handshake_seconds(seen)) is not None:
        facts.append(Fact(key="handshake", label="Opening a session", text=f"{seconds * 1000:.0f} ms"))
    if refusals := refused_versions(seen):
        text = "; ".join(f"{version}: {answer}" for version, answer in refusals.items())
        status = next(iter(refusals.values())).status
        facts.append(Fact(key="refused_versions", label="Refuses versions", text=text, status=status))
    if (beside := seen.beside) is not None:
        text = "open beside the first"
        if not beside.is_answered:
            text = f"refused: {beside}"
        elif seen.has_one_session:
            text = "ends the first" if seen.is_replaced else "the first again: there is one for all"
        facts.append(Fact(key="second_session", label="A second session", text=text, status=beside.status))
    if seen.cookies:
        facts.append(Fact(key="cookies", label="Sets cookies", text=_cookies(seen)))
    return facts


def _door_facts(entrance: Entrance) -> list[Fact]:
    resource = calls_itself(entrance)
    if resource is None:
        return []
    text = (
        f"{resource}; the given one is not, and is taken all the same"
        if is_for_another(entrance)
        else resource
    )
    return [Fact(key="audience", label="Tokens are for", text=text)]


def _token_facts(tokens: TokensSeen) -> list[Fact]:
    facts, damaged, other = [], tokens.damaged, tokens.other
    if damaged is not None:
        text = "taken: nothing that tokens claim can be believed" if damaged.is_answered else str(damaged)
        facts.append(Fact(key="damaged_token", label="A damaged token", text=text, status=damaged.status))
    if other is not None:
        whose = {
            True: "of the same caller",
            False: "of another caller",
            None: "that does not say whose it is",
        }
        text = f"{whose[tokens.is_same]}, on a session of the first: {_outcome(other)}"
        facts.append(Fact(key="other_token", label="Another token", text=text, status=other.status))
    return facts


def _cookies(seen: Observations) -> str:
    names = ", ".join(clean(name, 30) for name in seen.cookies[:5])
    plays = seen.plays.get(Client.NO_COOKIES, ())
    if not plays:
        return names
    failed = sum(play.failed is not None for play in plays)
    if not failed:
        return f"{names}; they are not needed"
    return f"{names}; without them {failed} of {len(plays)} sessions failed"


def _name(seen: Observations) -> str:
    result = seen.hello.result if seen.hello.is_answered else seen.discover.result
    members = jsonrpc.read_object(result)
    info = members.get("serverInfo")
    if info is None:
        meta = jsonrpc.read_object(members.get("_meta"))
        info = next((raw for key, raw in meta.items() if key.endswith("/serverInfo")), None)
    return name_and_version(info) or "without a name"


def _versions(seen: Observations) -> str:
    chosen = jsonrpc.read_string(jsonrpc.read_object(seen.hello.result).get("protocolVersion"))
    spoken = [clean(version, 20) for version in (chosen, *seen.modern_versions) if version]
    return ", ".join(spoken) or "none that is known here"


def _capabilities(seen: Observations) -> str:
    result = seen.hello.result if seen.hello.is_answered else seen.discover.result
    offered = read_server_facts(result or b"")
    words = []
    for name in sorted(offered.capabilities):
        details = [detail for detail in _SWITCHES if offered.offers(name, detail)]
        if name == "tools" and seen.tools is not None:
            details.insert(0, str(seen.tools))
        words.append(clean(name, 30) + (f" ({', '.join(details)})" if details else ""))
    return ", ".join(words[:20]) or "nothing"


def _outcome(answer: ServerAnswer) -> str:
    return "answered all the same" if answer.is_answered else str(answer)


def _unknown(seen: Observations) -> str:
    text = _outcome(seen.unknown)
    if seen.unknown.is_answered or not seen.issues_ids or seen.is_proxied:
        return text
    return f"{text} ({_RECOGNISED[seen.unknown.loss]})"


def _delete_facts(seen: Observations) -> list[Fact]:
    steps = seen.plays[Client.OPENAI][0].steps
    ended = next((step.answer for step in steps if step.name == "DELETE"), None)
    if ended is None:
        # Either there was nothing to end, or the client never got that far.
        text = "not sent: there is no session id"
        return [] if seen.issues_ids else [Fact(key="delete", label="DELETE", text=text)]
    after = steps[-1].answer
    text = f"{ended}; afterwards {'the id still works' if after.is_answered else str(after)}"
    return [Fact(key="delete", label="DELETE", text=text, status=ended.status)]


def _stream_facts(streams: Streams) -> list[Fact]:
    text = "200, a stream" if streams.first.is_stream else str(streams.first)
    facts = [Fact(key="stream", label="GET", text=text, status=streams.first.status)]
    if streams.second is not None:
        text = str(streams.second)
        if streams.second.is_stream:
            text = "200, and ends the first" if streams.first_ended else "200, beside the first"
        facts.append(Fact(key="second_stream", label="A second GET", text=text, status=streams.second.status))
    if streams.again is not None:
        after = f" after {streams.again_seconds:.1f} s" if streams.again_seconds else ""
        text = f"{'200' if streams.again.is_stream else streams.again}{after}"
        facts.append(
            Fact(key="stream_again", label="GET again, after a drop", text=text, status=streams.again.status)
        )
    return facts


def _ping(ping: ServerAnswer) -> str:
    return f"answered in {ping.seconds * 1000:.0f} ms" if ping.is_answered else f"not answered: {ping}"


def _idle_facts(seen: Observations, kinship: Kinship | None) -> list[Fact]:
    facts = []
    known = None if kinship is None or not seen.issues_ids else kinship.known
    if seen.idle is not None:
        after = show_duration(seen.idle.seconds)
        answer = seen.idle.answer
        text = f"alive after {after}" if answer.is_answered else f"gone within {after}: {answer}"
        facts.append(Fact(key="idle_expiry", label="Idle expiry", text=text, status=answer.status))
    elif known is not None:
        facts.append(Fact(key="idle_expiry", label="Idle expiry", text=known.idle_expiry, measured=False))
    if known is not None and known.max_sessions != "not known":
        facts.append(
            Fact(key="max_sessions", label="Sessions at most", text=known.max_sessions, measured=False)
        )
    return facts
