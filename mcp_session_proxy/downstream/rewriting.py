"""Turns the server's URLs, where they point at itself, into ours, and ours back. Pure.

The server does not know that it has a proxy, so what it says of itself leads to an inner address. A client
that signs in follows what it is told, and compares it: the ``resource`` of the protected-resource metadata
(RFC 9728, section 3.3) with the URL that it called, the ``issuer`` of the authorization server's metadata
(RFC 8414, section 3.3) and of its answer (RFC 9207) with the one that it asked for. So behind a public URL
all of these name that one: metadata documents as a whole, challenges, and redirects. URLs of anybody else
stay as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_plus

from ..protocol import jsonrpc
from ..protocol.hosts import Origin, parse_origin, split_url

# RFC 9728 and RFC 8414 put the path of what they describe behind the well-known part, OpenID Connect
# Discovery (section 4) before it; clients try both.
_METADATA: Final = re.compile(
    r"(?:/.*)?/\.well-known/(?:oauth-protected-resource|oauth-authorization-server|openid-configuration)(?:/.*)?",
    re.DOTALL,
)
# RFC 8615 with a path behind it.
_WELL_KNOWN: Final = re.compile(r"(/\.well-known/[^/?#]+)(.*)", re.DOTALL)
# An authentication parameter (RFC 9110, section 11.2); a value without its quotes ends where the next begins.
_PARAMETER: Final = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(\s*=\s*)("(?:[^"\\]|\\.)*"|[^\s",]+)""", re.DOTALL)
_WORD: Final = re.compile(r'[^\s"]+')
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::"})  # addresses to listen on, which name every host and none
_MAX_DEPTH: Final = 16  # of objects and lists in a metadata document; real ones have two or three


def is_metadata(path: str) -> bool:
    """Whether a path is that of a document in which a server describes how to sign in."""
    return _METADATA.fullmatch(path) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriter:
    """Knows where the server is and where clients see it.

    ``upstream_origin`` is ``scheme://host[:port]``, ``endpoint_path`` the path of the MCP endpoint;
    ``replicas`` are the origins of servers that are equal to it. ``public_url`` is an origin, perhaps with a
    path that something in front of us removes; that of the endpoint itself means the same. Without it nothing
    is rewritten but redirects, which become relative.
    """

    upstream_origin: str
    endpoint_path: str
    public_url: str | None
    replicas: Sequence[str] = ()
    _servers: frozenset[Origin] = field(init=False, repr=False, compare=False)
    _public_origin: str = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        origin, path = split_url(self.public_url or "")
        prefix = path.rstrip("/").removesuffix(self.endpoint_path.rstrip("/")).rstrip("/")
        servers = map(parse_origin, (self.upstream_origin, *self.replicas))
        object.__setattr__(self, "_servers", frozenset(filter(None, servers)))
        object.__setattr__(self, "_public_origin", origin)
        object.__setattr__(self, "_prefix", prefix)

    def location(self, value: str) -> str:
        """A redirect's target (RFC 9110, section 10.2.2), so that it leads to us and not around us.

        Its query belongs to whoever made it and stays as it is, but for the server's name of itself in an
        authorization response.
        """
        target = self._restate_issuer(value)
        rest = self._behind_upstream(target)
        if rest is None or _is_for_a_client(target):
            return target
        if self.public_url is not None:
            return self._publish(rest)
        if rest[:1] != "/":
            return f"/{rest}"
        # "//host" and, to browsers, "/\\host" would be another host (RFC 3986, section 4.2).
        return f"/.{rest}" if rest[1:2] in ("/", "\\") else rest

    def challenge(self, value: str) -> str:
        """A ``WWW-Authenticate`` header (RFC 9110, section 11.6.1) whose parameters lead to us.

        All but ``realm``: it names a set of secrets and leads nowhere; clients compute with it (RFC 7616).
        """
        if self.public_url is None:
            return value

        def restate(match: re.Match[str]) -> str:
            name, equals, text = match.groups()
            if name.lower() != "realm":
                text = _WORD.sub(lambda word: self._rewrite(word[0]), text)
            return f"{name}{equals}{text}"

        return _PARAMETER.sub(restate, value)

    def metadata(self, body: bytes) -> bytes:
        """A metadata document in which every URL of the server's is ours, at any depth; else as it is."""
        return body if self.public_url is None else self._rewrite_json(body, 0)

    def _rewrite_json(self, raw: bytes, depth: int) -> bytes:
        """The same JSON, byte for byte where no URL has changed within."""
        kind = raw.lstrip()[:1]
        if kind == b'"':
            text = jsonrpc.read_string(raw)
            if text is None or (rewritten := self._rewrite(text)) == text:
                return raw
            return jsonrpc.quote(rewritten)
        if depth == _MAX_DEPTH:
            return raw
        if kind == b"{":
            members = jsonrpc.read_object(raw)
            ours = {name: self._rewrite_json(value, depth + 1) for name, value in members.items()}
            return raw if ours == members else jsonrpc.write_object(ours)
        if kind == b"[":
            items = jsonrpc.read_array(raw)
            mine = [self._rewrite_json(item, depth + 1) for item in items]
            return raw if mine == items else jsonrpc.write_array(mine)
        return raw

    def _restate_issuer(self, url: str) -> str:
        """A URL whose query says as ``iss`` (RFC 9207) what our metadata says as ``issuer``."""
        if self.public_url is None or "iss=" not in url:
            return url
        target, hash_sign, fragment = url.partition("#")
        target, question_mark, query = target.partition("?")
        # By hand: encoding it anew would change parameters that others compare byte by byte.
        pairs = query.split("&")
        for place, pair in enumerate(pairs):
            if pair.startswith("iss="):
                issuer = unquote_plus(pair[4:])
                if (ours := self._rewrite(issuer)) != issuer:
                    pairs[place] = f"iss={quote(ours, safe='')}"
        return f"{target}{question_mark}{'&'.join(pairs)}{hash_sign}{fragment}"

    def upstream_path(self, path: str) -> str:
        """The server's path for a request's. They differ where a well-known path holds our prefix."""
        match = _WELL_KNOWN.fullmatch(path)
        # The endpoint's own well-known path stays, also where the server's path begins like the public one.
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
        """What follows the server's origin in an absolute URL; None when the URL is someone else's."""
        text, rest = split_url(url)
        origin = parse_origin(text)
        if origin is None:
            return None
        return rest if origin in self._servers or self._is_alias(origin) else None

    def _is_alias(self, origin: Origin) -> bool:
        """Whether a server calls itself so by how it sees itself: on loopback, or by where it listens."""
        if not origin.is_loopback and origin.authority.host.strip("[]") not in _UNSPECIFIED:
            return False
        return any(
            server.scheme == origin.scheme and server.authority.port == origin.authority.port
            for server in self._servers
        )


def _is_for_a_client(url: str) -> bool:
    """Whether a redirect takes an authorization response (RFC 6749, section 4.1.2) to the user's own program.

    Programs listen for it on their machine's loopback (RFC 8252, section 7.3), perhaps on the very port that
    the server has on its own machine.
    """
    text, rest = split_url(url)
    origin = parse_origin(text)
    if origin is None or not origin.is_loopback:
        return False
    query = rest.partition("#")[0].partition("?")[2]
    names = {pair.partition("=")[0] for pair in query.split("&")}
    return "state" in names and not names.isdisjoint(("code", "error"))
