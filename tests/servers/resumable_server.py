"""A stateful MCP server (`mcp` 1.30) that keeps its events, ends streams early, and begins with a question.

    python resumable_server.py --port 8000 [--tools FILE] [--cold FILE]

Each session counts for itself. With `--tools`, there is a tool for each name in that file, which is read at
start: a redeployed server has other ones. With `--cold`, `initialize` is not answered until that file exists.
Beside the MCP endpoint there are routes for the tests alone:

    GET  /gates         the gates that calls of `wait_at` wait at
    POST /gates/{name}  open one
    GET  /requests      the requests to the MCP endpoint: HTTP method, JSON-RPC method, headers
"""

import argparse
import asyncio
import json
import os
from collections import defaultdict
from collections.abc import MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import uvicorn
from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.session import ServerSession
from mcp.server.streamable_http import EventMessage, EventStore
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

PATH = "/mcp"
RETRY_MILLISECONDS = 50
POLL_SECONDS = 0.02


class Events(EventStore):
    """Every event of every session, in memory."""

    def __init__(self) -> None:
        self._events: list[tuple[dict[str, str], str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        """Keep one; the first of a stream has no message."""
        self._events.append((session.get(), stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """Send what the stream of that event said since."""
        name = self.stream(last_event_id)
        if name is None:
            return None
        for number in range(int(last_event_id), len(self._events)):
            message = self._events[number][-1]
            if self.stream(str(number + 1)) == name and message is not None:
                await send_callback(EventMessage(message, str(number + 1)))
        return name.partition("/")[2]

    def stream(self, event_id: str | None) -> str | None:
        """The session and the name of the stream that an event is of; two sessions' may have one name."""
        if event_id is None or not event_id.isdecimal() or not 0 < int(event_id) <= len(self._events):
            return None
        opened_by, name, _ = self._events[int(event_id) - 1]
        return f"{opened_by['id']}/{name}"


events = Events()
# The session that a request opens or belongs to. The tasks of a session inherit it from its first request.
session: ContextVar[dict[str, str]] = ContextVar("session")
listening: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
resumed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
gates: dict[str, asyncio.Event] = {}
requests: list[dict[str, Any]] = []
counts: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
roots: WeakKeyDictionary[Any, "asyncio.Task[list[str]]"] = WeakKeyDictionary()


def ask_for_roots_first() -> None:
    """Have each session ask for its client's roots, if it has any, as soon as there is a GET stream."""
    received = ServerSession._received_notification

    async def receive(self: ServerSession, notification: types.ClientNotification) -> None:
        await received(self, notification)
        told = isinstance(notification.root, types.InitializedNotification)
        if told and self.client_params is not None and self.client_params.capabilities.roots is not None:
            roots[self] = asyncio.create_task(ask(self))

    async def ask(self: ServerSession) -> list[str]:
        await listening[session.get()["id"]].wait()
        return [str(root.uri) for root in (await self.list_roots()).roots]

    ServerSession._received_notification = receive  # type: ignore[method-assign]


def build(arguments: argparse.Namespace) -> FastMCP:
    """The MCP server with its tools."""
    mcp = FastMCP(
        "resumable",
        host="127.0.0.1",
        port=arguments.port,
        log_level="CRITICAL",
        event_store=events,
        retry_interval=RETRY_MILLISECONDS,
    )

    @mcp.tool()
    async def increment(ctx: Context) -> int:
        """Count one more in this session and return the count."""
        counts[ctx.session] = counts.get(ctx.session, 0) + 1
        return counts[ctx.session]

    @mcp.tool()
    async def poll(times: int, ctx: Context) -> str:
        """Close the stream, and each later one in which the answer is looked for; then answer."""
        name = f"{session.get()['id']}/{ctx.request_id}"
        for _ in range(times):
            resumed[name].clear()
            await ctx.close_sse_stream()
            await resumed[name].wait()
        await ctx.close_sse_stream()
        return f"polled {times} times"

    @mcp.tool()
    async def wait_at(gate: str, ctx: Context) -> str:
        """Answer once the gate is opened, with this session's count."""
        counts[ctx.session] = counts.get(ctx.session, 0) + 1
        await gates.setdefault(gate, asyncio.Event()).wait()
        return f"{gate} {counts[ctx.session]}"

    @mcp.tool()
    async def roots_heard(ctx: Context) -> str:
        """JSON: what the client said when it was asked for its roots, first thing."""
        return json.dumps(await roots[ctx.session])

    for name in arguments.tools.read_text().split() if arguments.tools else ():
        mcp.add_tool(lambda: "done", name=name, description="One of those that change.")
    _declare_changes(mcp)
    _add_routes(mcp)
    return mcp


def _declare_changes(mcp: FastMCP) -> None:
    """The 1.x SDK promises no `list_changed` by itself."""
    server = mcp._mcp_server
    plain = server.get_capabilities

    def capabilities(*args: Any) -> types.ServerCapabilities:
        found = plain(*args)
        found.tools = types.ToolsCapability(listChanged=True)
        return found

    server.get_capabilities = capabilities  # type: ignore[method-assign]


def _add_routes(mcp: FastMCP) -> None:
    @mcp.custom_route("/gates", methods=["GET"])
    async def list_gates(_: Request) -> Response:
        return JSONResponse(sorted(gates))

    @mcp.custom_route("/gates/{name}", methods=["POST"])
    async def open_gate(request: Request) -> Response:
        gates[request.path_params["name"]].set()
        return PlainTextResponse("open")

    @mcp.custom_route("/requests", methods=["GET"])
    async def list_requests(_: Request) -> Response:
        return JSONResponse(requests)


class Watch:
    """ASGI middleware that knows which session a request is of, and records it."""

    def __init__(self, app: Any, cold: Path | None) -> None:
        self.app = app
        self.cold = cold

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        record = {"http": scope["method"], "method": None, "headers": headers}
        requests.append(record)
        mine = {"id": headers.get("mcp-session-id", "")}
        session.set(mine)
        stream = events.stream(headers.get("last-event-id"))
        body = b""

        async def watched_receive() -> Any:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request" and scope["method"] == "POST":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    record["method"] = json.loads(body).get("method")
                    if record["method"] == "initialize":
                        await self._warm_up()
            return message

        async def watched_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                for name, value in message["headers"]:
                    if name == b"mcp-session-id":
                        mine["id"] = value.decode()
                if scope["method"] == "GET" and message["status"] == 200 and stream is None:
                    listening[mine["id"]].set()
            await send(message)
            if message["type"] == "http.response.body" and stream is not None and message.get("body"):
                resumed[stream].set()

        await self.app(scope, watched_receive, watched_send)

    async def _warm_up(self) -> None:
        while self.cold is not None and not self.cold.exists():
            await asyncio.sleep(POLL_SECONDS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tools", type=Path, help="file with the names of further tools")
    parser.add_argument("--cold", type=Path, help="no handshake is answered until this file exists")
    arguments = parser.parse_args()
    ask_for_roots_first()
    app = Watch(build(arguments).streamable_http_app(), arguments.cold)
    config = uvicorn.Config(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    config.timeout_graceful_shutdown = 1
    uvicorn.Server(config).run()
    os._exit(0)


if __name__ == "__main__":
    main()
