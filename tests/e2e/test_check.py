"""The command `check` against real servers, directly and through a running proxy."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .checking import Command
from .launch import (
    SERVERS,
    Fleet,
    Program,
    accepts_connections,
    get,
    program_environment,
    python,
    unused_port,
)
from .wire import eventually

pytestmark = pytest.mark.e2e

SUFFERING = {
    "session-keeping": "works",
    "openai-style": "fails",
    "session-per-call": "not-tried",
    "leaves-without-delete": "not-tried",
    "never-sends-id": "fails",
    "keeps-old-id": "fails",
    "modern": "fails",
}


@pytest.fixture
def both_eras(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that keeps sessions and speaks the modern revision."""
    port, home = unused_port(), tmp_path / "both-eras"
    program = Program(
        name="both-eras",
        command=[python("mcp-2"), str(SERVERS / "both_eras_server.py"), str(port)],
        log=tmp_path / "both-eras.log",
        environment=program_environment(home),
    )
    program.start(lambda: accepts_connections(port))
    yield f"http://127.0.0.1:{port}/mcp"
    program.terminate()


def counted(origin: str) -> dict[str, Any]:
    """What the counting server saw of sessions and calls."""
    found: dict[str, Any] = json.loads(get(f"{origin}/stats")[1])
    return found


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("mcp-1.30", "python-sdk-1"),
        ("mcp-1.30-json", "python-sdk-1"),
        ("mcp-1.23", "python-sdk-1.25"),
        ("everything", "typescript-example"),
        ("supergateway", "supergateway"),
        ("kubernetes", "go-sdk"),
    ],
)
async def test_servers_with_sessions(check: Command, fleet: Fleet, kind: str, family: str) -> None:
    """Each is recognised, and every client but the well-behaved one suffers from it."""
    outcome = await check(fleet.server(kind).url, "--json")
    assert outcome.status == 1
    assert outcome.verdicts() == SUFFERING
    server = outcome.document["direct"]["server"]
    assert server["family"]["key"] == family
    assert server["family"]["sure"] is True
    assert server["issues_session_ids"] is True
    behaviour = outcome.document["direct"]["behaviour"]
    assert behaviour["second_stream"]["status"] == 409
    assert behaviour["stream_again"]["status"] == 200
    assert "takes that for a lost session" in behaviour["unknown_id"]["text"]
    assert outcome.document["command"] == f"mcp-session-proxy serve {fleet.server(kind).url}"


async def test_a_slow_handshake_is_noticed(check: Command, fleet: Fleet) -> None:
    """FastMCP for TypeScript takes a second for each session."""
    outcome = await check(fleet.server("fastmcp-ts").url, "--json")
    assert outcome.verdicts() == SUFFERING
    assert outcome.document["direct"]["server"]["family"]["key"] == "fastmcp-typescript"
    assert outcome.document["direct"]["server"]["handshake_ms"] > 500
    (advice,) = [piece for piece in outcome.document["advice"] if piece["key"] == "slow-handshake"]
    assert advice["flags"] == ["--sharing fresh", "--min-idle 3"]


async def test_a_server_without_sessions(check: Command, fleet: Fleet) -> None:
    """Only modern clients need help with it."""
    outcome = await check(fleet.server("mcp-1.30-stateless").url, "--json")
    assert outcome.status == 1
    assert [client for client, verdict in outcome.verdicts().items() if verdict != "works"] == ["modern"]


async def test_a_server_that_needs_no_proxy(check: Command, fleet: Fleet) -> None:
    """No sessions, and modern: nobody suffers, and the status says so."""
    outcome = await check(fleet.server("grafana").url, "--json")
    assert outcome.status == 0
    assert [piece["key"] for piece in outcome.document["advice"]] == ["no-proxy"]


