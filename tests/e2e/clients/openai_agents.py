"""The OpenAI Agents SDK, without a model. Usage: openai_agents.py URL TOKEN PLAN, as run.py describes."""

import asyncio
import json
import sys
from typing import Any

from agents.mcp import MCPServerStreamableHttp


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One connection from handshake to close."""
    told: dict[str, Any] = {"answers": []}
    params: Any = {"url": url, "headers": {"Authorization": f"Bearer {token}"}, "timeout": 10}
    async with MCPServerStreamableHttp(params=params, client_session_timeout_seconds=20) as server:
        told["tools"] = [tool.name for tool in await server.list_tools()]
        for name, arguments in plan["calls"]:
            result = await server.call_tool(name, arguments)
            told["answers"].append("".join(getattr(part, "text", "") for part in result.content))
    return told


async def main() -> None:
    """Open the planned number of connections, one after the other."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
