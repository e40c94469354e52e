"""Which tests `make watch` runs first."""

import pytest

from tools.watch import ROOT, near, nearest_to

HERE = "tests/tools/test_watch.py"


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ("mcp_session_proxy/sessions/pool.py", "tests/sessions"),
        ("mcp_session_proxy/upstream/http/head.py", "tests/upstream"),
        ("mcp_session_proxy/errors.py", "tests/test_errors.py"),
        ("tools/watch.py", "tests/tools"),
        (HERE, HERE),
        ("tests/exchange/fake_of_ours.py", "tests/exchange"),
        ("mcp_session_proxy/bounds.py", None),
        ("tests/fakes.py", None),
        ("tests/sessions/test_that_is_gone.py", None),
    ],
)
def test_what_is_near(changed: str, first: str | None) -> None:
    """The tests of the same room, or of the same name; what everybody uses is near to nothing."""
    assert nearest_to(ROOT / changed) == (None if first is None else ROOT / first)


def test_each_is_looked_at_once() -> None:
    """However many files of a room were changed, and however often."""
    pool, books = (str(ROOT / "mcp_session_proxy" / "sessions" / name) for name in ("pool.py", "books.py"))
    changes = [["modified", pool], ["added", pool], ["deleted", books], ["modified", str(ROOT / HERE)]]
    assert near(changes) == [ROOT / "tests" / "sessions", ROOT / HERE]
