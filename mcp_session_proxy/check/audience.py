"""For whom a token is, as far as that can be seen: by the server's name for itself, and by the token. Pure.

A server must take only tokens that were made for it (MCP 2025-11-25, basic/authorization, "Token Audience
Binding and Validation"). Clients ask for tokens for the URL that they use: behind a proxy, that is the
proxy's. So a server that checks, and does not know its public URL, refuses every one of them.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from yarl import URL

from ..protocol import jsonrpc
from ..settings.values import mask
from .observations import Entrance, ServerAnswer
from .text import clean

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"  # RFC 9728, section 3
_METADATA: Final = re.compile(r'resource_metadata="([^"]*)"', re.IGNORECASE)  # RFC 9728, section 5.1
_WORDS: Final = re.compile(r"\baud(?:ience)?\b|resource (?:mismatch|indicator|does not match)", re.IGNORECASE)
_MAX_TOKEN_CHARACTERS: Final = 64 * 1024


def is_for_another(entrance: Entrance) -> bool:
    """Whether the token is certainly for another server than this one."""
    if entrance.audience is None or entrance.resource is None:
        return False
    return not any(_covers(each, entrance.resource) for each in entrance.audience)


def speaks_of_audience(refusal: ServerAnswer) -> bool:
    """Whether the server's own words for a refusal are about whom the token is for."""
    challenge = _METADATA.sub("", refusal.headers.get("WWW-Authenticate", ""))
    body = refusal.body.decode("utf-8", "replace")
    return _WORDS.search(f"{challenge} {refusal.said} {body}") is not None


def calls_itself(entrance: Entrance) -> str | None:
    """What the server says that tokens must be for, fit to be shown."""
    return None if entrance.resource is None else mask(clean(entrance.resource))


def metadata_url(answer: ServerAnswer) -> str | None:
    """Where a refusal says that its server is described."""
    named = _METADATA.search(answer.headers.get("WWW-Authenticate", ""))
    return None if named is None else named[1]


def read_audience(headers: Iterable[tuple[str, str]]) -> tuple[str, ...] | None:
    """The audience of a bearer token that is a JWT (RFC 7519, section 4.1.3). Nothing is verified."""
    for name, value in headers:
        scheme, _, token = value.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "bearer":
            return _audience_of(token.strip())
    return None


def _audience_of(token: str) -> tuple[str, ...] | None:
    pieces = token.split(".")
    if len(pieces) != 3 or len(token) > _MAX_TOKEN_CHARACTERS:
        return None
    try:
        payload = base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4))
    except (binascii.Error, ValueError):
        return None
    raw = jsonrpc.read_object(payload).get("aud", b"")
    if (single := jsonrpc.read_string(raw)) is not None:
        return (single,)
    several = [jsonrpc.read_string(item) for item in jsonrpc.read_array(raw)]
    return tuple(each for each in several if each is not None) or None


def _covers(audience: str, resource: str) -> bool:
    """Whether a token for the one is one for the other; a token for a whole origin may be."""
    return _plain(audience) == _plain(resource) or _plain(resource).startswith(_plain(audience) + "/")


def _plain(text: str) -> str:
    try:
        return str(URL(text)).rstrip("/")
    except ValueError:
        return text
