"""Seals what is stored: whoever reads the store alone learns nothing, and nothing in it can be changed or put
into another record's place unnoticed. Pure.

With ``cryptography`` (the extra ``valkey``, or ``jwt``) that is AES-256-GCM, with the record's place as
associated data. Without it, encrypt, then authenticate, by what the standard library has: the key stream is
SHAKE256 over a subkey and a nonce of its own for each record, and the tag is keyed BLAKE2b over everything,
the place included. A first byte says which of the two it was; whatever can be opened is opened.
"""

import hashlib
import hmac
import secrets
from functools import lru_cache
from typing import Any, Final

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 16
_GCM_NONCE_BYTES: Final = 12
_BY_CRYPTOGRAPHY: Final = b"\x01"
_BY_HASHES: Final = b"\x02"
_NAMES: Final = 1024


class Unsealed(Exception):
    """It was not sealed with this key for this place, or was changed since."""


class Keys:
    """The subkeys of one key: what is known of one of them tells nothing of another.

    What was sealed with one of the ``older`` keys is opened, too. Callers and records have their names by
    ``root``, which stays what it is when keys are changed; by default the key itself.
    """

    def __init__(self, key: bytes, older: tuple[bytes, ...] = (), *, root: bytes | None = None) -> None:
        root = key if root is None else root
        self.identity = _subkey(root, b"identity")
        self.names = _subkey(root, b"names")
        self.peer = _subkey(root, b"peer")
        self.requests = _subkey(root, b"requests")
        self._seals = [_Seal(each) for each in (key, *older)]
        # Who comes and goes is noted several times.
        self.name_of = lru_cache(maxsize=_NAMES)(self._name_of)

    def _name_of(self, identifier: str) -> str:
        """The name of the record about something that is called so: a keyed hash, for ids are secrets."""
        data = identifier.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self.names, digest_size=16).hexdigest()

    def seal(self, place: str, plain: bytes) -> bytes:
        """What may be stored, at this place."""
        return self._seals[0].seal(place.encode(), plain)

    def open(self, place: str, sealed: bytes) -> bytes:
        """What was sealed for this place. Raises Unsealed."""
        named = place.encode()
        for seal in self._seals:
            if (plain := seal.open(named, sealed)) is not None:
                return plain
        raise Unsealed(place)


class _Seal:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        self._stream = _subkey(key, b"stream")
        self._tags = _subkey(key, b"tags")
        self._cipher = _load_cipher(_subkey(key, b"seal"))

    def seal(self, place: bytes, plain: bytes) -> bytes:
        if self._cipher is not None:
            nonce = secrets.token_bytes(_GCM_NONCE_BYTES)
            hidden: bytes = self._cipher.encrypt(nonce, plain, place)
            return _BY_CRYPTOGRAPHY + nonce + hidden
        nonce = secrets.token_bytes(_NONCE_BYTES)
        hidden = _xor(plain, hashlib.shake_256(self._stream + nonce).digest(len(plain)))
        return _BY_HASHES + nonce + self._tag(place, nonce + hidden) + hidden

    def open(self, place: bytes, sealed: bytes) -> bytes | None:
        """None if it was not sealed so."""
        if sealed[:1] == _BY_CRYPTOGRAPHY and (plain := self._open_gcm(place, sealed[1:])) is not None:
            return plain
        if sealed[:1] == _BY_HASHES and (plain := self._open_hashed(place, sealed[1:])) is not None:
            return plain
        # Before there were two, there was no such byte.
        return self._open_hashed(place, sealed)

    def _open_gcm(self, place: bytes, sealed: bytes) -> bytes | None:
        if self._cipher is None or len(sealed) < _GCM_NONCE_BYTES + _TAG_BYTES:
            return None
        from cryptography.exceptions import InvalidTag

        try:
            plain: bytes = self._cipher.decrypt(sealed[:_GCM_NONCE_BYTES], sealed[_GCM_NONCE_BYTES:], place)
        except InvalidTag:
            return None
        return plain

    def _open_hashed(self, place: bytes, sealed: bytes) -> bytes | None:
        nonce, tag = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES : _NONCE_BYTES + _TAG_BYTES]
        hidden = sealed[_NONCE_BYTES + _TAG_BYTES :]
        if not hmac.compare_digest(tag, self._tag(place, nonce + hidden)):
            return None
        return _xor(hidden, hashlib.shake_256(self._stream + nonce).digest(len(hidden)))

    def _tag(self, place: bytes, data: bytes) -> bytes:
        state = hashlib.blake2b(len(place).to_bytes(8, "big"), key=self._tags, digest_size=_TAG_BYTES)
        state.update(place)
        state.update(data)
        return state.digest()


def _load_cipher(key: bytes) -> Any:
    """AES-256-GCM, loaded when somebody has something to seal; None where ``cryptography`` is not there."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        return None
    return AESGCM(key)


def _subkey(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=key, digest_size=KEY_BYTES, person=purpose).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    number = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return number.to_bytes(len(one), "big")
