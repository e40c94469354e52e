"""FastMCP's client. Usage: fastmcp_client.py URL TOKEN PLAN, as run.py describes."""

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One connection from handshake to close."""
    told: dict[str, Any] = {"answers": [], "progress": [], "logs": []}

    async def elicited(message: str, kind: Any, params: Any, context: Any) -> Any:
        return {"name": "Ada"}

    async def sampled(messages: Any, params: Any, context: Any) -> str:
        return "hello"

    async def logged(message: Any) -> None:
        told["logs"].append(message.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told["progress"].append(progress)

    handlers: dict[str, Any] = {"log_handler": logged, "progress_handler": progressed}
    if plan.get("full"):
        handlers |= {
            "elicitation_handler": elicited,
            "sampling_handler": sampled,
            "roots": ["file:///srv/data"],
        }
    async with Client(url, auth=token, mode=plan["mode"], **handlers) as client:
        told["tools"] = [tool.name for tool in await client.list_tools()]
        for name, arguments in plan["calls"]:
            result = await client.call_tool(name, arguments)
            told["answers"].append("".join(getattr(part, "text", "") for part in result.content))
    return told


async def main() -> None:
    """Open the planned number of connections, one after the other."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps([await connection(url, token, plan) for _ in range(plan.get("connections", 1))]))


asyncio.run(main())
