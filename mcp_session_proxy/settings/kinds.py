"""What the model says of an option beside its name: of which kind its values are, and where the help has it.

How a single value is written and read is in ``values``; here that becomes types for the model.
"""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr

from ..protocol.revisions import CACHEABLE_METHODS
from .values import (
    Address,
    CacheTtl,
    Form,
    mask,
    parse_cache_ttls,
    parse_duration,
    parse_events,
    parse_hosts,
    parse_issuer,
    parse_networks,
    parse_origins,
    parse_peer_url,
    parse_public_url,
    parse_size,
    parse_text,
    parse_token,
    parse_upstream,
    parse_upstreams,
    parse_words,
    show,
    show_duration,
    show_secret,
    show_size,
)


class Group(StrEnum):
    """The parts of the help page."""

    LISTENING = "Listening"
    STDIO = "Servers that are commands"
    SESSIONS = "Sessions"
    CLUSTER = "Several proxies"
    MODERN = "Modern clients"
    IDENTITY = "Identity"
    LIMITS = "Limits"
    TIMEOUTS = "Timeouts"
    SAFETY = "Safety"
    TLS = "TLS"
    LOGGING = "Logging"


class Live:
    """Marks an option that can change while the proxy runs: SIGHUP applies what the file says of it."""


LIVE: Final = Live()


def _parse_optional_address(value: object) -> Address | None:
    return None if value in (None, "", "off") else Address.parse(value)


def _parse_optional_path(value: object) -> object:
    return None if value == "" else value


def _parse_optional_size(value: object) -> object:
    if value in (None, ""):
        return None
    size = parse_size(value)
    if size <= 0:
        raise ValueError("must be greater than 0")
    return size


def _show_optional_size(value: int | None) -> str:
    return show(value) if value is None else show_size(value)


def _parse_status(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _parse_optional_upstream(value: object) -> str | None:
    return None if value is None else parse_upstream(value)


def _show_url(url: str | None) -> str:
    return show(url) if url is None else mask(url)


def _show_urls(urls: tuple[str, ...]) -> str:
    return show(tuple(map(mask, urls)))


def _parse_cache_ttls(value: object) -> object:
    return parse_cache_ttls(value, CACHEABLE_METHODS)


def _refuse_bool(value: object) -> object:
    # bool is an int to Python and 1 to pydantic; `max-sessions = true` is a mistake all the same.
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def by_server(*, url: Any, command: Any) -> Any:
    """The default of an option that depends on what the server is, which the model knows by then."""
    return Field(default_factory=lambda data: url if data.get("command") is None else command)


Listener = Annotated[Address, BeforeValidator(Address.parse), Form("HOST:PORT", show)]
OptionalListener = Annotated[
    Address | None, BeforeValidator(_parse_optional_address), Form("HOST:PORT", show)
]
OptionalFolder = Annotated[Path | None, BeforeValidator(_parse_optional_path), Form("DIR", show)]
OptionalPath = Annotated[Path | None, BeforeValidator(_parse_optional_path), Form("FILE", show)]
DurationOrZero = Annotated[float, BeforeValidator(parse_duration), Form("DURATION", show_duration)]
Duration = Annotated[DurationOrZero, Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_size), Form("SIZE", show_size), Field(gt=0)]
OptionalSize = Annotated[int | None, BeforeValidator(_parse_optional_size), Form("SIZE", _show_optional_size)]
CountOrZero = Annotated[int, BeforeValidator(_refuse_bool), Form("N", show), Field(ge=0)]
Count = Annotated[CountOrZero, Field(ge=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(parse_words), Form("NAME", show)]
Status = Annotated[Literal[405, 200, 204], BeforeValidator(_parse_status), Form("{405,200,204}", show)]
Upstream = Annotated[str | None, BeforeValidator(_parse_optional_upstream), Form("URL", _show_url)]
Upstreams = Annotated[tuple[str, ...], BeforeValidator(parse_upstreams), Form("URL", _show_urls)]
PublicUrl = Annotated[str | None, BeforeValidator(parse_public_url), Form("URL", show)]
PeerUrl = Annotated[str | None, BeforeValidator(parse_peer_url), Form("URL", show)]
IssuerUrl = Annotated[str | None, BeforeValidator(parse_issuer), Form("URL", show)]
EventsPlace = Annotated[str, BeforeValidator(parse_events), Form("WHERE", show)]
Text = Annotated[str | None, BeforeValidator(parse_text), Form("TEXT", show)]
Token = Annotated[SecretStr | None, BeforeValidator(parse_token), Form("TOKEN", show_secret)]
Origins = Annotated[tuple[str, ...], BeforeValidator(parse_origins), Form("ORIGIN", show)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(parse_hosts), Form("HOST", show)]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], BeforeValidator(parse_networks), Form("CIDR", show)
]
CacheTtls = Annotated[
    tuple[CacheTtl, ...], BeforeValidator(_parse_cache_ttls), Form("METHOD=MILLISECONDS", show)
]
CacheScope = Annotated[Literal["private", "public"], Form("{private,public}", show)]
