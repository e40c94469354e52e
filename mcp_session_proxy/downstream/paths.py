"""Which paths of the server's origin may be reached beside the MCP endpoint. Pure.

A path that the server would take for its endpoint must come in by the front door: whoever got around it
would reach sessions, or open them, past the pool. Frameworks are lenient in many ways, and which one the
server is made with is not known here; so what any of them would take for the endpoint is refused.
"""

import posixpath
import re
from enum import StrEnum
from typing import Final
from urllib.parse import unquote


class Passing(StrEnum):
    """What is passed through."""

    NONE = "none"
    OAUTH = "oauth"  # what clients need to sign in, and health
    ALL = "all"


# RFC 8615 documents; then what OAuth and OpenID servers call their endpoints, at the root or in a folder of
# their own, the pages of a sign-in, and what probes ask for.
_SIGNING_IN: Final = re.compile(
    r"/\.well-known/[^/].*"
    r"|/(?:(?:oauth2?|oidc|connect|auth|idp)/(?:v\d+/)?)?"
    r"(?:authorize|authorization|token|register|registration|revoke|revocation|introspect|userinfo|jwks|jwks\.json"
    r"|callback|consent|login|logout|device|device_authorization|par)"
    r"(?:/callback|/confirm|/decision)?"
    r"|/(?:health|healthz|healthcheck|livez|readyz|live|ready)"
)
_MAX_DECODINGS: Final = 3
# ``?``, ``#`` or a null, encoded once or several times.
_END: Final = re.compile("%(?:25)*(?:3f|23|00)", re.IGNORECASE)


def is_passed(path: str, passing: Passing, endpoint_path: str) -> bool:
    """Whether a request for this raw path goes through. ``endpoint_path``: see ``Passthrough``.

    A server that is mounted below a path has its sign-in pages there, too.
    """
    if passing is Passing.ALL:
        return True
    if passing is Passing.NONE:
        return False
    bare = path.rstrip("/")
    folder = posixpath.dirname(endpoint_path.rstrip("/")).rstrip("/")
    return any(
        bare.startswith(prefix) and _SIGNING_IN.fullmatch(bare.removeprefix(prefix))
        for prefix in {"", folder, endpoint_path.rstrip("/")}
    )


def is_endpoint(path: str, endpoint_path: str) -> bool:
    """Whether some usual server would take this raw path for its MCP endpoint."""
    own = _as_lenient_servers_read(endpoint_path)
    if _as_lenient_servers_read(path) == own:
        return True
    # What follows these is a query to a proxy that decodes once more, and the end to a program in C.
    beginning = _END.split(path, maxsplit=1)[0]
    return beginning != path and _as_lenient_servers_read(beginning) == own


def _as_lenient_servers_read(path: str) -> str:
    """The path in one spelling for all that mean the same to one framework or another.

    Encoded, even twice (behind a proxy that decodes once more); with path parameters (Java: ``/mcp;x``,
    ``/x/..;/mcp``); with backslashes (Windows), dot segments and empty ones; with white space or a null at
    the end; in capitals (Express, ASP.NET).
    """
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    path = re.sub(r";[^/]*", "", path.replace("\\", "/"))
    # Dots alone are a step of the path, which is taken below. After a name Windows drops them.
    segments = [
        segment.strip().rstrip(".\0 ") if segment.strip(".") else segment for segment in path.split("/")
    ]
    normal = posixpath.normpath("/" + "/".join(segments).strip().rstrip("\0").lstrip("/"))
    return normal.rstrip("/").lower()
