"""The life of an upstream session: the one table of transitions."""

import itertools

import pytest

from mcp_session_proxy.sessions.state import (
    COUNTED,
    TRANSITIONS,
    USABLE,
    SessionEvent,
    SessionState,
    advance,
)
from mcp_session_proxy.upstream.life import IllegalTransition

_OPENING, _IDLE, _LEASED, _CLOSING, _CLOSED = (
    SessionState.OPENING,
    SessionState.IDLE,
    SessionState.LEASED,
    SessionState.CLOSING,
    SessionState.CLOSED,
)
LEGAL = {
    (_OPENING, SessionEvent.OPENED): _IDLE,
    (_OPENING, SessionEvent.OPEN_FAILED): _CLOSED,
    (_OPENING, SessionEvent.RETIRED): _CLOSING,
    (_IDLE, SessionEvent.TAKEN): _LEASED,
    (_IDLE, SessionEvent.RETIRED): _CLOSING,
    (_LEASED, SessionEvent.TAKEN): _LEASED,
    (_LEASED, SessionEvent.RELEASED): _IDLE,
    (_LEASED, SessionEvent.RETIRED): _CLOSING,
    (_CLOSING, SessionEvent.GONE): _CLOSED,
}
EVERY_PAIR = list(itertools.product(SessionState, SessionEvent))


@pytest.mark.parametrize(("state", "event"), EVERY_PAIR, ids=lambda part: part.value)
def test_every_pair_is_a_transition_or_a_bug(state, event):
    """Each event either leads to the one state that follows or is refused by name."""
    if (state, event) in LEGAL:
        assert advance(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event} cannot happen to a session that is {state}"):
            advance(state, event)


def test_every_state_has_a_row():
    """The table knows every state."""
    assert set(TRANSITIONS) == set(SessionState)


def test_usable_sessions_are_counted():
    """What can serve requests takes a place; what is on its way out does neither."""
    assert USABLE < COUNTED
    assert COUNTED.isdisjoint({SessionState.CLOSING, SessionState.CLOSED})


def test_nothing_comes_back_from_the_dead():
    """No sequence of events makes a session usable again once it left the pool."""
    reached = {SessionState.CLOSING}
    while True:
        more = {after for state in reached for after in TRANSITIONS[state].values()} | reached
        if more == reached:
            break
        reached = more
    assert reached.isdisjoint(COUNTED)


@pytest.mark.parametrize("state", SessionState, ids=lambda state: state.value)
def test_every_session_can_end(state):
    """From every state there is a way to the end, so none can be stuck for good."""
    reached = {state}
    for _ in SessionState:
        reached |= {after for known in reached for after in TRANSITIONS[known].values()}
    assert SessionState.CLOSED in reached