async def test_a_server_of_both_eras(check: Command, owned: Fleet, both_eras: str) -> None:
    """Modern clients work with it, older ones only through the proxy."""
    proxy = owned.new_proxy(both_eras)
    outcome = await check(both_eras, "--through", proxy.origin, "--json")
    assert outcome.status == 0
    assert outcome.verdicts() == {**SUFFERING, "modern": "works"}
    assert set(outcome.verdicts("through").values()) == {"works"}
    assert outcome.document["direct"]["server"]["family"]["key"] == "python-sdk-2"
    assert outcome.document["direct"]["server"]["modern_versions"] == ["2026-07-28"]
    assert outcome.document["through"]["server"]["is_this_proxy"] is True


async def test_modern_clients_lose_state_directly_and_not_through_the_proxy(
    check: Command, owned: Fleet, both_eras: str
) -> None:
    """A server of both eras keeps it for older clients only; the proxy gives modern ones sessions, too."""
    proxy = owned.new_proxy(both_eras)
    outcome = await check(both_eras, "--through", proxy.origin, "--call", "increment", "--json")
    assert outcome.status == 0, outcome.out
    assert outcome.document["direct"]["state"]["modern"] == "lost"
    assert outcome.document["direct"]["clients"]["modern"]["verdict"] == "loses-state"
    assert outcome.document["through"]["state"]["modern"] == "kept"
    (advice,) = [piece for piece in outcome.document["advice"] if piece["key"] == "modern-server"]
    assert "--upstream-era auto" in advice["text"]
    assert "unchanged, without a session" not in advice["text"]


async def test_a_proxy_that_passes_modern_requests_through_is_found_out(
    check: Command, owned: Fleet, both_eras: str
) -> None:
    """What would help is advised, and not the mode of sharing, which is right already."""
    proxy = owned.new_proxy(both_eras, "--upstream-era", "modern")
    outcome = await check(both_eras, "--through", proxy.origin, "--call", "increment", "--json")
    assert outcome.status == 1
    assert outcome.verdicts("through")["modern"] == "loses-state"
    flags = [flag for piece in outcome.document["advice"] for flag in piece["flags"]]
    assert "--upstream-era legacy" in flags
    assert "--sharing handover" not in flags


@pytest.mark.parametrize("kind", ["mcp-1.30", "mcp-1.23", "everything", "kubernetes"])
async def test_through_the_proxy_everybody_works(
    check: Command, owned: Fleet, fleet: Fleet, kind: str
) -> None:
    """The same server, side by side."""
    server = fleet.server(kind)
    proxy = owned.new_proxy(server.url)
    outcome = await check(server.url, "--through", proxy.origin, "--json")
    assert outcome.status == 0, outcome.out
    assert outcome.verdicts("direct") == SUFFERING
    assert set(outcome.verdicts("through").values()) == {"works"}


async def test_state_survives_through_the_proxy(check: Command, owned: Fleet) -> None:
    """Counted with a tool: each call begins anew directly, and the count goes on through the proxy."""
    server = owned.new_server("mcp-1.30")
    proxy = owned.new_proxy(server.url)
    outcome = await check(server.url, "--through", proxy.url, "--call", "increment", "--json")
    assert outcome.status == 0, outcome.out
    direct, through = (
        outcome.document[side]["clients"]["session-per-call"] for side in ("direct", "through")
    )
    assert direct == {"verdict": "loses-state", "text": "increment: 1, 1; in one session 1, 2"}
    assert through["verdict"] == "works"
    assert outcome.document["direct"]["server"]["keeps_state"] is True


async def test_a_proxy_that_was_told_to_lose_state_is_found_out(check: Command, owned: Fleet) -> None:
    """With --sharing fresh and ids turned away, the proxied side is judged as it is."""
    server = owned.new_server("mcp-1.30")
    proxy = owned.new_proxy(server.url, "--sharing", "fresh", "--unknown-session", "reject")
    outcome = await check(server.url, "--through", proxy.url, "--call", "increment", "--json")
    assert outcome.status == 1
    assert outcome.verdicts("through")["session-per-call"] == "loses-state"
    assert outcome.verdicts("through")["keeps-old-id"] == "fails"
    flags = [flag for piece in outcome.document["advice"] for flag in piece["flags"]]
    assert "--unknown-session adopt" in flags
    assert "--sharing handover" in flags


