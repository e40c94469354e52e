"""The demonstration's MCP server: an ordinary stateful one, written with the official SDK.

``python -m mcp_session_proxy.demo.server`` listens on a free loopback port, prints the URL of its
endpoint on standard output, and ends when its standard input does, so that it never outlives
whoever started it.
"""

import asyncio
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import uvicorn
from mcp.server.fastmcp import Context, FastMCP

PATH: Final = "/mcp"

AnyContext: TypeAlias = Context[Any, Any, Any]


@dataclass(slots=True)
class Notepad:
    """What one MCP session remembers."""

    count: int = 0
    notes: list[str] = field(default_factory=list)


def build() -> FastMCP:
    """The server. Each of its sessions has a notepad of its own."""
    server = FastMCP(
        "notepad", instructions="Counts and takes notes, for each session apart.", log_level="ERROR"
    )
    server.settings.streamable_http_path = PATH
    notepads: WeakKeyDictionary[Any, Notepad] = WeakKeyDictionary()

    def notepad(context: AnyContext) -> Notepad:
        return notepads.setdefault(context.session, Notepad())

    @server.tool()
    async def increment(context: AnyContext) -> int:
        """Count one more in this session, and return the count."""
        mine = notepad(context)
        mine.count += 1
        return mine.count

    @server.tool()
    async def write_note(text: str, context: AnyContext) -> str:
        """Write a note on this session's notepad."""
        notepad(context).notes.append(text)
        return "noted"

    @server.tool()
    async def read_notes(context: AnyContext) -> list[str]:
        """Read this session's notepad."""
        return notepad(context).notes

    return server


async def serve() -> None:
    """Serve until standard input ends."""
    listener = _listen()
    config = uvicorn.Config(build().streamable_http_app(), log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    watch = asyncio.create_task(_leave_with_parent(server))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}", flush=True)
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()


def _listen() -> socket.socket:
    # The protocol is named because asyncio turns off Nagle's algorithm (40 ms a request) only then.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


async def _leave_with_parent(server: uvicorn.Server) -> None:
    lifeline = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lifeline)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await lifeline.read()
    server.should_exit = True


if __name__ == "__main__":
    asyncio.run(serve())
