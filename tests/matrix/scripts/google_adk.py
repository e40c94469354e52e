"""Google's Agent Development Kit, without a model. Usage: google_adk.py URL TOKEN PLAN."""

from types import SimpleNamespace
from typing import Any

from google.adk.tools.mcp_tool.mcp_session_manager import StreamableHTTPConnectionParams
from google.adk.tools.mcp_tool.mcp_toolset import McpToolset
from plan import run


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One toolset, from its first request to its last."""
    told: dict[str, Any] = {"answers": []}
    headers = {"Authorization": f"Bearer {token}"}
    toolset = McpToolset(connection_params=StreamableHTTPConnectionParams(url=url, headers=headers))
    tools = {tool.name: tool for tool in await toolset.get_tools()}
    context: Any = SimpleNamespace(state={}, actions=None, function_call_id="1")
    for name, arguments in plan["calls"]:
        answer = await tools[name]._run_async_impl(args=arguments, tool_context=context, credential=None)
        content = answer["content"] if isinstance(answer, dict) else answer.content
        told["answers"].append(content[0]["text"] if isinstance(content[0], dict) else content[0].text)
    await toolset.close()
    return told


run(connection)
