"""What wrk is given and what it says, and one real run of each script."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import wrk
from bench.contenders import Stage
from bench.messages import ECHO, FIRST_ID, FLOW, Request, legacy, modern, open_sessions
from bench.wrk import LoadError, lua_string, parse

LINE = "bench requests=100 microseconds=2000000 bytes=5000 refused=0 broken=0 p50=1500 p99=9000"


def test_the_figures_are_read_from_the_line_of_the_script() -> None:
    """Other lines are for people; microseconds become seconds and milliseconds."""
    load = parse(f"Running 2s test\n{LINE}\n")
    assert (load.requests, load.seconds, load.per_second) == (100, 2.0, 50.0)
    assert (load.p50_ms, load.p99_ms) == (1.5, 9.0)
    assert load.failed == ""


def test_output_without_figures_is_an_error() -> None:
    """Whatever wrk printed instead is in the message."""
    with pytest.raises(LoadError, match="unable to connect"):
        parse("unable to connect\n")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (LINE.replace("refused=0", "refused=3"), "3 errors"),
        (LINE.replace("broken=0", "broken=2"), "2 broken"),
        (LINE.replace("requests=100", "requests=0"), "no answers"),
        (f"{LINE} flows=0 flow_microseconds=0", "no flow"),
    ],
)
def test_a_run_with_errors_is_no_measurement(line: str, why: str) -> None:
    """One error is enough, and so is nothing at all."""
    assert why in parse(line).failed


def test_a_flow_has_its_own_figures() -> None:
    """How many came to their end, and how long they took together."""
    load = parse(f"{LINE} flows=20 flow_microseconds=500000")
    assert (load.flows, load.flow_seconds, load.failed) == (20, 0.5, "")


@pytest.mark.parametrize(
    "text", ["", "plain", 'a "quoted" \\n', "]=] and ]==]", "ends with ]=", "\nfirst line"]
)
def test_any_text_survives_in_lua(text: str, tmp_path: Path) -> None:
    """Long brackets are chosen so that nothing in the text ends them; a leading line break is kept."""
    literal = lua_string(text)
    opening, _, rest = literal.partition("\n")
    closing = opening.replace("[", "]")
    assert rest == text + closing
    assert (text + closing).find(closing) == len(text)


def test_ids_of_requests_have_the_length_that_the_script_counts_in() -> None:
    """The script replaces the id where it finds it: once, in each kind of request."""
    for request in (legacy(ECHO), legacy(ECHO, "session"), modern(ECHO)):
        assert request.body.count(str(FIRST_ID)) == 1
    assert f'"{FIRST_ID}"' in (wrk.LUA / "requests.lua").read_text()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running stub."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    try:
        yield stage.server("stub").url
    finally:
        stage.stop_all()


@pytest.mark.e2e
def test_requests_take_turns_and_are_answered(stub: str) -> None:
    """A run on two sessions: every answer is right."""
    requests = [legacy(ECHO, session) for session in open_sessions(stub, 2)]
    load = wrk.run(stub, requests, connections=2, seconds=1)
    assert load.failed == ""
    assert load.requests > 100


@pytest.mark.e2e
def test_refused_requests_are_counted(stub: str) -> None:
    """Without a session the stub answers 400."""
    assert "errors" in wrk.run(stub, [legacy(ECHO)], connections=2, seconds=1).failed


@pytest.mark.e2e
def test_flows_come_to_their_end(stub: str) -> None:
    """Each has a session of its own, and ends it."""
    load = wrk.run(stub, FLOW, connections=2, seconds=1, script="flow", threads=2)
    assert load.failed == ""
    assert load.flows > 20
    assert 0 < load.flow_seconds <= 2 * load.seconds


@pytest.mark.e2e
def test_a_wrong_answer_in_a_flow_is_counted(stub: str) -> None:
    """Here the last request expects what DELETE never answers."""
    last = Request(method="DELETE", headers={}, body="", accept=(204,), expect="")
    assert "errors" in wrk.run(stub, [*FLOW[:-1], last], connections=1, seconds=1, script="flow").failed
