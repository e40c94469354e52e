"""Who is calling: principal, affinity key, profile, and the session key made of them. Pure.

A principal is a keyed hash over whatever looks like a credential or a tenant; the values themselves
are not kept here. The key is random per process, so a digest tells nothing outside of it.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple

from ..bounds import PROFILE_BYTES
from ..errors import BadRequest, InvalidParams
from ..protocol import jsonrpc, revisions
from ..protocol.tokens import read_claims
from .credentials import Credentials, Weight, read_credential

_MAX_AFFINITY_CHARS: Final = 200
_MAX_NAME_CHARS: Final = 200
_DIGEST_BYTES: Final = 16
_TAG_CHARS: Final = 8
_AUTHORIZATION: Final = "authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling. ``digest`` identifies, ``tag`` is its short form for logs.

    ``anonymous``: it has shown nothing that proves anything. A query string or a setting keeps such callers
    apart from one another, but does not make them known.
    """

    digest: str
    anonymous: bool
    tag: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Each of its requests is told of by its tag."""
        object.__setattr__(self, "tag", _tag_of(self.digest))


def _tag_of(digest: str) -> str:
    return digest if digest == _NOBODY else digest[:_TAG_CHARS]


_NOBODY: Final = "anonymous"
ANONYMOUS: Final = Principal(digest=_NOBODY, anonymous=True)


class Claim(NamedTuple):
    """Whom a token claims to speak for, as long as nobody has accepted it.

    ``digest`` is equal for tokens that claim the same, with all else equal that tells callers apart.
    ``token`` stands for exactly this one. ``expires_at`` is in seconds since 1970.
    """

    digest: str
    token: str
    issuer: str
    expires_at: float | None


class Roots(Enum):
    """What a client declares of its roots (MCP 2025-11-25, client/roots, "Capabilities")."""

    NONE = "none"
    FIXED = "fixed"  # it has some, and will not tell of changes
    CHANGING = "changing"  # it will


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Profile:
    """What an upstream session is initialised with (MCP 2025-11-25, basic/lifecycle, "Initialization").

    Two clients with equal profiles are the same to a server. ``params`` are the raw initialize
    parameters of the first client that had it; ``capable``: it declares capabilities;
    ``version_is_free``: the version was the proxy's choice and no client's, so any other would do.
    """

    digest: str
    client_name: str
    params: bytes = field(repr=False, compare=False)
    capable: bool = False
    version_is_free: bool = field(default=False, compare=False)
    roots: Roots = Roots.NONE


class SessionKey(NamedTuple):
    """Upstream sessions with equal keys may stand in for one another."""

    principal: str
    affinity: str | None
    profile: str

    @property
    def principal_tag(self) -> str:
        """A short opaque name for logs and pages."""
        return _tag_of(self.principal)


def _digest(*parts: bytes, key: bytes = b"") -> str:
    state = hashlib.blake2b(key=key, digest_size=_DIGEST_BYTES)
    for part in parts:
        # With its length before each: else the parts "ab" and "c" would be the same caller as "a" and "bc".
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()


class Identifier:
    """Tells callers apart by the rules of the configuration.

    ``credential_headers`` are shell patterns over header names, ``affinity_headers`` exact names,
    ``affinity_meta`` keys of ``params._meta``; earlier ones win. ``identity_claims`` are those of a token
    that identify; without any, a token counts by its bytes alone.
    """

    def __init__(
        self,
        *,
        credential_headers: Iterable[str],
        credential_query: bool,
        affinity_headers: Iterable[str],
        affinity_meta: Iterable[str],
        identity_claims: Iterable[str] = (),
        secret: bytes | None = None,
    ) -> None:
        self._weigh = Credentials(credential_headers).weigh
        self._credential_query = credential_query
        self._affinity_headers = tuple(affinity_headers)
        self._affinity_meta = tuple(affinity_meta)
        self._affinity_keys = frozenset(self._affinity_meta)
        self._identity_claims = tuple(identity_claims)
        self._secret = secret if secret is not None else secrets.token_bytes(32)

    def is_credential(self, name: str) -> bool:
        """Whether a header of this name tells callers apart."""
        return self._weigh(name) is not Weight.NOTHING

    def principal(self, headers: Iterable[tuple[str, str]], query: str) -> Principal:
        """The caller behind these request headers and this raw query string, by all that they show."""
        parts, known = self._read(headers, query)
        if not parts:
            return ANONYMOUS
        return Principal(digest=_digest(*parts, key=self._secret), anonymous=not known)

    def claim(self, headers: Sequence[tuple[str, str]], query: str) -> Claim | None:
        """Whom the token in these headers claims to speak for; None where they hold none that says so.

        All else that tells callers apart counts as ever. No header can begin as the first part does, so
        nobody can show a credential that is taken for a claim.
        """
        if not self._identity_claims or self._weigh(_AUTHORIZATION) is Weight.NOTHING:
            return None
        # Of two tokens the server may read the other one.
        tokens = [value for name, value in headers if name.lower() == _AUTHORIZATION]
        claims = read_claims(tokens[0], self._identity_claims) if len(tokens) == 1 else None
        if claims is None:
            return None
        parts, _ = self._read([pair for pair in headers if pair[0].lower() != _AUTHORIZATION], query)
        digest = _digest(b"\0claims", claims.identity, *parts, key=self._secret)
        shown, _ = self._read(headers, query)
        token = _digest(b"\0token", *shown, key=self._secret)
        return Claim(digest, token, claims.issuer, claims.expires_at)

    def _read(self, headers: Iterable[tuple[str, str]], query: str) -> tuple[list[bytes], bool]:
        """All that tells callers apart, in one order, and whether any of it makes the caller known."""
        parts: list[bytes] = []
        known = False
        for name, value in headers:
            weight = self._weigh(name)
            if weight is not Weight.NOTHING and (said := read_credential(name, value)) is not None:
                parts.append(name.lower().encode() + b":" + said)
                known = known or weight is Weight.IDENTIFIES
        # Proxies on the way may put headers into another order.
        parts.sort()
        if self._credential_query and query:
            # No header's name begins so, and none can pass for a query.
            parts.append(b"?" + query.encode("utf-8", "surrogateescape"))
        return parts, known

    def affinity(self, headers: Mapping[str, str], meta: Mapping[str, bytes]) -> str | None:
        """The conversation this request belongs to, if it says so."""
        for name in self._affinity_headers:
            if value := headers.get(name):
                return _affinity(name.lower(), value)
        # Most requests name no conversation: one look in place of one for each key.
        if self._affinity_keys.isdisjoint(meta):
            return None
        for key in self._affinity_meta:
            if (raw := meta.get(key)) is not None and raw not in (b'""', b"null"):
                return _affinity(key, jsonrpc.read_string(raw) or raw.decode("utf-8", "replace"))
        return None


def _affinity(source: str, value: str) -> str:
    """One affinity key; long values are hashed so that a key's size is bounded."""
    if len(value) > _MAX_AFFINITY_CHARS:
        value = _digest(value.encode("utf-8", "surrogateescape"))
    return f"{source}={value}"


