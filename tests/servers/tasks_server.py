"""A stateful MCP server whose long tools run as tasks of 2025-11-25: the experimental ones of `mcp` 1.30.

    python tasks_server.py --port 8000

It has the fixtures that the official conformance suite asks for, and three more. The servers with FastMCP 3
(`fastmcp_tasks_server.py`) and the TypeScript SDK (`tasks_server.mjs`) have the same, as far as they can:

    tool                        task      what it does
    greet name                  -         Hello, NAME!
    report topic                required  says how far it is; Report on TOPIC
    register                    required  asks for a name; Registered NAME
    slow_compute seconds label  optional  sleeps, unless it is cancelled; LABEL: done
    confirm_delete filename     optional  asks whether to; Deleted FILENAME, or Kept FILENAME
    ask_model prompt            optional  asks the client's model
    multi_input                 optional  asks for two names at the same time
    test_tool_with_task         required  asks for a name before it becomes a task; Task of NAME
    failing_job                 required  reports that the tool failed
    protocol_error_job          optional  ends with an error of the protocol

`GET /stats` tells how often each tool was run with which arguments, and what was cancelled on the way.
"""

import argparse
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn
from mcp import types
from mcp.server.experimental.task_context import ServerTaskContext
from mcp.server.fastmcp.server import StreamableHTTPASGIApp
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError
from mcp.shared.experimental.tasks.in_memory_task_store import InMemoryTaskStore
from mcp.shared.experimental.tasks.message_queue import InMemoryTaskMessageQueue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

STEP_SECONDS = 0.05
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CONFIRMED = {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]}

Arguments = dict[str, Any]

runs: Counter[str] = Counter()
cancelled: Counter[str] = Counter()
store = InMemoryTaskStore()
queue = InMemoryTaskMessageQueue()


class InTask:
    """A tool's way to its client while it runs as a task."""

    def __init__(self, task: ServerTaskContext) -> None:
        self._task = task

    async def say(self, message: str) -> None:
        """Tell how far it is."""
        await self._task.update_status(message)

    async def ask(self, message: str, schema: Arguments) -> Arguments:
        """Ask the user; what was filled in, nothing if it was declined."""
        return (await self._task.elicit(message, schema)).content or {}

    async def model(self, prompt: str) -> str:
        """Ask the client's model."""
        return _text_of(await self._task.create_message(_prompt(prompt), max_tokens=10))

    async def is_cancelled(self) -> bool:
        """Whether the client wants no more of it. The SDK tells nobody; its store knows."""
        task = await store.get_task(self._task.task_id)
        return task is None or task.status == "cancelled"


class InCall:
    """The same while it runs as an ordinary call."""

    def __init__(self, session: ServerSession, request_id: types.RequestId) -> None:
        self._session = session
        self._request_id = request_id

    async def say(self, message: str) -> None:
        """Tell how far it is: nobody hears it."""

    async def ask(self, message: str, schema: Arguments) -> Arguments:
        """Ask the user; what was filled in, nothing if it was declined."""
        answer = await self._session.elicit_form(message, schema, related_request_id=self._request_id)
        return answer.content or {}

    async def model(self, prompt: str) -> str:
        """Ask the client's model."""
        return _text_of(
            await self._session.create_message(
                _prompt(prompt), max_tokens=10, related_request_id=self._request_id
            )
        )

    async def is_cancelled(self) -> bool:
        """Whoever cancels a call ends it at once."""
        return False


Way = InTask | InCall
Work = Callable[[Way, Arguments], Awaitable[types.CallToolResult]]


def _prompt(text: str) -> list[types.SamplingMessage]:
    return [types.SamplingMessage(role="user", content=types.TextContent(type="text", text=text))]


def _text_of(message: types.CreateMessageResult) -> str:
    assert isinstance(message.content, types.TextContent)
    return message.content.text


def _said(text: str, *, failed: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], isError=failed)


async def _greet(way: Way, arguments: Arguments) -> types.CallToolResult:
    return _said(f"Hello, {arguments['name']}!")


async def _report(way: Way, arguments: Arguments) -> types.CallToolResult:
    for step in (1, 2):
        await way.say(f"{step} of 2")
        await anyio.sleep(STEP_SECONDS)
    return _said(f"Report on {arguments['topic']}")


async def _register(way: Way, arguments: Arguments) -> types.CallToolResult:
    return _said(f"Registered {(await way.ask('What is your name?', NAMED)).get('name', 'nobody')}")


