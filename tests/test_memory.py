"""The budget of memory and its shares."""

import gc

import pytest

from mcp_session_proxy.errors import OverBudget
from mcp_session_proxy.memory import Budget, Keeper, Memory, Share


def test_the_shares_are_all_there_is() -> None:
    """They come to the whole budget, less what does not divide."""
    assert 0.99 * 1_000_000 <= Memory(Budget(total_bytes=1_000_000)).max_bytes <= 1_000_000


def test_equal_texts_are_kept_once() -> None:
    """However many hold one, it counts once, and no longer than somebody holds it."""
    share = Share("texts", 100)
    keeper = Keeper(share)
    first, second = keeper.keep(b"x" * 60), keeper.keep(b"x" * 60)
    assert first is second
    assert share.used_bytes == 60
    with pytest.raises(OverBudget):
        keeper.keep(b"y" * 60)
    del first, second
    gc.collect()
    assert (len(keeper), share.used_bytes) == (0, 0)
