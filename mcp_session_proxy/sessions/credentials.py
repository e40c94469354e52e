"""Which request headers tell callers apart, and what their values say. Pure.

The server decides who a caller is; the proxy only has to keep apart whom the server might keep apart.
So it counts every header that names a caller in the field, be it sent by the client or by an
authenticating gateway in front of us. Two mistakes are possible, and both lose: a header that is left out
lets two callers share a session, one that counts and differs in each request gives a caller a new session
each time.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from enum import Enum
from fnmatch import translate
from functools import lru_cache
from typing import Final

from ..protocol import jsonrpc
from ..protocol.headers import as_servers_may_read, is_forwarded

# Headers by which a caller tells the server how to be, rather than who it is, as in X-MCP-Readonly.
_SETTINGS: Final = "x-mcp-*"

# Shell patterns over names. Most are words, because clients and authenticating gateways share words more
# than names: Ocp-Apim-Subscription-Key, Cf-Access-Jwt-Assertion, X-Forwarded-Email, Tailscale-User-Login.
DEFAULT_PATTERNS: Final = (
    "authorization",
    "cookie",
    "dpop",
    "*auth*",
    "*token*",
    "*key*",
    "*secret*",
    "*passw*",
    "*credential*",
    "*creds*",
    "*bearer*",
    "*cookie*",
    "*ticket*",
    "*-pat",
    "*jwt*",
    "*assertion*",
    "*oidc*",
    "*saml*",
    "*user*",
    "*login*",
    "*email*",
    "*-upn",
    "*eppn*",
    "*persistent-id*",
    "*impersonate*",
    "*identity*",
    "*principal*",
    "*subject*",
    "*claim*",
    "*groups*",
    "*remote-group*",
    "*member*",
    "*tenant*",
    "*account*",
    "*customer*",
    "*consumer*",
    "*organization*",
    "*organisation*",
    "*org-id*",
    "*orgid*",
    "*workspace*",
    "*client-id*",
    "*client-cert*",
    "*clientcert*",
    "*client-dn*",
    "*client-cn*",
    "*-s-dn*",
    "*ssl-client*",
    "*ssl-cert*",
    "remote-*",
    _SETTINGS,
)

# What a wildcard takes for a caller's name although it is none, or is another one in each request.
_NEVER: Final = re.compile(
    r"user-agent|idempotency|nonce|timestamp|signature|request-id(?!ent)|correlation|trace-?id|csrf|xsrf|author(?!i[sz])"
    r"|authority|keep-?alive|keyword|remote-(?:addr|ip|host|port)|^(?:sec|proxy|access-control|if)-|^etag$"
)
# Words of names that no pattern knows, yet which may well say who is calling.
_SUSPICIOUS: Final = re.compile(
    r"caller|actor|person|profile|team|uid|owner|project|device|on-behalf|act-as|session-id|realm|namespace|role"
    r"|company|merchant|employee|subscri"
)
_MAX_PROOF_BYTES: Final = 16 * 1024

# What programs write where they have nothing: an empty variable, JavaScript's and Python's names for it,
# JavaScript's for something else than a text, and Basic's for neither a user nor a password (RFC 7617).
_NOTHING: Final = frozenset(
    {"", "null", "undefined", "none", "(null)", "nil", "nan", "[object object]", "og=="}
)
# A variable's name where its value should be, in the ways of shells, editors' configurations and templates.
_UNFILLED: Final = re.compile(r"\$\{[\w.: -]*\}|\{\{[\w.: -]*\}\}|%[a-z_]\w*%", re.ASCII | re.IGNORECASE)
_SCHEMES: Final = frozenset(
    {
        "basic",
        "bearer",
        "digest",
        "dpop",
        "gnap",
        "hoba",
        "hmac",
        "mutual",
        "negotiate",
        "ntlm",
        "oauth",
        "token",
    }
)


class Weight(Enum):
    """What a header says of who is calling."""

    NOTHING = "nothing"
    SEPARATES = "separates"  # callers that differ in it share nothing, but it proves nobody
    IDENTIFIES = "identifies"  # a credential, or an identity that somebody in front of us vouches for


class Credentials:
    """Judges headers by ``patterns``: shell patterns over names, without regard to case.

    A name that is spelt out always identifies: the operator knows. A wildcard may take more than was
    meant, so what it takes is looked at once more.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        names = {as_servers_may_read(pattern) for pattern in patterns}
        self._exact = frozenset(name for name in names if not re.search(r"[*?\[]", name))
        self._identify = _compile(names - self._exact - {_SETTINGS})
        self._separate = _compile(names & {_SETTINGS})
        # Names are the callers' choice, so the cache has a bound.
        self.weigh: Callable[[str], Weight] = lru_cache(maxsize=1024)(self._weigh)

    def _weigh(self, name: str) -> Weight:
        """What a header of this name says."""
        name = as_servers_may_read(name)
        if name in self._exact:
            return Weight.IDENTIFIES
        # After the names that are spelt out: what an operator has named counts whatever it sounds like.
        if _NEVER.search(name) or not is_forwarded(name):
            return Weight.NOTHING  # the server does not see it, or it is another one in each request
        if self._identify(name):
            return Weight.IDENTIFIES
        return Weight.SEPARATES if self._separate(name) else Weight.NOTHING