async def _slow_compute(way: Way, arguments: Arguments) -> types.CallToolResult:
    label = arguments.get("label", "slow")
    end = anyio.current_time() + arguments["seconds"]
    while (left := end - anyio.current_time()) > 0:
        await anyio.sleep(min(STEP_SECONDS, left))
        if await way.is_cancelled():
            cancelled[label] += 1
            # To end now would end the whole session: the SDK lets nobody finish what is cancelled.
            await anyio.sleep_forever()
    return _said(f"{label}: done")


async def _confirm_delete(way: Way, arguments: Arguments) -> types.CallToolResult:
    filename = arguments["filename"]
    confirmed = (await way.ask(f"Delete {filename}?", CONFIRMED)).get("confirm")
    return _said(f"Deleted {filename}" if confirmed else f"Kept {filename}")


async def _ask_model(way: Way, arguments: Arguments) -> types.CallToolResult:
    return _said(await way.model(arguments["prompt"]))


async def _multi_input(way: Way, arguments: Arguments) -> types.CallToolResult:
    names: dict[str, str] = {}

    async def ask(who: str) -> None:
        names[who] = (await way.ask(f"Name of the {who}?", NAMED)).get("name", "nobody")

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "first")
        group.start_soon(ask, "second")
    return _said(f"{names['first']} and {names['second']}")


async def _failing_job(way: Way, arguments: Arguments) -> types.CallToolResult:
    await anyio.sleep(STEP_SECONDS)
    return _said("The job failed", failed=True)


async def _protocol_error_job(way: Way, arguments: Arguments) -> types.CallToolResult:
    await anyio.sleep(STEP_SECONDS)
    raise McpError(types.ErrorData(code=-32050, message="The job broke the protocol"))


_STRINGS = {"type": "string"}
TOOLS: dict[str, tuple[types.TaskExecutionMode, Work, Arguments]] = {
    "greet": ("forbidden", _greet, {"name": _STRINGS}),
    "report": ("required", _report, {"topic": _STRINGS}),
    "register": ("required", _register, {}),
    "slow_compute": ("optional", _slow_compute, {"seconds": {"type": "number"}, "label": _STRINGS}),
    "confirm_delete": ("optional", _confirm_delete, {"filename": _STRINGS}),
    "ask_model": ("optional", _ask_model, {"prompt": _STRINGS}),
    "multi_input": ("optional", _multi_input, {}),
    "test_tool_with_task": ("required", _register, {}),
    "failing_job": ("required", _failing_job, {}),
    "protocol_error_job": ("optional", _protocol_error_job, {}),
}


def _server() -> "Server[Any, Any]":
    """A server for one session: what supports tasks in the SDK serves one session at a time."""
    server: Server[Any, Any] = Server("tasks", instructions="Some of the tools take their time.")
    server.experimental.enable_tasks(store=store, queue=queue)

    @server.list_tools()
    async def list_tools() -> list[types.Tool]:
        return [
            types.Tool(
                name=name,
                inputSchema={"type": "object", "properties": properties},
                execution=None if mode == "forbidden" else types.ToolExecution(taskSupport=mode),
            )
            for name, (mode, _, properties) in TOOLS.items()
        ]

    @server.call_tool()
    async def call_tool(name: str, arguments: Arguments) -> types.CallToolResult | types.CreateTaskResult:
        mode, work, _ = TOOLS[name]
        context = server.request_context
        context.experimental.validate_task_mode(mode)
        runs[f"{name} {json.dumps(arguments, sort_keys=True)}"] += 1
        here = InCall(context.session, context.request_id)
        if not context.experimental.is_task:
            return await work(here, arguments)
        if name == "test_tool_with_task":
            who = (await here.ask("What is your name?", NAMED)).get("name", "nobody")

            async def told(task: ServerTaskContext) -> types.CallToolResult:
                return _said(f"Task of {who}")

            return await context.experimental.run_task(told)
        return await context.experimental.run_task(lambda task: work(InTask(task), arguments))

    return server


class _EachItsOwn:
    """What the manager of sessions takes for a server: it has another one for each session."""

    async def run(self, *streams: Any, **options: Any) -> None:
        await _server().run(*streams, **options)

    def create_initialization_options(self) -> Any:
        return _server().create_initialization_options()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    manager = StreamableHTTPSessionManager(_EachItsOwn())

    async def stats(_: Request) -> JSONResponse:
        return JSONResponse({"runs": runs, "cancelled": cancelled})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    routes = [Route("/stats", stats), Route("/mcp", StreamableHTTPASGIApp(manager))]
    app = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
