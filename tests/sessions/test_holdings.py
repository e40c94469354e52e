"""Who has the most."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.sessions.holdings import Holdings


def test_the_heaviest_pays():
    """The one with the most is named, as long as there is a difference."""
    holdings = Holdings()
    assert holdings.heaviest() is None
    for holder in "abbc":
        holdings.add(holder)
    assert holdings.heaviest() == "b"
    holdings.remove("b")
    assert holdings.heaviest() is None
    assert [holdings[holder] for holder in "abcd"] == [1, 1, 1, 0]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200))
def test_counts_are_right_after_any_change(changes):
    """Whatever comes and goes, the books and the order agree with a plain count."""
    holdings = Holdings()
    counts: Counter[str | None] = Counter()
    for holder, comes in changes:
        if comes:
            holdings.add(holder)
            counts[holder] += 1
        elif counts[holder]:
            holdings.remove(holder)
            counts[holder] -= 1
        left = {holder: count for holder, count in counts.items() if count}
        order = list(holdings.heaviest_first())
        assert {holder: holdings[holder] for holder in order} == left
        assert [left[holder] for holder in order] == sorted(left.values(), reverse=True)
        if len(set(left.values())) > 1:
            assert left[holdings.heaviest()] == max(left.values())
