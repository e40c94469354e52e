"""Rows of a table in a document: those that were tried take the place of what stood there. Pure."""

from collections.abc import Sequence


def line(cells: Sequence[str]) -> str:
    """One row."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def lines(text: str) -> dict[str, str]:
    """The rows of a page's only table, by what their first cell says."""
    rows = [each for each in text.splitlines(keepends=True) if each.startswith("| ")]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows[1:]}
