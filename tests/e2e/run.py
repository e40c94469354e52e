"""Runs the client programs under `clients/`, each in its own environment.

Every script is run as `SCRIPT URL TOKEN PLAN`. The plan is JSON: `calls`, a list of [tool, arguments], run in
each of `connections` connections one after the other; with `full`, the client also answers elicitation,
sampling and roots requests, and subscribes to a resource; with `answers`, it only answers. It prints a JSON
list with what each connection saw: `tools`, `answers` (one text for each call) and, where the client can
tell, `progress`, `logs` and `updated`.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .launch import TESTS, node, node_module, program_environment, python

CLIENTS = TESTS / "e2e" / "clients"
CLIENT_SECONDS = 60.0

COMMANDS: dict[str, Callable[[], list[str]]] = {
    "mcp-1.30": lambda: [python("mcp-1.30"), str(CLIENTS / "mcp_v1.py")],
    "mcp-2-legacy": lambda: [python("mcp-2"), str(CLIENTS / "mcp_v2.py")],
    "mcp-2-auto": lambda: [python("mcp-2"), str(CLIENTS / "mcp_v2.py")],
    "fastmcp-legacy": lambda: [python("mcp-2"), str(CLIENTS / "fastmcp_client.py")],
    "fastmcp-auto": lambda: [python("mcp-2"), str(CLIENTS / "fastmcp_client.py")],
    "openai-agents": lambda: [python("mcp-2"), str(CLIENTS / "openai_agents.py")],
    "langchain": lambda: [python("langchain"), str(CLIENTS / "langchain_adapters.py")],
    "sdk-ts-1": lambda: [node(), str(CLIENTS / "sdk_v1.mjs")],
    "mcp-remote": lambda: [python("mcp-1.30"), str(CLIENTS / "mcp_remote_stdio.py")],
}
MODERN_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "mcp-2": COMMANDS["mcp-2-auto"],
    "sdk-ts-2": lambda: [node(), str(CLIENTS / "modern_sdk_v2.mjs")],
    "ai-sdk": lambda: [node(), str(CLIENTS / "modern_ai_sdk.mjs")],
    "pydantic-ai": lambda: [python("mcp-2"), str(CLIENTS / "modern_pydantic_ai.py")],
    "fastmcp": COMMANDS["fastmcp-auto"],
    "openai-agents": COMMANDS["openai-agents"],
    "mcp-2-auto": COMMANDS["mcp-2-auto"],
}
# Older clients, which are tried with tasks only: nothing else is special about them.
OLDER_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "fastmcp-3": lambda: [python("fastmcp-3"), str(CLIENTS / "fastmcp_client.py")],
    "mcp-1.23": lambda: [python("mcp-1.23"), str(CLIENTS / "mcp_v1.py")],
}
# These know the extension for tasks.
TASK_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "ext-tasks": lambda: [node(), str(CLIENTS / "modern_ext_tasks.mjs")],
    "fastmcp-tasks": COMMANDS["fastmcp-auto"],
}
# These can only speak the modern revision; the others could fall back, and must not.
PINNED = ["mcp-2", "sdk-ts-2"]
MODES = {
    "mcp-2": "2026-07-28",
    "mcp-2-auto": "auto",
    "pydantic-ai": "auto",
    "fastmcp": "auto",
    "fastmcp-auto": "auto",
    "fastmcp-tasks": "auto",
}
FULL = ["mcp-1.30", "mcp-2-legacy", "mcp-2-auto", "fastmcp-legacy", "fastmcp-auto", "sdk-ts-1"]
# A call for each thing that servers can do to their clients.
EVERYTHING: list[tuple[str, object]] = [
    ("progress", {"n": 3}),
    ("log", {"message": "noted"}),
    ("elicit_name", {}),
    ("sample", {"prompt": "hi"}),
    ("list_client_roots", {}),
    ("touch", {}),
]


class Run:
    """Runs client programs with a home of their own."""

    def __init__(self, home: Path) -> None:
        self._environment = program_environment(home, {"E2E_NODE_MODULES": node_module("")})

    async def output(self, command: list[str]) -> str:
        """What a program prints to stdout; fails with its stderr unless it exits with 0 in time."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self._environment["HOME"],
        )
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"the client took over {CLIENT_SECONDS} s\n{err.decode()[-3000:]}") from None
        assert process.returncode == 0, (
            f"{process.returncode}\n{out.decode()[-1000:]}\n{err.decode()[-3000:]}"
        )
        return out.decode()

    async def client(
        self, name: str, url: str, token: str | None, calls: Sequence[tuple[str, object]], **more: object
    ) -> list[Any]:
        """Run a client's script; what each of its connections saw."""
        plan: dict[str, object] = {
            "calls": calls,
            "mode": MODES.get(name, "legacy"),
            "tasks": name in TASK_COMMANDS,
            **more,
        }
        if name == "mcp-remote":
            plan["command"] = [node(), node_module("mcp-remote/dist/proxy.js")]
        commands = COMMANDS | MODERN_COMMANDS | OLDER_COMMANDS | TASK_COMMANDS
        command = [*commands[name](), url, str(token), json.dumps(plan)]
        seen: list[Any] = json.loads((await self.output(command)).strip().splitlines()[-1])
        return seen


def check_everything(seen: dict[str, Any]) -> None:
    """What a client has seen that did `EVERYTHING` with all that it can answer: nothing was lost."""
    answers = seen["answers"]
    assert answers[:4] == ["3 steps", "logged", "accept:Ada", "hello"]
    assert json.loads(answers[4]) == ["file:///srv/data"]
    assert seen["progress"] == [1, 2, 3]
    assert "noted" in json.dumps(seen["logs"])
    if "updated" in seen:
        assert set(seen["updated"]) == {"counter://shared"}
