"""LangChain's MCP adapters, which open a session for every call. Usage: langchain_adapters.py URL TOKEN PLAN.

The plan and the answer are as run.py describes.
"""

import asyncio
import json
import sys
from typing import Any

from langchain_mcp_adapters.client import MultiServerMCPClient


def text_of(content: Any) -> str:
    """The text in a LangChain message's content."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Load the tools, then run the calls one by one."""
    headers = {"Authorization": f"Bearer {token}"}
    client = MultiServerMCPClient({"it": {"transport": "streamable_http", "url": url, "headers": headers}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    told: dict[str, Any] = {"tools": list(tools), "answers": []}
    for name, arguments in plan["calls"]:
        told["answers"].append(text_of(await tools[name].ainvoke(arguments)))
    return told


async def main() -> None:
    """Do the plan the planned number of times."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