def affinity_of_id(session_id: str) -> str:
    """The affinity key that a session id we did not mint stands for."""
    return _affinity(revisions.SESSION_HEADER.lower(), session_id)


def read_profile(params: bytes | None) -> Profile:
    """The profile of a client's ``initialize``.

    Raises:
        BadRequest: the parameters are not those of an ``initialize``.
        InvalidParams: they are larger than those of any client.
    """
    if params is not None and len(params) > PROFILE_BYTES:
        raise InvalidParams(f"Capabilities and clientInfo are over {PROFILE_BYTES} bytes.")
    members = jsonrpc.read_object(params)
    version = jsonrpc.read_string(members.get("protocolVersion"))
    if not version or len(version) > _MAX_NAME_CHARS:
        raise BadRequest('"initialize" needs a "protocolVersion" string.')
    info = jsonrpc.read_object(members.get("clientInfo"))
    name = (jsonrpc.read_string(info.get("name")) or "")[:_MAX_NAME_CHARS]
    capabilities = members.get("capabilities", b"{}")
    declared = jsonrpc.read_object(capabilities)
    # It is about that one request, as its progress token is, and not about the client.
    members.pop("_meta", None)
    # Canonical, for the order of members depends on the client's library.
    digest = _digest(version.encode(), jsonrpc.canonical(capabilities), name.encode())
    return Profile(
        digest=digest,
        client_name=name,
        params=jsonrpc.write_object(members),
        capable=bool(declared),
        roots=_read_roots(declared.get("roots")),
    )


def _read_roots(declared: bytes | None) -> Roots:
    if declared is None or declared[:1] != b"{":
        return Roots.NONE
    tells = jsonrpc.read_object(declared).get("listChanged") == b"true"
    return Roots.CHANGING if tells else Roots.FIXED


def sessionless_profile(proxy_version: str) -> Profile:
    """The profile for requests that come without a session: no client capabilities.

    It is the same for all of them, whatever version they name, so that a caller's session-less
    requests meet on one upstream session.
    """
    info = jsonrpc.write_object(
        {"name": jsonrpc.quote("mcp-session-proxy"), "version": jsonrpc.quote(proxy_version)}
    )
    params = jsonrpc.write_object(
        {
            "protocolVersion": jsonrpc.quote(revisions.LATEST_LEGACY),
            "capabilities": b"{}",
            "clientInfo": info,
        }
    )
    return replace(read_profile(params), version_is_free=True)
