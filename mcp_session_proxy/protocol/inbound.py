"""A client's request, judged before anything is done for it.

What the client can take (``Accept``), which era it speaks, and for modern requests the checks of the
2026-07-28 revision in their order: a typed message comes out, or a typed rejection is raised.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from ..bounds import CACHED_ACCEPTS
from ..errors import HeaderMismatch, InvalidParams, MethodGone, UnsupportedVersion
from . import jsonrpc, mirroring, revisions
from .jsonrpc import Request
from .mirroring import HeaderValues
from .revisions import Era

_QUALITY: Final = re.compile(r"[01](\.[0-9]{0,3})?")


class HeartbeatFormat(StrEnum):
    """The operator's choice: for which clients a silent answer does not become an event stream so soon."""

    AUTO = "auto"  # those that prefer JSON
    SSE = "sse"  # none
    JSON = "json"  # all that take JSON


class Accepts(NamedTuple):
    """What a client can take as an answer to a POST. At least one of ``json`` and ``stream`` is true."""

    json: bool
    stream: bool
    prefers_json: bool  # of two that it takes


_REMEMBERED_CHARS: Final = 1000
_JSON_TYPES: Final = (revisions.JSON, "application/*", "*/*")
_BOTH: Final = Accepts(json=True, stream=True, prefers_json=True)
_JSON_ONLY: Final = Accepts(json=True, stream=False, prefers_json=True)


def read_accept(values: Sequence[str]) -> Accepts:
    """What the ``Accept`` header fields mean.

    Clients must name both types (MCP 2025-11-25, basic/transports), but many name one, ``*/*`` or
    nothing. Only those that name ``text/event-stream`` are taken to understand it. They prefer JSON if they
    give it the higher quality, or name it first with the same (RFC 9110, section 12.5.1).
    """
    # The official SDKs write exactly this, and so do most clients.
    if len(values) == 1 and values[0] == revisions.ACCEPT_BOTH:
        return _BOTH
    text = ",".join(values)
    # One that is so long is nobody's habit, and not worth remembering.
    return _read_accept(text) if len(text) <= _REMEMBERED_CHARS else _read_accept.__wrapped__(text)


@lru_cache(maxsize=CACHED_ACCEPTS)
def _read_accept(text: str) -> Accepts:
    ranks: dict[str, tuple[float, int]] = {}  # the quality, and how early it stands
    for place, entry in enumerate(text.split(",")):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if (quality := _read_quality(parameters)) > 0:
            ranks.setdefault(kind, (quality, -place))
    stream = ranks.get(revisions.SSE)
    if stream is None:
        return _JSON_ONLY
    json = next((ranks[kind] for kind in _JSON_TYPES if kind in ranks), None)
    return Accepts(json=json is not None, stream=True, prefers_json=json is not None and json > stream)


def _read_quality(parameters: Sequence[str]) -> float:
    """The weight of a media type; nonsense counts as none given."""
    given = next((value for value in parameters if value.startswith("q=")), "q=1")
    return float(given[2:]) if _QUALITY.fullmatch(given[2:]) else 1.0


class ModernRequest(NamedTuple):
    """A request of the 2026-07-28 revision that has passed the checks. JSON stays raw."""

    request: Request
    params: Mapping[str, bytes]  # the members of the parameters
    meta: Mapping[str, bytes]  # the members of their ``_meta``
    raw_capabilities: bytes
    client_info: bytes | None
    log_level: str | None

    @property
    def capabilities(self) -> Mapping[str, bytes]:
        """What the client can do."""
        return jsonrpc.read_object(self.raw_capabilities)

    @property
    def progress_token(self) -> bytes | None:
        """The client's progress token as raw JSON."""
        return jsonrpc.read_progress_token(self.meta) if "progressToken" in self.meta else None


def is_modern_version(version: str | None) -> bool:
    """Whether a version header speaks of the modern era, served or not."""
    # Versions are dates, so their order is that of text; what begins with a letter is no date.
    return version is not None and version >= revisions.FIRST_MODERN and version[:1].isdecimal()


