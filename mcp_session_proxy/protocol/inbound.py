"""A client's HTTP request, judged before anything is done for it.

What the client can take (``Accept``), and which era it speaks.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from ..errors import ProxyError, UnsupportedVersion
from . import jsonrpc, revisions
from .jsonrpc import Request
from .revisions import Era


class Accepts(NamedTuple):
    """What a client can take as an answer to a POST. At least one is true."""

    json: bool
    stream: bool


_BOTH: Final = Accepts(json=True, stream=True)
_JSON_ONLY: Final = Accepts(json=True, stream=False)


def read_accept(values: list[str]) -> Accepts:
    """What the ``Accept`` header fields mean.

    Clients must name both types (MCP 2025-11-25, basic/transports), but many name one, ``*/*`` or
    nothing. Only those that name ``text/event-stream`` are taken to understand it.
    """
    if values == [revisions.ACCEPT_BOTH]:
        return _BOTH
    kinds = {
        kind.partition(";")[0].strip().lower()
        for value in values
        for kind in value.split(",")
        if kind.strip()
    }
    if revisions.SSE not in kinds:
        return _JSON_ONLY
    takes_json = bool(kinds & {revisions.JSON, "application/*", "*/*"})
    return Accepts(json=takes_json, stream=True)


def era_of(request: Request, version_header: str | None, meta: Mapping[str, bytes]) -> Era:
    """Which era a request belongs to: modern ones name a modern version, in a header or in ``_meta``."""
    if request.method == revisions.INITIALIZE:
        return Era.LEGACY
    named = jsonrpc.read_string(meta.get(revisions.META_VERSION)) or version_header or ""
    return Era.MODERN if named >= revisions.FIRST_MODERN and named[:2].isdecimal() else Era.LEGACY


def refuse_modern(requested: str | None) -> ProxyError:
    """The error that makes a modern client fall back to ``initialize``."""
    return UnsupportedVersion(supported=revisions.LEGACY_VERSIONS, requested=requested)
