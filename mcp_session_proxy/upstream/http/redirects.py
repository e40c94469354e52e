"""Where a redirect of the server's leads, if it leads anywhere that a request may go.

Nothing ever goes to another origin: credentials travel with every request.
"""

from typing import Final

from yarl import URL

from ...errors import UpstreamProtocolError
from ...protocol import revisions
from .http1 import HttpAnswer
from .refusal import media_type

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Those after which a POST goes out again as what it was (RFC 9110, section 15.4).
_KEEPING_METHOD: Final = frozenset({307, 308})
_MAX_SHOWN_CHARS: Final = 100


def redirected(asked: URL, answer: HttpAnswer, verb: str) -> URL:
    """Where this one request goes instead.

    A server may send some callers elsewhere, those without a credential to its login page, say. So a
    redirect concerns the request that it answers; only another spelling of the endpoint is worth keeping.

    Raises:
        UpstreamProtocolError: not to the same server, or not with this request's method and body.
    """
    target = follow(asked, answer.headers.get("Location"))
    if target is None:
        raise UpstreamProtocolError(
            f"The MCP server redirects (HTTP {answer.status}) to another place. "
            "Point the proxy at the final URL."
        )
    keeps = verb == "GET" or answer.status in _KEEPING_METHOD
    if not keeps and not is_same_but_for_a_slash(asked, target):
        raise UpstreamProtocolError(
            f"The MCP server redirects this request (HTTP {answer.status}) to another page, "
            f"{target.raw_path[:_MAX_SHOWN_CHARS]}. It may want a credential; "
            "or point the proxy at the final URL."
        )
    return target


def is_same_but_for_a_slash(one: URL, other: URL) -> bool:
    """Whether two paths are the spellings of one endpoint that frameworks redirect between."""
    return one.raw_path.rstrip("/") == other.raw_path.rstrip("/")


def speaks_mcp(answer: HttpAnswer) -> bool:
    """Whether this may be an MCP endpoint's answer, by its head."""
    is_json_or_stream = media_type(answer.headers) in (revisions.JSON, revisions.SSE)
    return answer.status == 202 or (answer.status < 400 and is_json_or_stream)


def follow(asked: URL, location: str | None) -> URL | None:
    """Where a redirect leads, if that is another path of the same origin."""
    try:
        target = None if location is None else asked.join(URL(location))
    except ValueError:
        return None
    # To the same path it would go round in circles.
    if target is None or target.raw_path == asked.raw_path:
        return None
    # A server behind TLS termination may name the wrong scheme: only the path is taken.
    if (target.host, _explicit_port(target)) != (asked.host, _explicit_port(asked)):
        return None
    moved = asked.with_path(target.raw_path, encoded=True)
    return URL(f"{moved}?{asked.raw_query_string}", encoded=True) if asked.raw_query_string else moved


def _explicit_port(url: URL) -> int | None:
    """The port, unless it is the scheme's own."""
    return None if url.is_default_port() else url.port
