"""Turns the server's URLs, where they point at itself, into ours, and ours back. Pure.

The server does not know that it has a proxy. OAuth clients insist that the ``resource`` in the
protected-resource metadata (RFC 9728, section 3.3) is the URL they called, so behind a public URL the
metadata, the challenge that leads to it, and redirects have to name that one.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from ..protocol import jsonrpc
from .guard import Origin, parse_origin

_RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"
# RFC 8615 with a path behind it, as RFC 8414 and RFC 9728 (section 3.1) put a resource's path there.
_WELL_KNOWN: Final = re.compile(r"(/\.well-known/[^/?#]+)(.*)", re.DOTALL)
_ABSOLUTE_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*://[^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_METADATA_PARAMETER: Final = re.compile(r'(\bresource_metadata\s*=\s*")([^"]*)(?=")', re.IGNORECASE)


def is_resource_metadata(path: str) -> bool:
    """Whether a path is that of a protected-resource metadata document (RFC 9728, section 3.1)."""
    return path == _RESOURCE_METADATA or path.startswith(f"{_RESOURCE_METADATA}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriter:
    """Knows where the server is and where clients see it.

    ``upstream_origin`` is ``scheme://host[:port]``, ``endpoint_path`` the path of the MCP endpoint.
    ``public_url`` is an origin, perhaps with a path that something in front of us removes; that of the
    endpoint itself means the same. Without it nothing is rewritten but redirects, which become relative.
    """

    upstream_origin: str
    endpoint_path: str
    public_url: str | None
    _upstream: Origin | None = field(init=False, repr=False, compare=False)
    _public_origin: str = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        match = _ABSOLUTE_URL.fullmatch(self.public_url or "")
        origin, path = ("", "") if match is None else (match[1], match[2])
        prefix = path.rstrip("/").removesuffix(self.endpoint_path.rstrip("/")).rstrip("/")
        object.__setattr__(self, "_upstream", parse_origin(self.upstream_origin))
        object.__setattr__(self, "_public_origin", origin)
        object.__setattr__(self, "_prefix", prefix)

    def location(self, value: str) -> str:
        """A redirect's target (RFC 9110, section 10.2.2), so that it leads to us and not around us."""
        rest = self._behind_upstream(value)
        if rest is None:
            return value
        if self.public_url is not None:
            return self._publish(rest)
        if rest[:1] != "/":
            return f"/{rest}"
        # "//host" and, to browsers, "/\host" would be another host (RFC 3986, section 4.2).
        return f"/.{rest}" if rest[1:2] in ("/", "\\") else rest

    def challenge(self, value: str) -> str:
        """A ``WWW-Authenticate`` header whose ``resource_metadata`` (RFC 9728, section 5.1) is ours."""
        if self.public_url is None:
            return value
        return _METADATA_PARAMETER.sub(lambda match: match[1] + self._rewrite(match[2]), value)

    def metadata(self, body: bytes) -> bytes:
        """A protected-resource metadata document whose ``resource`` is ours; other bodies as they are."""
        if self.public_url is None:
            return body
        resource = jsonrpc.read_string(jsonrpc.read_object(body).get("resource"))
        if resource is None or (rewritten := self._rewrite(resource)) == resource:
            return body
        return jsonrpc.replace_members(body, {"resource": jsonrpc.quote(rewritten)})

    def upstream_path(self, path: str) -> str:
        """The server's path for a request's. They differ where a well-known path holds our prefix."""
        match = _WELL_KNOWN.fullmatch(path)
        if not self._prefix or match is None or match[2] == self.endpoint_path:
            return path
        rest = match[2].removeprefix(self._prefix)
        return path if rest[:1] not in ("", "/") else match[1] + rest

    def _rewrite(self, url: str) -> str:
        rest = self._behind_upstream(url)
        return url if rest is None else self._publish(rest)

    def _publish(self, rest: str) -> str:
        """The public URL of what the server has at a path, a query and so on."""
        if (match := _WELL_KNOWN.fullmatch(rest)) is not None:
            return f"{self._public_origin}{match[1]}{self._prefix}{match[2]}"
        return f"{self._public_origin}{self._prefix}{rest}"

    def _behind_upstream(self, url: str) -> str | None:
        """What follows the server's origin in an absolute URL; None when the URL is someone else's.

        A server on loopback may call itself by another loopback name than we do.
        """
        match = _ABSOLUTE_URL.fullmatch(url)
        origin = None if match is None else parse_origin(match[1])
        if match is None or origin is None or self._upstream is None:
            return None
        if origin == self._upstream:
            return match[2]
        is_alias = (
            origin.is_loopback
            and self._upstream.is_loopback
            and origin.scheme == self._upstream.scheme
            and origin.authority.port == self._upstream.authority.port
        )
        return match[2] if is_alias else None
