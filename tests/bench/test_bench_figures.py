"""Medians, spreads, ratios."""

import pytest

from bench.figures import Figure, ratios, show, summarise


def test_a_figure_is_a_median_with_a_spread() -> None:
    """One odd round moves the spread and not the median."""
    assert summarise([2.0, 1.0, 50.0]) == Figure(median=2.0, low=1.0, high=50.0)


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which everything was slow gives the same ratio as the others."""
    assert ratios([2.0, 20.0], [1.0, 10.0]) == Figure(median=2.0, low=2.0, high=2.0)


def test_nothing_has_no_figure() -> None:
    """And neither have rounds that do not belong together."""
    with pytest.raises(ValueError, match="no rounds"):
        summarise([])
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.5, "99.5"), (1.234, "1.23"), (0.25, "0.25"), (0.00861, "0.0086"), (0, "0")],
)
def test_figures_have_about_three_digits(value: float, text: str) -> None:
    """Large ones are whole, small ones keep what makes them different from nothing."""
    assert show(value) == text


def test_a_figure_without_a_spread_is_one_number() -> None:
    """A single round has none."""
    assert str(summarise([1.5])) == "1.50"
    assert str(summarise([1.5, 1.5, 2.0])) == "1.50 (1.50 to 2.00)"
