"""The pages about clients and servers are made of what was seen, and so are those in the documents."""

import re

from e2e.launch import TESTS

from matrix import client_page, server_page
from matrix.client_page import Row, Side
from matrix.clients import CLIENTS
from matrix.servers import SERVERS
from matrix.table import lines

DOCS = TESTS.parent / "docs"
ALL = Row(
    name="A",
    version="1.0",
    direct=Side(answers=[["1", "2"], ["1", "2"]], protocol="2025-11-25", opened=2, left=2),
    proxied=Side(answers=[["1", "2"], ["3", "4"]], protocol="2026-07-28", opened=1, left=1),
)
SERVER = server_page.Row(
    name="S",
    version="2",
    transport="HTTP",
    speaks="2025-11-25",
    direct="400 Missing session ID",
    proxied="goes on",
    checked="4 of 7 kinds suffer, none from the proxy",
)


def test_row() -> None:
    """What each connection counted, what the client speaks, and what it leaves behind."""
    assert ALL.line("2026-11-27") == (
        "| A | 1.0 | 2025-11-25, then 2026-07-28 | 1, 2 and 1, 2 | 1, 2 and 3, 4 | 2, all left behind | 1"
        " | 2026-11-27 |\n"
    )


def test_trouble() -> None:
    """A client that fails says why, in one cell."""
    row = Row(name="B", version="2", direct=Side(trouble="a|b\nc"), proxied=Side())
    assert row.line("2026-11-27").startswith("| B | 2 |  | fails: a\\|b c |")


def test_row_of_a_server() -> None:
    """What became of two calls both ways, and what the command says."""
    assert SERVER.line("2026-11-27") == (
        "| S | 2 | HTTP | 2025-11-25 | 400 Missing session ID | goes on"
        " | 4 of 7 kinds suffer, none from the proxy | 2026-11-27 |\n"
    )
    assert not SERVER.trouble


def test_rows_stay() -> None:
    """What a page has is found again, whatever is in its cells."""
    odd = Row(name="B", version="", direct=Side(trouble="a|b"), proxied=Side())
    rows = {row.name: row.line("2026-11-27") for row in (ALL, odd)}
    assert lines(client_page.page(rows)) == rows


def test_pages() -> None:
    """The pages in the documents are what is written of their rows, in the order of the lists."""
    for about, all_of_them, name in (
        (client_page, CLIENTS, "clients.md"),
        (server_page, SERVERS, "servers.md"),
    ):
        text = (DOCS / name).read_text()
        rows = lines(text)
        assert about.page(rows) == text
        names = [each.name for each in all_of_them]
        assert list(rows) == [each for each in names if each in rows]


def test_scripts() -> None:
    """Each client has a script, and each script a client."""
    scripts = {path.name for path in (TESTS / "matrix" / "scripts").iterdir() if path.is_file()}
    others = {path.name for path in (TESTS / "e2e" / "clients").iterdir()}
    wanted = {client.script for client in CLIENTS}
    assert scripts <= wanted <= scripts | others


def test_keys() -> None:
    """No two have the same environment, and a name can be typed."""
    for all_of_them in (CLIENTS, SERVERS):
        keys = [each.key for each in all_of_them]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_all_of_them_work() -> None:
    """On the pages is nobody that loses its state, or is refused, through the proxy."""
    proxied = [row.split(" | ")[4] for row in lines((DOCS / "clients.md").read_text()).values()]
    assert set(proxied) == {"1, 2 and 3, 4"}
    proxied = [row.split(" | ")[5] for row in lines((DOCS / "servers.md").read_text()).values()]
    assert set(proxied) == {server_page.GOES_ON, server_page.ANSWERS}
