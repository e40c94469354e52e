"""Reads Markdown as far as the tests need it: fenced blocks with what stands before them, headings, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "deploy").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\s*$")
_COMMENT = re.compile(r"^<!--\s*(.*?)\s*-->$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. ``remark`` is the HTML comment right above it, if there is one."""

    document: Path
    line: int
    language: str
    text: str
    remark: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks, in order."""
    lines = document.read_text().splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, language = number, fence[1]
            remark = _COMMENT.match(lines[number - 1]) if number else None
            continue
        yield Block(
            document=document,
            line=start + 1,
            language=language,
            text="\n".join(lines[start + 1 : number]) + "\n",
            remark=remark[1] if remark else "",
        )
        start = None
    assert start is None, f"{document}: the block in line {start} does not end"


def prose(document: Path) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```\s*$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What can stand behind a # in a link to the document, made as GitHub makes it."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.*?)\s*$", prose(document), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        plain = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while (name := f"{plain}-{number}" if number else plain) in found:
            number += 1
        found.add(name)
    return found


def links(document: Path) -> list[str]:
    """Where links and pictures lead to."""
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
