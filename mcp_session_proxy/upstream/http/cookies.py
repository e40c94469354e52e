"""The cookies that a server sets on one upstream session: balancers find the session's replica by them.

They live and end with one incarnation of the session, and go with everything that is sent on it. No client
ever sees them, and no client's own cookie is kept here: the two meet in the header of a request only.

RFC 6265, sections 5.1 to 5.4, for one server: whatever is sent goes to the host that set the cookie, so a
``Domain`` is checked once and then forgotten.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.utils import mktime_tz, parsedate_tz
from typing import Final

import msgspec
from yarl import URL

from ...bounds import COOKIES, COOKIES_BYTES
from ...protocol.headers import Pair, writable
from ...protocol.hosts import is_ip_address

_MAX_COOKIE_BYTES: Final = 4096  # name and value
_MAX_LINES: Final = 200  # looked at in one answer
_MAX_AGE_SECONDS: Final = 400 * 86400.0  # RFC 6265bis, section 5.5
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECONDS: Final = re.compile(r"-?[0-9]+", re.ASCII)
# What balancers call the cookies that they stick by: those of clouds, HAProxy, nginx and its ingress, Apache,
# Traefik, F5 and Citrix, as they come or as their manuals have them.
_STICKS: Final = re.compile(
    r"AWS[AE]?LB\w*|GCI?LB|GAESA|ARRAffinity\w*|ApplicationGatewayAffinity\w*|X-Oracle-BMC-LBS-Route|DO-LB|__cflb"
    r"|SERVER_?ID|SRV(NAME|_?ID)?|INGRESSCOOKIE|ROUTE(ID)?|sticky\w*|traefik\w*|BIGipServer.*|NSC_.*|(x-)?lb|balancer",
    re.IGNORECASE,
)


class _Cookie(msgspec.Struct, frozen=True):
    """One cookie. ``expires_at`` is by the clock on the wall, None for the session's life."""

    name: str
    value: str
    path: str
    secure: bool
    expires_at: float | None

    @property
    def size(self) -> int:
        return len(self.name) + len(self.value) + len("=; ")


class _KeptCookie(msgspec.Struct, array_like=True):
    """The same, to be kept. Headers may have any bytes."""

    name: bytes
    value: bytes
    path: bytes
    secure: bool
    expires_at: float | None


class SessionCookies:
    """What the server has set on one session. ``now`` gives the time in seconds since 1970."""

    __slots__ = ("_now", "kept")

    # The clock on the wall, because ``Expires`` is a date.
    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.kept: dict[tuple[str, str], _Cookie] | None = None  # by name and path; most servers set none
        self._now = now

    @property
    def names(self) -> tuple[str, ...]:
        """Which cookies there are, in alphabetical order. Their values are nobody's business."""
        return tuple(sorted({cookie.name for cookie in (self.kept or {}).values()}))

    def route(self) -> bytes | None:
        """By which cookies a balancer finds the session's replica, to be kept elsewhere; None if by none.

        Any other cookie may stand for whoever is calling, and is kept nowhere.
        """
        sticking = [cookie for cookie in (self.kept or {}).values() if _STICKS.fullmatch(cookie.name)]
        if not sticking:
            return None
        return msgspec.json.encode(
            [
                _KeptCookie(_raw(each.name), _raw(each.value), _raw(each.path), each.secure, each.expires_at)
                for each in sticking
            ]
        )

    def take_route(self, route: bytes) -> None:
        """Have again what ``route`` gave. What cannot be read is passed over: it may do without."""
        try:
            stored = msgspec.json.decode(route, type=list[_KeptCookie])
        except msgspec.DecodeError:
            return
        self.kept = {}
        for each in stored[:COOKIES]:
            name, value, path = map(_text, (each.name, each.value, each.path))
            cookie = _Cookie(name, value, path, each.secure, each.expires_at)
            is_one = not _CONTROL.search(name + value + path) and ";" not in name + value
            if is_one and self._has_room(self.kept, cookie, None):
                self.kept[(cookie.name, cookie.path)] = cookie

    def take(self, lines: Sequence[str], url: URL) -> None:
        """Keep what the ``Set-Cookie`` lines of an answer from this URL say; malformed ones are passed over.

        When there is no room left, no new names are taken: what a balancer needs was set first.
        """
        kept = self.kept = {} if self.kept is None else self.kept
        for line in lines[:_MAX_LINES]:
            cookie = _read(line, url, self._now())
            if cookie is None:
                continue
            place = (cookie.name, cookie.path)
            former = kept.get(place)
            # How a server takes a cookie back (RFC 6265, section 3.1).
            if cookie.expires_at is not None and cookie.expires_at <= self._now():
                kept.pop(place, None)
            elif self._has_room(kept, cookie, former):
                kept[place] = cookie

    def _has_room(
        self, kept: dict[tuple[str, str], _Cookie], cookie: _Cookie, former: _Cookie | None
    ) -> bool:
        # What has expired must not keep others out.
        self._drop_expired(kept)
        held_bytes = sum(each.size for each in kept.values()) - (0 if former is None else former.size)
        return (former is not None or len(kept) < COOKIES) and held_bytes + cookie.size <= COOKIES_BYTES

    def _drop_expired(self, kept: dict[tuple[str, str], _Cookie]) -> None:
        now = self._now()
        for place, cookie in list(kept.items()):
            if cookie.expires_at is not None and cookie.expires_at <= now:
                del kept[place]

    def add_to(self, headers: Sequence[Pair], url: URL) -> Sequence[Pair]:
        """The headers of a request to this URL, with these cookies.

        Of a client's own cookies, those whose names the server has set here are left out.
        """
        if not self.kept:
            return headers
        self._drop_expired(self.kept)
        secure = url.scheme == "https"
        fit = [c for c in self.kept.values() if (secure or not c.secure) and _is_below(url.raw_path, c.path)]
        # RFC 6265, section 5.4: servers that know one name for two paths take the first.
        fit.sort(key=lambda cookie: -len(cookie.path))
        names = {cookie.name for cookie in self.kept.values()}
        pairs = [pair for pair in _clients_own(headers) if pair.partition("=")[0].rstrip() not in names]
        pairs += [f"{cookie.name}={cookie.value}" for cookie in fit]
        others = [pair for pair in headers if pair[0].lower() != "cookie"]
        return [*others, ("Cookie", "; ".join(pairs))] if pairs else others


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _clients_own(headers: Iterable[Pair]) -> Iterator[str]:
    # HTTP/2 lets clients send one header for each cookie (RFC 9113, section 8.2.3).
    for name, value in headers:
        if name.lower() == "cookie":
            yield from filter(None, (pair.strip() for pair in value.split(";")))


