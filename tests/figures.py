"""What long tests have counted, as a table of a row for each, whatever became of it: ``FIGURES_TABLE=PATH``.

A test tells its figures with ``record_property``, as soon as it has them. Those that tell none are counted
together, a row for each module. A row is written as soon as it is whole, so one that hangs, or a machine that
goes down, leaves all the others. Several runs may write to one file, one after the other.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PATH: Final = os.environ.get("FIGURES_TABLE")
# Named as what tests tell.
COLUMNS: Final = ("count", "longest", "lost", "twice", "mixed")
_TOLD: Final = (*COLUMNS, "figures")
_HEADING: Final = (
    "| row | count | longest wait, s | lost | twice | mixed | minutes | what came of it | figures |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
_CHARS: Final = 400


class Outcome:
    """What has become of one test, from the reports on its setup, itself and its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        self.told: dict[str, object] = {}
        self.problem = ""
        self.skipped = ""
        self.is_over = False

    def add(self, report: pytest.TestReport) -> None:
        """One of them."""
        self.seconds += report.duration
        self.is_over = report.when == "teardown"
        self.told |= {name: value for name, value in report.user_properties if name in _TOLD}
        if report.failed and not self.problem:
            lines = report.longreprtext.strip().splitlines()
            errors = [line for line in lines if line.startswith("E ")]
            self.problem = f"FAILED: {' '.join([*errors, *lines[-1:]][0].split())}"
        elif report.skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped = f"skipped: {why.removeprefix('Skipped: ')}"

    @property
    def verdict(self) -> str:
        """In a few words."""
        return self.problem or self.skipped or ("kept" if self.is_over else "not over")

    def __str__(self) -> str:
        return _row(self.name, self.told, self.seconds, self.verdict)


class Table:
    """A plugin of pytest that writes it to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._under_way: dict[str, Outcome] = {}
        self._others: dict[str, list[Outcome]] = {}
        if not path.exists():
            self._write(_HEADING)

    def _write(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test is over."""
        name = report.nodeid
        outcome = self._under_way.setdefault(name, Outcome(name.removeprefix("tests/")))
        outcome.add(report)
        if outcome.is_over:
            del self._under_way[name]
            if outcome.told or outcome.problem:
                self._write(str(outcome))
            else:
                self._others.setdefault(name.partition("::")[0], []).append(outcome)

    def pytest_sessionfinish(self) -> None:
        """All are over: those that have told nothing, and those that have no end."""
        for line in (*self._together(), *map(str, self._under_way.values())):
            self._write(line)

    def _together(self) -> Iterator[str]:
        for module, outcomes in self._others.items():
            skipped = [outcome.skipped for outcome in outcomes if outcome.skipped]
            ran = len(outcomes) - len(skipped)
            verdict = "; ".join(["kept"] * bool(ran) + sorted(set(skipped)))
            seconds = sum(outcome.seconds for outcome in outcomes)
            yield _row(
                module.removeprefix("tests/"), {"count": f"{ran} of {len(outcomes)}"}, seconds, verdict
            )


def _row(name: str, told: dict[str, object], seconds: float, verdict: str) -> str:
    figures = [str(told.get(column, "-")) for column in COLUMNS]
    cells = [name, *figures, f"{seconds / 60:.1f}", verdict[:_CHARS], str(told.get("figures", ""))]
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"
