"""A stateful MCP server (any `mcp` 1.x) whose every session counts for itself and which tells what it saw.

    python counter_server.py --port 8000 [--json] [--stateless] [--path /mcp] [--auth alice,bob]
    python counter_server.py --port 8000 --sse
    python counter_server.py --stdio

Tools keep their state per session, so a test can see whether two calls reached the same session. Beside the
MCP endpoint there are routes for the tests alone:

    GET  /stats      sessions opened, closed and live, and calls executed, as counted here
    GET  /requests   the latest requests to the MCP endpoint: headers, query, JSON-RPC method
                     (both take ?authorization=... and then tell of that caller alone)
    POST /forget     drop every session, as a restart would
    POST /reset      zero the counters and forget the recorded requests
    POST /echo       any body, any size, sent back (a path that is not MCP)
"""

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import uvicorn
from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from pydantic import AnyUrl, BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

RECORDED_REQUESTS = 2000
# Over standard input and output, the variable that says who calls.
CALLER = "CALLER"


class SessionState:
    """What one MCP session remembers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self.log_level: str | None = None
        self.subscriptions: set[str] = set()


class Ledger:
    """What the server saw, counted where it happened."""

    def __init__(self) -> None:
        self.sessions: WeakKeyDictionary[Any, SessionState] = WeakKeyDictionary()
        self.session_numbers = 0
        self.zero()

    def zero(self) -> None:
        """Forget everything counted so far; sessions keep their state."""
        self.opened: dict[str, str] = {}  # session id -> the Authorization it was opened with
        self.closed: set[str] = set()
        self.initialize_with_session_id = 0
        self.open_streams = 0
        self.streams_opened = 0
        self.cancelled = 0
        self.calls: Counter[str] = Counter()
        self.executions: Counter[str] = Counter()
        self.meetings: dict[str, tuple[list[str], anyio.Event]] = {}
        self.requests: deque[dict[str, Any]] = deque(maxlen=RECORDED_REQUESTS)

    def of(self, session: Any) -> SessionState:
        """The state of the session a request arrived on."""
        if session not in self.sessions:
            self.session_numbers += 1
            self.sessions[session] = SessionState(self.session_numbers)
        return self.sessions[session]


ledger = Ledger()


class Name(BaseModel):
    """What `elicit_name` asks for."""

    name: str


def build(arguments: argparse.Namespace) -> FastMCP:
    """The MCP server with its tools, resources and prompts."""
    options: dict[str, Any] = {}
    if arguments.auth:
        options = _auth_options(arguments)
    mcp = FastMCP(
        "counter",
        instructions="Counts per session.",
        host="127.0.0.1",
        port=arguments.port,
        json_response=arguments.json,
        stateless_http=arguments.stateless,
        streamable_http_path=arguments.path,
        log_level="CRITICAL",
        **options,
    )
    _add_counting_tools(mcp)
    _add_executing_tools(mcp)
    _add_losing_tools(mcp)
    _add_talking_tools(mcp)
    _add_asking_tools(mcp)
    _add_resources(mcp)
    _add_routes(mcp)
    return mcp


def _auth_options(arguments: argparse.Namespace) -> dict[str, Any]:
    from mcp.server.auth.provider import AccessToken
    from mcp.server.auth.settings import AuthSettings

    users = arguments.auth.split(",")

    class Tokens:
        async def verify_token(self, token: str) -> AccessToken | None:
            user = token.split("-")[0]
            if user not in users:
                return None
            return AccessToken(token=token, client_id=user, scopes=["count"], expires_at=None)

    origin = f"http://127.0.0.1:{arguments.port}"
    settings = AuthSettings(
        issuer_url=origin,  # type: ignore[arg-type]
        resource_server_url=f"{origin}{arguments.path}",  # type: ignore[arg-type]
        required_scopes=["count"],
    )
    return {"token_verifier": Tokens(), "auth": settings}


def _add_counting_tools(mcp: FastMCP) -> None:
    """Tools that tell sessions apart."""

    @mcp.tool()
    async def increment(ctx: Context) -> int:
        """Count one more in this session and return the count."""
        ledger.calls["increment"] += 1
        state = ledger.of(ctx.session)
        state.count += 1
        return state.count

    @mcp.tool()
    async def echo(message: str) -> str:
        """Say it again."""
        return f"Echo: {message}"

    @mcp.tool()
    async def whoami(ctx: Context) -> str:
        """JSON: the number of this session, who opened it, and how this call arrived."""
        ledger.calls["whoami"] += 1
        state = ledger.of(ctx.session)
        params = ctx.session.client_params
        request = ctx.request_context.request
        meta = ctx.request_context.meta
        return json.dumps(
            {
                "session": state.number,
                "client": params.clientInfo.name if params else None,
                "protocol": params.protocolVersion if params else None,
                "capabilities": params.capabilities.model_dump(exclude_none=True) if params else None,
                "log_level": state.log_level,
                "subscriptions": sorted(state.subscriptions),
                "authorization": request.headers.get("authorization") if request else os.environ.get(CALLER),
                "query": request.url.query if request else None,
                "meta": meta.model_dump(exclude_none=True) if meta else None,
            }
        )


def _add_talking_tools(mcp: FastMCP) -> None:
    """Tools that take their time or say something on the way."""

    @mcp.tool()
    async def slow(seconds: float, ctx: Context) -> str:
        """Answer after some seconds."""
        ledger.calls["slow"] += 1
        ledger.of(ctx.session)
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            ledger.cancelled += 1
            raise
        return f"slept {seconds}"

    @mcp.tool()
    async def meet(number: int, place: str) -> str:
        """Answer once so many calls have come to the same place."""
        here, all_here = ledger.meetings.setdefault(place, ([], anyio.Event()))
        here.append(place)
        if len(here) == number:
            all_here.set()
        await all_here.wait()
        return f"{number} met"

    @mcp.tool()
    async def progress(n: int, ctx: Context) -> str:
        """Report progress n times, then answer."""
        ledger.calls["progress"] += 1
        for step in range(1, n + 1):
            await ctx.report_progress(step, n, f"step {step}")
        return f"{n} steps"

    @mcp.tool()
    async def log(message: str, ctx: Context) -> str:
        """Send one log message to the client, then answer."""
        ledger.calls["log"] += 1
        await ctx.info(message)
        return "logged"


def _add_losing_tools(mcp: FastMCP) -> None:
    """Tools that lose sessions."""

    @mcp.tool()
    async def expire() -> str:
        """Forget every session, this one included, without ending what is in flight."""
        mcp.session_manager._server_instances.clear()
        return "expired"


def _add_executing_tools(mcp: FastMCP) -> None:
    """Tools that show how often, and whether, a call was executed."""

    @mcp.tool()
    async def execute(key: str) -> int:
        """Execute once more under `key`, over all sessions; returns how often that happened."""
        ledger.executions[key] += 1
        return ledger.executions[key]

    @mcp.tool()
    async def execution_count(key: str) -> int:
        """How often `execute` or `die` ran under `key`."""
        return ledger.executions[key]

    @mcp.tool()
    async def die(key: str) -> str:
        """Execute under `key`, then end the whole server without an answer."""
        ledger.executions[key] += 1
        os._exit(3)

    @mcp.tool()
    async def big(size: int) -> str:
        """A text of `size` characters."""
        return "x" * size

    @mcp.tool()
    async def fail(message: str) -> str:
        """A tool error with this message."""
        raise ValueError(message)


def _add_asking_tools(mcp: FastMCP) -> None:
    """Tools that ask the client or notify it."""

    @mcp.tool()
    async def elicit_name(ctx: Context) -> str:
        """Ask the client's user for a name."""
        ledger.calls["elicit_name"] += 1
        answer = await ctx.elicit("What is your name?", Name)
        return f"{answer.action}:{answer.data.name if answer.action == 'accept' else ''}"

    @mcp.tool()
    async def sample(prompt: str, ctx: Context) -> str:
        """Ask the client's model."""
        ledger.calls["sample"] += 1
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
        answer = await ctx.session.create_message(messages=[message], max_tokens=10)
        return answer.content.text if isinstance(answer.content, types.TextContent) else "?"

    @mcp.tool()
    async def list_client_roots(ctx: Context) -> str:
        """JSON: the URIs of the client's roots."""
        ledger.calls["list_client_roots"] += 1
        answer = await ctx.session.list_roots()
        return json.dumps([str(root.uri) for root in answer.roots])

    @mcp.tool()
    async def touch(ctx: Context, uri: str = "counter://shared") -> str:
        """Tell every session that subscribed to `uri` that it changed; returns how many were told."""
        ledger.calls["touch"] += 1
        told = 0
        for session, state in list(ledger.sessions.items()):
            if uri in state.subscriptions:
                await session.send_resource_updated(AnyUrl(uri))
                told += 1
        return str(told)

    @mcp.tool()
    async def tools_changed(ctx: Context) -> str:
        """Send notifications/tools/list_changed to this session."""
        await ctx.session.send_tool_list_changed()
        return "told"


