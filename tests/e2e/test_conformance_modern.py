"""The official conformance suite, revision 2026-07-28, through the proxy before a legacy server."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Desk
from .launch import program_environment
from .test_conformance import suite

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(0)]

MakeDesk = Callable[[str], Desk]

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
SUITE_SECONDS = 90.0

# What `conformance list --requirements 2026-07-28` scores for servers.
_SCORED = """
    server-stateless completion-complete tools-list
    tools-call-simple-text tools-call-image tools-call-audio tools-call-embedded-resource
    tools-call-mixed-content tools-call-error tools-call-with-progress server-sse-multiple-streams
    resources-list resources-read-text resources-read-binary resources-templates-read
    sep-2164-resource-not-found
    prompts-list prompts-get-simple prompts-get-with-args prompts-get-embedded-resource
    prompts-get-with-image dns-rebinding-protection caching
    input-required-result-basic-elicitation input-required-result-basic-sampling
    input-required-result-basic-list-roots input-required-result-request-state
    input-required-result-multiple-input-requests input-required-result-multi-round
    input-required-result-missing-input-response input-required-result-non-tool-request
    input-required-result-result-type input-required-result-unsupported-methods
    input-required-result-tampered-state input-required-result-capability-check
    input-required-result-ignore-extra-params input-required-result-validate-input
"""
# The suite runs these without counting them: its own reference server does not pass them yet.
_PENDING = "json-schema-2020-12 http-header-validation http-custom-header-server-validation"
SCENARIOS = _SCORED.split() + _PENDING.split()
# What they need of the server is older than they are, so that a server for 2025-11-25 has it.
_OF_OLD = ("tools-", "resources-", "prompts-", "completion-", "dns-", "server-sse-", "sep-2164-", "caching")
OF_OLD = [name for name in SCENARIOS if name.startswith(_OF_OLD)]
OF_OLD += [
    "input-required-result-unsupported-methods",
    "input-required-result-ignore-extra-params",
    "input-required-result-validate-input",
    "http-header-validation",
]
GOOD = {"SUCCESS", "INFO"}


async def run_suite(revision: str, url: str, folder: Path) -> tuple[int, str]:
    """Run all that a revision requires, one scenario after the other; the exit status and the output."""
    process = await asyncio.create_subprocess_exec(
        *suite(),
        *("server", "--url", url, "--requirements", revision, "-o", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=program_environment(folder / "home"),
    )
    try:
        async with asyncio.timeout(SUITE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        raise AssertionError(f"the suite took over {SUITE_SECONDS} s\n{output.decode()[-3000:]}") from None
    assert process.returncode is not None
    return process.returncode, output.decode()


def checks_of(scenario: str, folder: Path) -> list[dict[str, Any]]:
    """What the suite wrote down about one scenario."""
    # The folders are named for the scenario and the time.
    files = list(folder.glob(f"server-{scenario}-20[0-9][0-9]-*/checks.json"))
    return [check for file in files for check in json.loads(file.read_text())]


def complaints(folder: Path, scenarios: list[str] = SCENARIOS) -> str:
    """Everything that is not good, one line each: scenario, check, what was wrong."""
    found = []
    for scenario in scenarios:
        checks = checks_of(scenario, folder)
        if not checks:
            found.append(f"{scenario}: no checks were made")
        found += [
            f"{scenario}: {check['status']} {check['id']}: {check.get('errorMessage')}"
            for check in checks
            if check["status"] not in GOOD
        ]
    return "\n".join(found)


async def test_modern_and_legacy_at_the_same_time(desk: MakeDesk, tmp_path: Path) -> None:
    """Both revisions pass on one port at once; the modern one with all its checks and without a warning.

    The server asks on the stream of the call.
    """
    url = desk("modern").proxy.url
    (modern, said), (legacy, legacy_said) = await asyncio.gather(
        run_suite(MODERN, url, tmp_path / MODERN), run_suite(LEGACY, url, tmp_path / LEGACY)
    )
    assert complaints(tmp_path / MODERN) == ""
    assert modern == 0, said
    assert legacy == 0, legacy_said


async def test_modern_before_a_server_that_asks_on_its_get_stream(desk: MakeDesk, tmp_path: Path) -> None:
    """All checks pass without a warning when the server's requests do not say which call they belong to."""
    status, said = await run_suite(MODERN, desk("modern-get").proxy.url, tmp_path / MODERN)
    assert complaints(tmp_path / MODERN) == ""
    assert status == 0, said


async def test_modern_before_a_server_without_the_new_fixtures(desk: MakeDesk, tmp_path: Path) -> None:
    """Before a server that has only what the suite asks of 2025-11-25, all passes that needs nothing else."""
    await run_suite(MODERN, desk("conformance").proxy.url, tmp_path / MODERN)
    assert complaints(tmp_path / MODERN, OF_OLD) == ""


async def test_list_is_complete(tmp_path: Path) -> None:
    """The scenarios here are those that the suite scores for servers, and the pending ones."""
    process = await asyncio.create_subprocess_exec(
        *suite(),
        *("list", "--requirements", MODERN),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=program_environment(tmp_path),
    )
    async with asyncio.timeout(SUITE_SECONDS):
        output, _ = await process.communicate()
    scored, _, rest = output.decode().partition("Client scenarios")
    named = [line.removeprefix("  - ") for line in scored.splitlines() if line.startswith("  - ")]
    pending = rest.partition("pending (")[2].splitlines()
    named += [line.strip(" -").removesuffix(" [server]") for line in pending if line.endswith("[server]")]
    assert sorted(named) == sorted(SCENARIOS)
    assert len(_SCORED.split()) == 37
