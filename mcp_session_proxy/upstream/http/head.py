"""The head of a request in HTTP/1.1 (RFC 9112, section 3), written. Pure.

What would smuggle in another line is refused here, whoever said it. Bytes that came as no UTF-8 leave as they
came.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict
from yarl import URL

from ... import __version__
from ...protocol import revisions
from ...protocol.headers import Pair

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAK: Final = re.compile(r"[\r\n\0]")
_NO_TARGET: Final = re.compile(r"[\x00-\x20\x7f]")
_USER_AGENT: Final = ("User-Agent", f"mcp-session-proxy/{__version__}")
# What a request says unless it says otherwise.
USUAL_FIELDS: Final[Mapping[str, str]] = dict(
    [_USER_AGENT, ("Accept-Encoding", "identity"), ("Accept", revisions.ACCEPT_BOTH)]
)
# What only whoever writes the request can say of it.
_WRITERS: Final = ("Content-Length", "Transfer-Encoding", "Connection")
# What a POST to the endpoint says by itself: a caller who names one of these is written with more care.
_SAID_BY_POSTS: Final = frozenset(
    name.lower()
    for name in (
        "Host",
        "Accept",
        "Accept-Encoding",
        "Content-Type",
        revisions.SESSION_HEADER,
        revisions.VERSION_HEADER,
        *_WRITERS,
    )
)


def write_head(
    verb: str, url: URL, headers: Iterable[Pair], length_bytes: int | None, query: str = ""
) -> bytes:
    """A whole head. ``query`` goes behind the URL's own, byte for byte; without a length there is no body.

    Raises:
        ValueError: something in it cannot be written.
    """
    fields = CIMultiDict(headers)
    for name in _WRITERS:
        fields.popall(name, None)
    for name, value in USUAL_FIELDS.items():
        fields.setdefault(name, value)
    host = fields.popall("Host", [str(url.host_port_subcomponent)])[-1]
    start = f"{verb} {_target(url, query)} HTTP/1.1\r\n".encode()
    return start + write_fields([("Host", host), *fields.items()]) + write_end(length_bytes)


def write_end(length_bytes: int | None) -> bytes:
    """The last line of a head, and its end."""
    # A GET has no body, and a head that says so of it confuses servers.
    return b"\r\n" if length_bytes is None else b"Content-Length: %d\r\n\r\n" % length_bytes


def write_post(url: URL) -> bytes:
    """How the head of a POST to the endpoint begins, whoever asks.

    The fields of the caller and of the session follow, and ``write_end``.
    """
    said = {**USUAL_FIELDS, "Content-Type": revisions.JSON}
    del said[_USER_AGENT[0]]
    host = ("Host", str(url.host_port_subcomponent))
    return f"POST {_target(url)} HTTP/1.1\r\n".encode() + write_fields([host, *said.items()])


def write_callers(headers: Iterable[Pair]) -> bytes | None:
    """The fields of a caller behind ``write_post``; None if they have to be merged with what stands there."""
    pairs = list(headers)
    names = {name.lower() for name, _ in pairs}
    if not names.isdisjoint(_SAID_BY_POSTS):
        return None
    if "user-agent" not in names:
        pairs.append(_USER_AGENT)
    return write_fields_or_none(pairs)


def write_fields_or_none(pairs: Iterable[Pair]) -> bytes | None:
    """Header lines; None if they cannot be written."""
    try:
        return write_fields(pairs)
    except ValueError:
        return None


def write_fields(pairs: Iterable[Pair]) -> bytes:
    """Header lines.

    Raises:
        ValueError: a name or a value cannot be written as one.
    """
    lines: list[str] = []
    for name, value in pairs:
        if _TOKEN.fullmatch(name) is None or _LINE_BREAK.search(value) is not None:
            raise ValueError("a header that cannot be written")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _target(url: URL, query: str = "") -> str:
    target = url.raw_path_qs
    if query:
        # Encoded anew, it could say something else.
        target = f"{target}&{query}" if url.raw_query_string else f"{target}?{query}"
    if _NO_TARGET.search(target) is not None:
        raise ValueError("a target that cannot be written")
    return target
