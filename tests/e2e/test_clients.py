"""Real clients, each in its own environment, through the proxy."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Desk, seen_by
from .launch import node, node_module
from .run import COMMANDS, EVERYTHING, FULL, Run, check_everything

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(30)]

MakeDesk = Callable[..., Desk]

# These close their GET stream without a DELETE, and go on with the same connections: as long as the grace
# lasts, it might have been cut.
NO_GOODBYE = {"sdk-ts-1", "mcp-remote"}
AT_ONCE = ("--reconnect-grace", "0s")


@pytest.mark.share(2)
@pytest.mark.parametrize("server", ["mcp-1.30", "mcp-1.23"])
@pytest.mark.parametrize("client", list(COMMANDS))
async def test_state_is_kept_between_connections(
    client: str, server: str, desk: MakeDesk, option_desk: MakeDesk, run: Run
) -> None:
    """Two connections one after the other count 1, 2, 3, 4: the second gets the first one's session."""
    at = option_desk(server, *AT_ONCE) if client in NO_GOODBYE else desk(server)
    seen = await seen_by(run, client, at, [("increment", {}), ("increment", {})], connections=2)
    assert [connection["answers"] for connection in seen] == [["1", "2"], ["3", "4"]]
    assert all("increment" in connection["tools"] for connection in seen)
    counted = await at.stats()
    # mcp-remote tries the connection out under another client name first.
    profiles = 2 if client == "mcp-remote" else 1
    assert counted["sessions"] == {"opened": profiles, "closed": 0, "live": profiles}


async def test_langchain_keeps_state_between_calls(desk: MakeDesk, run: Run) -> None:
    """LangChain opens a session for each call, and `increment` still counts 1, 2, 3."""
    at = desk("mcp-1.30")
    (seen,) = await seen_by(run, "langchain", at, [("increment", {})] * 3)
    assert seen["answers"] == ["1", "2", "3"]
    metrics_at_server = await at.stats()
    assert metrics_at_server["sessions"]["opened"] == 1


@pytest.mark.share(2)
@pytest.mark.parametrize("client", FULL)
async def test_server_to_client_features(client: str, desk: MakeDesk, run: Run) -> None:
    """Progress, logs, elicitation, sampling, roots and resource updates reach the client."""
    at = desk("mcp-1.30")
    (seen,) = await seen_by(run, client, at, EVERYTHING, full=True)
    check_everything(seen)


@pytest.mark.share(2)
@pytest.mark.parametrize("server", ["everything", "fastmcp-ts", "supergateway", "kubernetes", "grafana"])
@pytest.mark.parametrize("client", ["mcp-1.30", "mcp-2-auto", "langchain", "sdk-ts-1"])
async def test_other_servers(client: str, server: str, desk: MakeDesk, run: Run) -> None:
    """The same clients in front of servers of other makers: two connections, two calls each."""
    at = desk(server)
    kind = at.server.kind
    call = (kind.tool, dict(kind.arguments))
    seen = await seen_by(run, client, at, [call, call], connections=2)
    for connection in seen:
        assert kind.tool in connection["tools"]
        assert all(kind.answer in answer for answer in connection["answers"])


async def test_typescript_client_that_terminates(desk: MakeDesk, run: Run) -> None:
    """The TypeScript SDK's explicit DELETE is absorbed, and its next connection has the state."""
    at = desk("mcp-1.30")
    seen = await seen_by(run, "sdk-ts-1", at, [("increment", {})], connections=3, terminate=True)
    assert [connection["answers"] for connection in seen] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize("server", ["mcp-1.30", "everything"])
async def test_inspector(server: str, desk: MakeDesk, run: Run) -> None:
    """The Inspector's command line lists tools and calls one."""
    at = desk(server)
    launcher = node_module("@modelcontextprotocol/inspector/clients/launcher/build/index.js")
    common = [
        *(node(), launcher, "--cli", at.proxy.url, "--transport", "http"),
        *("--header", f"Authorization: Bearer {at.caller.token}"),
    ]
    listed = json.loads(await run.output([*common, "--method", "tools/list"]))
    assert "echo" in [tool["name"] for tool in listed["tools"]]
    called = json.loads(
        await run.output(
            [*common, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"]
        )
    )
    assert "Echo: hello" in json.dumps(called)


@pytest.mark.parametrize("client", ["mcp-1.30", "mcp-2-legacy", "sdk-ts-1"])
async def test_clients_survive_lost_sessions(client: str, own_desk: MakeDesk, run: Run) -> None:
    """A real client in the middle of its calls does not notice that the server forgot all sessions."""
    at = own_desk("mcp-1.30", *AT_ONCE)
    calls: list[tuple[str, Any]] = [("increment", {}), ("increment", {}), ("expire", {}), ("increment", {})]
    seen = await seen_by(run, client, at, calls * 2, connections=2)
    assert seen[0]["answers"] == ["1", "2", "expired", "1", "2", "3", "expired", "1"]
    assert seen[1]["answers"] == ["2", "3", "expired", "1", "2", "3", "expired", "1"]