def _read(line: str, url: URL, now: float) -> _Cookie | None:
    """A ``Set-Cookie`` line (RFC 6265, section 5.2); None where it sets nothing for this URL."""
    # RFC 6265bis, section 5.6: such a line is dropped as a whole.
    if _CONTROL.search(line):
        return None
    pair, *attributes = line.split(";")
    name, equals, value = (part.strip(" \t") for part in pair.partition("="))
    if not (name and equals) or len(name) + len(value) > _MAX_COOKIE_BYTES:
        return None
    said: dict[str, str] = {}
    for attribute in attributes:  # of repeated ones the last counts, but for empty times and domains
        key, _, text = (part.strip(" \t") for part in attribute.partition("="))
        if text or key.lower() in ("path", "secure"):
            said[key.lower()] = text
    if not _is_for(url.raw_host or "", said.get("domain", "").removeprefix(".").lower()):
        return None
    path = said.get("path", "")
    return _Cookie(
        name=writable(name),
        value=writable(value),
        path=path if path.startswith("/") else _default_path(url),
        secure="secure" in said,
        expires_at=_expiry(said.get("max-age", ""), said.get("expires", ""), now),
    )


def _is_for(host: str, domain: str) -> bool:
    """Whether a ``Domain`` covers the host that named it (section 5.1.3). Without one, the host alone."""
    host = host.lower()
    return not domain or host == domain or (host.endswith("." + domain) and not is_ip_address(host))


def _default_path(url: URL) -> str:
    """Section 5.1.4: up to the last slash."""
    return url.raw_path.rpartition("/")[0] or "/"


def _is_below(path: str, cookies_path: str) -> bool:
    """Whether a request's path is the cookie's or below it (section 5.1.4)."""
    if path == cookies_path:
        return True
    return path.startswith(cookies_path if cookies_path.endswith("/") else cookies_path + "/")


def _expiry(max_age: str, expires: str, now: float) -> float | None:
    """When a cookie ends; ``Max-Age`` wins, and what cannot be read counts as not said (section 5.2.1)."""
    if _SECONDS.fullmatch(max_age):
        # float, because int refuses thousands of digits
        return now + max(0.0, min(float(max_age), _MAX_AGE_SECONDS))
    try:
        date = parsedate_tz(expires)
        return None if date is None else float(mktime_tz(date))
    except (ValueError, OverflowError, TypeError):
        return None