async def test_nothing_is_left_behind_and_nothing_called(check: Command, owned: Fleet) -> None:
    """Every session is closed again, and no tool ran."""
    server = owned.new_server("mcp-1.30")
    await check(server.url)
    seen = counted(server.origin)
    assert seen["sessions"]["opened"] > 0
    assert seen["sessions"]["live"] == 0
    assert seen["executions"] == {}
    assert seen["calls"] == {}


async def test_ctrl_c(check: Command, owned: Fleet) -> None:
    """Ends it at once, with the usual status, without a word, and without a session left behind."""
    server = owned.new_server("mcp-1.30")
    await check(server.url)
    of_one_check = counted(server.origin)["sessions"]["closed"]
    process = await check.begin(server.url, "--idle", "1h")

    async def only_the_idle_session_is_left() -> bool:
        sessions = counted(server.origin)["sessions"]
        return bool(sessions["closed"] == 2 * of_one_check and sessions["live"] == 1)

    await eventually(only_the_idle_session_is_left, 120)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 130
    assert (out, err) == (b"", b"")
    assert counted(server.origin)["sessions"]["live"] == 0


async def test_a_credential_from_standard_input(check: Command, fleet: Fleet) -> None:
    """A server that wants one is checked with it, and it is nowhere in the report."""
    url = fleet.server("mcp-1.30-auth").url
    outcome = await check(url, "--json", "--header", "@-", typed=b"Authorization: Bearer alice-hunter2\n")
    assert outcome.status == 1
    assert outcome.verdicts() == SUFFERING
    assert "hunter2" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "wants a credential: 401 invalid_token"),
        (("--header", "Authorization: Bearer mallory"), "does not take this credential"),
    ],
)
async def test_a_credential_that_is_not_there(
    check: Command, fleet: Fleet, arguments: tuple[str, ...], words: str
) -> None:
    """It could not be checked, and what is missing is said."""
    outcome = await check(fleet.server("mcp-1.30-auth").url, *arguments)
    assert outcome.status == 3
    assert words in outcome.out


async def test_nobody_there(check: Command) -> None:
    """A dead port."""
    outcome = await check(f"http://127.0.0.1:{unused_port()}/mcp")
    assert outcome.status == 3
    assert "connection refused" in outcome.out


async def test_the_wrong_path(check: Command, fleet: Fleet) -> None:
    """The right one is found."""
    server = fleet.server("mcp-1.30")
    outcome = await check(f"{server.origin}/")
    assert outcome.status == 3
    assert f"There is one at {server.url}" in outcome.out


async def test_a_proxy_without_its_server(check: Command, owned: Fleet) -> None:
    """Both sides are named, and the proxied one decides."""
    server = owned.new_server("mcp-1.30")
    proxy = owned.new_proxy(server.url, "--acquire-timeout", "1s")
    server.stop()
    outcome = await check(server.url, "--through", proxy.url, "--json")
    assert outcome.status == 3
    assert outcome.document["direct"]["problem"]["key"] == "unreachable"
    assert outcome.document["through"]["problem"]["key"] == "behind-proxy"


async def test_wrong_usage(check: Command) -> None:
    """Status 2 and a line that says what is wrong."""
    outcome = await check("http://127.0.0.1:1/mcp", "--arguments", "{}")
    assert outcome.status == 2
    assert "--arguments: needs --call" in outcome.err


async def test_the_table_is_for_people(check: Command, fleet: Fleet) -> None:
    """Plain text in a pipe, with the verdicts and the command."""
    outcome = await check(fleet.server("mcp-1.30").url)
    assert "\x1b" not in outcome.out
    assert "How clients fare" in outcome.out
    assert "tools/list after DELETE: 404 Session not found" in " ".join(outcome.out.split())
    assert f"mcp-session-proxy serve {fleet.server('mcp-1.30').url}" in outcome.out
