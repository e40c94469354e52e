"""A server of the Python SDK 2, which keeps sessions and speaks the modern revision besides.

python both_eras_server.py PORT [mcp|fastmcp] [stateless]

It counts for each session. To modern clients it gives none, so each of their calls is the first.
"""

import sys
from collections import Counter

PORT, KIND, *WORDS = [*sys.argv[1:], "mcp"][: max(2, len(sys.argv) - 1)]
counts: Counter[str] = Counter()


if KIND == "fastmcp":
    from fastmcp import Context as FastContext
    from fastmcp import FastMCP

    fast = FastMCP("both-eras")

    @fast.tool(name="increment")
    async def fast_increment(ctx: FastContext) -> str:
        """Count one more in this session."""
        former = await ctx.get_state("count") or 0
        await ctx.set_state("count", former + 1)
        return str(former + 1)

    @fast.tool(name="echo")
    def fast_echo(message: str) -> str:
        """Say it again."""
        return f"Echo: {message}"

    fast.run(
        transport="http",
        host="127.0.0.1",
        port=int(PORT),
        stateless_http="stateless" in WORDS,
        show_banner=False,
    )
else:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context

    server = MCPServer("both-eras")

    @server.tool()
    def echo(message: str) -> str:
        """Say it again."""
        return f"Echo: {message}"

    @server.tool()
    def increment(ctx: Context) -> str:
        """Count one more in this session."""
        session = ctx.request_context.request.headers.get("mcp-session-id")
        counts[session] += 1
        return str(counts[session] if session else 1)

    server.run(
        transport="streamable-http",
        host="127.0.0.1",
        port=int(PORT),
        stateless_http="stateless" in WORDS,
    )