def _add_resources(mcp: FastMCP) -> None:
    @mcp.resource("counter://shared")
    def shared() -> str:
        """How many sessions this server has seen."""
        return str(ledger.session_numbers)

    @mcp.prompt()
    def greet(name: str) -> str:
        """A prompt that greets."""
        return f"Say hello to {name}."

    server = mcp._mcp_server

    @server.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        ledger.of(server.request_context.session).subscriptions.add(str(uri))

    @server.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        ledger.of(server.request_context.session).subscriptions.discard(str(uri))

    @server.set_logging_level()
    async def set_level(level: str) -> None:
        ledger.of(server.request_context.session).log_level = level

    # The 1.x SDK declares `subscribe: false` whatever handlers there are.
    plain = server.get_capabilities

    def capabilities(*args: Any) -> types.ServerCapabilities:
        found = plain(*args)
        found.resources = types.ResourcesCapability(subscribe=True, listChanged=False)
        found.tools = types.ToolsCapability(listChanged=True)
        return found

    server.get_capabilities = capabilities  # type: ignore[method-assign]


def _add_routes(mcp: FastMCP) -> None:
    @mcp.custom_route("/stats", methods=["GET"])
    async def stats(request: Request) -> Response:
        caller = request.query_params.get("authorization")
        opened = [session for session, by in ledger.opened.items() if caller in (None, by)]
        instances = mcp.session_manager._server_instances
        # mcp 1.23 keeps ended sessions there.
        live = [session for session, transport in instances.items() if not transport.is_terminated]
        return JSONResponse(
            {
                "sessions": {
                    "opened": len(opened),
                    "closed": len(ledger.closed.intersection(opened)),
                    "live": len(set(live).intersection(opened)),
                },
                "live_sessions": sorted(set(live).intersection(opened)),
                "initialize_with_session_id": ledger.initialize_with_session_id,
                "open_streams": ledger.open_streams,
                "streams_opened": ledger.streams_opened,
                "cancelled": ledger.cancelled,
                "calls": dict(ledger.calls),
                "executions": dict(ledger.executions),
                "pid": os.getpid(),
            }
        )

    @mcp.custom_route("/requests", methods=["GET"])
    async def requests(request: Request) -> Response:
        caller = request.query_params.get("authorization")
        seen = ledger.requests
        return JSONResponse([r for r in seen if caller in (None, r["headers"].get("authorization"))])

    @mcp.custom_route("/forget", methods=["POST"])
    async def forget(_: Request) -> Response:
        instances = mcp.session_manager._server_instances
        transports = list(instances.values())
        instances.clear()
        for transport in transports:
            await transport.terminate()
        return PlainTextResponse(str(len(transports)))

    @mcp.custom_route("/reset", methods=["POST"])
    async def reset(_: Request) -> Response:
        ledger.zero()
        return PlainTextResponse("ok")

    @mcp.custom_route("/echo", methods=["POST"])
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type=request.headers.get("content-type"))


