"""AutoGen's MCP tools, without a model. Usage: autogen_tools.py URL TOKEN PLAN."""

from typing import Any

from autogen_core import CancellationToken
from autogen_ext.tools.mcp import StreamableHttpServerParams, mcp_server_tools
from plan import run


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """The tools of one server, each of which opens a session of its own."""
    params = StreamableHttpServerParams(url=url, headers={"Authorization": f"Bearer {token}"})
    tools = {tool.name: tool for tool in await mcp_server_tools(params)}
    told: dict[str, Any] = {"answers": []}
    for name, given in plan["calls"]:
        result = await tools[name].run_json(given, CancellationToken())
        told["answers"].append(result[0].text if isinstance(result, list) else str(result))
    return told


run(connection)
