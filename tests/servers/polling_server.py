"""An `mcp` 1.30 server whose clients poll: it closes the streams of its calls, and keeps what it says.

    python polling_server.py --port 8000

The event store is in memory; the streams are closed with the SDK's own ``close_sse_stream``.
"""

import argparse
import os
import sys

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.types import JSONRPCMessage

RETRY_MILLISECONDS = 100


class Events(EventStore):
    """Every event of every stream, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Keep one; its place in the list is its id."""
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id: EventId, send: EventCallback) -> StreamId | None:
        """Send what the same stream got since."""
        last = int(last_event_id)
        stream = self.events[last][0]
        for number, (whose, message) in enumerate(self.events):
            if number > last and whose == stream and message is not None:
                await send(EventMessage(message, str(number)))
        return stream


mcp = FastMCP("polling", event_store=Events(), retry_interval=RETRY_MILLISECONDS)
executed = 0


@mcp.tool()
def echo(message: str) -> str:
    """Says it back."""
    return f"Echo: {message}"


@mcp.tool()
async def slow(times: int, ctx: Context) -> str:  # type: ignore[type-arg]
    """Closes its stream so many times, each time after the client has come back, and answers then."""
    global executed
    executed += 1
    for _ in range(times):
        await anyio.sleep(0.05)
        await ctx.close_sse_stream()
        await anyio.sleep(RETRY_MILLISECONDS / 1000 + 0.1)
    return f"executed {executed}"


@mcp.tool()
async def tell(times: int, ctx: Context) -> str:  # type: ignore[type-arg]
    """Tells something each time when nobody listens, and answers when nobody listens."""
    for number in range(times):
        await ctx.close_sse_stream()
        await ctx.info(f"news {number}")
        await anyio.sleep(RETRY_MILLISECONDS / 1000 + 0.1)
    await ctx.close_sse_stream()
    return "told"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # Ends with its parent's signal at once, whatever streams are open.
    uvicorn.run(
        mcp.streamable_http_app(), port=arguments.port, log_level="error", timeout_graceful_shutdown=0
    )
    sys.stdout.flush()
    os._exit(0)
