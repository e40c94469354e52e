"""A FastMCP server (`mcp` 1.x) with the benchmark's tools: stateful, or in its own stateless mode.

    python fastmcp_server.py --port 8000 [--stateless]

It differs from what FastMCP does by itself in one word: it declares that it tells of changed tools, as its
low-level options allow. Others can only keep a list whose server does.
"""

import argparse
from typing import Any

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.lowlevel import NotificationOptions


def build(*, stateless: bool) -> FastMCP:
    """The server: `echo`, `big`, `progress` and seven tools more, so that a list has ten."""
    mcp = FastMCP("bench", stateless_http=stateless, log_level="CRITICAL")

    @mcp.tool()
    async def echo(message: str) -> str:
        """Say it again."""
        return f"Echo: {message}"

    @mcp.tool()
    async def big(size: int) -> str:
        """A text of `size` characters."""
        return "x" * size

    @mcp.tool()
    async def progress(n: int, ctx: Context[Any, Any, Any]) -> str:
        """Report progress n times, then answer."""
        for step in range(1, n + 1):
            await ctx.report_progress(step, n, f"step {step}")
        return f"{n} steps"

    for number in range(7):
        mcp.tool(name=f"tool_{number}", description=f"Tool number {number}")(echo)

    server = mcp._mcp_server
    plain = server.create_initialization_options
    server.create_initialization_options = lambda *_, **__: plain(NotificationOptions(tools_changed=True))  # type: ignore[method-assign]
    return mcp


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stateless", action="store_true")
    chosen = parser.parse_args()
    app = build(stateless=chosen.stateless).streamable_http_app()
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, log_level="critical", access_log=False, backlog=4096)
