"""A stateful FastMCP server (2, 3 or 4): `echo`, and `increment`, which counts for each session.

    python fastmcp_counter_server.py --port 8000 [--transport http]

It speaks HTTP+SSE of 2024, or streamable HTTP.
"""

import argparse
from collections import Counter

from fastmcp import Context, FastMCP

counts: Counter[str] = Counter()
mcp: FastMCP[None] = FastMCP("counts")


@mcp.tool
def echo(message: str) -> str:
    """Say it again."""
    return f"Echo: {message}"


@mcp.tool
def increment(ctx: Context) -> str:
    """Count this session's calls."""
    counts[ctx.session_id] += 1
    return str(counts[ctx.session_id])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--transport", choices=["sse", "http"], default="sse")
    given = parser.parse_args()
    mcp.run(transport=given.transport, host="127.0.0.1", port=given.port, show_banner=False)
