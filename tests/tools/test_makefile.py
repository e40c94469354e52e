"""`make help` is made of the Makefile, so it has to say something of every target."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Steps of others, and what says the rest.
UNTOLD = {"help", "bench-envs"}


def test_help_tells_every_target() -> None:
    """In groups; a target that is not told of is nobody's."""
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told = set(re.findall(r"^  make ([a-z-]+)", said, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told == set(phony.replace("\\\n", " ").split()) - UNTOLD
    assert len(re.findall(r"^[A-Z].*$", said, re.MULTILINE)) >= 4


def test_targets_are_known_where_they_are_named() -> None:
    """The documents name targets that there are."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`make ([a-z-]+)", document.read_text()):
            assert name in targets, f"{document.name}: make {name}"
