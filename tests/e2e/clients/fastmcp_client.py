"""FastMCP's client, of version 3 or 4. Usage: fastmcp_client.py URL TOKEN PLAN, as run.py describes.

With ``tasks`` in the plan it knows the extension for tasks.
"""

import inspect
from typing import Any

from fastmcp import Client
from plan import run, text_of


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

    if plan.get("tasks"):
        import fastmcp_tasks  # noqa: F401 - which is all that it takes

    handlers: dict[str, Any] = {"log_handler": logged, "progress_handler": progressed}
    if plan.get("full") or plan.get("answers"):
        handlers |= {
            "elicitation_handler": elicited,
            "sampling_handler": sampled,
            "roots": ["file:///srv/data"],
        }
    # Before version 4 there was one way to speak.
    if "mode" in inspect.signature(Client.__init__).parameters:
        handlers["mode"] = plan["mode"]
    async with Client(url, auth=token, **handlers) as client:
        told["tools"] = [tool.name for tool in await client.list_tools()]
        for name, arguments in plan["calls"]:
            result = await client.call_tool(name, arguments)
            told["answers"].append(text_of(result))
    return told


run(connection)
