"""Which HTTP headers travel, and which belong to one hop. Pure.

RFC 9110, section 7.6.1: a proxy removes the headers of the connection, also those that ``Connection``
names. On the MCP endpoint it removes more, because there the proxy is the server's client: it writes
bodies, sessions and versions of its own.

Header values come from the wire as UTF-8 with surrogate escapes and leave as UTF-8; old Latin-1 values
are re-coded on the way, because the escapes cannot be written.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from ..bounds import HEAD_NAME_BYTES
from . import revisions

Pair = tuple[str, str]

# As aiohttp reads names and values: what is no UTF-8 comes as surrogates.
_DECODING: Final = ("utf-8", "surrogateescape")
_CACHED_NAMES: Final = 2048  # names are the caller's choice, so the cache has a bound

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Ours to write towards the server, or meant for us alone.
_OURS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "expect",
        "host",
        "origin",
        revisions.SESSION_HEADER.lower(),
        revisions.VERSION_HEADER.lower(),
        revisions.LAST_EVENT_ID_HEADER.lower(),
        # What modern clients repeat from the body; see own_repetitions for legacy ones.
        revisions.METHOD_HEADER.lower(),
        revisions.NAME_HEADER.lower(),
    }
)
# Content-... and digests describe a body that we write anew; Sec-Fetch-... a browser's view of us.
_OUR_PREFIXES: Final = (
    "content-",
    "digest",
    "repr-digest",
    "want-",
    "sec-fetch-",
    revisions.PARAM_HEADER_PREFIX,
)

_REPETITION: Final = re.compile(
    rb"(?:%b|%b)(?:\0|$)|%b"
    % tuple(
        name.encode()
        for name in (revisions.METHOD_HEADER, revisions.NAME_HEADER, revisions.PARAM_HEADER_PREFIX)
    ),
    re.IGNORECASE,
)

# By the names under which others look for them and add their own, however a server spells them.
_EXPLAINING: Final = {"www-authenticate": "WWW-Authenticate", "retry-after": "Retry-After"}
_EXPLAINING_PREFIXES: Final = ("ratelimit", "x-ratelimit-", "x-rate-limit-")


class _Kind(Enum):
    """How far a header of a request travels."""

    CONNECTION = "connection"  # it names further headers of this hop
    HOP = "hop"  # this hop
    OURS = "ours"  # to the server's other pages, but not to its MCP endpoint
    END_TO_END = "end-to-end"


def _classify(name: str) -> _Kind:
    # A server may send longer ones, of which the beginning says as much.
    return _classify_short(name[:HEAD_NAME_BYTES])


@lru_cache(maxsize=_CACHED_NAMES)
def _classify_short(name: str) -> _Kind:
    name = as_servers_may_read(name)
    if name == "connection":
        return _Kind.CONNECTION
    # What members of a cluster say to each other is not for clients to say, nor for servers to hear.
    if name in _HOP_BY_HOP or name.startswith(revisions.MEMBER_HEADER_PREFIX):
        return _Kind.HOP
    if name in _OURS or name.startswith(_OUR_PREFIXES):
        return _Kind.OURS
    return _Kind.END_TO_END


def as_servers_may_read(name: str) -> str:
    """A header's name in one spelling for all that are the same to some server.

    Where requests become variables of a program (CGI, WSGI, PHP), ``X_User`` and ``X-User`` are one
    (RFC 3875, section 4.1.18), so what goes for the one goes for the other.
    """
    return name.lower().replace("_", "-")


@lru_cache(maxsize=_CACHED_NAMES)
def _is_explaining(name: str) -> bool:
    name = name.lower()
    return name in _EXPLAINING or name.startswith(_EXPLAINING_PREFIXES)


def own_repetitions(raw: Iterable[tuple[bytes, bytes]]) -> list[Pair]:
    """The ``Mcp-Method``, ``Mcp-Name`` and ``Mcp-Param-...`` of a legacy client's request.

    They mean nothing in its protocol version, so they are between it and its server and travel. ``raw`` are
    all headers as bytes: one look at them finds that most requests have none.
    """
    if _REPETITION.search(b"\0".join(map(b"\0".join, raw))) is None:
        return []
    pairs = [(name.decode(*_DECODING), value.decode(*_DECODING)) for name, value in raw]
    claimed = names_of_this_hop(pairs)
    return [
        (name, writable(value))
        for name, value in pairs
        if _REPETITION.match(name.encode(*_DECODING)) and name.lower() not in claimed
    ]


def is_forwarded(name: str) -> bool:
    """Whether ``forward_request_headers`` makes something of a header of this name."""
    return _classify(name) in (_Kind.END_TO_END, _Kind.CONNECTION)


def names_of_this_hop(headers: Iterable[Pair]) -> set[str]:
    """What ``Connection`` claims for this hop, in lower case: none of it is forwarded."""
    return {
        option.strip().lower()
        for name, value in headers
        if _classify(name) is _Kind.CONNECTION
        for option in value.split(",")
    }


def forward_request_headers(headers: Iterable[Pair]) -> list[Pair]:
    """The headers of a client's request to the MCP endpoint that the server gets to see as they are."""
    return _select(headers, (_Kind.END_TO_END,))


def end_to_end_request_headers(headers: Iterable[Pair], upstream_host: str) -> list[Pair]:
    """The headers of a request that is passed through, with the server's own ``Host``.

    ``Expect`` is answered by this hop.
    """
    pairs = [
        (name, value)
        for name, value in _select(headers, (_Kind.END_TO_END, _Kind.OURS))
        if name.lower() not in ("host", "expect")
    ]
    return [("Host", upstream_host), *pairs]


def end_to_end_response_headers(headers: Iterable[Pair]) -> list[Pair]:
    """The headers of a response that is passed through, repetitions such as ``Set-Cookie`` kept."""
    return _select(headers, (_Kind.END_TO_END, _Kind.OURS))


def explaining_response_headers(headers: Iterable[Pair]) -> Mapping[str, str]:
    """The headers of a refusal that tell the client what to do next; repeated ones are joined.

    ``WWW-Authenticate`` (RFC 9110, section 11.6.1, a list), ``Retry-After`` and rate limits.
    """
    found: dict[str, Pair] = {}
    for name, value in headers:
        if _is_explaining(name[:HEAD_NAME_BYTES]):
            first, values = found.get(name.lower(), (_EXPLAINING.get(name.lower(), name), ""))
            found[name.lower()] = (first, f"{values}, {writable(value)}" if values else writable(value))
    return dict(found.values())


def writable(value: str) -> str:
    """A header's value without surrogate escapes: bytes that are not UTF-8 are taken as Latin-1."""
    if value.isascii():
        return value
    raw = value.encode(*_DECODING)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _select(headers: Iterable[Pair], kinds: tuple[_Kind, ...]) -> list[Pair]:
    """The headers of these kinds, without those that ``Connection`` claims for this hop."""
    headers = list(headers)
    chosen = [
        (name, value if value.isascii() else writable(value))
        for name, value in headers
        if _classify(name) in kinds
    ]
    claimed = names_of_this_hop(headers)
    # Said by nearly all clients; these name no header.
    if claimed <= {"keep-alive", "close"}:
        return chosen
    return [(name, value) for name, value in chosen if name.lower() not in claimed]
