"""What is sealed says nothing without the key, and cannot be changed or moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.store.sealing import KEY_BYTES, Keys, Unsealed

KEYS = Keys(b"k" * KEY_BYTES)


@given(st.binary(max_size=300), st.text(max_size=20))
def test_what_was_sealed_can_be_opened(plain: bytes, place: str) -> None:
    """By the same key, at the same place; twice the same text looks different each time."""
    sealed = KEYS.seal(place, plain)
    assert KEYS.open(place, sealed) == plain
    assert sealed != KEYS.seal(place, plain)


def test_nothing_shows() -> None:
    """The text is not in it."""
    secret = b"Mcp-Session-Id: 0123456789"
    assert secret not in KEYS.seal("here", secret) * 2


@given(st.integers(min_value=0, max_value=60), st.integers(min_value=1, max_value=255))
def test_a_change_shows(at: int, change: int) -> None:
    """Every bit counts, those of the nonce and the tag among them."""
    sealed = bytearray(KEYS.seal("here", b"x" * 29))
    sealed[at] ^= change
    with pytest.raises(Unsealed):
        KEYS.open("here", bytes(sealed))


def test_it_belongs_to_its_place_and_its_key() -> None:
    """Put elsewhere, opened with another key, or cut short, it is nothing."""
    sealed = KEYS.seal("here", b"text")
    for keys, place, data in [
        (KEYS, "there", sealed),
        (Keys(b"o" * KEY_BYTES), "here", sealed),
        (KEYS, "here", sealed[:-1]),
        (KEYS, "here", b""),
    ]:
        with pytest.raises(Unsealed):
            keys.open(place, data)


def test_names_tell_nothing() -> None:
    """Ids become names that only the key can make."""
    assert KEYS.name_of("id") == KEYS.name_of("id") != Keys(b"o" * KEY_BYTES).name_of("id")
    assert KEYS.name_of("id") != KEYS.name_of("id2")
