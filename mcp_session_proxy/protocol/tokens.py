"""What a bearer token says of whom it speaks for, if it is a JWT (RFC 7519, RFC 6750). Pure.

Nothing is checked here, least of all the signature: claims are anybody's to write. What reads a token does no
more than say who its bearer *claims* to be, as long as that is plain. A token that could be read in two ways
says nothing: another reader, the server, might find somebody else in it.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ..bounds import TOKEN_BYTES, TOKEN_DEPTH
from .depth import is_deeper

# Who a token speaks for, where it says so; and for which tenant, and to whom.
DEFAULT_CLAIMS: Final = (
    "iss",
    "sub",
    "client_id",
    "azp",
    "aud",
    "tid",
    "org_id",
    "tenant_id",
    "account_id",
)
_ISSUER: Final = "iss"
_NAMES_SOMEBODY: Final = ("sub", "client_id", "azp")

# Three parts: an encrypted token (RFC 7516) has five, and nobody but the server can read it.
_BEARER: Final = re.compile(r"bearer +([\w-]+)\.([\w-]+)\.([\w-]+) *", re.ASCII | re.IGNORECASE)


class Claims(NamedTuple):
    """What identifies in a token.

    ``identity`` is canonical: equal for tokens that speak for the same. ``expires_at`` is in seconds since
    1970, None where the token does not expire.
    """

    issuer: str
    identity: bytes
    expires_at: float | None


def read_claims(authorization: str, names: Iterable[str] = DEFAULT_CLAIMS) -> Claims | None:
    """What the value of an ``Authorization`` header claims; None unless it is a JWT that names somebody.

    ``names`` are the claims that identify; the issuer always does. A token without a signature (``alg`` none)
    claims nothing, and neither does one that is encrypted.
    """
    parts = _split(authorization)
    if parts is None:
        return None
    header, payload = _read_part(parts[0]), _read_part(parts[1])
    if header is None or payload is None or not _is_signed(header):
        return None
    issuer = payload.get(_ISSUER)
    if not (isinstance(issuer, str) and issuer.strip()) or not any(
        _is_text(payload.get(name)) for name in _NAMES_SOMEBODY
    ):
        return None
    expires_at = payload.get("exp")
    if expires_at is not None and not _is_time(expires_at):
        return None
    # A subject is somebody only within its issuer (RFC 7519, section 4.1.2), so that always counts.
    said = {name: payload[name] for name in {_ISSUER, *names} if payload.get(name) is not None}
    identity = json.dumps({name: _in_order(value) for name, value in said.items()}, sort_keys=True).encode()
    return Claims(issuer, identity, expires_at)


def damage(authorization: str) -> str:
    """The same value of the header, with another signature, which nobody can have made.

    The first character holds six bits that all count, so another one is another signature; of the last one
    some bits may be of no meaning.
    """
    parts = _split(authorization)
    assert parts is not None
    header, payload, signature = parts
    return f"Bearer {header}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _split(authorization: str) -> tuple[str, str, str] | None:
    if len(authorization) > TOKEN_BYTES:
        return None
    found = _BEARER.fullmatch(authorization)
    return None if found is None else (found[1], found[2], found[3])


def _read_part(text: str) -> Mapping[str, Any] | None:
    """One part of the token as an object; None if it is none, or may be read in several ways."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if is_deeper(raw, TOKEN_DEPTH):
            return None
        # What readers may differ in is refused: names that come twice, NaN, Infinity.
        read = json.loads(raw.decode(), object_pairs_hook=_no_doubles, parse_constant=_refuse)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members have names of their own (RFC 7519, section 4, leaves the others to chance)."""
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("two members have one name")
    return read


def _refuse(_: str) -> None:
    raise ValueError("no JSON")


def _is_signed(header: Mapping[str, Any]) -> bool:
    algorithm = header.get("alg")
    return _is_text(algorithm) and str(algorithm).lower() != "none"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_time(value: object) -> bool:
    # To Python `true` is a number.
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of a thousand digits
        return False


def _in_order(value: object) -> object:
    """A claim whose order means nothing (``aud``), in one order."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return sorted(value)
    return value
