"""mcp-remote, a bridge from stdio to HTTP, driven by the Python SDK. Usage: URL TOKEN PLAN, as in run.py.

The plan names the command that starts the bridge.
"""

import os
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from plan import run, text_of


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One bridge from start to stop."""
    told: dict[str, Any] = {"answers": []}
    command, *arguments = plan["command"]
    bridge = StdioServerParameters(
        command=command,
        args=[
            *arguments,
            url,
            "--allow-http",
            "--transport",
            "http-only",
            "--header",
            f"Authorization: Bearer {token}",
        ],
        env=dict(os.environ),
    )
    async with stdio_client(bridge) as (read, write), ClientSession(read, write) as session:
        told["protocol"] = (await session.initialize()).protocolVersion
        told["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        for name, given in plan["calls"]:
            result = await session.call_tool(name, given)
            told["answers"].append(text_of(result))
    return told


run(connection)
