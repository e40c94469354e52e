"""Session ids of ours: how they are made, and how they are told from others, also after a restart. Pure.

An id says of itself that we made it, and whether its client had declared capabilities: by a letter and a
checksum at its end. There is no secret in it. Whoever forges one is told 404 in place of being adopted, which
harms nobody else; an id is found by what the directory knows, never by what it says of itself.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from typing import Final

_RANDOM_BYTES: Final = 18
_CHECK_BYTES: Final = 6  # of 2**48 foreign ids one is taken for ours
_PERSON: Final = b"mcp-session-id"
_CAPABLE, _PLAIN = "c", "p"


def mint_id(*, capable: bool) -> str:
    """A new session id: unguessable, visible ASCII (MCP 2025-11-25, "Session Management").

    ``capable``: its client has declared capabilities.
    """
    stem = secrets.token_urlsafe(_RANDOM_BYTES) + (_CAPABLE if capable else _PLAIN)
    return stem + _check(stem)


def is_ours(identifier: str) -> bool:
    """Whether a proxy like this one made the id."""
    stem = identifier[:-_CHECK_CHARS]
    # Compared as any texts are: there is no secret that the time it takes could tell.
    return stem[-1:] in (_CAPABLE, _PLAIN) and identifier[-_CHECK_CHARS:] == _check(stem)


def is_of_capable_client(identifier: str) -> bool:
    """Whether it is ours, and its client had declared capabilities."""
    return is_ours(identifier) and identifier[-_CHECK_CHARS - 1] == _CAPABLE


def _check(stem: str) -> str:
    data = stem.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(data, digest_size=_CHECK_BYTES, person=_PERSON).digest()
    return urlsafe_b64encode(digest).decode()


_CHECK_CHARS: Final = len(_check(""))
