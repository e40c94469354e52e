"""Which clients are served (``--serve-eras``), and how the others are told."""

from collections.abc import Sequence

from ..errors import BadRequest, UnsupportedVersion
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Request
from ..protocol.revisions import Era, ServedEras
from .head import Head


def judge(era: Era, head: Head, served: ServedEras) -> Era:
    """The era by whose rules a request is answered, or refused, that looks like one of ``era``."""
    if served is ServedEras.MODERN:
        return Era.MODERN
    if served is ServedEras.LEGACY and head.session_id is not None:
        # In a session the versions are agreed on; a server without the later revision sees no mark of it.
        return Era.MODERN if head.names_modern else Era.LEGACY
    return era


def are_served(named: Sequence[str], served: ServedEras) -> bool:
    """Whether a legacy request may name these versions: it should name one, or none."""
    return all(version in served.versions for version in named)


def check_version(head: Head, served: ServedEras) -> None:
    """Refuse a legacy POST, GET or DELETE that names a version which is not served, within a session, too.

    What is told instead can be used there: a modern version would make another kind of request of it.

    Raises:
        UnsupportedVersion: MCP 2025-11-25, basic/transports, "Protocol Version Header".
    """
    if head.version_served:
        return  # as nearly all are
    versions = served.versions
    for version in head.versions:
        if version not in versions:
            supported = [known for known in versions if known in revisions.LEGACY_VERSIONS] or versions
            raise UnsupportedVersion(supported=supported, requested=version)


def check(message: Request, head: Head, served: ServedEras) -> None:
    """Refuse a request that counts as modern, where such requests are not served or this one is not modern.

    Raises:
        BadRequest: as a server says it that knows the legacy revisions alone. A client that speaks both eras
            goes on with ``initialize`` then; over any code of the modern revision's own it would not
            (MCP 2026-07-28, basic/transports/streamable-http, "Backward Compatibility").
        UnsupportedVersion: an ``initialize`` where there are no sessions. It names the versions that there
            are, for whoever reads the client's error message (basic/versioning).
    """
    if served is ServedEras.LEGACY:
        versions = ", ".join(served.versions)
        raise BadRequest(f"Bad Request: Unsupported protocol version (supported versions: {versions})")
    if served is ServedEras.MODERN and message.method == revisions.INITIALIZE:
        requested = jsonrpc.read_string(jsonrpc.read_object(message.params).get("protocolVersion"))
        raise UnsupportedVersion(supported=served.versions, requested=requested or head.version)
