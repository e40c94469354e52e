"""A server of the Python SDK 2, which keeps sessions and speaks the modern revision besides.

python both_eras_server.py PORT
"""

import sys

from mcp.server import MCPServer

server = MCPServer("both-eras")


@server.tool()
def echo(message: str) -> str:
    """Say it again."""
    return f"Echo: {message}"


server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
