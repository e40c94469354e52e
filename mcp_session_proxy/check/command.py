"""A server that is a command looked at: how it starts, what it is, and whether it leaves.

Two children are started, one after the other and then at the same time, as the proxy would for two callers.
Nothing is called but lists.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import __version__, events
from ..errors import ProxyError
from ..events import Event
from ..protocol.lifting import read_server_facts
from ..settings.config import Settings, load
from ..settings.sources import ConfigError
from ..settings.stdio import check_command
from ..upstream.stdio.children import Program
from ..upstream.stdio.leftovers import Ledger
from ..upstream.stdio.transport import Stdio, StdioRules
from ..upstream.transport import Caller, ConnectionLost, Refused
from .looking import Looker
from .report import SCHEMA, ExitStatus
from .text import clean, name_and_version

# From here on, a child in advance spares callers a wait that they notice.
_SLOW_SECONDS: Final = 1.0
_LEAVING: Final = {
    "left": "when its standard input is closed",
    "terminated": "only on SIGTERM, not when its standard input is closed",
    "killed": "only when it is killed: it ignores the end of its input and SIGTERM",
    "exited": "by itself, while it was used",
}


class Trait(NamedTuple):
    """One thing that was found out, for people and, by its key, for programs."""

    key: str
    label: str
    value: Any
    text: str


class CommandCheck:
    """One check. Everything it has started has ended when ``run`` gives the facts."""

    def __init__(self, settings: Settings, caller: Caller, timeout_seconds: float) -> None:
        assert settings.command is not None
        self._events: list[Event] = []
        self._caller = caller
        self._timeout_seconds = timeout_seconds
        program = Program(
            words=settings.command.words,
            environment=settings.environment(),
            cwd=settings.stdio_cwd,
            stderr=settings.stdio_stderr,
        )
        rules = StdioRules(
            first_start_seconds=settings.stdio_start_timeout,
            start_seconds=settings.handshake_timeout,
            spawns=settings.stdio_spawns,
            request_timeout_seconds=timeout_seconds,
            max_children=4,
        )
        self._transport = Stdio(program, rules=rules, ledger=Ledger(None), observe=self._events.append)

    async def run(self) -> list[Trait]:
        """Look at it. Raises ProxyError if it does not even answer a handshake."""
        try:
            return [fact async for fact in self._facts()]
        finally:
            await self._transport.close()

    async def _facts(self) -> AsyncIterator[Trait]:
        look = await Looker(self._transport, self._caller, self._timeout_seconds).look()
        name = name_and_version(read_server_facts(look.result).info)
        yield Trait("name", "calls itself", name, name)
        yield Trait("protocol", "protocol version", look.version, clean(str(look.version)))
        for what, count in look.counts.items():
            yield Trait(what, what, count, str(count))
        seconds = [round(look.first_seconds, 3), round(look.later_seconds, 3)]
        text = f"{look.first_seconds:.1f} s at first, {look.later_seconds:.1f} s later"
        yield Trait("start_seconds", "starts in", seconds, text)
        yield Trait("two_at_once", "two at once", True, "work")
        noise = sum(isinstance(event, events.ChildNoise) for event in self._events)
        yield Trait("noise_lines", "lines that are no messages", noise, str(noise))
        ended = [event.how for event in self._events if isinstance(event, events.ChildEnded)]
        yield Trait("leaves", "leaves", ended[-1], _LEAVING[ended[-1]])


def run(
    flags: Mapping[str, Any], headers: tuple[tuple[str, str], ...], timeout: float, *, as_json: bool
) -> int:
    """Check the command that the flags name, print the outcome, and give the exit status.

    Raises:
        ConfigError: a value is wrong, or the command cannot be started here.
    """
    settings = load(flags)
    if settings.command is None:
        raise ConfigError("--stdio: the server's command is missing, as in check --stdio -- COMMAND ARGS...")
    check_command(settings)
    problem, facts = None, []
    try:
        facts = asyncio.run(_check(settings, Caller(headers=headers), timeout))
    except KeyboardInterrupt:
        return 130
    except ProxyError as error:
        problem = error.message
    except (ConnectionLost, Refused):
        problem = "The MCP server's command ended while it was looked at."
    status = ExitStatus.WORKS if problem is None else ExitStatus.UNCHECKED
    if as_json:
        document = {
            "schema": SCHEMA,
            "program": f"mcp-session-proxy {__version__}",
            "outcome": status.name.lower(),
            "exit_status": int(status),
            "server": settings.upstream_shown,
            "problem": problem,
            "facts": {fact.key: fact.value for fact in facts},
            "advice": _advise(facts),
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print(settings.upstream_shown, facts, problem)
    return int(status)


async def _check(settings: Settings, caller: Caller, timeout_seconds: float) -> list[Trait]:
    return await CommandCheck(settings, caller, timeout_seconds).run()


def _advise(facts: list[Trait]) -> list[str]:
    """What to do about what was found."""
    found = {fact.key: fact.value for fact in facts}
    advice = []
    if found.get("start_seconds", [0, 0])[1] >= _SLOW_SECONDS:
        advice.append("--min-idle 1 keeps one started in advance for each caller seen lately.")
    if found.get("leaves") == "killed":
        advice.append("It is killed each time: what it keeps on disk may suffer.")
    if found.get("noise_lines"):
        advice.append("It writes to standard output what belongs on standard error; the proxy skips that.")
    return advice


def _print(server: str, facts: list[Trait], problem: str | None) -> None:
    console = Console(highlight=False)
    console.print(Text.assemble(("server ", "bold"), server), soft_wrap=True)
    console.print()
    if problem is not None:
        console.print(Text(problem, style="bold red"))
        console.print("Start it by hand: it has to wait in silence for messages on its standard input.")
        return
    table = Table(
        title=Text("How it behaves", style="bold"), title_justify="left", box=None, show_header=False
    )
    for fact in facts:
        table.add_row(Text(fact.label), Text(fact.text))
    console.print(table)
    console.print()
    for line in _advise(facts):
        console.print(Text(line))
    console.print("Every kind of client works with it through the proxy:")
    console.print("  mcp-session-proxy serve --stdio -- COMMAND ARGS...", soft_wrap=True)
