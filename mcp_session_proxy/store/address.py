"""Where a store is, as its URL says, and what it takes to get in. Pure."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_MAX_PORT: Final = 65535
_PROBLEM: Final = (
    "must be the URL of a Valkey or Redis, such as valkey://127.0.0.1:6379/0, valkeys://user:password@host "
    "(TLS), unix:///run/valkey.sock or sentinel://host1,host2/NAME"
)
# By scheme: whether connections are encrypted.
_SERVERS: Final = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
_SENTINELS: Final = {"sentinel": False, "sentinels": True}
# What may follow the question mark, as other programs that take such URLs call it.
_FILES: Final = {"ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file", "ssl_keyfile": "key_file"}
_PARAMETERS: Final = {*_FILES, "sentinel_username", "sentinel_password"}
_HOST: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:,@/\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """One store. Neither ``str`` nor ``repr`` shows a password.

    ``hosts`` are those of the server, or with ``primary`` those of its Sentinels, which know it by that name;
    none where it listens on a unix socket, ``path``. ``ca_file``, ``cert_file`` and ``key_file`` are for TLS:
    whom to trust instead of the system's authorities, and what to show.
    """

    scheme: str = "valkey"
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    primary: str | None = None
    database: int = 0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a URL. Raises ValueError, with what it must be; that never holds what was given."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise ValueError(_PROBLEM)
        try:
            parts = urlsplit(text.strip())
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise ValueError(_PROBLEM) from None
        if parts.fragment or re.search(r"\s", text.strip()):
            raise ValueError(_PROBLEM)
        if parts.scheme == "unix":
            return cls(scheme="unix", **_unix(parts.netloc, parts.path, query))
        given: dict[str, Any] = _login(parts.netloc) | _parameters(parts.scheme, query)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        if parts.scheme in _SERVERS:
            if len(hosts) != 1:
                raise ValueError("must name one host; several are for sentinel://host1,host2/NAME")
            number = _database(parts.path.strip("/"))
            return cls(scheme=parts.scheme, hosts=(_host(hosts[0], PORT),), database=number, **given)
        if parts.scheme not in _SENTINELS:
            raise ValueError(_PROBLEM)
        name, _, database = parts.path.strip("/").partition("/")
        if not name:
            raise ValueError("must end with the name that the Sentinels know the server by, /NAME")
        return cls(
            scheme=parts.scheme,
            hosts=tuple(_host(host, SENTINEL_PORT) for host in hosts),
            primary=unquote(name),
            database=_database(database),
            **given,
        )

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return (_SERVERS | _SENTINELS).get(self.scheme, False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        shown = f"{self.scheme}://{hosts}" + ("" if self.primary is None else f"/{self.primary}")
        return f"{shown}/{self.database}" if self.database else shown


def _unix(authority: str, path: str, query: dict[str, str]) -> dict[str, Any]:
    if set(query) - {"db"} or not path.startswith("/") or authority.rpartition("@")[2]:
        raise ValueError("must be like unix:///run/valkey.sock or unix://user:password@/run/valkey.sock?db=1")
    return {"path": unquote(path), "database": _database(query.get("db", "")), **_login(authority)}


def _login(authority: str) -> dict[str, Any]:
    user, at, _ = authority.rpartition("@")
    name, colon, password = user.partition(":")
    if not at:
        return {}
    # "user@" is a user without a password, ":password@" the default user.
    return {"username": unquote(name) or None, "password": unquote(password) if colon else None}


def _parameters(scheme: str, query: dict[str, str]) -> dict[str, Any]:
    tls = (_SERVERS | _SENTINELS).get(scheme, False)
    unknown = sorted(set(query) - _PARAMETERS)
    if unknown:
        raise ValueError(
            f"must have no parameter {unknown[0][:40]!r}; there are {', '.join(sorted(_PARAMETERS))}"
        )
    if not tls and any(name in query for name in _FILES):
        raise ValueError("must begin with valkeys:// or rediss:// to have parameters for TLS")
    if scheme not in _SENTINELS and any(name.startswith("sentinel") for name in query):
        raise ValueError("must begin with sentinel:// to have parameters for Sentinels")
    return {_FILES.get(name, name): value for name, value in query.items()}


def _host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or port) <= _MAX_PORT:
        raise ValueError(_PROBLEM)
    return match["host"].strip("[]"), int(match["port"] or port)


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError("must have the number of a database after the host, such as /0")
    return int(text)
