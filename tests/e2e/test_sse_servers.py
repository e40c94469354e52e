"""Real servers that speak HTTP+SSE of 2024 behind the proxy, with real clients before it."""

from collections.abc import Callable

import aiohttp
import pytest

from .checking import Command
from .conftest import Desk, seen_by
from .launch import Fleet
from .run import EVERYTHING, FULL, PINNED, Run, check_everything
from .wire import Caller

pytestmark = pytest.mark.e2e

MakeDesk = Callable[..., Desk]

COUNTING = ["mcp-1.30-sse", "fastmcp-sse"]
ALL = [*COUNTING, "everything-sse"]
# FastMCP's client takes any URL that ends in /sse for that of a server of 2024, the proxy's as well.
BY_URL = ("fastmcp",)


@pytest.mark.share(2)
@pytest.mark.parametrize("kind", COUNTING)
async def test_a_session_for_each_call(kind: str, desk: MakeDesk, run: Run) -> None:
    """LangChain's client has a session for each call, and finds what the call before has done."""
    (seen,) = await seen_by(run, "langchain", desk(kind), [("increment", {})] * 3)
    assert seen["answers"] == ["1", "2", "3"]


@pytest.mark.parametrize("kind", COUNTING)
async def test_no_session_at_all(kind: str, desk: MakeDesk) -> None:
    """So it is for one that names none, on the wire."""
    caller = desk(kind).caller
    assert [(await caller.call("increment")).text for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.share(3)
@pytest.mark.parametrize("kind", COUNTING)
@pytest.mark.parametrize("client", PINNED)
async def test_modern_clients(kind: str, client: str, desk: MakeDesk, run: Run) -> None:
    """And for those that only speak the revision without sessions."""
    (seen,) = await seen_by(run, client, desk(kind), [("increment", {})] * 2)
    assert seen["answers"] == ["1", "2"]


@pytest.mark.parametrize("kind", ALL)
async def test_two_connections(kind: str, desk: MakeDesk, run: Run) -> None:
    """Each works, one after the other."""
    chosen = desk(kind)
    tool, arguments = chosen.server.kind.tool, dict(chosen.server.kind.arguments)
    seen = await seen_by(run, "mcp-1.30", chosen, [(tool, arguments)], connections=2)
    for connection in seen:
        assert chosen.server.kind.answer in connection["answers"][0]


@pytest.mark.share(2)
@pytest.mark.parametrize("client", [name for name in FULL if not name.startswith(BY_URL)])
async def test_server_to_client_features(client: str, desk: MakeDesk, run: Run) -> None:
    """Progress, logs, elicitation, sampling, roots and resource updates reach the client."""
    (seen,) = await seen_by(run, client, desk("mcp-1.30-sse"), EVERYTHING, full=True)
    check_everything(seen)


async def test_a_check_tells_what_it_is(check: Command, owned: Fleet) -> None:
    """Directly no kind of client can use it; through the proxy every kind can."""
    server = owned.new_server("mcp-1.30-sse")
    outcome = await check(server.url, "--through", owned.new_proxy(server.url).url, "--json")
    assert (outcome.status, set(outcome.verdicts().values())) == (0, {"fails"})
    assert not {"fails", "slow", "loses-state"} & set(outcome.verdicts("through").values())
    described = outcome.document["direct"]["server"]
    assert (described["transport"], described["tools"] > 0) == ("http+sse", True)


async def test_a_server_that_is_restarted(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """The next call works, on a session of the new one."""
    server = owned.new_server("mcp-1.30-sse")
    caller = Caller(http, owned.new_proxy(server.url).url)
    assert (await caller.call("increment")).text == "1"
    server.kill()
    server.start()
    assert (await caller.call("increment")).text == "1"
    assert (await caller.call("increment")).text == "2"
