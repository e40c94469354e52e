import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.check.text import clean, conceal, find_secrets


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("two\n lines\tand\r\nmore", "two lines and more"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b1mbold", "bold"),
        ("\x1b]0;a new title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("turned\u202eround", "turned round"),
        ("nul\0 and \ud800", "nul and"),
        ("Größe ✓ 日本", "Größe ✓ 日本"),
    ],
)
def test_only_printable_text_is_left(raw, shown):
    """Control characters, escape sequences and marks that turn text around are gone."""
    assert clean(raw) == shown


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_whatever_a_server_writes_is_one_short_line(raw, limit):
    """Any text becomes printable, in one line, within the limit."""
    shown = clean(raw, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


def test_a_long_text_is_cut():
    """An ellipsis shows that there was more."""
    assert clean("x" * 30, 10) == "x" * 9 + "…"


def test_secrets_are_values_and_their_tokens():
    """Of a bearer credential both the value and the token are secret; short words are not."""
    assert find_secrets(["Bearer abcdefg", "yes"], ["key-in-url"]) == (
        "Bearer abcdefg",
        "key-in-url",
        "abcdefg",
    )


def test_secrets_are_blotted_out():
    """Wherever a server repeats one."""
    secrets = find_secrets(["Bearer abcdefg"])
    assert (
        conceal(b'{"got": "Bearer abcdefg", "token": "abcdefg"}', secrets)
        == b'{"got": "***", "token": "***"}'
    )
