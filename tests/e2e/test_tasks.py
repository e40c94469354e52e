"""Servers with tasks of 2025-11-25: every client can use tools that need one; some have handles of tasks."""

from collections.abc import Callable
from typing import Any

import pytest
from mcp import types

from .conftest import Desk, seen_by
from .launch import KINDS, node, node_module
from .modern_wire import ModernCaller
from .run import COMMANDS, MODERN_COMMANDS, OLDER_COMMANDS, PINNED, TASK_COMMANDS, Run
from .sdk import call, connected

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(0)]

MakeDesk = Callable[..., Desk]
ENDED = 'tasks_ended_total{status="completed"}'
SERVERS = [name for name in KINDS if name.startswith("tasks-")]
# Under one name each: some of them stand in both lists.
CLIENTS = [
    *COMMANDS,
    *(name for name, make in MODERN_COMMANDS.items() if make not in COMMANDS.values()),
    *OLDER_COMMANDS,
]


async def runs_of(at: Desk, word: str) -> list[int]:
    """How often the server ran each tool that was called with this word, by its own count."""
    return [count for run, count in (await at.all_stats())["runs"].items() if word in run]


@pytest.mark.share(7)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_tool_that_needs_a_task(client: str, server: str, desk: MakeDesk, run: Run) -> None:
    """It is like any other: listed, called, answered with its result, and run once for each call."""
    at = desk(server)
    word = f"tea of {at.caller.token}"
    (seen,) = await seen_by(run, client, at, [("report", {"topic": word}), ("greet", {"name": "you"})])
    assert "report" in seen["tools"]
    assert seen["answers"] == [f"Report on {word}", "Hello, you!"]
    assert await runs_of(at, word) == [1]


@pytest.mark.share(3)
@pytest.mark.parametrize("server", SERVERS)
async def test_clients_by_hand(server: str, desk: MakeDesk) -> None:
    """It is so without a session, too, and for a modern client that declares nothing."""
    at = desk(server)
    word = f"tea of {at.caller.token}"
    assert (await at.caller.call("report", {"topic": word})).text == f"Report on {word}"
    modern = ModernCaller(at.http, at.proxy.url, token=at.caller.token, capabilities={})
    assert (await modern.call_modern("report", {"topic": f"{word} 2"})).text == f"Report on {word} 2"
    assert await runs_of(at, word) == [1, 1]


@pytest.mark.share(3)
@pytest.mark.parametrize("server", SERVERS)
async def test_inspector(server: str, desk: MakeDesk, run: Run) -> None:
    """The Inspector's command line calls it as any other."""
    at = desk(server)
    launcher = node_module("@modelcontextprotocol/inspector/clients/launcher/build/index.js")
    command = [
        *(node(), launcher, "--cli", at.proxy.url, "--transport", "http"),
        *("--header", f"Authorization: Bearer {at.caller.token}"),
        *("--method", "tools/call", "--tool-name", "report", "--tool-arg", f"topic={at.caller.token}"),
    ]
    assert f"Report on {at.caller.token}" in await run.output(command)
    assert await runs_of(at, str(at.caller.token)) == [1]


async def _elicited(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


@pytest.mark.share(2)
@pytest.mark.parametrize("server", SERVERS)
async def test_what_a_task_asks_a_legacy_client(server: str, desk: MakeDesk) -> None:
    """The question comes as in any call, as often as there is one."""
    at = desk(server)
    async with connected(at.proxy.url, at.caller.token, elicitation_callback=_elicited) as client:
        for _ in range(4):
            assert await call(client, "register") == "Registered Ada"


@pytest.mark.share(2)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", PINNED)
async def test_what_a_task_asks_a_modern_client(client: str, server: str, desk: MakeDesk, run: Run) -> None:
    """The question comes as in any call, though the client knows nothing of tasks."""
    at = desk(server)
    (seen,) = await seen_by(run, client, at, [("register", {})] * 2, answers=True)
    assert seen["answers"] == ["Registered Ada"] * 2


@pytest.mark.share(2)
@pytest.mark.parametrize("client", list(TASK_COMMANDS))
@pytest.mark.parametrize("server", SERVERS)
async def test_clients_that_know_the_extension(client: str, server: str, desk: MakeDesk, run: Run) -> None:
    """They are given handles, follow them, answer what is asked, and have the results."""
    at = desk(server)
    word = f"tea of {at.caller.token}"
    calls: list[tuple[str, Any]] = [
        ("report", {"topic": word}),
        ("register", {}),
        ("slow_compute", {"seconds": 0.3, "label": word}),
        ("greet", {"name": "you"}),
    ]
    ended = at.proxy.metrics()[ENDED]
    (seen,) = await seen_by(run, client, at, calls, answers=True)
    assert seen["answers"] == [f"Report on {word}", "Registered Ada", f"{word}: done", "Hello, you!"]
    assert await runs_of(at, word) == [1, 1]
    assert at.proxy.metrics()[ENDED] == ended + 3
    if client == "ext-tasks":
        assert seen["kinds"] == ["task", "task", "task", "immediate"]
        assert all(states[-1][0] == "completed" for states in seen["states"][:3])
