from pathlib import Path

import pytest

from mcp_session_proxy.ops.banner import startup_lines
from mcp_session_proxy.sessions.modes import Sharing
from mcp_session_proxy.settings.config import load


def banner(admin_url="http://127.0.0.1:9090", **options) -> str:
    """The banner for these options."""
    settings = load({"upstream": "http://127.0.0.1:8000/mcp?key=secret", **options})
    lines = startup_lines(settings, "http://127.0.0.1:8080", "http://127.0.0.1:8080/mcp", admin_url)
    assert not any("\n" in line for line in lines)
    return "\n".join(lines)


def test_says_where_it_is_and_what_it_stands_in_front_of():
    """The endpoint to give to clients, the server behind it, and the admin listener."""
    text = banner()
    assert "http://127.0.0.1:8080/mcp" in text
    assert "http://127.0.0.1:8000/mcp" in text
    assert "http://127.0.0.1:9090" in text
    assert "WARNING" not in text


def test_shows_no_secret():
    """A key in the server's URL is not printed."""
    assert "secret" not in banner()


def test_says_where_sessions_are_kept(tmp_path: Path) -> None:
    """In memory, and how else; or where, and what becomes of them at the end."""
    assert "in memory; --state-dir keeps sessions over restarts" in banner()
    assert f"in {tmp_path}: sessions outlive the proxy" in banner(state_dir=str(tmp_path))
    assert "--on-stop end" in banner(state_dir=str(tmp_path), on_stop="end")


def test_says_that_the_admin_listener_is_off():
    """Nobody should look for metrics in vain."""
    assert "off" in banner(admin_url=None, admin_listen="off")


@pytest.mark.parametrize("sharing", Sharing)
def test_explains_the_sharing(sharing):
    """Every mode has its sentence."""
    assert f"{sharing}: " in banner(sharing=sharing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "translated onto sessions, unless the server speaks 2026-07-28 and keeps none"),
        ({"upstream_era": "legacy"}, "translated onto sessions (--upstream-era legacy)"),
        ({"upstream_era": "modern"}, "passed to the server as they are"),
        ({"serve_eras": "legacy"}, "refused, so that clients fall back"),
        ({"serve_eras": "modern"}, "(--upstream-era auto); others are refused"),
    ],
)
def test_says_what_becomes_of_modern_calls(options, words):
    """Whether state is kept for clients of the later revision, and whether they are served at all."""
    assert words in banner(**options)


class TestCallers:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "told apart by credential headers and query string; callers without any are one party"),
            ({"anonymous": "isolate"}, "callers without any share nothing"),
            ({"credential_query": False}, "told apart by credential headers;"),
            ({"credential_header": []}, "told apart by query string;"),
            ({"credential_header": [], "credential_query": False}, "cannot be told apart"),
        ],
    )
    def test_says_whether_they_can_be_told_apart(self, options, words):
        """And what those get who show nothing."""
        assert words in banner(**options)


class TestWarnings:
    @pytest.mark.parametrize(
        ("options", "is_warned"),
        [
            ({"listen": "127.0.0.1:8080"}, False),
            ({"listen": "[::1]:8080"}, False),
            ({"listen": ":8080"}, True),
            ({"listen": "0.0.0.0:8080"}, True),
            ({"listen": "proxy.internal:8080"}, True),
            ({"listen": ":8080", "anonymous": "isolate"}, False),
        ],
    )
    def test_anonymous_callers_from_other_machines(self, options, is_warned):
        """Beyond loopback, sharing among anonymous callers is said loudly, with the way out."""
        text = banner(**options)
        assert ("WARNING" in text) is is_warned
        assert ("--anonymous isolate" in text) is is_warned

    def test_admin_listener_beyond_loopback(self):
        """The admin pages ask nobody for a password."""
        assert "WARNING" in banner(admin_listen=":9090")
