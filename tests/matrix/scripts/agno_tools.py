"""Agno's MCP tools, without a model. Usage: agno_tools.py URL TOKEN PLAN."""

from typing import Any

from agno.tools.mcp import MCPTools
from agno.tools.mcp.params import StreamableHTTPClientParams
from plan import run


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One toolkit, from its first request to its last."""
    params = StreamableHTTPClientParams(url=url, headers={"Authorization": f"Bearer {token}"})
    told: dict[str, Any] = {"answers": []}
    async with MCPTools(transport="streamable-http", server_params=params) as tools:
        for name, given in plan["calls"]:
            result = await tools.functions[name].entrypoint(**given)
            told["answers"].append(str(getattr(result, "content", result)))
    return told


run(connection)
