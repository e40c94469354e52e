"""LangChain's MCP adapters, which open a session for every call. Usage: langchain_adapters.py URL TOKEN PLAN.

The plan and the answer are as run.py describes.
"""

from typing import Any

from langchain_mcp_adapters.client import MultiServerMCPClient
from plan import run


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


run(connection)
