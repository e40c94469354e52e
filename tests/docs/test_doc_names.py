"""What the documents name, there is: options, environment variables, events, metrics, modules."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_session_proxy.cli.command import build_parser
from mcp_session_proxy.settings.options import options
from mcp_session_proxy.settings.sources import ENV_PREFIX

from .markdown import DOCUMENTS, ROOT, prose

# Options of other programs: the benchmark, the simulation, Prometheus, servers and gateways.
ELSEWHERE = {
    *("--against", "--functions", "--seconds", "--seed"),
    *("--enable-feature", "--port", "--stateful"),
}
# Words of the chart that look like events.
CHART = {"state.claim", "state.enabled"}


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All options of a command and of those beneath it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags(command)


FLAGS = {*flags(build_parser())}
# One that Kubernetes sets is told of, too, which is why nobody should name a service so.
VARIABLES = {option.field.upper() for option in options()} | {"PORT"}


def told(page: str, pattern: str) -> set[str]:
    """What a page that is made of the code has in the first column of its tables."""
    return set(re.findall(rf"^\| \[?`({pattern})`", (ROOT / "docs" / page).read_text(), re.MULTILINE))


EVENTS = told("events.md", r"\w+\.\w+")
METRICS = told("metrics.md", r"\w+")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@each_document
def test_options(document: Path) -> None:
    """An option that is named is one of the program's, of whichever command."""
    assert set(re.findall(r"`(--[a-z][\w-]*)", prose(document))) <= FLAGS | ELSEWHERE


@each_document
def test_variables(document: Path) -> None:
    """A variable that is named is that of an option."""
    assert set(re.findall(rf"\b{ENV_PREFIX}(\w+)", document.read_text())) <= VARIABLES


@each_document
def test_events(document: Path) -> None:
    """What looks like the name of an event is one."""
    subjects = "|".join({name.partition(".")[0] for name in EVENTS})
    named = set(re.findall(rf"`((?:{subjects})\.\w+)`", prose(document)))
    files = {name for name in named if re.search(r"\.(py|db|toml|ya?ml|json)$", name)}
    assert named - files - CHART <= EVENTS


@each_document
def test_metrics(document: Path) -> None:
    """A metric that is named is one of the program's, or one of the series of a histogram."""
    named = set(re.findall(r"`(mcp_session_proxy_\w+)", prose(document)))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= METRICS


def test_modules() -> None:
    """A module that the page about the architecture names is where it says; one without a path, anywhere."""
    rooms = ("mcp_session_proxy", "tests", "tools", "bench", "deploy")
    paths = [f"/{path.relative_to(ROOT)}" for room in rooms for path in (ROOT / room).rglob("*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", prose(ROOT / "docs" / "architecture.md")))
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in paths)} == set()
