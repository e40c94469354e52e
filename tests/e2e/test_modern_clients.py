"""Real modern clients, each in its own environment, through the proxy before servers that know sessions."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Desk, seen_by
from .launch import Proxy
from .run import EVERYTHING, MODERN_COMMANDS, PINNED, Run

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(30)]

MakeDesk = Callable[..., Desk]


def requests_of(proxy: Proxy, era: str) -> float:
    """How many requests of an era the proxy has answered."""
    counted = proxy.metrics().items()
    return sum(n for name, n in counted if name.startswith("requests_total{") and f'era="{era}"' in name)


@pytest.mark.share(2)
@pytest.mark.parametrize("client", list(MODERN_COMMANDS))
async def test_modern_is_chosen_and_state_is_kept(client: str, desk: MakeDesk, run: Run) -> None:
    """A client that may choose speaks modern; two of its connections count 1 to 4 on one upstream session."""
    at = desk("mcp-1.30")
    modern, legacy = requests_of(at.proxy, "modern"), requests_of(at.proxy, "legacy")
    seen = await seen_by(run, client, at, [("increment", {}), ("increment", {})], connections=2)
    assert [connection["answers"] for connection in seen] == [["1", "2"], ["3", "4"]]
    assert all("increment" in connection["tools"] for connection in seen)
    assert all(connection.get("protocol", "2026-07-28") == "2026-07-28" for connection in seen)
    assert requests_of(at.proxy, "modern") >= modern + 6
    assert requests_of(at.proxy, "legacy") == legacy
    assert (await at.stats())["sessions"] == {"opened": 1, "closed": 0, "live": 1}


@pytest.mark.share(2)
@pytest.mark.parametrize("client", PINNED)
async def test_everything_a_server_can_do(client: str, desk: MakeDesk, run: Run) -> None:
    """Progress, logs, elicitation, sampling, roots, updates, resources and prompts reach a pinned client."""
    at = desk("mcp-1.30")
    before = (await at.all_stats())["calls"]
    (seen,) = await seen_by(run, client, at, EVERYTHING, full=True)
    assert seen["protocol"] == "2026-07-28"
    answers = seen["answers"]
    assert answers[:4] == ["3 steps", "logged", "accept:Ada", "hello"]
    assert json.loads(answers[4]) == ["file:///srv/data"]
    assert seen["progress"] == [1, 2, 3]
    assert seen["logs"] == ["noted"]
    assert seen["updated"] == ["counter://shared"]
    assert seen["resource"] == "text/plain"
    assert seen["prompt"] == "Say hello to Bo."
    after = (await at.all_stats())["calls"]
    asking = ("elicit_name", "sample", "list_client_roots")
    assert {tool: after[tool] - before.get(tool, 0) for tool in asking} == dict.fromkeys(asking, 1)


@pytest.mark.share(2)
@pytest.mark.parametrize("client", PINNED)
@pytest.mark.parametrize("mode", ["modern", "modern-get"])
async def test_rounds(client: str, mode: str, desk: MakeDesk, run: Run) -> None:
    """A real client answers two questions of one call, in two rounds."""
    at = desk(mode)
    calls: list[tuple[str, Any]] = [("test_input_required_result_multi_round", {})]
    (seen,) = await seen_by(run, client, at, calls, answers=True)
    assert seen["answers"] == ["Ada likes None."]


@pytest.mark.parametrize(
    ("client", "server"),
    [
        *(
            ("sdk-ts-2", server)
            for server in ("everything", "fastmcp-ts", "supergateway", "kubernetes", "grafana")
        ),
        *(("mcp-2", server) for server in ("everything", "grafana")),
    ],
)
async def test_other_servers(client: str, server: str, desk: MakeDesk, run: Run) -> None:
    """Pinned clients in front of servers of other makers: two connections, two calls each."""
    at = desk(server)
    kind = at.server.kind
    call = (kind.tool, dict(kind.arguments))
    seen = await seen_by(run, client, at, [call, call], connections=2)
    for connection in seen:
        assert kind.tool in connection["tools"]
        assert all(kind.answer in answer for answer in connection["answers"])


async def test_a_browser_between_independent_requests(
    page: str,
    own_desk: MakeDesk,
    run: Run,
) -> None:
    """A pinned client drives Playwright MCP: each connection finds the page where the one before left it."""
    at = own_desk("playwright")
    steps: list[tuple[str, Any]] = [
        ("browser_navigate", {"url": page}),
        ("browser_click", {"element": "the button", "target": "text=Press me"}),
        ("browser_snapshot", {}),
    ]
    answers = [(await seen_by(run, "mcp-2", at, [step]))[0]["answers"][0] for step in steps]
    assert page in answers[0]
    assert 'heading "Clicked"' in answers[2]
    assert requests_of(at.proxy, "modern") >= 6
    assert requests_of(at.proxy, "legacy") == 0
