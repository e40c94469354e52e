"""CrewAI's adapter for MCP servers. Usage: crewai_tools_mcp.py URL TOKEN PLAN."""

from typing import Any

from crewai_tools import MCPServerAdapter
from plan import run


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One adapter, which runs a loop of its own in a thread."""
    server = {
        "url": url,
        "transport": "streamable-http",
        "headers": {"Authorization": f"Bearer {token}"},
    }
    with MCPServerAdapter(server) as tools:
        named = {tool.name: tool for tool in tools}
        return {"answers": [str(named[name].run(**given)) for name, given in plan["calls"]]}


run(connection)
