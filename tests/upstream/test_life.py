"""The life of an upstream session at its server: the one table of transitions."""

import itertools

import pytest

from mcp_session_proxy.upstream.life import IllegalTransition, Life, Turn, advance

LEGAL = {
    (Life.NEW, Turn.BEGUN): Life.OPENING,
    (Life.NEW, Turn.CLOSED): Life.CLOSED,
    (Life.OPENING, Turn.OPENED): Life.OPEN,
    (Life.OPENING, Turn.LAID_DOWN): Life.ASLEEP,
    (Life.OPENING, Turn.FAILED): Life.NEW,
    (Life.OPENING, Turn.CLOSED): Life.CLOSED,
    (Life.OPEN, Turn.LOST): Life.REVIVING,
    (Life.OPEN, Turn.CLOSED): Life.CLOSED,
    (Life.ASLEEP, Turn.WOKEN): Life.OPEN,
    (Life.ASLEEP, Turn.LOST): Life.REVIVING,
    (Life.ASLEEP, Turn.CLOSED): Life.CLOSED,
    (Life.REVIVING, Turn.OPENED): Life.OPEN,
    (Life.REVIVING, Turn.FAILED): Life.LOST,
    (Life.REVIVING, Turn.CLOSED): Life.CLOSED,
    (Life.LOST, Turn.LOST): Life.REVIVING,
    (Life.LOST, Turn.CLOSED): Life.CLOSED,
    (Life.CLOSED, Turn.OPENED): Life.CLOSED,
    (Life.CLOSED, Turn.FAILED): Life.CLOSED,
    (Life.CLOSED, Turn.CLOSED): Life.CLOSED,
}


@pytest.mark.parametrize(("life", "turn"), [*itertools.product(Life, Turn)])
def test_every_transition(life: Life, turn: Turn) -> None:
    """Each state knows what can happen to it; anything else is a bug, and says so."""
    after = LEGAL.get((life, turn))
    if after is not None:
        assert advance(life, turn) is after
    else:
        with pytest.raises(IllegalTransition, match=f"{turn} cannot happen to .* {life}"):
            advance(life, turn)


def test_nothing_comes_back_from_the_end() -> None:
    """A session that is closed stays so, whatever becomes of a handshake that was under way."""
    assert {after for (life, _), after in LEGAL.items() if life is Life.CLOSED} == {Life.CLOSED}
