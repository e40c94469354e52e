"""A public server with MCP Apps: what it says of its user interface reaches clients of both eras as it is."""

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from .launch import APPS, Fleet, node, node_module
from .modern_wire import META, ModernCaller
from .wire import Caller, Message

pytestmark = pytest.mark.e2e

EXTENSIONS: Message = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}
PAGE = "ui://get-time/mcp-app.html"
QUESTIONS: list[tuple[str, Message]] = [
    ("tools/list", {}),
    ("resources/list", {}),
    ("resources/read", {"uri": PAGE}),
    ("tools/call", {"name": "get-time", "arguments": {}}),
]
Ask = Callable[[str, Message], Any]


@pytest.fixture(params=["http", "stdio"])
def url(request: pytest.FixtureRequest, fleet: Fleet, owned: Fleet) -> str:
    """The proxy's, before the server without sessions, or before a child for each."""
    if request.param == "http":
        return fleet.proxy("apps").url
    return owned.new_stdio_proxy([node(), node_module(APPS), "--stdio"]).url


def _without_the_time(method: str, result: Message) -> Message:
    """The one thing that differs each time."""
    if method == "tools/call":
        time = result["structuredContent"]["time"]
        return dict(json.loads(json.dumps(result).replace(time, "now")))
    return result


async def _all_of(caller: Caller, session: str | None) -> dict[str, Message]:
    return {
        method: _without_the_time(method, (await caller.ask(method, params, session=session)).result)
        for method, params in QUESTIONS
    }


async def test_answers_are_those_of_the_server(url: str, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    """Legacy: all answers are equal to direct ones. Modern: but for what the revision adds and took away."""
    direct = Caller(http, fleet.server("apps").url)
    capabilities = {"extensions": EXTENSIONS}
    said = (await direct.initialize(capabilities=capabilities)).result
    expected = await _all_of(direct, None)
    assert expected["tools/list"]["tools"][0]["_meta"]["ui"] == {"resourceUri": PAGE}
    assert expected["resources/read"]["contents"][0]["mimeType"] == "text/html;profile=mcp-app"

    caller = Caller(http, url)
    opened = await caller.initialize(capabilities=capabilities)
    assert opened.result == said
    assert await _all_of(caller, opened.session) == expected

    modern = ModernCaller(http, url, capabilities=capabilities)
    assert (await modern.ask_modern("server/discover")).result["capabilities"] == said["capabilities"]
    for method, params in QUESTIONS:
        result = _without_the_time(method, (await modern.ask_modern(method, params)).result)
        meta = result.pop("_meta")
        assert meta == {f"{META}serverInfo": said["serverInfo"]}
        assert result.pop("resultType") == "complete"
        result.pop("ttlMs", None), result.pop("cacheScope", None)
        for tool in expected[method].get("tools", ()):
            tool.pop("execution", None)
        assert result == expected[method]
