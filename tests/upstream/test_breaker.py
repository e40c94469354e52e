"""The circuit breaker: after failures in a row nothing is tried, then one, then all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.errors import UpstreamTimeout
from mcp_session_proxy.upstream.breaker import Breaker, BreakerRules, BreakerState

ERROR = UpstreamTimeout("silent")


def broken(*, threshold: int = 3, now: float = 100.0) -> Breaker:
    breaker = Breaker(BreakerRules(threshold=threshold, reset_seconds=10.0))
    for _ in range(threshold):
        breaker.failed(ERROR, now)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """Only an unbroken row counts."""
    breaker = Breaker(BreakerRules(threshold=3, reset_seconds=10.0))
    for _ in range(5):
        breaker.failed(ERROR, 0)
        breaker.failed(ERROR, 0)
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert broken().state is BreakerState.OPEN
    assert broken().is_open(100.0)
    assert broken().last_error is ERROR


def test_time_lets_one_through() -> None:
    """When the time is up a single handshake may be tried; everyone else waits for its outcome."""
    breaker = broken()
    assert breaker.retry_after_seconds(104.0) == 6.0
    assert not breaker.is_open(110.0)
    breaker.begin(110.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.is_open(110.0)
    assert breaker.is_open(1e9)


def test_the_one_succeeds() -> None:
    """A success closes it."""
    breaker = broken()
    breaker.begin(110.0)
    breaker.succeeded()
    assert (breaker.state, breaker.is_open(110.0), breaker.last_error) == (BreakerState.CLOSED, False, None)


def test_the_one_fails() -> None:
    """A failure opens it for the whole time again."""
    breaker = broken()
    breaker.begin(110.0)
    breaker.failed(ERROR, 111.0)
    assert breaker.is_open(120.9)
    assert not breaker.is_open(121.0)


def test_the_one_says_nothing() -> None:
    """A trial that was given up leaves the next one to be tried at once."""
    breaker = broken()
    breaker.begin(110.0)
    breaker.undecided()
    assert not breaker.is_open(110.0)


def test_asking_changes_nothing() -> None:
    """Looking at the breaker is not a trial."""
    breaker = broken()
    for _ in range(3):
        assert not breaker.is_open(110.0)
    assert breaker.state is BreakerState.OPEN


def test_beginning_too_early_is_no_trial() -> None:
    """A handshake that began before it opened does not count as the one trial."""
    breaker = broken()
    breaker.begin(105.0)
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize("state", list(BreakerState))
def test_nothing_undecided_opens_it(state: BreakerState) -> None:
    """What says nothing of the server's health never makes things worse."""
    breaker = Breaker(BreakerRules(threshold=1, reset_seconds=10.0))
    if state is not BreakerState.CLOSED:
        breaker.failed(ERROR, 0.0)
    if state is BreakerState.HALF_OPEN:
        breaker.begin(10.0)
    breaker.undecided()
    assert not breaker.is_open(10.0)


@given(st.lists(st.sampled_from(["begin", "succeeded", "failed", "undecided"]), max_size=30))
def test_it_never_stays_open(steps: list[str]) -> None:
    """Whatever has happened: as long as each trial has an outcome, another one may be tried in time."""
    breaker, now, trying = Breaker(BreakerRules(threshold=2, reset_seconds=10.0)), 0.0, False
    for step in steps:
        now += 3.0
        if step == "begin":
            trying = trying or not breaker.is_open(now)
            if trying:
                breaker.begin(now)
        elif step == "failed":
            breaker.failed(ERROR, now)
            trying = False
        else:
            getattr(breaker, step)()
            trying = False
    if trying:
        breaker.undecided()
    assert not breaker.is_open(now + 10.0)
