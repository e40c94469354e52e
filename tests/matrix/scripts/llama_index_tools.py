"""LlamaIndex's MCP tools. Usage: llama_index_tools.py URL TOKEN PLAN."""

from typing import Any

from llama_index.tools.mcp import BasicMCPClient
from plan import run, text_of


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One client."""
    client = BasicMCPClient(url, headers={"Authorization": f"Bearer {token}"})
    await client.list_tools()
    return {"answers": [text_of(await client.call_tool(name, given)) for name, given in plan["calls"]]}


run(connection)
