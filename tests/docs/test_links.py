"""Links between the documents, and their pictures."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from .markdown import DOCUMENTS, ROOT, anchors, links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Files exist, and so do the headings that links name. Addresses on the web are not tried."""
    for link in links(document):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_document_can_be_found() -> None:
    """From the README, by links, one reaches all of them."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        if document in seen:
            continue
        seen.add(document)
        names = (link.partition("#")[0] for link in links(document) if "://" not in link)
        found = [(document.parent / name).resolve() for name in names if name]
        todo += [each for each in found if each.suffix == ".md"]
        todo += [each / "README.md" for each in found if (each / "README.md").is_file()]
    assert set(DOCUMENTS) <= seen


def test_the_readme_says_what_its_picture_shows() -> None:
    """The figures in the picture's description are those that are drawn."""
    (said,) = re.findall(r"!\[(.*?)\]\(docs/churn\.svg\)", (ROOT / "README.md").read_text())
    shown = re.findall(r'font-weight="bold">([\d,]+)<', (ROOT / "docs" / "churn.svg").read_text())
    assert shown
    assert set(shown) == set(re.findall(r"\d[\d,]*", said))


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_are_well_formed(picture: Path) -> None:
    """XML with a size, and nothing in it that loads or runs anything."""
    root = ElementTree.parse(picture).getroot()
    assert root.tag.endswith("svg")
    assert root.get("viewBox") or root.get("width")
    assert not {each.tag.rpartition("}")[2] for each in root.iter()} & {"script", "image", "foreignObject"}
