"""mcp-use for Python, without a model. Usage: mcp_use_python.py URL TOKEN PLAN."""

from typing import Any

from mcp_use import MCPClient
from plan import run, text_of


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client, from its first request to its last."""
    server = {"url": url, "headers": {"Authorization": f"Bearer {token}"}}
    client = MCPClient.from_dict({"mcpServers": {"it": server}})
    session = await client.create_session("it")
    answers = [text_of(await session.call_tool(name, given)) for name, given in plan["calls"]]
    await client.close_all_sessions()
    return {"answers": answers}


run(connection)
