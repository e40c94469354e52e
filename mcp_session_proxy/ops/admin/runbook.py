"""The runbook (docs/troubleshooting.md) as a page, for whoever has only the admin listener at hand. Pure.

It knows as much Markdown as that document uses: headings, paragraphs, lists, tables, blocks of code. Headings
have the fragments that Markdown's usual readers give them, and rows of tables that begin with a word of code
have that word, so that each reason can be linked to.
"""

import html
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Final

_CODE: Final = re.compile(r"(`[^`]+`)")
_BOLD: Final = re.compile(r"\*\*(.+?)\*\*")
_ITALIC: Final = re.compile(r"\*(.+?)\*")
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_HEADING: Final = re.compile(r"(#{1,4}) +(.+)")
_WORD: Final = re.compile(r"`([a-z-]+)`")
_SEPARATOR: Final = re.compile(r"\|[\s:|-]+\|")

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Troubleshooting · mcp-session-proxy</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="runbook.css">
</head>
<body>
<main>
<p><a href="./">Status</a></p>
{body}
</main>
</body>
</html>
"""


@cache
def runbook() -> str:
    """The page, made once: its document is part of the program."""
    return _PAGE.replace("{body}", render((files(__package__) / "page" / "runbook.md").read_text("utf-8")))


def render(markdown: str) -> str:
    """The part of Markdown that the runbook is written in, as HTML; all else comes out as text."""
    return "\n".join(_blocks(markdown, set()))


def _blocks(markdown: str, taken: set[str]) -> Iterator[str]:
    parts = re.split(r"^```.*?\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)
    for index, part in enumerate(parts):
        if index % 2:
            yield f"<pre>{html.escape(part)}</pre>"
        else:
            for block in re.split(r"\n\s*\n", part.strip()):
                yield from _block(block.split("\n"), taken)


def _block(lines: list[str], taken: set[str]) -> Iterator[str]:
    """One paragraph, or what stands together without a blank line."""
    for kind, group in groupby(lines, _Kinds()):
        found = list(group)
        if kind == "heading":
            for line in found:
                yield _heading(line, taken)
        elif kind == "table":
            yield _table(found, taken)
        elif kind == "list":
            items = re.split(r"^- ", "\n".join(found), flags=re.MULTILINE)[1:]
            yield f"<ul>{''.join(f'<li>{_inline(item.strip())}</li>' for item in items)}</ul>"
        elif any(line.strip() for line in found):
            yield f"<p>{_inline(chr(10).join(found))}</p>"


class _Kinds:
    """What a line belongs to; the lines behind a list's item belong to the list."""

    def __init__(self) -> None:
        self._in_list = False

    def __call__(self, line: str) -> str:
        if _HEADING.fullmatch(line):
            self._in_list = False
            return "heading"
        if line.startswith("|"):
            return "table"
        self._in_list = self._in_list or line.startswith("- ")
        return "list" if self._in_list else "text"


def _heading(line: str, taken: set[str]) -> str:
    match = _HEADING.fullmatch(line)
    assert match is not None
    level, text = len(match[1]), match[2]
    return f"<h{level}{_fragment(slug(text), taken)}>{_inline(text)}</h{level}>"


def slug(heading: str) -> str:
    """The fragment that Markdown's usual readers give a heading."""
    kept = (char for char in heading.lower() if char.isalnum() or char in " _-")
    return "".join(kept).replace(" ", "-")


def _table(lines: list[str], taken: set[str]) -> str:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in lines
        if not _SEPARATOR.fullmatch(line.strip())
    ]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    labels = [
        html.escape(cell.replace("`", "")) for cell in rows[0]
    ]  # for narrow screens, where rows are lists
    body = ""
    for row in rows[1:]:
        match = _WORD.fullmatch(row[0])
        fragment = "" if match is None else _fragment(match[1], taken)
        cells = "".join(
            f'<td data-label="{label}">{_inline(cell)}</td>' for label, cell in zip(labels, row, strict=False)
        )
        body += f"<tr{fragment}>{cells}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _fragment(name: str, taken: set[str]) -> str:
    if name in taken:
        return ""
    taken.add(name)
    return f' id="{html.escape(name)}"'


def _inline(text: str) -> str:
    """Links, of which only those within the page lead anywhere here, and what is within and around them."""
    parts = _LINK.split(text)
    # Link texts may hold code, so links are told apart first: text, label, target, text ...
    pieces = [_emphasised(parts[0])]
    for label, target, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        shown = _emphasised(label)
        pieces.append(f'<a href="{html.escape(target)}">{shown}</a>' if target.startswith("#") else shown)
        pieces.append(_emphasised(rest))
    return "".join(pieces)


def _emphasised(text: str) -> str:
    pieces = []
    for piece in _CODE.split(text):
        if _CODE.fullmatch(piece):
            pieces.append(f"<code>{html.escape(piece[1:-1])}</code>")
        else:
            bold = _BOLD.sub(r"<b>\1</b>", html.escape(piece))
            pieces.append(_ITALIC.sub(r"<i>\1</i>", bold))
    return "".join(pieces)
