"""The forms in which people write option values: listen addresses, durations, sizes, lists, URLs.

Each form is read by a ``parse_...`` function, which raises ``ValueError`` with what is allowed, as the
end of a sentence ("must be ..."), and written by a ``show`` function. Which options there are is
``config``'s business.
"""

import math
import re
from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Self

import msgspec
from yarl import URL

from ..protocol.hosts import MAX_PORT, is_ip_address, is_loopback, is_trustworthy

MAX_DURATION_SECONDS: Final = 365 * 86400.0
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_NUMBER_AND_UNIT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
_HOST: Final = re.compile(
    r"(?:(?:\*\.)?[a-z0-9][a-z0-9._~-]*|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_OBJECT: Final = re.compile(r"[a-zA-Z_]\w*(\.\w+)*:[a-zA-Z_]\w*(\.\w+)*")
_MAX_TTL_DIGITS: Final = 12


class Form(msgspec.Struct, frozen=True):
    """What a kind of value is called in help texts, and how one is written there."""

    metavar: str
    show: Callable[[Any], str]


class Address(msgspec.Struct, frozen=True):
    """Where to listen. An empty ``host`` means every interface, port 0 means any free port.

    Of a unix socket, which can be given but not asked for, ``host`` is the path, or @ and an abstract name.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``."""
        if isinstance(value, cls):
            return value
        problem = "must be HOST:PORT, such as 127.0.0.1:8080, [::1]:8080, or :8080 for every interface"
        if not isinstance(value, str):
            raise ValueError(problem)
        host, colon, port = value.strip().rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or re.search(r"[/\s@]", host):
            raise ValueError(problem)
        if int(port) > MAX_PORT:
            raise ValueError(f"must have a port from 0 to {MAX_PORT}")
        if host[:1] == "[" and host[-1:] == "]":
            host = host[1:-1]
            if ":" not in host:
                raise ValueError("must have an IPv6 address between the brackets")
        elif ":" in host:
            raise ValueError("must have brackets around an IPv6 address, such as [::1]:8080")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.is_unix or is_loopback(self.host)

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket's."""
        return self.host.startswith(("/", "@"))

    def collides(self, other: "Address") -> bool:
        """Whether not both can be listened on."""
        same_host = self.host == other.host or "" in (self.host, other.host)
        return same_host and self.port == other.port != 0

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(value: object) -> float:
    """Read a time span: seconds as a number, or ``500ms``, ``30s``, ``5m``, ``2h``, ``1d``. Gives seconds."""
    number, unit = _split_number(value)
    factor = _SECONDS.get(unit or "s")
    if number is None or factor is None:
        raise ValueError("must be a duration, such as 500ms, 30s, 5m, 2h, or a number of seconds")
    if number * factor > MAX_DURATION_SECONDS:
        raise ValueError(f"must be at most {show_duration(MAX_DURATION_SECONDS)}")
    return number * factor


def parse_size(value: object) -> int:
    """Read an amount of memory: bytes as a number, or ``512KiB``, ``4MiB``, ``1GB``. Gives bytes."""
    number, unit = _split_number(value)
    factor = _BYTES.get(unit.lower())
    if number is None or factor is None:
        raise ValueError("must be a size, such as 512KiB, 4MiB, or a number of bytes")
    return int(number * factor)


def parse_events(value: object) -> str:
    """Read where events are kept: ``store``, ``memory``, or an object of Python's, ``MODULE:NAME``."""
    if isinstance(value, str) and (value in ("store", "memory") or _OBJECT.fullmatch(value)):
        return value
    raise ValueError("must be store, memory, or MODULE:NAME, such as mypackage.events:store")


def _split_number(value: object) -> tuple[float | None, str]:
    # bool is an int to Python, but `true` is neither a time nor a size.
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), ""
    if isinstance(value, str) and (match := _NUMBER_AND_UNIT.fullmatch(value.strip())):
        return float(match[1]), match[2]
    return None, ""


