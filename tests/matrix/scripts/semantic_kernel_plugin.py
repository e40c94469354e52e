"""Semantic Kernel's MCP plugin, without a model. Usage: semantic_kernel_plugin.py URL TOKEN PLAN."""

from typing import Any

from plan import run
from semantic_kernel.connectors.mcp import MCPStreamableHttpPlugin


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One plugin, from its first request to its last."""
    told: dict[str, Any] = {"answers": []}
    headers = {"Authorization": f"Bearer {token}"}
    async with MCPStreamableHttpPlugin(name="it", url=url, headers=headers) as plugin:
        for name, given in plan["calls"]:
            (content, *_) = await plugin.call_tool(name, **given)
            told["answers"].append(content.text)
    return told


run(connection)
