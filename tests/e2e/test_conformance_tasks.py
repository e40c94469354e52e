"""The official conformance suite on the extension for tasks, before servers with tasks of 2025-11-25."""

import asyncio
from pathlib import Path

import pytest

from .launch import Fleet, program_environment
from .test_conformance import suite
from .test_conformance_modern import MODERN, complaints

pytestmark = pytest.mark.e2e

SCENARIO_SECONDS = 60.0
AT_ONCE = 3
# All that the suite has, but for the one about notifications, which it skips itself.
SCENARIOS = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
]
# A server that cannot do without tasks has to refuse clients without the extension; a proxy can serve them.
SERVED_NEVERTHELESS = "sep-2663-server-returns-missing-capability-when-required"
# FastMCP asks nothing before a task and one thing at a time in one, and its tools only fail with a result.
NOT_BY_FASTMCP = {
    "sep-2663-mrtr-synchronous-before-task-creation",
    "sep-2663-tasks-get-status-failed",
    "tasks-mrtr-partial-fulfillment",
}
DIFFERENT = {
    "tasks-mcp": {SERVED_NEVERTHELESS},
    "tasks-ts": {SERVED_NEVERTHELESS},
    "tasks-fastmcp": {SERVED_NEVERTHELESS, *NOT_BY_FASTMCP},
}


async def _run(scenario: str, url: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *suite(),
        *(
            "server",
            "--url",
            url,
            "--scenario",
            scenario,
            "--spec-version",
            MODERN,
            "--force",
            "-o",
            str(folder),
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=program_environment(folder / "home"),
    )
    try:
        async with asyncio.timeout(SCENARIO_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.share(3)
@pytest.mark.parametrize("server", list(DIFFERENT))
async def test_tasks(server: str, fleet: Fleet, tmp_path: Path) -> None:
    """All checks succeed, but for those that a server of this kind cannot give a chance."""
    url = fleet.proxy(server).url
    places = asyncio.Semaphore(AT_ONCE)

    async def run(scenario: str) -> None:
        async with places:
            await _run(scenario, url, tmp_path)

    await asyncio.gather(*map(run, SCENARIOS))
    found = complaints(tmp_path, SCENARIOS).splitlines()
    others = [line for line in found if not any(f" {check}: " in line for check in DIFFERENT[server])]
    assert others == []
    assert len(found) == len(DIFFERENT[server])


async def test_list_is_complete(tmp_path: Path) -> None:
    """The scenarios here are those that the suite has."""
    process = await asyncio.create_subprocess_exec(
        *suite(), "list", stdout=asyncio.subprocess.PIPE, env=program_environment(tmp_path)
    )
    async with asyncio.timeout(SCENARIO_SECONDS):
        said, _ = await process.communicate()
    named = {word for word in said.decode().split() if word.startswith("tasks-")}
    assert named == {*SCENARIOS, "tasks-status-notifications"}
