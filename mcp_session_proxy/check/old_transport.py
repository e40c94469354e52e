"""A server that speaks the transport of 2024-11-05, HTTP+SSE: what it is, and who can use it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..protocol import jsonrpc
from ..protocol.lifting import read_server_facts
from .advice import PROGRAM, Advice
from .clients import ClientVerdict, Fate
from .facts import Fact
from .observations import Client
from .text import clean, clean_string, name_and_version

# Every kind but the one that only servers with cookies are asked about.
_CLIENTS: Final = tuple(client for client in Client if client is not Client.NO_COOKIES)


class Look(NamedTuple):
    """What was seen: of how many things it has told (``counts``), and what sessions cost, in seconds.

    ``result`` is that of ``initialize``, raw. Two sessions at once work, or there is no look.
    """

    result: bytes
    version: str | None
    counts: Mapping[str, int]
    first_seconds: float
    later_seconds: float


def list_facts(seen: Look) -> tuple[Fact, ...]:
    """What the server is, in the order in which people ask."""
    first, later = f"{seen.first_seconds * 1000:.0f} ms", f"{seen.later_seconds * 1000:.0f} ms"
    counts = ", ".join(f"{what} ({count})" for what, count in seen.counts.items())
    return (
        Fact(key="server", label="Server", text=name_and_version(_info(seen)) or "without a name"),
        Fact(key="transport", label="Transport", text="HTTP+SSE of 2024-11-05 only"),
        Fact(key="versions", label="Versions", text=clean(str(seen.version), 20)),
        Fact(key="capabilities", label="Offers", text=counts or "nothing"),
        Fact(key="handshake", label="Opening a session", text=f"{first}; two at once: {later}"),
        Fact(key="streams", label="A session", text="ends with its event stream"),
    )


def judge_clients() -> tuple[Fate, ...]:
    """None of the kinds that are played speaks HTTP+SSE."""
    return tuple(
        Fate(client=client, verdict=ClientVerdict.FAILS, text="finds no Streamable HTTP")
        for client in _CLIENTS
    )


def advise() -> tuple[Advice, ...]:
    """The one piece of advice."""
    return (
        Advice(
            key="proxy",
            text="Only clients that still speak HTTP+SSE can use it. The proxy speaks that to the server, "
            "and Streamable HTTP and the modern protocol to clients; it keeps each session's stream open:",
        ),
    )


def command(url: str, upstream_flags: Sequence[str]) -> str:
    """The proxy's command line in front of it. The transport is found out by itself."""
    return " ".join([PROGRAM, "serve", url, *upstream_flags])


def describe(seen: Look) -> Mapping[str, Any]:
    """The server, for programs."""
    info = jsonrpc.read_object(_info(seen))
    return {
        "name": clean_string(info.get("name")),
        "version": clean_string(info.get("version")),
        "protocol_version": clean(str(seen.version), 20),
        "transport": "http+sse",
        "capabilities": sorted(clean(each) for each in read_server_facts(seen.result).capabilities),
        "tools": seen.counts.get("tools"),
        "first_session_ms": round(seen.first_seconds * 1000, 1),
        "handshake_ms": round(seen.later_seconds * 1000, 1),
    }


def _info(seen: Look) -> bytes | None:
    return read_server_facts(seen.result).info
