"""Who may call from where: the ``Host`` and ``Origin`` of a request, and CORS for allowed pages. Pure.

MCP 2025-11-25, basic/transports, "Security Warning": servers must validate ``Origin`` against DNS
rebinding. A rebound page sends its own name in both headers, so a listener on loopback, which nobody
reaches under a foreign name, checks ``Host`` too. CORS is the Fetch standard's, section 3.3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import ForbiddenHost, ForbiddenOrigin
from ..protocol import revisions
from ..protocol.hosts import (
    ANY,
    Authority,
    Origin,
    is_loopback,
    make_origin,
    matches,
    parse_host,
    parse_origin,
    parse_pattern,
    split_url,
)

_NULL: Final = "null"  # the origin of sandboxed frames and local files (RFC 6454, section 7.1)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}", re.ASCII | re.IGNORECASE)

_METHODS: Final = "GET, POST, DELETE, OPTIONS"
_EXPOSED: Final = f"{revisions.SESSION_HEADER}, {revisions.VERSION_HEADER}, WWW-Authenticate, Retry-After"
_USUAL_HEADERS: Final = (
    "Accept, Authorization, Content-Type, "
    f"{revisions.SESSION_HEADER}, {revisions.VERSION_HEADER}, {revisions.LAST_EVENT_ID_HEADER}"
)
_MAX_REQUESTED_HEADERS: Final = 64
_MAX_AGE_SECONDS: Final = 7200  # the most that browsers take


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
    _hosts: tuple[Authority, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        public = None if self.public_url is None else parse_origin(split_url(self.public_url)[0])
        origins: set[Origin | str] = {parse_origin(text) or text.lower() for text in self.allowed_origins}
        hosts = [parse_pattern(text) for text in self.allowed_hosts]
        if public is not None:
            origins.add(public)
            hosts.append(Authority(public.authority.host, None))
        object.__setattr__(self, "_origins", frozenset(origins))
        object.__setattr__(self, "_hosts", tuple(hosts))

    def check(self, *, host: str | None, origin: str | None, scheme: str) -> None:
        """Judge a request by its ``Host`` and ``Origin`` and the scheme it came over.

        Raises:
            ForbiddenHost: ``Host`` is malformed, or not a name we go by.
            ForbiddenOrigin: a page that may not call us.
        """
        # The host comes first, because an allowed origin does not excuse a foreign name. The texts repeat
        # nothing of what was sent, since anybody may have sent it.
        own = None if host is None else parse_host(host)
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
        # What is echoed must be an origin, or it could end the header's line and begin another.
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
            # To a page that asks for nothing fit, what MCP clients usually send is granted.
            "Access-Control-Allow-Headers": _grantable(requested_headers) or _USUAL_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
            "Vary": "Origin, Access-Control-Request-Headers",
        }

    def _is_host_allowed(self, host: str | None, own: Authority | None) -> bool:
        # Beyond loopback nobody knows our names until some are configured; giving the public URL is no wish
        # to refuse all others.
        if not self.listens_on_loopback and not self.allowed_hosts:
            return host is None or own is not None
        if own is None:
            return False
        if self.listens_on_loopback and is_loopback(own.host):
            return True
        return any(matches(own, pattern) for pattern in self._hosts)

    def _is_origin_allowed(self, text: str, own: Authority | None, scheme: str) -> bool:
        origin = parse_origin(text)
        if origin is None:
            # Any page has this origin in a sandboxed frame, so loopback is no reason to let it in.
            return text == _NULL and not self._origins.isdisjoint((_NULL, ANY))
        if ANY in self._origins or origin in self._origins:
            return True
        if self.listens_on_loopback and origin.is_loopback:
            return True
        return own is not None and origin == make_origin(scheme, own)


def _grantable(requested: str | None) -> str:
    names = [] if requested is None else [name.strip() for name in requested.split(",")]
    return ", ".join(name for name in names[:_MAX_REQUESTED_HEADERS] if _TOKEN.fullmatch(name))
