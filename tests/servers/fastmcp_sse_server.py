"""A stateful FastMCP server over HTTP+SSE of 2024: `echo`, and `increment`, which counts for each session.

python fastmcp_sse_server.py --port 8000
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
    mcp.run(transport="sse", host="127.0.0.1", port=parser.parse_args().port, show_banner=False)
