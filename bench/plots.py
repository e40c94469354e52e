"""The results as bars. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from soak.plot import frame

from .figures import Figure, show
from .result import Result

_TOP, _BAR, _PITCH, _GAP, _LEFT, _WIDTH, _RIGHT = 34, 15, 20, 34, 150, 560, 170
_COLOURS: Mapping[str, str] = {
    "direct": "#7f8c8d",
    "bare": "#2874a6",
    "nginx": "#1e8449",
    "proxy": "#b03a2e",
    "stateless mode": "#b7950b",
    "create_proxy": "#6c3483",
}
_OTHER_COLOUR = "#566573"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One contender."""

    name: str
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Group:
    """Bars to compare, on a scale of their own that begins at zero."""

    title: str
    unit: str
    bars: Sequence[Bar]


def draw(title: str, groups: Sequence[Group]) -> str:
    """The groups one below the other. A thin line on a bar reaches from the lowest round to the highest."""
    parts: list[str] = []
    top = float(_TOP)
    for group in groups:
        parts += _group(group, top)
        top += _GAP + len(group.bars) * _PITCH
    return frame(title, _LEFT + _WIDTH + _RIGHT, top + 10, parts)


def _group(group: Group, top: float) -> list[str]:
    scale = _WIDTH / (max((bar.figure.high for bar in group.bars), default=0.0) or 1.0)
    parts = [f'<text x="{_LEFT}" y="{top + 14}" font-weight="bold">{group.title}</text>']
    for number, bar in enumerate(group.bars):
        y = top + 22 + number * _PITCH
        middle, figure = y + _BAR / 2, bar.figure
        colour = _COLOURS.get(bar.name.partition(",")[0], _OTHER_COLOUR)
        low, high = (_LEFT + value * scale for value in (figure.low, figure.high))
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{bar.name}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{max(figure.median * scale, 0.5):.1f}" height="{_BAR}" '
            f'fill="{colour}"/>',
            f'<path d="M{low:.1f},{middle}H{high:.1f}" stroke="#111" stroke-width="1.5"/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4}">{show(figure.median)} {group.unit}</text>',
        ]
    return parts


def _group_of(results: Mapping[str, Result], case: str, quantity: str, unit: str) -> list[Group]:
    """The contenders of a case that have the quantity; nothing when there are none."""
    result = results.get(case)
    if result is None:
        return []
    bars = []
    for name, samples in result.samples.items():
        if name != _LEFT_OUT.get(quantity) and all(quantity in sample for sample in samples):
            bars.append(Bar(name=name, figure=result.figure(name, quantity)))
    return [Group(title=result.title, unit=unit, bars=bars)] if bars else []


# Off the scale of everybody else's CPU; the tables have it.
_LEFT_OUT = {"cpu": "create_proxy", "p99": "create_proxy"}
_CPU = ("sessionless-json", "sessionless-sse", "modern", "client-session", "progress", "big")
_LATENCY = ("sessionless-1", "sessionless-json", "sessionless-128")
_PLOTS: Mapping[str, tuple[str, str, str, Sequence[str]]] = {
    "bench-cpu.svg": ("CPU per call (create_proxy is off the scale)", "cpu", "µs", _CPU),
    "bench-latency.svg": ("99 of 100 answers took no longer", "p99", "ms", _LATENCY),
    "bench-fastmcp.svg": ("Calls per second", "rate", "", ("fastmcp", "fastmcp-list")),
    "bench-flow.svg": ("Time of a whole client's life", "flow", "ms", ("flow-fastmcp", "flow-npm")),
}


def draw_all(results: Mapping[str, Result]) -> Mapping[str, tuple[str, str]]:
    """Title and SVG of every plot that there are results for, by file name."""
    drawn = {}
    for file, (title, quantity, unit, cases) in _PLOTS.items():
        groups = [group for case in cases for group in _group_of(results, case, quantity, unit)]
        if groups:
            drawn[file] = (title, draw(title, groups))
    return drawn
