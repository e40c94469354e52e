"""How much of the tests runs."""

import os
import re

from hypothesis import settings

# `make thorough`: every set of parameters, and as often as the documents say. An hour, not minutes.
THOROUGH = bool(os.environ.get("THOROUGH"))
# `make faults`, too: the whole number of kills and stops.
FULL_FAULTS = THOROUGH or bool(os.environ.get("FULL_FAULTS"))


def left_out(expression: str) -> set[str]:
    """The marks that a run does without: `e2e` and `slow`, if `-m` says "not e2e and not slow"."""
    if " or " in expression:
        return set()
    return set(re.findall(r"(?:^| and )not (\w+)(?= and |$)", expression))


def marks_of_all(text: str) -> set[str]:
    """The marks that all tests of a module have, from its text: those of its ``pytestmark``."""
    said = re.search(r"^pytestmark = (?:\[$.*?^\]|.*?$)", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"\bmark\.(\w+)", said[0])) if said else set()


def examples(number: int) -> int:
    """How many cases Hypothesis tries where a test wants this many: a share of them in a quick run."""
    return number * settings().max_examples // 100
