"""The limits fit the open files that there are."""

import pytest

from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.descriptors import explain, fit

URL = "http://127.0.0.1:8000/mcp"
LIMITS = ("max_connections", "max_sessions", "max_exchanges", "max_parked")


def test_enough_files_change_nothing():
    """Where the system grants enough for all of them at once, the options say what is."""
    settings = load({"upstream": URL})
    assert fit(settings, 20_000) is settings


@pytest.mark.parametrize("open_files", [256, 1024, 4096, 16_000])
def test_everything_at_once_fits(open_files):
    """At every limit at the same time there are files left, and no limit is raised."""
    settings = load({"upstream": URL})
    fitted = fit(settings, open_files)
    assert sum(getattr(fitted, name) for name in LIMITS) < open_files - 100
    assert all(getattr(fitted, name) <= getattr(settings, name) for name in LIMITS)


def test_what_is_lowered_is_said():
    """The operator hears of it, and what to do."""
    settings = load({"upstream": URL, "max_connections": 10})
    told = explain(settings, fit(settings, 1024), 1024)
    assert "1024 open files" in told
    assert "--max-exchanges 179" in told
    assert "max-connections" not in told
    assert "ulimit -n" in told


def test_a_child_takes_three_files():
    """Each of its pipes is one."""
    wanted = load({"command": ["sh"], "max_sessions": 500, "max_connections": 100, "max_exchanges": 100})
    assert fit(wanted, 4096) is wanted
    assert fit(wanted, 1024).max_sessions < 1024 * 20 // 100 // 3


def test_hardly_any_files():
    """Some of everything is left all the same."""
    fitted = fit(load({"upstream": URL}), 64)
    assert min(getattr(fitted, name) for name in LIMITS) > 0
