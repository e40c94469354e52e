"""Strands' MCP client, without a model. Usage: strands_agents.py URL TOKEN PLAN."""

from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from plan import run
from strands.tools.mcp import MCPClient


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client, which runs a loop of its own in a thread."""
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    with MCPClient(lambda: streamable_http_client(url, http_client=http)) as client:
        client.list_tools_sync()
        answers = [client.call_tool_sync("1", name, given) for name, given in plan["calls"]]
    return {"answers": [answer["content"][0]["text"] for answer in answers]}


run(connection)
