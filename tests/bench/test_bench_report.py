"""Targets, tables, plots, and where they go."""

import xml.etree.ElementTree as ElementTree
from functools import cached_property
from pathlib import Path

import pytest

from bench import suite
from bench.plots import draw_all
from bench.report import BEGIN, END, case_table, full_report, insert, target_table
from bench.result import CLIENT_SESSION, Result
from bench.targets import TARGETS, judge

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def sessionless(*, proxy: float = 75.0, p99: float = 2.9) -> Result:
    """Two rounds; the second was twice as slow for everybody."""
    result = Result(name="sessionless-json", title="Calls")
    for slow in (1.0, 2.0):
        result.add("direct", {"rate": 40_000 / slow, "p99": 1.0 * slow})
        result.add("bare", {"cpu": 100.0 * slow, "rate": 10_000 / slow, "p99": 3.0 * slow})
        result.add("proxy", {"cpu": proxy * slow, "rate": 8_000 / slow, "p99": p99 * slow})
    return result


class Recorder(Result):
    """Has every figure, and notes of whom it was asked."""

    def values(self, entry: str, quantity: str) -> list[float]:
        self.asked.add(entry)
        return [float(len(self.asked))]

    @cached_property
    def asked(self) -> set[str]:
        return set()


def words(*results: Result) -> dict[str, str]:
    return {one.target.what: one.word for one in judge({result.name: result for result in results})}


CPU = "CPU of a session-less call, JSON, against bare"
ADDED = "p99 added to direct, stub, against what bare adds"


def test_a_target_is_met_by_its_median() -> None:
    """At most 0.8 of bare's CPU; no more than bare adds to the p99."""
    assert words(sessionless())[CPU] == "yes"
    assert words(sessionless(proxy=81.0))[CPU] == "no"
    assert words(sessionless())[ADDED] == "yes"
    assert words(sessionless(p99=3.1))[ADDED] == "no"


def test_what_was_not_measured_meets_nothing() -> None:
    """Neither a case that was left out nor a contender that failed."""
    result = sessionless()
    assert words()[CPU] == "not measured"
    result.fail("proxy", "errors")
    assert words(result)[CPU] == "not measured"


def test_a_limit_from_below() -> None:
    """Throughput wants at least so much."""
    result = Result(name="fastmcp", title="FastMCP")
    result.add("proxy", {"rate": 97.0})
    result.add("bare", {"rate": 100.0})
    assert words(result)["Calls per second on FastMCP against bare"] == "no"


def test_every_target_is_about_a_case_and_entries_that_exist() -> None:
    """A name that is mistyped would never be measured."""
    cases = {case.name: case for case in suite.LOAD}
    for target in TARGETS:
        recorder = Recorder(name=target.case, title="")
        target.read(recorder)
        if target.case in cases:
            assert recorder.asked <= {entry.name for entry in cases[target.case].entries}
        else:
            assert target.case in {case.name for case in suite.FULL}


def test_tables_have_figures_ratios_and_failures() -> None:
    """A column for each quantity that somebody has; the ratio to bare behind CPU and rate."""
    result = sessionless(proxy=120.0)
    result.fail("nginx", "3 errors")
    lines = case_table(result).splitlines()
    assert lines[0] == "|  | CPU per call, µs | per second | p99, ms |"
    assert lines[2] == "| direct | - | 30,000 (20,000 to 40,000), 4.00 x | 1.50 (1.00 to 2.00) |"
    assert lines[4].startswith("| proxy | 180 (120 to 240), 1.20 x |")
    assert lines[-1] == "nginx: **failed**: `3 errors`"


def test_sizes_are_compared_with_their_limit() -> None:
    """A limit has a unit."""
    result = Result(name="memory", title="Memory")
    result.add(CLIENT_SESSION, {"each": 1.1})
    table = target_table([one for one in judge({"memory": result}) if one.figure])
    assert "| Memory of an idle client session | 1.10 | ≤ 1.2 KiB | yes |" in table


def test_the_document_has_a_place_for_results() -> None:
    """What stood there is replaced, and everything around it stays; a second time changes nothing."""
    text = DOCUMENT.read_text()
    results = {"sessionless-json": sessionless()}
    report = full_report(
        results, judge(results), machine="this", versions={"nginx": "1"}, when="now", rounds=2, plots=[]
    )
    once = insert(text, report)
    assert once.startswith(text[: text.index(BEGIN)])
    assert once.endswith(text[text.index(END) :])
    assert "#### Calls" in once
    assert insert(once, report) == once


def test_a_document_without_a_place_is_refused() -> None:
    """Rather than written to its end."""
    with pytest.raises(ValueError, match="results"):
        insert("# Something else", "report")


def test_plots_are_drawn_for_what_was_measured() -> None:
    """Well-formed, one bar for each contender that has the quantity."""
    drawn = draw_all({"sessionless-json": sessionless()})
    assert set(drawn) == {"bench-cpu.svg", "bench-latency.svg"}
    _, svg = drawn["bench-cpu.svg"]
    bars = ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 2  # the background; bare and the proxy