class Watch:
    """ASGI middleware that counts sessions and records requests at the MCP endpoint."""

    def __init__(self, app: Any, path: str) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass the request on, looking at it and at the head of its response."""
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return
        body = bytearray()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        record = {
            "http": scope["method"],
            "headers": headers,
            "query": scope["query_string"].decode(),
            "method": None,
            "id": None,
            "status": None,
        }
        ledger.requests.append(record)

        async def watched_receive() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._note_body(record, bytes(body))
            return message

        async def watched_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                self._note_head(record, message)
            await send(message)

        is_stream = scope["method"] == "GET"
        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            if is_stream and record["status"] == 200:
                ledger.open_streams -= 1

    def _note_body(self, record: dict[str, Any], body: bytes) -> None:
        try:
            message = json.loads(body)
        except ValueError:
            return
        if isinstance(message, dict):
            record["method"] = message.get("method")
            record["id"] = message.get("id")
            if message.get("method") == "initialize" and "mcp-session-id" in record["headers"]:
                ledger.initialize_with_session_id += 1

    def _note_head(self, record: dict[str, Any], message: Any) -> None:
        if message["status"] != 200:
            return
        if record["http"] == "GET":
            ledger.open_streams += 1
            ledger.streams_opened += 1
        if record["http"] == "DELETE":
            ledger.closed.add(record["headers"].get("mcp-session-id", ""))
        if record["method"] == "initialize":
            for name, value in message["headers"]:
                if name == b"mcp-session-id":
                    ledger.opened[value.decode()] = record["headers"].get("authorization", "")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true", help="speak over standard input and output instead")
    parser.add_argument("--sse", action="store_true", help="speak HTTP+SSE of 2024 at /sse, and tell nothing")
    parser.add_argument("--path", default="/mcp")
    parser.add_argument("--json", action="store_true", help="answer JSON instead of SSE")
    parser.add_argument("--stateless", action="store_true", help="issue no session ids")
    parser.add_argument("--auth", default="", help="comma-separated users; `Bearer USER-anything` is let in")
    arguments = parser.parse_args()
    mcp = build(arguments)
    if arguments.stdio:
        mcp.run("stdio")
        return
    app = mcp.sse_app() if arguments.sse else Watch(mcp.streamable_http_app(), arguments.path)
    config = uvicorn.Config(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    server = uvicorn.Server(config)

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            while not server.started and not server.should_exit:
                await anyio.sleep(0.01)
            print(f"counter server at http://127.0.0.1:{arguments.port}{arguments.path}", flush=True)

    # A second SIGTERM is not waited for: streams that clients hold open would keep uvicorn from leaving.
    config.timeout_graceful_shutdown = 1
    anyio.run(serve)
    sys.exit(0)


if __name__ == "__main__":
    main()
