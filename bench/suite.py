"""Every case, in the order of the report. What is compared with what is said in `targets`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from .contenders import COMMAND, FOLDER, Stage
from .measure import Case, Entry
from .memory import MemoryCase
from .messages import BIG, ECHO, LIST, PROGRESS
from .result import Progress, Result
from .several import FORWARDING, IDLE, TAKING_OVER
from .startup import StartupCase

# These have no way to call a stateful server without a session, so they are given one.
DIRECT = Entry(name="direct", contender="direct", asked="session")
BARE = Entry(name="bare", contender="bare", asked="session")
NGINX = Entry(name="nginx", contender="nginx", asked="session")
PROXY = Entry(name="proxy", contender="proxy")
MODERN = Entry(name="proxy", contender="proxy", asked="modern")
SESSION = Entry(name="proxy", contender="proxy", asked="session")
PEER = Entry(name="create_proxy", contender="create_proxy")
STATELESS = Entry(name="stateless mode", contender="direct", server="fastmcp-stateless")
ALL = (DIRECT, BARE, NGINX, PROXY)


def _in_memory_and_in_a_file(entry: Entry, folder: str) -> tuple[Entry, Entry]:
    """The same proxy twice, one of which keeps its state in a folder."""
    kept = replace(entry, name="proxy, --state-dir", options=("--state-dir", f"{FOLDER}/{folder}"), own=True)
    return replace(entry, own=True), kept


_MANY = (
    *("--sharing", "shared"),
    *("--max-client-sessions-per-principal", "100000"),
)


def _with_sessions(count: int) -> Entry:
    name = f"{count:,} session{'s' if count > 1 else ''}"
    return Entry(name=name, contender="proxy", asked="session", options=_MANY, sessions=count, own=True)


def _with_listeners(count: int) -> Entry:
    return Entry(name=f"{count:,} streams", contender="proxy", listeners=count, own=True)


def _flow(name: str, warm_up_seconds: int = 1) -> Entry:
    return Entry(name=name, contender=name, asked="flow", warm_up_seconds=warm_up_seconds)


def _npm_flow(clients: int, seconds: int) -> Case:
    return Case(
        name="flow-npm",
        title=f"initialize, initialized, tools/list, tools/call, DELETE; npm fastmcp, {clients} at a time",
        server="npm",
        work=ECHO,
        # The proxy opens one session after the other, and each takes that server a second.
        entries=(_flow("direct"), _flow("proxy", warm_up_seconds=clients + 2)),
        connections=clients,
        seconds=seconds,
    )


LOAD: Sequence[Case] = (
    Case(
        name="sessionless-json",
        title="tools/call without a session, stub, JSON, 16 connections",
        server="stub",
        work=ECHO,
        entries=(*ALL, PEER),
    ),
    Case(
        name="sessionless-sse",
        title="tools/call without a session, stub, SSE, 16 connections",
        server="stub-sse",
        work=ECHO,
        entries=(*ALL, PEER),
    ),
    Case(
        name="sessionless-1",
        title="tools/call without a session, stub, JSON, 1 connection",
        server="stub",
        work=ECHO,
        entries=ALL,
        connections=1,
    ),
    Case(
        name="sessionless-128",
        title="tools/call without a session, stub, JSON, 128 connections",
        server="stub",
        work=ECHO,
        entries=ALL,
        connections=128,
    ),
    Case(
        name="modern",
        title="modern tools/call, stub, JSON, 16 connections (the others: a legacy one)",
        server="stub",
        work=ECHO,
        entries=(DIRECT, BARE, MODERN),
    ),
    Case(
        name="client-session",
        title="tools/call on a client session, stub, JSON, 16 connections",
        server="stub",
        work=ECHO,
        entries=(DIRECT, BARE, SESSION),
    ),
    Case(
        name="client-session-sse",
        title="tools/call on a client session, stub, SSE, 16 connections",
        server="stub-sse",
        work=ECHO,
        entries=(DIRECT, BARE, SESSION),
    ),
    Case(
        name="big",
        title="tools/call with a result of 1 MiB, stub, JSON, 16 connections",
        server="stub",
        work=BIG,
        entries=ALL,
        memory=True,
    ),
    Case(
        name="progress",
        title="tools/call with 100 progress events, stub, SSE, 16 connections",
        server="stub-sse",
        work=PROGRESS,
        entries=ALL,
    ),
    Case(
        name="many-sessions",
        title="tools/call on client sessions in turns, stub, JSON, 16 connections",
        server="stub",
        work=ECHO,
        entries=(_with_sessions(1), _with_sessions(1000), _with_sessions(10_000)),
    ),
    Case(
        name="listeners",
        title="tools/call without a session beside idle listen streams, stub, JSON, 16 connections",
        server="stub",
        work=ECHO,
        entries=(_with_listeners(0), _with_listeners(1000)),
    ),
    Case(
        name="stdio",
        title="tools/call without a session, the stub as a command and over HTTP, 16 connections",
        server="stub",
        work=ECHO,
        entries=(PROXY, Entry(name="proxy, command", contender=COMMAND)),
    ),
    Case(
        name="state-dir",
        title="tools/call on a client session, kept in memory and in a file, stub, JSON, 16 connections",
        server="stub",
        work=ECHO,
        entries=_in_memory_and_in_a_file(SESSION, "state"),
    ),
    Case(
        name="flow-state-dir",
        title="the flow, kept in memory and in a file, stub, 16 at a time",
        server="stub",
        work=ECHO,
        entries=_in_memory_and_in_a_file(_flow("proxy"), "flows"),
    ),
    Case(
        name="events-state-dir",
        title="tools/call with 100 progress events, kept in memory and in a file, stub, 16 connections",
        server="stub-sse",
        work=PROGRESS,
        entries=_in_memory_and_in_a_file(SESSION, "events"),
    ),
    Case(
        name="fastmcp",
        title="tools/call without a session, FastMCP, 16 connections",
        server="fastmcp",
        work=ECHO,
        entries=(*ALL, STATELESS, PEER),
        # create_proxy takes most of a second for a call.
        seconds=3,
    ),
    Case(
        name="fastmcp-1",
        title="tools/call without a session, FastMCP, 1 connection",
        server="fastmcp",
        work=ECHO,
        entries=(DIRECT, BARE, PROXY, STATELESS, PEER),
        connections=1,
    ),
    Case(
        name="fastmcp-list",
        title="tools/list, FastMCP, 16 connections",
        server="fastmcp",
        work=LIST,
        entries=(
            DIRECT,
            BARE,
            PROXY,
            Entry(name="proxy, modern", contender="proxy", asked="modern"),
            Entry(name="proxy, client session", contender="proxy", asked="session"),
            STATELESS,
        ),
    ),
    Case(
        name="flow-fastmcp",
        title="initialize, initialized, tools/list, tools/call, DELETE; FastMCP, 16 at a time",
        server="fastmcp",
        work=ECHO,
        entries=(_flow("direct"), _flow("bare"), _flow("proxy")),
    ),
    _npm_flow(clients=4, seconds=4),
    Case(
        name="npm",
        title="tools/call without a session, npm fastmcp, 16 connections",
        server="npm",
        work=ECHO,
        entries=(DIRECT, BARE, PROXY),
    ),
)
MEMORY = MemoryCase(
    name="memory",
    title="What the proxy keeps for each",
    client_sessions=10_000,
    upstream_sessions=1000,
    listeners=1000,
)
STARTUP = StartupCase(name="start-up", title="From the start of the process until it is ready")


class Experiment(Protocol):
    """What all kinds of cases have in common."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Do it."""


