"""Tables of the results, in Markdown. Pure."""

import contextlib
from collections.abc import Mapping, Sequence

from .figures import Figure, show
from .result import UNITS, Result
from .targets import Verdict

BEGIN = "<!-- results -->"
END = "<!-- end of results -->"
_NONE = "-"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *(_row(row) for row in rows)]


def target_table(verdicts: Sequence[Verdict]) -> str:
    """Every target, its figure, and whether it was met."""
    rows = [
        (one.target.what, str(one.figure) if one.figure else _NONE, one.target.limit, one.word)
        for one in verdicts
    ]
    return "\n".join(_table(("figure", "median (spread)", "target", "met"), rows))


def case_table(result: Result, reference: str = "bare") -> str:
    """What each contender did, with the ratio to the reference where both have the quantity."""
    quantities = [name for name in UNITS if any(name in s[0] for s in result.samples.values())]
    rows = [
        [entry, *(_cell(result, entry, quantity, reference) for quantity in quantities)]
        for entry in result.samples
    ]
    head = ["", *(_title(quantity) for quantity in quantities)]
    lines = _table(head, rows) if rows else []
    lines += [f"\n{entry}: **failed**: `{why[:300]}`" for entry, why in result.failures.items()]
    return "\n".join(lines)


def _title(quantity: str) -> str:
    name, unit = UNITS[quantity]
    return f"{name}, {unit}" if unit else name


def _cell(result: Result, entry: str, quantity: str, reference: str) -> str:
    try:
        figure: Figure = result.figure(entry, quantity)
    except KeyError:
        return _NONE
    text = str(figure)
    if quantity in {"cpu", "rate"} and entry != reference and reference in result.samples:
        with contextlib.suppress(KeyError):
            text += f", {show(result.ratio(entry, reference, quantity).median)} x"
    return text


def full_report(
    results: Mapping[str, Result],
    verdicts: Sequence[Verdict],
    *,
    machine: str,
    versions: Mapping[str, str],
    when: str,
    rounds: int,
    plots: Sequence[tuple[str, str]],
) -> str:
    """The part of `docs/benchmarks.md` that a run writes."""
    parts = [
        f"Measured {when} on {machine}, {rounds} rounds. "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ".",
        "### Targets",
        target_table(verdicts),
        *(f"![{title}]({file})" for file, title in plots),
        "### Every case",
        "Median (lowest to highest round); x is the ratio to *bare*, the median of the rounds' ratios.",
    ]
    for result in results.values():
        parts += [f"#### {result.title}", case_table(result)]
    return "\n\n".join(parts)


def insert(document: str, report: str) -> str:
    """The document with its results replaced. Raises ValueError when it has no place for them."""
    before, found, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{report}\n\n{END}{after}"
