"""Medians, spreads and ratios. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A median and how far the rounds lie apart."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """`1.23 (1.20 to 1.31)`, with as many digits as make sense; without a spread the median alone."""
        if self.low == self.high:
            return show(self.median)
        return f"{show(self.median)} ({show(self.low)} to {show(self.high)})"


def summarise(values: Sequence[float]) -> Figure:
    """The figure of some rounds. Raises ValueError when there are none."""
    if not values:
        raise ValueError("no rounds")
    return Figure(median=statistics.median(values), low=min(values), high=max(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Figure:
    """The ratio in each round, summarised. Raises ValueError when there are none or not equally many."""
    return summarise([one / other for one, other in zip(above, below, strict=True)])


def show(value: float) -> str:
    """Three digits or so, and all that come before the point."""
    size = abs(value)
    places = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{places}f}"
