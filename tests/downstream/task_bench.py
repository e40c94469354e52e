"""Clients of both eras before the whole proxy and a hand-made server with tasks."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from modern_bench import ALL, META, Modern, modern, routing
from proxy_bench import Answer
from restart_bench import Successors
from task_server import TaskServer

EXTENSION = f"{META}tasks"
KNOWS_TASKS: dict[str, Any] = {**ALL, "extensions": {EXTENSION: {}}}
FORM: dict[str, Any] = {
    "message": "Name?",
    "requestedSchema": {"type": "object", "title": "Name", "properties": {}},
}
ADA = {"action": "accept", "content": {"name": "Ada"}}
DONE = {"content": [{"type": "text", "text": "done"}]}
# What a result is in the words of the later revision.
LIFTED = {"resultType": "complete", "_meta": {f"{META}serverInfo": {"name": "fake", "version": "1"}}}
# Between two questions how a task stands. To ask without a pause costs more than all the rest of a test.
PAUSE_SECONDS = 0.02


class TaskBench(Modern):
    """A bench before a :class:`TaskServer`, whose client asks for tasks by their ids."""

    server: TaskServer

    def __init__(self, server: TaskServer) -> None:
        super().__init__(server)
        self.server = server

    async def call(self, name: str = "work", *, capabilities: Any = KNOWS_TASKS, **headers: str) -> Answer:
        """Call a tool, as a client that knows tasks."""
        meta = {f"{META}clientCapabilities": capabilities}
        return await self.ask(modern(name=name, meta=meta), **headers)

    async def handle(self, name: str = "work", **headers: str) -> Any:
        """The handle that a call gives."""
        answer = await self.call(name, **headers)
        assert answer.json["result"]["resultType"] == "task", answer.json
        return answer.json["result"]

    async def about(
        self, method: str, task: str, *, capabilities: Any = KNOWS_TASKS, name: str | None = None, **more: Any
    ) -> Answer:
        """A request about a task; ``token`` is its caller's."""
        token = more.pop("token", None)
        meta = {f"{META}clientCapabilities": capabilities}
        message = modern(f"tasks/{method}", meta=meta, taskId=task, **more)
        headers = routing(message, {"Mcp-Name": task if name is None else name})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self.post(message, headers=headers)

    async def get(self, task: str, **more: Any) -> Any:
        """How a task stands."""
        answer = await self.about("get", task, **more)
        assert answer.status == 200, answer.json
        return answer.json["result"]

    async def until_status(self, task: str, *wanted: str, **more: Any) -> Any:
        """How it stands, once it stands so; the server is asked each time."""
        while (state := await self.get(task, **more))["status"] not in wanted:
            await asyncio.sleep(PAUSE_SECONDS)
        return state


class Proxies(Successors[TaskBench]):
    """One proxy after another, with the same state, before one server."""

    def __init__(self, server: TaskServer, state: Path) -> None:
        super().__init__(partial(TaskBench, server), state_dir=str(state))
