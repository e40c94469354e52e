"""The official conformance suite, revision 2025-11-25, through the proxy."""

import asyncio
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .conftest import Desk
from .launch import node, node_module, program_environment

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(16)]

MakeDesk = Callable[[str], Desk]

REVISION = "2025-11-25"
SCENARIO_SECONDS = 60.0

# What `conformance list --requirements 2025-11-25` scores for servers; test_list_is_complete compares.
_SCORED = """
    server-initialize logging-set-level ping completion-complete tools-list
    tools-call-simple-text tools-call-image tools-call-audio tools-call-embedded-resource
    tools-call-mixed-content tools-call-with-logging tools-call-error tools-call-with-progress
    tools-call-sampling tools-call-elicitation elicitation-sep1034-defaults
    server-sse-multiple-streams elicitation-sep1330-enums
    resources-list resources-read-text resources-read-binary resources-templates-read
    resources-subscribe resources-unsubscribe
    prompts-list prompts-get-simple prompts-get-with-args prompts-get-embedded-resource
    prompts-get-with-image dns-rebinding-protection
"""
SCENARIOS = _SCORED.split()


@cache
def suite() -> list[str]:
    """The command of the suite."""
    return [node(), node_module("@modelcontextprotocol/conformance/dist/index.js")]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_scenario(scenario: str, desk: MakeDesk, tmp_path: Path) -> None:
    """A scored server scenario succeeds through the proxy."""
    process = await asyncio.create_subprocess_exec(
        *suite(),
        *("server", "--url", desk("conformance").proxy.url, "--scenario", scenario),
        *("--spec-version", REVISION, "--force", "-o", str(tmp_path / "results")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=program_environment(tmp_path / "home"),
    )
    try:
        async with asyncio.timeout(SCENARIO_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        raise AssertionError(f"{scenario} took over {SCENARIO_SECONDS} s\n{output.decode()}") from None
    assert process.returncode == 0, output.decode()


def test_list_is_complete(tmp_path: Path) -> None:
    """The scenarios here are those that the suite scores for servers at this revision."""
    said = subprocess.run(
        [*suite(), "list", "--requirements", REVISION],
        env=program_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SCENARIO_SECONDS,
        check=True,
    ).stdout
    part = said.partition("Server scenarios")[2].partition("Client scenarios")[0]
    assert [line.removeprefix("  - ") for line in part.splitlines() if line.startswith("  - ")] == SCENARIOS