def parse_words(value: object) -> tuple[str, ...]:
    """Read a list: a sequence of strings (a repeated flag, a TOML array), each of which may hold commas."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    words = (word.strip() for item in value for word in item.split(","))
    return tuple(word for word in words if word)


class CacheTtl(msgspec.Struct, frozen=True):
    """How long clients may keep the results of one method."""

    method: str
    milliseconds: int

    def __str__(self) -> str:
        return f"{self.method}={self.milliseconds}"


def parse_cache_ttls(value: object, methods: Collection[str]) -> tuple[CacheTtl, ...]:
    """Read a list of ``METHOD=MILLISECONDS`` with these methods."""
    if isinstance(value, tuple) and all(isinstance(item, CacheTtl) for item in value):
        return value
    return tuple(_parse_cache_ttl(word, methods) for word in parse_words(value))


def _parse_cache_ttl(word: str, methods: Collection[str]) -> CacheTtl:
    method, _, number = word.partition("=")
    if method not in methods or not number.isdecimal() or len(number) > _MAX_TTL_DIGITS:
        known = ", ".join(sorted(methods))
        raise ValueError(f"must be METHOD=MILLISECONDS, such as tools/list=60000; methods: {known}")
    return CacheTtl(method, int(number))


def parse_upstream(value: object) -> str:
    """Read the URL of an MCP endpoint. Credentials in it are refused: they would end up in logs."""
    url = _parse_http_url(value, "must be an http or https URL, such as http://127.0.0.1:8000/mcp")
    if url.user is not None or url.password is not None:
        raise ValueError("must not hold a user name or password; clients send their own credentials")
    if url.raw_fragment:
        raise ValueError("must not have a fragment (#...)")
    return str(url)


def parse_issuer(value: object) -> str | None:
    """Read a URL of whoever issues tokens, byte for byte: it is compared with what tokens say.

    Nobody on the way may put keys of their own there, so it is https, or this machine.
    """
    if value in (None, ""):
        return None
    problem = "must be an https URL, such as https://issuer.example"
    url = _parse_http_url(value, problem)
    if url.user is not None or url.raw_fragment or not is_trustworthy(url.scheme, url.host):
        raise ValueError(problem)
    return str(value)


def parse_text(value: object) -> str | None:
    """Read a word that is compared with another one."""
    return None if value in (None, "") else str(value)


def parse_upstreams(value: object) -> tuple[str, ...]:
    """Read a list of URLs of MCP endpoints."""
    return tuple(parse_upstream(word) for word in parse_words(value))


def parse_public_url(value: object) -> str | None:
    """Read the URL under which clients reach the proxy: an origin, perhaps with a path before ours."""
    if value is None:
        return None
    problem = "must be the http or https URL that clients use, such as https://mcp.example.com"
    url = _parse_http_url(value, problem)
    if url.user is not None or url.query_string or url.raw_fragment:
        raise ValueError(problem)
    return str(url).rstrip("/")


def parse_peer_url(value: object) -> str | None:
    """Read the URL under which other members reach this one: an origin, and nothing behind it."""
    if value in (None, ""):
        return None
    problem = "must be the http or https URL of this one proxy, such as http://10.0.0.7:7946, without a path"
    url = _parse_http_url(value, problem)
    if url.user is not None or url.path not in ("", "/") or url.query_string or url.raw_fragment:
        raise ValueError(problem)
    return str(url.origin())


def parse_origins(value: object) -> tuple[str, ...]:
    """Read a list of web origins (RFC 6454), in the form in which browsers send them.

    ``*`` means any, ``null`` is what sandboxed frames and local files send.
    """
    return tuple(_parse_origin(word) for word in parse_words(value))


def _parse_origin(word: str) -> str:
    if word in ("*", "null"):
        return word
    problem = "must be origins, such as https://app.example.com (scheme and host, no path), or *"
    url = _parse_url(word, problem)
    if url.path not in ("", "/") or url.query_string or url.raw_fragment or url.user is not None:
        raise ValueError(problem)
    return str(url.origin())


def parse_hosts(value: object) -> tuple[str, ...]:
    """Read a list of hosts to be called by: names, with a port where only that port will do."""
    words = tuple(word.lower() for word in parse_words(value))
    if not all(_is_host(word) for word in words):
        raise ValueError("must be host names, such as mcp.example.com, *.example.com or mcp.example.com:8443")
    return words


def parse_networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read a list of networks in CIDR form; an address alone is a network of one."""
    if isinstance(value, tuple) and all(isinstance(item, IPv4Network | IPv6Network) for item in value):
        return value
    try:
        return tuple(ip_network(word, strict=False) for word in parse_words(value))
    except ValueError:
        raise ValueError("must be networks or addresses, such as 10.0.0.0/8, 192.0.2.7 or fd00::/8") from None


def _is_host(word: str) -> bool:
    match = _HOST.fullmatch(word)
    if match is None or int(match["port"] or 0) > MAX_PORT:
        return False
    return match["ipv6"] is None or is_ip_address(match["ipv6"])


def parse_token(value: object) -> str | None:
    """Read a secret that travels in a header. An empty one is refused: it is a mistake that opens doors."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be visible ASCII characters without spaces (try: openssl rand -hex 32)")
    return value


def _parse_http_url(value: object, problem: str) -> URL:
    url = _parse_url(value, problem)
    if url.scheme not in ("http", "https"):
        raise ValueError(problem)
    return url


def _parse_url(value: object, problem: str) -> URL:
    if not isinstance(value, str) or re.search(r"\s", value.strip()):
        raise ValueError(problem)
    try:
        url = URL(value.strip())
        has_usable_port = url.port is None or 0 < url.port <= MAX_PORT
    except ValueError:
        raise ValueError(problem) from None
    if not url.scheme or not url.host or not has_usable_port:
        raise ValueError(problem)
    return url


# A password may hold any mark but a space, so this ends at the last "@" of a word. In paths, "//" became "/".
_USER: Final = re.compile(r"(?<=//)\S*@|[^\s/:@'\"]+:(?!//)\S*@")


def hide_user(text: str) -> str:
    """A text without the user and the password that may stand in it, as in a URL, or without its scheme."""
    return _USER.sub("***@", text)


def mask(text: str) -> str:
    """A text without the parts of a URL in which secrets travel: user, password, query and fragment."""
    return re.sub(r"([?#]).*", r"\1***", hide_user(text))


def show(value: object) -> str:
    """Write a value that has no form of its own: nothing as ``none``, a list with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return hide_user(", ".join(map(str, value))) or "none"
    return hide_user(str(value))


def show_secret(value: object) -> str:
    """Write only whether there is a secret."""
    return "none" if value is None else "***"


def show_duration(seconds: float) -> str:
    """Write a time span in its largest whole unit: ``1d``, ``30m``, ``90s``, ``250ms``."""
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"


def show_size(size_bytes: int) -> str:
    """Write an amount of memory in its largest whole binary unit: ``4MiB``, ``1000``."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES[unit.lower()] == 0:
            return f"{size_bytes // _BYTES[unit.lower()]}{unit}"
    return str(size_bytes)
