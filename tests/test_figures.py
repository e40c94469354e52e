"""The table of what long tests have counted."""

from pathlib import Path

import pytest
from figures import Table


def report(name: str, when: str, outcome: str = "passed", **told: object) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=name,
        location=("", 0, ""),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]
        longrepr="E   assert [7] == []" if outcome == "failed" else ("x.py", 1, "Skipped: needs root"),
        when=when,  # type: ignore[arg-type]
        duration=60.0,
        user_properties=list(told.items()),
    )


def rows(path: Path) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in path.read_text().splitlines()[2:]]


def test_a_row_for_each_whatever_became_of_it(tmp_path: Path) -> None:
    """Those that have told something, and those that failed; the others are counted by their module."""
    path = tmp_path / "table.md"
    table = Table(path)
    for name, outcome, told in [
        ("tests/a.py::one", "passed", {"count": 20, "longest": "1.50", "lost": 0, "figures": "20 x a|b"}),
        ("tests/a.py::two", "failed", {}),
        ("tests/a.py::three", "passed", {}),
        ("tests/a.py::four", "skipped", {}),
    ]:
        table.pytest_runtest_logreport(report(name, "call", outcome, **told))
        table.pytest_runtest_logreport(report(name, "teardown"))
    table.pytest_runtest_logreport(report("tests/a.py::hangs", "setup"))
    table.pytest_sessionfinish()
    assert rows(path) == [
        ["a.py::one", "20", "1.50", "0", "-", "-", "2.0", "kept", "20 x a/b"],
        ["a.py::two", "-", "-", "-", "-", "-", "2.0", "FAILED: E assert [7] == []"],
        ["a.py", "1 of 2", "-", "-", "-", "-", "4.0", "kept; skipped: needs root"],
        ["a.py::hangs", "-", "-", "-", "-", "-", "1.0", "not over"],
    ]


def test_several_runs_write_to_one(tmp_path: Path) -> None:
    """One heading, and the rows of all."""
    for name in ("tests/a.py::one", "tests/b.py::two"):
        table = Table(tmp_path / "table.md")
        table.pytest_runtest_logreport(report(name, "teardown", count=1))
    assert [row[0] for row in rows(tmp_path / "table.md")] == ["a.py::one", "b.py::two"]
