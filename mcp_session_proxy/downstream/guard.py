"""Who may call from where: the ``Host`` and ``Origin`` of a request, and CORS for allowed pages. Pure.

MCP 2025-11-25, basic/transports, "Security Warning": servers must validate ``Origin`` against DNS
rebinding. A rebound page sends its own name in both headers, so a listener on loopback, which nobody
reaches under a foreign name, checks ``Host`` too. CORS is the Fetch standard's, section 3.3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from ..errors import ForbiddenHost, ForbiddenOrigin
from ..protocol import revisions
from ..protocol.hosts import is_loopback

_ANY: Final = "*"
_NULL: Final = "null"  # the origin of sandboxed frames and local files (RFC 6454, section 7.1)
_MAX_PORT: Final = 65535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST_HEADER: Final = re.compile(_AUTHORITY, re.ASCII | re.IGNORECASE)
_ORIGIN_HEADER: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}", re.ASCII | re.IGNORECASE)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}", re.ASCII | re.IGNORECASE)
_CACHED_TEXTS: Final = 1024  # the texts are the callers' choice, so the cache has a bound

_METHODS: Final = "GET, POST, DELETE, OPTIONS"
_EXPOSED: Final = f"{revisions.SESSION_HEADER}, {revisions.VERSION_HEADER}, WWW-Authenticate, Retry-After"
_USUAL_HEADERS: Final = (
    "Accept, Authorization, Content-Type, "
    f"{revisions.SESSION_HEADER}, {revisions.VERSION_HEADER}, {revisions.LAST_EVENT_ID_HEADER}"
)
_MAX_REQUESTED_HEADERS: Final = 64
_MAX_AGE_SECONDS: Final = 7200  # the most that browsers take


class _Authority(NamedTuple):
    """A host in lower case (IPv6 in its shortest form, without brackets), and its port if it has one."""

    host: str
    port: int | None


_ANY_HOST: Final = _Authority(_ANY, None)


class Origin(NamedTuple):
    """A web origin (RFC 6454) with its default port filled in."""

    scheme: str
    authority: _Authority

    @property
    def is_loopback(self) -> bool:
        """Whether it is one of this machine's own."""
        return is_loopback(self.authority.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The rules for one listener.

    ``allowed_origins`` holds origins, ``null`` or ``*``; ``allowed_hosts`` names, with or without a
    port, ``*.example.com`` for all names below one, and ``*`` for any. ``public_url`` is where clients
    reach us when that is not the listener itself; its name and origin are as good as our own.
    """

    listens_on_loopback: bool
    allowed_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    public_url: str | None = None
    _origins: frozenset[Origin | str] = field(init=False, repr=False, compare=False)
    _hosts: tuple[_Authority, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        public = None if self.public_url is None else parse_origin(_origin_of(self.public_url))
        origins: set[Origin | str] = {parse_origin(text) or text.lower() for text in self.allowed_origins}
        hosts = [_parse_pattern(text) for text in self.allowed_hosts]
        if public is not None:
            origins.add(public)
            hosts.append(_Authority(public.authority.host, None))
        object.__setattr__(self, "_origins", frozenset(origins))
        object.__setattr__(self, "_hosts", tuple(hosts))

    def check(self, *, host: str | None, origin: str | None, scheme: str) -> None:
        """Judge a request by its ``Host`` and ``Origin`` and the scheme it came over.

        Raises:
            ForbiddenHost: ``Host`` is malformed, or not a name we go by.
            ForbiddenOrigin: a page that may not call us.
        """
        own = None if host is None else _parse_host(host)
        if not self._is_host_allowed(host, own):
            raise ForbiddenHost(
                "The proxy does not go by the name in this request's Host header; add it with --allowed-host."
            )
        if origin is not None and not self._is_origin_allowed(origin, own, scheme):
            raise ForbiddenOrigin(
                "Pages of this request's Origin may not call the proxy; add it with --allowed-origin."
            )

    def cors_headers(self, origin: str | None) -> Mapping[str, str]:
        """What lets the page that sent a checked request read the answer; nothing for other callers."""
        if origin is None or (origin != _NULL and parse_origin(origin) is None):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }

    def preflight_headers(self, origin: str | None, requested_headers: str | None) -> Mapping[str, str]:
        """The answer's headers for a checked preflight; its status is 204 (Fetch, "CORS-preflight").

        ``requested_headers`` is ``Access-Control-Request-Headers``, of which valid names are granted.
        """
        granted = self.cors_headers(origin)
        if not granted:
            return {}
        return {
            **granted,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _grantable(requested_headers) or _USUAL_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
            "Vary": "Origin, Access-Control-Request-Headers",
        }

    def _is_host_allowed(self, host: str | None, own: _Authority | None) -> bool:
        if not self.listens_on_loopback and not self.allowed_hosts:
            return host is None or own is not None
        if own is None:
            return False
        if self.listens_on_loopback and _is_loopback(own.host):
            return True
        return any(_matches(own, pattern) for pattern in self._hosts)

    def _is_origin_allowed(self, text: str, own: _Authority | None, scheme: str) -> bool:
        origin = parse_origin(text)
        if origin is None:
            return text == _NULL and not self._origins.isdisjoint((_NULL, _ANY))
        if _ANY in self._origins or origin in self._origins:
            return True
        if self.listens_on_loopback and origin.is_loopback:
            return True
        return own is not None and origin == _make_origin(scheme, own)


@lru_cache(maxsize=_CACHED_TEXTS)
def _parse_host(text: str) -> _Authority | None:
    """A ``Host`` header (RFC 9110, section 7.2), or None when it is malformed."""
    match = _HOST_HEADER.fullmatch(text)
    return None if match is None else _parse_authority(match)


_is_loopback = lru_cache(maxsize=_CACHED_TEXTS)(is_loopback)


@lru_cache(maxsize=_CACHED_TEXTS)
def parse_origin(text: str) -> Origin | None:
    """An ``Origin`` header (RFC 6454, section 7), or None when it names no single origin."""
    match = _ORIGIN_HEADER.fullmatch(text)
    authority = None if match is None else _parse_authority(match)
    return None if match is None or authority is None else _make_origin(match["scheme"], authority)


def _make_origin(scheme: str, authority: _Authority) -> Origin:
    scheme = scheme.lower()
    port = authority.port if authority.port is not None else _DEFAULT_PORTS.get(scheme)
    return Origin(scheme, _Authority(authority.host, port))


def _parse_authority(match: re.Match[str]) -> _Authority | None:
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > _MAX_PORT:
        return None
    host = match["host"].lower().removesuffix(".")
    if host[:1] == "[":
        try:
            host = str(ip_address(host[1:-1]))
        except ValueError:
            return None
    return _Authority(host, port) if host else None


def _parse_pattern(text: str) -> _Authority:
    """An allowed host; the name may start with ``*.``, and an IPv6 address may lack its brackets."""
    if text == _ANY:
        return _ANY_HOST
    bracketed = f"[{text}]" if text.count(":") > 1 and text[:1] != "[" else text
    authority = _parse_host(bracketed.removeprefix("*"))
    if authority is None:
        raise ValueError(f"not a host name: {text!r}")
    return authority


def _matches(own: _Authority, pattern: _Authority) -> bool:
    if pattern is _ANY_HOST:
        return True
    if pattern.port is not None and pattern.port != own.port:
        return False
    if pattern.host[:1] == ".":
        return own.host.endswith(pattern.host) and own.host != pattern.host
    return own.host == pattern.host


def _origin_of(url: str) -> str:
    """The origin in front of a URL's path."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _grantable(requested: str | None) -> str:
    names = [] if requested is None else [name.strip() for name in requested.split(",")]
    return ", ".join(name for name in names[:_MAX_REQUESTED_HEADERS] if _TOKEN.fullmatch(name))
