"""What to check and how, read from the command line. Wrong values raise ``ConfigError``."""

import re
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from yarl import URL

from ..protocol import jsonrpc
from ..settings import tls
from ..settings.config import load
from ..settings.sources import ConfigError
from ..settings.values import mask, parse_duration
from .text import find_secrets

_TLS_FIELDS: Final = ("upstream_ca", "upstream_cert", "upstream_key")
_NO_TLS: Final[Mapping[str, Any]] = dict.fromkeys(_TLS_FIELDS)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_EXAMPLE: Final = 'such as "Authorization: Bearer TOKEN"'
# These are what a check is made of.
_RESERVED: Final = frozenset(
    {"accept", "content-type", "content-length", "host", "mcp-session-id", "mcp-protocol-version"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One URL to check, and how to connect to it."""

    url: str
    context: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        """The URL without what may be secret."""
        return mask(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that may be called. ``arguments`` is a raw JSON object."""

    name: str
    arguments: bytes = b"{}"

    @property
    def params(self) -> Mapping[str, bytes]:
        """The params of ``tools/call``."""
        return {"name": jsonrpc.quote(self.name), "arguments": self.arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole check. ``upstream_flags`` are the TLS flags that were given, to be repeated in advice."""

    direct: Target
    through: Target | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)
    timeout_seconds: float
    idle_seconds: float | None = None
    call: ToolCall | None = None
    as_json: bool = False
    upstream_flags: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What servers may repeat and must not be shown."""
        urls = [URL(target.url) for target in (self.direct, self.through) if target is not None]
        return find_secrets(
            (*(value for _, value in self.headers), *self.tokens),
            (value for url in urls for value in url.query.values()),
        )


def read_plan(
    flags: Mapping[str, Any],
    *,
    through: str | None,
    headers: Sequence[str],
    tokens: Sequence[str] = (),
    timeout: str,
    idle: str | None,
    call: str | None,
    arguments: str | None,
    as_json: bool,
) -> Plan:
    """The plan from the proxy's own options that were given (``flags``) and those of ``check``.

    Raises:
        ConfigError: a value is wrong.
    """
    if "replica" in flags:
        raise ConfigError("URL: one server can be checked at a time; name its proxy with --through")
    # What belongs to https is for whichever URL has it; where neither has, the settings complain.
    settings = load({**flags, **_NO_TLS})
    if _is_https(settings.upstream) or not _is_https(through):
        settings = load(flags)
    if settings.upstream is None:
        raise ConfigError("URL: a command is checked with --stdio, as in check --stdio -- COMMAND")
    given = read_headers(headers)
    bearers = _read_tokens(tokens, given)
    return Plan(
        direct=Target(url=settings.upstream, context=tls.upstream_context(settings)),
        through=None if through is None else _read_through(through, flags, settings.upstream),
        headers=(*given, *(("Authorization", f"Bearer {token}") for token in bearers[:1])),
        tokens=bearers,
        timeout_seconds=read_duration("--timeout", timeout),
        idle_seconds=None if idle is None else read_duration("--idle", idle),
        call=_read_call(call, arguments),
        as_json=as_json,
        upstream_flags=tuple(
            word
            for name in _TLS_FIELDS
            if (path := getattr(settings, name)) is not None
            for word in ("--" + name.replace("_", "-"), str(path))
        ),
    )


def _read_through(text: str, flags: Mapping[str, Any], upstream: str) -> Target:
    """The proxy's URL; one without a path gets the server's, as the proxy's endpoint has."""
    try:
        settings = load({**flags, "upstream": text, "replica": (), **({} if _is_https(text) else _NO_TLS)})
    except ConfigError as error:
        raise ConfigError(str(error).replace("URL:", "--through:", 1)) from None
    url = URL(settings.upstream or text)
    if url.raw_path in ("", "/"):
        url = url.with_path(URL(upstream).raw_path, encoded=True, keep_query=True)
    return Target(url=str(url), context=tls.upstream_context(settings))


def _is_https(url: str | None) -> bool:
    return url is not None and url.lower().startswith("https:")


def read_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The headers that were given. Raises ConfigError."""
    return tuple(pair for text in texts for pair in _read_headers(text))


def read_duration(option: str, text: str) -> float:
    """How long, in seconds. Raises ConfigError."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is not allowed; it {error}") from None
    if seconds <= 0:
        raise ConfigError(f"{option}: {text!r} is not allowed; it must be more than nothing")
    return seconds


def _read_headers(text: str) -> list[tuple[str, str]]:
    """``NAME: VALUE``, or ``@FILE`` with one such line for each, which keeps it out of the process list."""
    if not text.startswith("@"):
        return [_read_header(text, "--header")]
    path = text[1:]
    try:
        lines = (sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")).splitlines()
    except OSError as error:
        raise ConfigError(f"--header: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--header: {path} is not a text in UTF-8") from None
    return [_read_header(line, f"--header: {path}") for line in lines if line.strip()]


def _read_header(line: str, where: str) -> tuple[str, str]:
    """Never quotes what it complains about: that may be a secret."""
    name, colon, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _NAME.fullmatch(name) or not value.isprintable():
        raise ConfigError(f"{where}: a header must be written NAME: VALUE, {_EXAMPLE}")
    if name.lower() in _RESERVED:
        raise ConfigError(f"{where}: {name} is set by the check itself")
    return name, value


def _read_tokens(texts: Sequence[str], headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """One token, or two to be compared, each itself or ``@FILE``. What is wrong is never quoted."""
    if len(texts) > 2:
        raise ConfigError("--token: two tokens can be compared, and no more")
    if texts and any(name.lower() == "authorization" for name, _ in headers):
        raise ConfigError("--token: goes with no --header Authorization")
    return tuple(map(_read_token, texts))


def _read_token(text: str) -> str:
    if text.startswith("@"):
        try:
            text = (sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"--token: {text[1:]} cannot be read") from None
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise ConfigError("--token: must be a token, without the word Bearer")
    return text


def _read_call(name: str | None, arguments: str | None) -> ToolCall | None:
    if name is None:
        if arguments is not None:
            raise ConfigError("--arguments: needs --call, which names the tool")
        return None
    if arguments is None:
        return ToolCall(name=name)
    raw = arguments.encode(errors="surrogateescape")  # what the terminal sent, even if that is no UTF-8
    if not isinstance(jsonrpc.read_value(raw), dict):
        raise ConfigError('--arguments: must be a JSON object, such as {"city": "Oslo"}')
    return ToolCall(name=name, arguments=raw)