def _compile(patterns: Iterable[str]) -> Callable[[str], object]:
    """A test whether a name matches one of these patterns."""
    # Without a pattern, one that nothing matches.
    return re.compile("|".join(map(translate, sorted(patterns))) or r"(?!)").match


_DEFAULTS: Final = Credentials(DEFAULT_PATTERNS)


def sounds_like_identity(name: str) -> bool:
    """Whether a header of this name may say who is calling, whatever the operator chose to count."""
    if _DEFAULTS.weigh(name) is Weight.IDENTIFIES:
        return True
    return _SUSPICIOUS.search(as_servers_may_read(name)) is not None and is_forwarded(name)


def read_credential(name: str, value: str) -> bytes | None:
    """What the value of a header that counts says of the caller; None where it says nothing.

    Nothing: no value, an authorisation scheme without a credential, cookies without values, and what programs
    write for a variable that is not set. A server refuses those or takes them for nobody; they must not make
    two strangers one known caller.
    """
    name, value = as_servers_may_read(name), value.strip()
    if name == "cookie":
        # Of a pair its value; a cookie may also have no name (RFC 6265, section 5.2).
        pairs = (pair.partition("=") for pair in value.split(";"))
        nothing = all(_is_nothing(content if equals else text) for text, equals, content in pairs)
    elif "auth" in name:
        nothing = _is_bare(value)
    else:
        # A scheme may be somebody's name; with nothing behind it, it is none.
        scheme, _, rest = value.partition(" ")
        nothing = _is_nothing(value) or (scheme.lower() in _SCHEMES and bool(rest) and _is_nothing(rest))
    if nothing:
        return None
    said = value.encode("utf-8", "surrogateescape")
    return _read_proof_key(said) if name == "dpop" else said


def _is_bare(value: str) -> bool:
    """Whether an authorisation has nothing behind its scheme. Some programs write that twice."""
    if _is_nothing(value):
        return True
    scheme, *rest = value.split(None, 1)
    if scheme.lower() in _SCHEMES:
        return not rest or _is_bare(rest[0])
    return bool(rest) and _is_nothing(rest[0])


def _is_nothing(text: str) -> bool:
    text = text.strip().strip("\"'").lower()
    return text in _NOTHING or _UNFILLED.fullmatch(text) is not None


def _read_proof_key(proof: bytes) -> bytes:
    """The key that a DPoP proof is made with; the proof itself is another one in each request (RFC 9449)."""
    # What cannot be read counts as it is: then each request is another caller's, who shares nothing.
    header = proof.partition(b".")[0]
    if len(proof) > _MAX_PROOF_BYTES:
        return proof
    try:
        decoded = base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4))
    except (binascii.Error, ValueError):
        return proof
    key = jsonrpc.read_object(decoded).get("jwk")
    return proof if key is None else jsonrpc.canonical(key)
