"""What `check` says of a server whose callers' tokens change."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from token_server import TokenServer, token

from mcp_session_proxy.check.plan import Plan, read_plan
from mcp_session_proxy.check.run import _check
from mcp_session_proxy.settings.sources import ConfigError


def plan(url: str, *tokens: str, headers: tuple[str, ...] = ()) -> Plan:
    options: dict[str, Any] = {"through": None, "timeout": "5s", "idle": None, "call": None}
    return read_plan(
        {"upstream": url}, headers=headers, tokens=tokens, arguments=None, as_json=True, **options
    )


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    """A server that checks tokens."""
    async with TokenServer() as server:
        yield server


async def facts(url: str, *tokens: str) -> dict[str, str]:
    report = await _check(plan(url, *tokens))
    return {fact.key: fact.text for fact in report.direct.facts}


async def test_a_server_that_checks(server: TokenServer) -> None:
    """A refreshed token is served on the session, a damaged and another's are not."""
    seen = await facts(server.url, token(), token())
    assert seen["damaged_token"].startswith("401")
    assert seen["other_token"] == "of the same caller, on a session of the first: answered all the same"
    seen = await facts(server.url, token(), token("bob"))
    assert seen["other_token"].startswith("of another caller, on a session of the first: 404")
    assert server.sessions == {}


async def test_a_server_that_checks_nothing(server: TokenServer) -> None:
    """It says so."""
    server.checks = False
    seen = await facts(server.url, token())
    assert seen["damaged_token"].startswith("taken")
    assert "other_token" not in seen


@pytest.mark.parametrize("tokens", [("a", "b", "c"), ("Bearer a",), ("",), ("@/no/such/file",)])
def test_wrong_tokens(tokens: tuple[str, ...]) -> None:
    """What is wrong is told, and not repeated."""
    with pytest.raises(ConfigError, match="--token"):
        plan("http://127.0.0.1:1/mcp", *tokens)


def test_a_token_and_a_header() -> None:
    """One of them would win, and nobody would know which."""
    with pytest.raises(ConfigError, match="--header Authorization"):
        plan("http://127.0.0.1:1/mcp", "a", headers=("Authorization: b",))
