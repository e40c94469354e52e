"""The page about clients is made of what was seen; the one in the documents is of those that there are."""

import re

from e2e.launch import TESTS

from matrix.clients import CLIENTS
from matrix.table import Row, Side, page

PAGE = TESTS.parent / "docs" / "clients.md"
ALL = Row(
    name="A",
    version="1.0",
    direct=Side(answers=[["1", "2"], ["1", "2"]], protocol="2025-11-25", opened=2, left=2),
    proxied=Side(answers=[["1", "2"], ["3", "4"]], protocol="2026-07-28", opened=1, left=1),
)


def test_row() -> None:
    """What each connection counted, what the client speaks, and what it leaves behind."""
    text = page([ALL], "2026-11-27")
    assert (
        "| A | 1.0 | 2025-11-25, then 2026-07-28 | 1, 2 and 1, 2 | 1, 2 and 3, 4 | 2, all left behind | 1 |"
        in text
    )


def test_trouble() -> None:
    """A client that fails says why, in one cell."""
    row = Row(name="B", version="2", direct=Side(trouble="a|b\nc"), proxied=Side(), note="so it is")
    text = page([row], "2026-11-27")
    assert "| B | 2 |  | fails: a\\|b c |" in text
    assert "- B: so it is\n" in text


def test_scripts() -> None:
    """Each client has a script, and each script a client."""
    scripts = {path.name for path in (TESTS / "matrix" / "scripts").iterdir() if path.is_file()}
    others = {path.name for path in (TESTS / "e2e" / "clients").iterdir()}
    wanted = {client.script for client in CLIENTS}
    assert scripts <= wanted <= scripts | others


def test_the_page_is_of_these_clients() -> None:
    """`make matrix` wrote it after the last client was added; all that are on it work through the proxy."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]* \| [^|]+ \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    tried = dict(rows[1:])
    assert set(tried) <= {client.name for client in CLIENTS}
    assert set(tried.values()) == {"1, 2 and 3, 4"}
