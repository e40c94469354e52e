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
from ..protocol.headers import is_forwarded

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
    "*jwt*",
    "*assertion*",
    "*oidc*",
    "*saml*",
    "*user*",
    "*login*",
    "*email*",
    "*identity*",
    "*principal*",
    "*subject*",
    "*claim*",
    "*groups*",
    "*member*",
    "*tenant*",
    "*account*",
    "*customer*",
    "*consumer*",
    "*organization*",
    "*org-id*",
    "*workspace*",
    "*client-id*",
    "*client-cert*",
    "*client-dn*",
    "*ssl-client*",
    "remote-*",
    _SETTINGS,
)

# What a wildcard takes for a caller's name although it is none, or is another one in each request.
_NEVER: Final = re.compile(
    r"user-agent|idempotency|nonce|timestamp|signature|request-id|correlation|trace-?id|csrf|xsrf|author(?!i[sz])"
    r"|authority|keep-?alive|keyword|remote-(?:addr|ip|host|port)|^(?:sec|proxy|access-control)-|^(?:if|etag)"
)
# Words of names that no pattern knows, yet which may well say who is calling.
_SUSPICIOUS: Final = re.compile(r"caller|actor|person|profile|team|uid|owner|project|device|on-behalf")
_MAX_PROOF_BYTES: Final = 16 * 1024

# What programs write where they have nothing: an empty variable, JavaScript's and Python's names for it.
_NOTHING: Final = frozenset({"", "null", "undefined", "none", "(null)", "nil"})
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
        names = {pattern.lower() for pattern in patterns}
        self._exact = frozenset(name for name in names if not re.search(r"[*?\[]", name))
        self._identify = _compile(names - self._exact - {_SETTINGS})
        self._separate = _compile(names & {_SETTINGS})
        # Names are the callers' choice, so the cache has a bound.
        self.weigh: Callable[[str], Weight] = lru_cache(maxsize=1024)(self._weigh)

    def _weigh(self, name: str) -> Weight:
        """What a header of this name says."""
        name = name.lower()
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
    return _SUSPICIOUS.search(name.lower()) is not None and is_forwarded(name)


def read_credential(name: str, value: str) -> bytes | None:
    """What the value of a header that counts says of the caller; None where it says nothing.

    Nothing: no value, an authorisation scheme without a credential, and the words that programs write for
    a variable that is not set. A server refuses those or takes them for nobody; they must not make two
    strangers one known caller.
    """
    name, value = name.lower(), value.strip()
    if name == "authorization":
        scheme, _, rest = value.partition(" ")
        if rest.strip().lower() in _NOTHING and (rest.strip() or scheme.lower() in _SCHEMES | _NOTHING):
            return None
    if value.lower() in _NOTHING:
        return None
    said = value.encode("utf-8", "surrogateescape")
    return _read_proof_key(said) if name == "dpop" else said


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
