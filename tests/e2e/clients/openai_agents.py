"""The OpenAI Agents SDK, without a model. Usage: openai_agents.py URL TOKEN PLAN, as run.py describes."""

from typing import Any

from agents.mcp import MCPServerStreamableHttp
from plan import run, text_of


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One connection from handshake to close."""
    told: dict[str, Any] = {"answers": []}
    params: Any = {"url": url, "headers": {"Authorization": f"Bearer {token}"}, "timeout": 10}
    async with MCPServerStreamableHttp(params=params, client_session_timeout_seconds=20) as server:
        told["tools"] = [tool.name for tool in await server.list_tools()]
        for name, arguments in plan["calls"]:
            result = await server.call_tool(name, arguments)
            told["answers"].append(text_of(result))
    return told


run(connection)
