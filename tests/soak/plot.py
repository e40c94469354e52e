"""Draws lines over time as an SVG, with nothing but text. The benchmark's bars come in the same frame."""

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 860, 150, 70, 34, 46


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One diagram: a title and some lines, each with a name, a colour and its values."""

    title: str
    lines: Sequence[tuple[str, str, Sequence[float]]]


def draw(title: str, seconds: Sequence[float], warm_up_seconds: float, panels: Sequence[Panel]) -> str:
    """The diagrams one below the other; what is before the end of the warm-up is shaded."""
    parts = []
    for number, panel in enumerate(panels):
        parts += _panel(panel, seconds, warm_up_seconds, _TOP + number * (_HEIGHT + _GAP) + 16)
    return frame(title, _WIDTH + _LEFT + 20, _TOP + len(panels) * (_HEIGHT + _GAP), parts)


def frame(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """A whole SVG: a title above the parts, which leave the top 34 pixels to it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="{_LEFT}" y="18" font-size="14">{title}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, seconds: Sequence[float], warm_up_seconds: float, top: float) -> list[str]:
    last = max(seconds[-1], 1.0)
    highest = max((max(values) for _, _, values in panel.lines), default=1.0) * 1.15 or 1.0

    def point(second: float, value: float) -> str:
        return f"{_LEFT + second / last * _WIDTH:.1f},{top + _HEIGHT * (1 - value / highest):.1f}"

    bottom = top + _HEIGHT
    parts = [
        f'<rect x="{_LEFT}" y="{top}" width="{warm_up_seconds / last * _WIDTH:.1f}" height="{_HEIGHT}" '
        'fill="#eeeeee"/>',
        f'<path d="M{_LEFT},{top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#444"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        value, y = highest * share, bottom - _HEIGHT * share
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        x = _LEFT + _WIDTH * share
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{last * share:.0f} s</text>')
    legend = f'<text x="{_LEFT}" y="{top - 6}"><tspan font-weight="bold">{panel.title}</tspan>'
    for name, colour, values in panel.lines:
        legend += f'<tspan dx="14" fill="{colour}">{name}</tspan>'
        points = " ".join(point(second, value) for second, value in zip(seconds, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return [*parts, f"{legend}</text>"]
