"""Seals what is stored: whoever reads a copy of the file alone learns nothing, and nothing in it can be
changed or put into another record's place unnoticed. Pure.

Encrypt, then authenticate, by what the standard library has: the key stream is SHAKE256 over a subkey and a
nonce of its own for each record, and the tag is keyed BLAKE2b over everything, the record's place included.
The key lies beside the file, so this protects copies of the file and nothing else.
"""

import hashlib
import hmac
import secrets
from typing import Final

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 16


class Unsealed(Exception):
    """It was not sealed with this key for this place, or was changed since."""


class Keys:
    """The subkeys of one key: what is known of one of them tells nothing of another."""

    def __init__(self, key: bytes) -> None:
        self.identity = _subkey(key, b"identity")
        self.names = _subkey(key, b"names")
        self.peer = _subkey(key, b"peer")
        self.requests = _subkey(key, b"requests")
        self._stream = _subkey(key, b"stream")
        self._tags = _subkey(key, b"tags")

    def name_of(self, identifier: str) -> str:
        """The name of the record about something that is called so: a keyed hash, for ids are secrets."""
        data = identifier.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self.names, digest_size=16).hexdigest()

    def seal(self, place: str, plain: bytes) -> bytes:
        """What may lie in a file, at this place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        hidden = _xor(plain, hashlib.shake_256(self._stream + nonce).digest(len(plain)))
        return nonce + self._tag(place, nonce + hidden) + hidden

    def open(self, place: str, sealed: bytes) -> bytes:
        """What was sealed for this place. Raises Unsealed."""
        nonce, tag = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES : _NONCE_BYTES + _TAG_BYTES]
        hidden = sealed[_NONCE_BYTES + _TAG_BYTES :]
        if not hmac.compare_digest(tag, self._tag(place, nonce + hidden)):
            raise Unsealed(place)
        return _xor(hidden, hashlib.shake_256(self._stream + nonce).digest(len(hidden)))

    def _tag(self, place: str, data: bytes) -> bytes:
        named = place.encode()
        state = hashlib.blake2b(len(named).to_bytes(8, "big"), key=self._tags, digest_size=_TAG_BYTES)
        state.update(named)
        state.update(data)
        return state.digest()


def _subkey(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=key, digest_size=KEY_BYTES, person=purpose).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    number = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return number.to_bytes(len(one), "big")
