"""The report for people: tables that fit a terminal of 80 columns, in colour where there is one.

All text of servers is put in as text, never as markup.
"""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .advice import NEED_PROXY, Advice
from .clients import ClientVerdict, Fate
from .facts import Fact
from .observations import Client
from .problems import Diagnosis
from .report import Report, Side

_STYLES: Final = {
    ClientVerdict.FAILS: "bold red",
    ClientVerdict.LOSES_STATE: "yellow",
    ClientVerdict.SLOW: "yellow",
    ClientVerdict.NOT_TRIED: "cyan",
    ClientVerdict.WORKS: "green",
}
_MEANINGS: Final = {
    Client.KEEPS: "keeps its session",
    Client.NO_COOKIES: "keeps its session, but no cookies",
    Client.OPENAI: "OpenAI style: uses a session it has deleted",
    Client.PER_CALL: "a session for every call",
    Client.LEAVES: "the same, and never ends it",
    Client.FORGETFUL: "never sends the id back",
    Client.STALE: "keeps an id from before a restart",
    Client.MODERN: "modern (2026-07-28): no sessions",
}
_NOT_MEASURED: Final = "known of this family, not measured"


def print_report(console: Console, report: Report) -> None:
    """Print why a side cannot be checked, how the server behaves, how clients fare, and the advice."""
    sides = [report.direct] if report.through is None else [report.direct, report.through]
    for name, side in zip(("server", "proxy"), sides, strict=False):
        console.print(Text(f"{name:<7}", style="bold"), Text(side.url), soft_wrap=True, sep="")
    console.print()
    for side in sides:
        if side.problem is not None:
            print_problem(console, side.problem, side.url if len(sides) > 1 else None)
    if any(side.facts for side in sides):
        console.print(_facts_table(sides))
        if len(sides) == 1:
            console.print()  # with two, the table's own frame ends with an empty line
        console.print(_clients_table(sides))
    _print_advice(console, report)


def print_problem(console: Console, problem: Diagnosis, url: str | None = None) -> None:
    """Say why something cannot be checked, and what to do."""
    where = Text(f"{url}: ") if url is not None else Text()
    console.print(Text.assemble(where, (problem.text, "bold red")))
    console.print(Text(problem.hint))
    console.print()


def _facts_table(sides: Sequence[Side]) -> Table:
    table = _table("How it behaves", sides)
    keys = dict.fromkeys((fact.key, fact.label) for side in sides for fact in side.facts)
    for key, label in keys:
        cells = [next((_fact(fact) for fact in side.facts if fact.key == key), Text("")) for side in sides]
        table.add_row(Text(label), *cells)
    return table


def _clients_table(sides: Sequence[Side]) -> Table:
    table = _table("How clients fare", sides)
    played = {fate.client for side in sides for fate in side.fates}
    for client in (client for client in Client if client in played):
        cells = [
            next((_fate(fate) for fate in side.fates if fate.client is client), Text("")) for side in sides
        ]
        table.add_row(Text(_MEANINGS[client]), *cells)
    return table


def _table(title: str, sides: Sequence[Side]) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD if len(sides) > 1 else None,
        show_header=len(sides) > 1,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("", max_width=24 if len(sides) == 1 else 20)
    for name in ("directly", "through the proxy")[: len(sides)]:
        table.add_column(name, ratio=1, overflow="fold")
    return table


def _fact(fact: Fact) -> Text:
    text = Text(fact.text)
    if not fact.measured:
        text.append(f" ({_NOT_MEASURED})", style="dim")
    return text


def _fate(fate: Fate) -> Text:
    verdict = fate.verdict.replace("-", " ")
    text = Text(verdict, style=_STYLES[fate.verdict])
    # "not tried (use --call)" begins with its verdict.
    rest = fate.text.removeprefix(verdict).lstrip()
    if rest:
        text.append(("  " if rest == fate.text else " ") + rest, style="not bold default")
    return text


def _print_advice(console: Console, report: Report) -> None:
    remark = [] if report.remark is None else [Advice(key="remark", text=report.remark)]
    if not report.advice and not remark:
        return
    console.print()
    console.print(Text("What suits it", style="bold"))
    for piece in (*report.advice, *remark):
        paragraph = Table.grid(padding=(0, 1, 0, 0))
        paragraph.add_row(Text("-"), Text(piece.text))
        console.print(paragraph)
        if piece.key in NEED_PROXY and report.command is not None:
            # Unwrapped, so that it can be copied.
            console.print(Text(f"    {report.command}", style="cyan"), soft_wrap=True)
        if piece.flags:
            console.print(Text(f"    {' '.join(piece.flags)}", style="cyan"), soft_wrap=True)
