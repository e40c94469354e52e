"""smolagents' MCP client, without a model. Usage: smolagents_tools.py URL TOKEN PLAN."""

from typing import Any

from plan import run
from smolagents import MCPClient


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client, which runs a loop of its own in a thread."""
    server = {"url": url, "transport": "streamable-http", "headers": {"Authorization": f"Bearer {token}"}}
    with MCPClient(server, structured_output=False) as tools:
        named = {tool.name: tool for tool in tools}
        return {"answers": [str(named[name](**given)) for name, given in plan["calls"]]}


run(connection)
