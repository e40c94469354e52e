"""Pydantic AI's MCP toolset, without a model. Usage: modern_pydantic_ai.py URL TOKEN PLAN, as in run.py."""

from typing import Any

from plan import run
from pydantic_ai.mcp import MCPToolset


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One toolset, from its first request to its last."""
    told: dict[str, Any] = {"answers": []}
    async with MCPToolset(url, headers={"Authorization": f"Bearer {token}"}) as toolset:
        told["tools"] = [tool.name for tool in await toolset.list_tools()]
        for name, arguments in plan["calls"]:
            result = await toolset.direct_call_tool(name, arguments)
            # It gives structured results as they are.
            told["answers"].append(str(result.get("result") if isinstance(result, dict) else result))
    return told


run(connection)
