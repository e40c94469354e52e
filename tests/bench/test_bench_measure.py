"""Turns: who is measured, and what happens to those who answer wrongly."""

from pathlib import Path

import pytest

from bench.contenders import Stage
from bench.measure import Case, Entry
from bench.messages import ECHO

CASE = Case(
    name="case",
    title="A case",
    server="stub",
    work=ECHO,
    entries=(
        Entry(name="direct", contender="direct", asked="session"),
        Entry(name="bare", contender="bare", asked="session"),
        Entry(name="proxy", contender="proxy", options=("--sharing", "shared")),
    ),
    connections=2,
    seconds=1,
)


def names(case: Case) -> list[str]:
    return [entry.name for entry in case.entries]


def test_a_case_can_be_narrowed_to_some_contenders() -> None:
    """The pass-through and the proxy stay, for there is no ratio without them."""
    assert names(CASE.narrowed(["nginx"], other=False, seconds=None)) == ["bare", "proxy"]
    assert names(CASE.narrowed(None, other=False, seconds=None)) == names(CASE)


def test_another_tree_is_measured_wherever_this_one_is() -> None:
    """With the same options, after it."""
    narrowed = CASE.narrowed([], other=True, seconds=7)
    assert names(narrowed) == [*names(CASE), "other proxy"]
    assert narrowed.entries[-1].contender == "other"
    assert narrowed.entries[-1].options == ("--sharing", "shared")
    assert narrowed.seconds == 7


@pytest.mark.e2e
def test_who_answers_wrongly_is_listed_and_the_others_are_measured(tmp_path: Path) -> None:
    """The stub refuses a call without a session; the same call on a session is measured, the proxy's, too."""
    wrong = Entry(name="no session", contender="bare")
    case = Case(
        name=CASE.name,
        title=CASE.title,
        server=CASE.server,
        work=ECHO,
        entries=(wrong, *CASE.entries),
        seconds=1,
        memory=True,
    )
    said: list[str] = []
    stage = Stage(tmp_path)
    try:
        result = case.run(stage, 2, said.append)
    finally:
        stage.stop_all()
    assert "400" in result.failures["no session"]
    assert set(result.samples) == {"direct", "bare", "proxy"}
    assert [len(rounds) for rounds in result.samples.values()] == [2, 2, 2]
    assert "cpu" not in result.samples["direct"][0]
    assert all(sample["cpu"] > 1 for sample in result.samples["proxy"])
    assert result.figure("proxy", "grown").low >= 0
    turns = [line for line in said if "round" in line]
    assert [line.split(",")[0].split()[-1] for line in turns] == ["direct", "bare", "proxy"] * 2