FULL: Sequence[Experiment] = (*LOAD, MEMORY, STARTUP, FORWARDING, TAKING_OVER, IDLE)
# What `make bench-quick` measures of each: just what most of the targets are about.
_QUICK: Mapping[str, Sequence[str]] = {
    "sessionless-json": ("bare", "proxy"),
    "sessionless-sse": ("bare", "proxy"),
    "modern": ("bare", "proxy"),
    "client-session": ("bare", "proxy"),
    "big": ("bare", "proxy"),
    "progress": ("bare", "proxy"),
    "stdio": ("proxy", "proxy, command"),
    "fastmcp": ("bare", "proxy", "stateless mode", "create_proxy"),
    "fastmcp-list": ("direct", "proxy", "proxy, modern", "proxy, client session"),
    "flow-fastmcp": ("direct", "proxy"),
}
QUICK: Sequence[Experiment] = (
    # What takes create_proxy 0.6 s at 16 connections needs more than one.
    *(
        case.quick(_QUICK[case.name], 2 if case.name == "fastmcp" else 1)
        for case in LOAD
        if case.name in _QUICK
    ),
    replace(_npm_flow(clients=1, seconds=2), most_rounds=1),
    MemoryCase(
        name=MEMORY.name,
        title=MEMORY.title,
        client_sessions=2000,
        upstream_sessions=200,
        listeners=200,
        most_rounds=1,
    ),
    STARTUP,
)
