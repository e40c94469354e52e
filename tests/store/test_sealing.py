"""What is sealed says nothing without the key, and cannot be changed or moved."""

import secrets
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.store import sealing
from mcp_session_proxy.store.sealing import KEY_BYTES, Keys, Unsealed

KEYS = Keys(b"k" * KEY_BYTES)


def plain_keys(key: bytes = b"k" * KEY_BYTES) -> Keys:
    """As where ``cryptography`` is not installed."""
    with mock.patch.object(sealing, "_load_cipher", return_value=None):
        return Keys(key)


PLAIN = plain_keys()
both = pytest.mark.parametrize("keys", [KEYS, PLAIN], ids=["cryptography", "without"])


@both
@given(plain=st.binary(max_size=300), place=st.text(max_size=20))
def test_what_was_sealed_can_be_opened(keys: Keys, plain: bytes, place: str) -> None:
    """By the same key, at the same place; twice the same text looks different each time."""
    sealed = keys.seal(place, plain)
    assert keys.open(place, sealed) == plain
    assert sealed != keys.seal(place, plain)


@both
def test_nothing_shows(keys: Keys) -> None:
    """The text is not in it."""
    secret = b"Mcp-Session-Id: 0123456789"
    assert secret not in keys.seal("here", secret) * 2


@both
@given(at=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_a_change_shows(keys: Keys, at: int, change: int) -> None:
    """Every bit counts, those of the form, the nonce and the tag among them."""
    sealed = bytearray(keys.seal("here", b"x" * 29))
    sealed[at % len(sealed)] ^= change
    with pytest.raises(Unsealed):
        keys.open("here", bytes(sealed))


@both
def test_it_belongs_to_its_place_and_its_key(keys: Keys) -> None:
    """Put elsewhere, opened with another key, or cut short, it is nothing."""
    sealed = keys.seal("here", b"text")
    for others, place, data in [
        (keys, "there", sealed),
        (Keys(b"o" * KEY_BYTES), "here", sealed),
        (keys, "here", sealed[:-1]),
        *((keys, "here", sealed[:length]) for length in (0, 1, 13, 29)),
    ]:
        with pytest.raises(Unsealed):
            others.open(place, data)


def test_the_other_form_can_be_read() -> None:
    """What was sealed without ``cryptography`` is opened with it. At first there was no byte for that."""
    sealed = PLAIN.seal("here", b"text")
    assert KEYS.open("here", sealed) == KEYS.open("here", sealed[1:]) == b"text"
    with pytest.raises(Unsealed):
        PLAIN.open("here", KEYS.seal("here", b"text"))


def test_keys_are_changed() -> None:
    """The first seals, all open; names and callers go by the root, which stays."""
    old, new, root = (secrets.token_bytes(KEY_BYTES) for _ in range(3))
    before, during, after = Keys(old, root=root), Keys(new, (old,), root=root), Keys(new, root=root)
    assert during.open("here", before.seal("here", b"text")) == b"text"
    assert after.open("here", during.seal("here", b"text")) == b"text"
    with pytest.raises(Unsealed):
        after.open("here", before.seal("here", b"text"))
    assert len({(keys.identity, keys.names, keys.peer) for keys in (before, during, after)}) == 1
    assert Keys(old).identity != before.identity


def test_names_tell_nothing() -> None:
    """Ids become names that only the key can make."""
    assert KEYS.name_of("id") == KEYS.name_of("id") != Keys(b"o" * KEY_BYTES).name_of("id")
    assert KEYS.name_of("id") != KEYS.name_of("id2")
