"""Session ids of ours: how they are made, and how they are told from others, also after a restart. Pure.

An id says of itself that we made it, by a letter and a checksum at its end, and what its client had said of
itself, if that was more than nothing and is not too long: its *profile*. Whoever knows nothing of the id any
more, as after a restart, or may not give what is behind it, as to another token, can still have the server
ask its client what that is ready to be asked.

There is no secret in it, and none is needed: whoever forges an id may as well declare the same capabilities
in an ``initialize`` of his own. An id is found by what the directory knows, never by what it says of itself,
and nothing of a session's state is in it.
"""

import hashlib
import secrets
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from ..bounds import CARRIED_PROFILE_BYTES, CARRIED_PROFILE_DEPTH, PACKED_PROFILE_CHARS
from ..protocol.depth import is_deeper

_RANDOM_BYTES: Final = 18
_CHECK_BYTES: Final = 6  # of 2**48 foreign ids one is taken for ours
_PERSON: Final = b"mcp-session-id"
_CARRIES, _CAPABLE, _PLAIN = "s", "c", "p"
_KINDS: Final = (_CARRIES, _CAPABLE, _PLAIN)
# DEFLATE without a header (RFC 1951): the checksum of the id is one for all of it.
_RAW_DEFLATE: Final = -15
# What nearly all profiles are made of, the most frequent last. With another one, ids that were given out
# before could not be read: it needs another letter.
_USUAL: Final = (
    b'"title":"description":"websiteUrl":"https://"icons":[{"src":"mimeType":"image/png","sizes":["theme":'
    b'"experimental":{"tasks":{"list":{},"cancel":{},"requests":{"sampling":{"createMessage":{}},'
    b'"elicitation":{"create":{}}}},"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":'
    b'["text/html;profile=mcp-app"]}}"schemaValidation":{"protocolVersion":"2024-11-05","protocolVersion":'
    b'"2025-03-26","protocolVersion":"2025-06-18","clientInfo":{"name":"mcp","version":"0.1.0"}},'
    b'"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}},"elicitation":{},"sampling":{},'
    b'"roots":{"listChanged":false},"roots":{"listChanged":true}},"clientInfo":{"version":"1.0.0","name":"'
    b'{"protocolVersion":"2025-11-25","capabilities":{'
)


def mint_id(*, capable: bool, profile: bytes = b"") -> str:
    """A new session id: unguessable, visible ASCII (MCP 2025-11-25, "Session Management").

    ``capable``: its client has declared capabilities. ``profile`` is what it said in all, the parameters of
    its ``initialize``; one that is too large to travel in a header is left out.
    """
    kind, packed = _CAPABLE if capable else _PLAIN, ""
    if capable and 0 < len(profile) <= CARRIED_PROFILE_BYTES:
        packed = _pack(profile)
        if len(packed) <= PACKED_PROFILE_CHARS:
            kind = _CARRIES
        else:
            packed = ""
    stem = secrets.token_urlsafe(_RANDOM_BYTES) + packed + kind
    return stem + _check(stem)


def is_ours(identifier: str) -> bool:
    """Whether a proxy like this one made the id."""
    stem = identifier[:-_CHECK_CHARS]
    # Compared as any texts are: there is no secret that the time it takes could tell.
    return stem[-1:] in _KINDS and identifier[-_CHECK_CHARS:] == _check(stem)


def is_of_capable_client(identifier: str) -> bool:
    """Whether it is ours, and its client had declared capabilities."""
    return is_ours(identifier) and identifier[-_CHECK_CHARS - 1] != _PLAIN


def read_profile_of(identifier: str) -> bytes | None:
    """The profile that an id carries, as its client wrote it; None if it carries none.

    Whoever forges an id chooses what is found in it, within the same limits of size and depth. It is to be
    read as carefully as anything that a client sends.
    """
    packed = identifier[_RANDOM_CHARS : -_CHECK_CHARS - 1]
    if len(packed) > PACKED_PROFILE_CHARS or not is_ours(identifier):
        return None
    if identifier[-_CHECK_CHARS - 1] != _CARRIES:
        return None
    return _unpack(packed)


def _pack(profile: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE, zdict=_USUAL)
    return urlsafe_b64encode(packer.compress(profile) + packer.flush()).decode().rstrip("=")


def _unpack(packed: str) -> bytes | None:
    unpacker = zlib.decompressobj(_RAW_DEFLATE, zdict=_USUAL)
    try:
        data = urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        # No further than to see that it is too much: a few hundred characters can hold a megabyte.
        profile = unpacker.decompress(data, CARRIED_PROFILE_BYTES + 1)
    except (ValueError, zlib.error):
        return None
    whole = unpacker.eof and not unpacker.unused_data and 0 < len(profile) <= CARRIED_PROFILE_BYTES
    return profile if whole and not is_deeper(profile, CARRIED_PROFILE_DEPTH) else None


def _check(stem: str) -> str:
    data = stem.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(data, digest_size=_CHECK_BYTES, person=_PERSON).digest()
    return urlsafe_b64encode(digest).decode()


_CHECK_CHARS: Final = len(_check(""))
_RANDOM_CHARS: Final = len(secrets.token_urlsafe(_RANDOM_BYTES))