def no_id(version_header: str | None, body: bytes = b"") -> bytes:
    """What stands for the id in the answer to a request that could not be read.

    JSON-RPC 2.0 wants a null, the modern schema no member at all (MCP 2026-07-28, schema,
    ``JSONRPCErrorResponse``). Which one it is has to be told from what can be recognised.
    """
    modern = is_modern_version(version_header) or revisions.META_VERSION.encode() in body
    return jsonrpc.ABSENT if modern else jsonrpc.NULL


def era_of(request: Request, version_header: str | None, meta: Mapping[str, bytes]) -> Era:
    """Which era a request belongs to.

    Modern ones name a version in ``_meta``, or a modern version in the header; ``server/discover``
    exists in no other era. ``initialize`` without ``_meta`` version or modern header is legacy.
    """
    if revisions.META_VERSION in meta or is_modern_version(version_header):
        return Era.MODERN
    return Era.MODERN if request.method == revisions.DISCOVER else Era.LEGACY


def read_modern(
    request: Request,
    meta: Mapping[str, bytes],
    header_values: HeaderValues,
    served: Sequence[str] = revisions.SERVED_VERSIONS,
    *,
    extensions: bool = False,
) -> ModernRequest:
    """The front-door checks for a modern request, in their order.

    ``header_values`` gives all values of a header; ``served`` are the versions of both eras that are served.
    With ``extensions``, a method that the core does not know may be one that the server does.

    Raises:
        UnsupportedVersion, MethodGone, HeaderMismatch, InvalidParams: what is wrong.
    """
    # Versions come first: whatever else is wrong is wrong by the rules of one of them, and a client that is
    # told which ones there are may come back in another.
    version_headers = header_values(revisions.VERSION_HEADER)
    named = jsonrpc.read_string(meta.get(revisions.META_VERSION))
    if named not in revisions.MODERN_VERSIONS or len(version_headers) != 1:
        _check_version(version_headers, named, served)
    if request.method not in revisions.MODERN_METHODS and not (
        extensions and revisions.may_be_an_extensions(request.method)
    ):
        raise no_such_method(request.method)
    if len(version_headers) != 1:
        raise HeaderMismatch(f"The header {revisions.VERSION_HEADER} is missing or was sent more than once.")
    if named is None:
        raise InvalidParams(f'"_meta" lacks a well-formed "{revisions.META_VERSION}".')
    if version_headers[0].strip() != named:
        raise HeaderMismatch(f"{revisions.VERSION_HEADER} does not match the body's protocol version.")
    capabilities = _capabilities(meta)
    log_level = _log_level(meta)
    params = jsonrpc.read_object(request.params)
    mirroring.check_routing(request.method, params, header_values)
    return ModernRequest(request, params, meta, capabilities, meta.get(revisions.META_CLIENT_INFO), log_level)


def no_such_method(method: str) -> MethodGone:
    """The error for a method that nobody here knows."""
    return MethodGone(f"There is no method {method[:100]!r} in this protocol version.")


def _check_version(headers: Sequence[str], named: str | None, served: Sequence[str]) -> None:
    """Refuse a version that is not served, if header and body agree on it or only one of them names it."""
    told = {version.strip() for version in (*headers, *([] if named is None else [named]))}
    if len(told) == 1 and not told & set(revisions.MODERN_VERSIONS):
        # Legacy versions are served, but not to requests of this form: naming them would make a loop.
        legacy = told & set(revisions.LEGACY_VERSIONS)
        supported = revisions.MODERN_VERSIONS if legacy else served
        raise UnsupportedVersion(supported=supported, requested=told.pop())


def _capabilities(meta: Mapping[str, bytes]) -> bytes:
    raw = meta.get(revisions.META_CAPABILITIES, b"")
    if raw[:1] != b"{":
        raise InvalidParams(f'"_meta" lacks a well-formed "{revisions.META_CAPABILITIES}".')
    return raw


def _log_level(meta: Mapping[str, bytes]) -> str | None:
    raw = meta.get(revisions.META_LOG_LEVEL)
    if raw is None:
        return None
    level = jsonrpc.read_string(raw)
    if level not in revisions.LOG_LEVELS:
        raise InvalidParams(f'"{revisions.META_LOG_LEVEL}" must be one of {", ".join(revisions.LOG_LEVELS)}.')
    return level
