"""How long to pause between attempts that fail."""

import pytest

from mcp_session_proxy.backoff import Backoff


def test_pauses_double_from_the_first_to_the_last() -> None:
    """The last pause is as long as was said, even where no doubling comes to that; it stays."""
    backoff, pause, pauses = Backoff(0.5, 3.0), 0.0, []
    for _ in range(5):
        pause = backoff.after(pause)
        pauses.append(pause)
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_pause_of_another_backoff_is_brought_within_bounds() -> None:
    """Whoever goes over from long pauses to short ones, or back, gets none that is out of bounds."""
    assert Backoff(0.1, 2.0).after(60.0) == 2.0
    assert Backoff(5.0, 60.0).after(0.1) == 5.0


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_backoff_that_would_never_pause_is_refused(first: float, last: float) -> None:
    """A server that is away must not be asked without pause because of a wrong number."""
    with pytest.raises(ValueError, match="first pause"):
        Backoff(first, last)
