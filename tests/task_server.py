"""A hand-made server with the tasks of 2025-11-25, for what no SDK would do.

Every call with ``task`` makes one that lies there until the test ends it, asks in it, or forgets it::

    answer = await bench.ask(modern(name="work"))
    task = await server.next_task()
    await task.ask("elicitation/create", message="Sure?", requestedSchema={})
    task.finish({"content": []})

Its ids can be guessed (``1``, ``2``, ...), as a client's must not be. Handlers in ``server.on`` can be
replaced, so a test can have any method answered with nonsense.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event

RELATED = "io.modelcontextprotocol/related-task"
CREATED = "2025-11-25T10:30:00Z"
TASKS: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
# Whether a tool may run as a task: the test's own may be any.
TOOLS = {"work": "required", "choose": "optional", "count": "forbidden"}


@dataclass(eq=False, kw_only=True)
class HeldTask:
    """One task, which does what the test says. What it is asked with is in ``params``."""

    id: str
    session: str
    params: Mapping[str, Any]
    status: str = "working"
    message: str | None = None
    outcome: dict[str, Any] | None = None  # the "result" or "error" that tasks/result answers
    times_asked: int = 0  # how often it was called for by tasks/get
    cancels: int = 0
    answers: dict[object, Any] = field(default_factory=dict)  # to its questions, by their ids
    _said: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def write(self) -> dict[str, Any]:
        """What tasks/get answers."""
        told: dict[str, Any] = {
            "taskId": self.id,
            "status": self.status,
            "createdAt": CREATED,
            "lastUpdatedAt": CREATED,
        }
        told |= {"ttl": (self.params.get("task") or {}).get("ttl"), "pollInterval": 20}
        return told if self.message is None else told | {"statusMessage": self.message}

    def become(self, status: str, message: str | None = None) -> None:
        """Another status, and whoever waits for the result looks again."""
        self.status, self.message = status, message
        self._changed.set()

    def finish(self, result: dict[str, Any], status: str = "completed") -> None:
        """End with a result."""
        self.outcome = {"result": result}
        self.become(status)

    def fail(self, code: int, message: str) -> None:
        """End with an error of JSON-RPC."""
        self.outcome = {"error": {"code": code, "message": message}}
        self.become("failed", message)

    def ask(self, method: str = "elicitation/create", **params: object) -> str:
        """Ask the client, on the stream of ``tasks/result``; the question's id."""
        identifier = f"{self.id}-q{next(self._numbers)}"
        params["_meta"] = {RELATED: {"taskId": self.id}}
        self._said.put_nowait({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
        self.become("input_required")
        return identifier

    async def answer_to(self, identifier: str) -> Any:
        """The client's response to a question."""
        while identifier not in self.answers:
            self._changed.clear()
            await self._changed.wait()
        return self.answers[identifier]

    def hear(self, response: Mapping[str, Any]) -> None:
        """Take a client's response."""
        self.answers[response["id"]] = response
        self._changed.set()

    async def tell(self, stream: web.StreamResponse) -> None:
        """Write what is said in the task, until it is over."""
        while True:
            while not self._said.empty():
                await write_event(stream, self._said.get_nowait())
            if self.outcome is not None or self.status in {"completed", "failed", "cancelled"}:
                return
            self._changed.clear()
            waits = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._until_said())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def _until_said(self) -> None:
        message = await self._said.get()
        self._said.put_nowait(message)


class TaskServer(HttpServer):
    """A server whose ``tools`` run as tasks; ``tasks`` by id, those that it forgot left out.

    ``refuses_politely``: a tool that needs a task is refused with a failed result, as the SDKs do it, and not
    with an error.
    """

    def __init__(self, tools: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.tools = dict(TOOLS if tools is None else tools)
        self.tasks: dict[str, HeldTask] = {}
        self.refuses_politely = False
        self.streams: dict[str, web.StreamResponse] = {}  # each session's GET stream
        self._created: asyncio.Queue[HeldTask] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self.on |= {
            "initialize": self._initialize,
            "GET": self._get,
            "tools/list": self._list_tools,
            "tools/call": self._call,
            "tasks/get": self._get_task,
            "tasks/result": self._result,
            "tasks/cancel": self._cancel,
            "response": self._response,
        }

    async def next_task(self) -> HeldTask:
        """The next one that is created, or was and has not been asked for."""
        async with asyncio.timeout(30):
            return await self._created.get()

    def forget(self, task: HeldTask) -> None:
        """Know nothing of it any more; who waits for its result is told so."""
        del self.tasks[task.id]
        task.outcome = _not_found(task.id)
        task.become(task.status)

    async def notify(self, task: HeldTask, **changed: object) -> None:
        """Tell of a task's status on its session's GET stream."""
        params = {**task.write(), **changed}
        message = {"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": params}
        await write_event(self.streams[task.session], message)

    async def ask_unrelated(self, task: HeldTask, **params: object) -> str:
        """Ask on the GET stream without a word of the task, as FastMCP does."""
        identifier = f"{task.id}-g{len(task.answers)}"
        message = {"jsonrpc": "2.0", "id": identifier, "method": "elicitation/create", "params": params}
        await write_event(self.streams[task.session], message)
        return identifier

    async def _initialize(self, _: web.Request, message: Any) -> web.StreamResponse:
        return self.open_session(message, capabilities={"tools": {"listChanged": True}, "tasks": TASKS})

    async def _get(self, request: web.Request, _: Any) -> web.StreamResponse:
        stream = await begin_stream(request)
        self.streams[request.headers["Mcp-Session-Id"]] = stream
        await asyncio.Event().wait()
        return stream

    async def _list_tools(self, _: web.Request, message: Any) -> web.StreamResponse:
        schema = {"type": "object"}
        tools = [
            {"name": name, "inputSchema": schema, "execution": {"taskSupport": mode}}
            for name, mode in self.tools.items()
        ]
        return reply_to(message, {"tools": tools})

    async def _call(self, request: web.Request, message: Any) -> web.StreamResponse:
        params = message["params"]
        session = request.headers["Mcp-Session-Id"]
        self.sessions[session] += 1
        mode = self.tools.get(params["name"])
        if "task" not in params and mode != "required":
            text = {"type": "text", "text": f"{params['name']} was called"}
            return reply_to(message, {"content": [text]})
        if "task" not in params:
            said = f"Tool {params['name']} requires task augmentation"
            if self.refuses_politely:
                return reply_to(message, {"content": [{"type": "text", "text": said}], "isError": True})
            return _reply(message, {"error": {"code": -32601, "message": said}})
        task = HeldTask(id=str(next(self._numbers)), session=session, params=params)
        self.tasks[task.id] = task
        self._created.put_nowait(task)
        return reply_to(message, {"task": task.write()})

    async def _get_task(self, _: web.Request, message: Any) -> web.StreamResponse:
        task = self.tasks.get(message["params"]["taskId"])
        if task is None:
            return _reply(message, _not_found(message["params"]["taskId"]))
        task.times_asked += 1
        return reply_to(message, task.write())

    async def _result(self, request: web.Request, message: Any) -> web.StreamResponse:
        task = self.tasks.get(message["params"]["taskId"])
        if task is None:
            return _reply(message, _not_found(message["params"]["taskId"]))
        stream = await begin_stream(request)
        with contextlib.suppress(ConnectionError):
            await task.tell(stream)
            outcome = task.outcome or {"result": {"_meta": {RELATED: {"taskId": task.id}}}}
            await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], **outcome})
        return stream

    async def _cancel(self, _: web.Request, message: Any) -> web.StreamResponse:
        task = self.tasks.get(message["params"]["taskId"])
        if task is None:
            return _reply(message, _not_found(message["params"]["taskId"]))
        task.cancels += 1
        if task.status in {"completed", "failed", "cancelled"}:
            return _reply(message, {"error": {"code": -32602, "message": "Cannot cancel a terminal task"}})
        task.become("cancelled")
        return reply_to(message, task.write())

    async def _response(self, _: web.Request, message: Any) -> web.StreamResponse:
        task = self.tasks.get(str(message["id"]).partition("-")[0])
        if task is not None:
            task.hear(message)
        return web.Response(status=202)


def _reply(message: Any, outcome: Mapping[str, Any]) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], **outcome})


def _not_found(task_id: str) -> dict[str, Any]:
    return {"error": {"code": -32602, "message": f"Failed to retrieve task: Task not found: {task_id}"}}
