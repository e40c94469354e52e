"""Haystack's MCP tools. Usage: haystack_tools.py URL TOKEN PLAN."""

import json
from typing import Any

from haystack_integrations.tools.mcp import MCPToolset, StreamableHttpServerInfo
from plan import run


def text_of(result: Any) -> str:
    """The text of a tool's result, which Haystack gives as JSON."""
    if isinstance(result, str) and result.startswith("{"):
        result = json.loads(result)
    return result["content"][0]["text"] if isinstance(result, dict) else str(result)


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One toolset, which runs a loop of its own in a thread."""
    server = StreamableHttpServerInfo(url=url, headers={"Authorization": f"Bearer {token}"})
    toolset = MCPToolset(server_info=server)
    toolset.warm_up()
    tools = {tool.name: tool for tool in toolset}
    answers = [text_of(tools[name].invoke(**given)) for name, given in plan["calls"]]
    toolset.close()
    return {"answers": answers}


run(connection)
