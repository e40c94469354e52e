"""Hosts and web origins: how they are written, which of them are the same, and which are this machine.

``Host`` is RFC 9110, section 7.2, ``Origin`` RFC 6454, section 7. Who may call by which name is decided by
those who ask.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

MAX_PORT: Final = 65535
ANY: Final = "*"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST_HEADER: Final = re.compile(_AUTHORITY, re.ASCII | re.IGNORECASE)
_ORIGIN_HEADER: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}", re.ASCII | re.IGNORECASE)
_ABSOLUTE_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*://[^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_MAX_CHARS: Final = 400  # a name has 253 at most (RFC 1035, section 2.3.4)
_CACHED_TEXTS: Final = 1024  # the texts are the callers' choice, so the cache has a bound


class Authority(NamedTuple):
    """A host in lower case (IPv6 in its shortest form, without brackets), and its port if it has one."""

    host: str
    port: int | None


_ANY_HOST: Final = Authority(ANY, None)


class Origin(NamedTuple):
    """A web origin (RFC 6454) with its default port filled in."""

    scheme: str
    authority: Authority

    @property
    def is_loopback(self) -> bool:
        """Whether it is one of this machine's own."""
        return is_loopback(self.authority.host)


@lru_cache(maxsize=_CACHED_TEXTS)
def is_loopback(host: str) -> bool:
    """Whether a host is this machine for sure. A name other than ``localhost`` may mean anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_ip_address(host: str) -> bool:
    """Whether a host is an address, IPv6 without brackets, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_host(text: str) -> Authority | None:
    """A ``Host`` header, or None when it is malformed."""
    return _parse_host(text) if len(text) <= _MAX_CHARS else None


def parse_origin(text: str) -> Origin | None:
    """An ``Origin`` header, or None when it names no single origin."""
    return _parse_origin(text) if len(text) <= _MAX_CHARS else None


@lru_cache(maxsize=_CACHED_TEXTS)
def _parse_host(text: str) -> Authority | None:
    match = _HOST_HEADER.fullmatch(text)
    return None if match is None else _read_authority(match)


@lru_cache(maxsize=_CACHED_TEXTS)
def _parse_origin(text: str) -> Origin | None:
    match = _ORIGIN_HEADER.fullmatch(text)
    authority = None if match is None else _read_authority(match)
    return None if match is None or authority is None else make_origin(match["scheme"], authority)


def make_origin(scheme: str, authority: Authority) -> Origin:
    """The origin of what is asked for at a host over a scheme."""
    scheme = scheme.lower()
    port = authority.port if authority.port is not None else _DEFAULT_PORTS.get(scheme)
    return Origin(scheme, Authority(authority.host, port))


def split_url(url: str) -> tuple[str, str]:
    """A URL's origin as it is written, and whatever follows it; two blanks for a URL that is not absolute."""
    match = _ABSOLUTE_URL.fullmatch(url)
    return ("", "") if match is None else (match[1], match[2])


def parse_pattern(text: str) -> Authority:
    """A pattern of hosts: a name, perhaps behind ``*.``, or an address, perhaps with a port; ``*`` for all.

    An IPv6 address may lack its brackets.

    Raises:
        ValueError: it is none of these.
    """
    if text == ANY:
        return _ANY_HOST
    bracketed = f"[{text}]" if text.count(":") > 1 and text[:1] != "[" else text
    # "*.example.com" is kept as ".example.com": no host is written so, and all below it end so.
    authority = parse_host(bracketed.removeprefix(ANY))
    if authority is None:
        raise ValueError(f"not a host name: {text!r}")
    return authority


def matches(own: Authority, pattern: Authority) -> bool:
    """Whether a host is one of those that a pattern means."""
    if pattern is _ANY_HOST:
        return True
    if pattern.port is not None and pattern.port != own.port:
        return False
    if pattern.host[:1] == ".":
        return own.host.endswith(pattern.host) and own.host != pattern.host
    return own.host == pattern.host


def _read_authority(match: re.Match[str]) -> Authority | None:
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > MAX_PORT:
        return None
    # "example.com." is the same host: the dot only says that the name is complete (RFC 1034, section 3.1).
    host = match["host"].lower().removesuffix(".")
    if host[:1] == "[":
        try:
            host = str(ip_address(host[1:-1]))
        except ValueError:
            return None
    return Authority(host, port) if host else None


def is_trustworthy(scheme: str, host: str | None) -> bool:
    """Whether nobody on the way can change what comes from there (W3C, Secure Contexts, section 3.1)."""
    return bool(host) and (scheme == "https" or (scheme == "http" and is_loopback(str(host))))
