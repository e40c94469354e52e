"""What the demonstration prints: tables for people, and commands for them to try."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .churn import SessionCounts
from .client import DemoStep, Round


def compare_rounds(console: Console, direct: Sequence[Round], proxied: Sequence[Round]) -> None:
    """Print the first round step by step, then how every round ended."""
    steps = Table(title="One conversation, step by step", title_justify="left")
    steps.add_column("the client sends", no_wrap=True)
    steps.add_column("directly to the server")
    steps.add_column("through the proxy")
    for plain, helped in zip(direct[0].steps, proxied[0].steps, strict=True):
        steps.add_row(plain.name, _answer(plain), _answer(helped))
    console.print(steps)

    counts = Table(title="The tool call at the end of each conversation", title_justify="left")
    counts.add_column("")
    for number in range(1, len(direct) + 1):
        counts.add_column(f"{number}.", justify="right")
    counts.add_row("directly", *map(_outcome, direct))
    counts.add_row("through the proxy", *map(_outcome, proxied))
    console.print(counts)
    console.print(_conclude(direct, proxied) + "\n")


def show_churn(console: Console, churn: SessionCounts) -> None:
    """Print what clients did with sessions, and what of that reached the server."""
    table = Table(title="Session churn, from the proxy's /metrics", title_justify="left")
    table.add_column("")
    table.add_column("begun", justify="right")
    table.add_column("ended", justify="right")
    table.add_row("by clients, at the proxy", str(churn.begun), str(churn.ended))
    table.add_row("by the proxy, at the server", str(churn.opened), str(churn.closed))
    console.print(table)


def show_commands(console: Console, endpoint_url: str, admin_url: str | None) -> None:
    """Print what to try by hand."""
    commands = [
        ("Call a tool without any session, as often as you like: the count goes on.", _call(endpoint_url))
    ]
    if admin_url is not None:
        commands += [
            ("See the sessions.", f"curl -s {admin_url}/sessions"),
            ("See the metrics.", f"curl -s {admin_url}/metrics"),
        ]
    console.print("\n[bold]Try it[/bold] (Ctrl-C ends it)")
    for text, command in commands:
        console.print(f"\n  {text}")
        # Unwrapped and unmarked, so that it can be copied.
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\n  Or point an MCP client at {endpoint_url}\n", soft_wrap=True)


def _conclude(direct: Sequence[Round], proxied: Sequence[Round]) -> str:
    fails = sum(round_.count is None for round_ in direct)
    works = sum(round_.count is not None for round_ in proxied)
    text = f"Directly, {fails} of {len(direct)} fail. Through the proxy, {works} of {len(proxied)} work"
    if works < len(proxied):
        return text + ", which is a bug. Please report it."
    return text + ", and they share one count: the session outlives its clients."


def _answer(step: DemoStep) -> str:
    colour = "red" if step.status in (400, 404) or step.status >= 500 else "green"
    return f"[{colour}]{step.status}[/{colour}] {escape(step.text)}".rstrip()


def _outcome(round_: Round) -> str:
    return "[red]fails[/red]" if round_.count is None else f"[green]{round_.count}[/green]"


def _call(endpoint_url: str) -> str:
    return (
        f"curl -s {endpoint_url} -H 'Content-Type: application/json' -H 'Accept: application/json' "
        """-d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"increment","arguments":{}}}'"""
    )
