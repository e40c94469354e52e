"""Calls that take longer than ``--task-after``, and go on as tasks of clients that know what that is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from modern_bench import ALL, META, modern, routing
from proxy_bench import read_events, until
from task_bench import ADA, DONE, EXTENSION, FORM, KNOWS_TASKS, TaskBench

AFTER = "50ms"


class Tool:
    """A tool that is finished, or asks, when the test says so."""

    def __init__(self, server: HttpServer) -> None:
        self.answers: list[Any] = []
        self.cancelled = asyncio.Event()
        self._does: asyncio.Queue[Any] = asyncio.Queue()
        self._heard = asyncio.Event()
        server.on |= {
            "tools/call": self._call,
            "response": self._response,
            "notifications/cancelled": self._cancel,
        }

    def finish(self, result: Any = DONE) -> None:
        self._does.put_nowait({"result": result})

    def fail(self, code: int, message: str) -> None:
        self._does.put_nowait({"error": {"code": code, "message": message}})

    def ask(self, identifier: str) -> None:
        self._does.put_nowait({"id": identifier, "method": "elicitation/create", "params": FORM})

    async def _call(self, request: web.Request, message: Any) -> web.StreamResponse:
        stream = await begin_stream(request)
        while "method" in (doing := await self._does.get()):
            await write_event(stream, {"jsonrpc": "2.0", **doing})
        await write_event(stream, {"jsonrpc": "2.0", "id": message["id"], **doing})
        return stream

    async def _response(self, _: web.Request, message: Any) -> web.StreamResponse:
        self.answers.append((message["id"], message.get("result")))
        return web.Response(status=202)

    async def _cancel(self, _: web.Request, __: Any) -> web.StreamResponse:
        self.cancelled.set()
        return web.Response(status=202)


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[TaskBench]:
    """A client that knows tasks and a server that knows none; the test starts the proxy between them."""
    async with TaskBench(server) as bench:  # type: ignore[arg-type]
        yield bench


@pytest.fixture
def tool(server: HttpServer) -> Tool:
    """The server's only tool."""
    return Tool(server)


async def test_a_call_that_takes_long(bench: TaskBench, tool: Tool) -> None:
    """Its client has a handle when the time is over, and later the result; the server hears of one call."""
    await bench.start(task_after=AFTER, task_ttl="90s")
    discovered = (await bench.ask(modern("server/discover"))).json["result"]
    assert discovered["capabilities"]["extensions"] == {EXTENSION: {}}
    handle = await bench.handle("count")
    assert (handle["status"], handle["ttlMs"], "pollIntervalMs" in handle) == ("working", 90_000, False)
    assert (await bench.get(handle["taskId"]))["status"] == "working"
    tool.finish()
    assert (await bench.until_status(handle["taskId"], "completed"))["result"]["content"] == DONE["content"]
    assert len(bench.server.posts("tools/call")) == 1


async def test_calls_that_are_done_in_time(bench: TaskBench, tool: Tool) -> None:
    """They are answered as ever."""
    await bench.start(task_after="1h")
    tool.finish()
    assert (await bench.call("count")).json["result"]["content"] == DONE["content"]
    assert len(bench.proxy.core.tasks) == 0


async def test_clients_that_do_not_know_tasks(bench: TaskBench, tool: Tool) -> None:
    """They wait."""
    await bench.start(task_after="1ms")
    async with _calling(bench, ALL) as asking:
        await until(lambda: bench.server.posts("tools/call"))
        tool.finish()
        assert (await asking).json["result"]["content"] == DONE["content"]


async def test_no_room(bench: TaskBench, tool: Tool) -> None:
    """A call that finds no place waits on, which is no worse than without tasks."""
    await bench.start(task_after="1ms", max_tasks="1")
    await bench.handle("count")
    async with _calling(bench, KNOWS_TASKS) as asking:
        await until(lambda: len(bench.server.posts("tools/call")) == 2)
        tool.finish()
        tool.finish()
        assert (await asking).json["result"]["content"] == DONE["content"]


async def test_questions(bench: TaskBench, tool: Tool) -> None:
    """They come with how the task stands, under new keys, while others wait to be answered, too."""
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    tool.ask("q1")
    state = await bench.until_status(identifier, "input_required")
    assert state["inputRequests"] == {"name": {"method": "elicitation/create", "params": FORM}}
    tool.ask("q2")
    while len((await bench.get(identifier))["inputRequests"]) < 2:
        pass
    await bench.about("update", identifier, inputResponses={"name": ADA, "other": {}})
    state = await bench.get(identifier)
    assert (state["status"], list(state["inputRequests"])) == ("input_required", ["name_2"])
    await bench.about("update", identifier, inputResponses={"name": ADA, "name_2": ADA})
    await until(lambda: len(tool.answers) == 2)
    tool.ask("q3")
    state = await bench.until_status(identifier, "input_required")
    assert list(state["inputRequests"]) == ["name_3"]
    await bench.about("update", identifier, inputResponses={"name_3": ADA})
    await until(lambda: len(tool.answers) == 3)
    tool.finish()
    assert (await bench.until_status(identifier, "completed"))["result"]["content"] == DONE["content"]
    assert tool.answers == [("q1", ADA), ("q2", ADA), ("q3", ADA)]


async def test_a_server_that_goes_on_without_an_answer(bench: TaskBench, tool: Tool) -> None:
    """The task is over then, whatever is still asked."""
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    tool.ask("q1")
    await bench.until_status(identifier, "input_required")
    tool.finish()
    assert (await bench.until_status(identifier, "completed"))["result"]["content"] == DONE["content"]


@pytest.mark.parametrize("asked", [False, True], ids=["working", "asked"])
@pytest.mark.slow
async def test_cancelling(bench: TaskBench, tool: Tool, *, asked: bool) -> None:
    """The server is told as if the client had closed the response; the task stands as cancelled."""
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    if asked:
        tool.ask("q1")
        await bench.until_status(identifier, "input_required")
    assert (await bench.about("cancel", identifier)).json["result"]["resultType"] == "complete"
    await bench.until_status(identifier, "cancelled")
    await asyncio.wait_for(tool.cancelled.wait(), 30)
    await until(lambda: all(not slot.leases for slot in bench.proxy.core.pool.books.slots()))


async def test_a_call_that_fails(bench: TaskBench, tool: Tool) -> None:
    """An error of the server's is the task's."""
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    tool.fail(-32010, "no")
    assert (await bench.until_status(identifier, "failed"))["error"] == {"code": -32010, "message": "no"}


async def test_an_answer_that_is_lost(bench: TaskBench) -> None:
    """An error of ours is the task's, too, and says what is known."""
    go_on = asyncio.Event()

    async def break_off(request: web.Request, _: Any) -> web.StreamResponse:
        await go_on.wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    bench.server.on["tools/call"] = break_off
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    go_on.set()
    error = (await bench.until_status(identifier, "failed"))["error"]
    assert (error["code"], error["data"]["reason"]) == (-32603, "outcome-unknown")


async def test_listening(bench: TaskBench, tool: Tool) -> None:
    """A listener hears how it ends."""
    await bench.start(task_after=AFTER)
    identifier = (await bench.handle("count"))["taskId"]
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    listen = modern("subscriptions/listen", 9, meta=meta, notifications={"taskIds": [identifier]})
    async with bench.stream(listen) as response:
        await read_events(response.content, 2)
        tool.finish()
        [(_, ended)] = await read_events(response.content, 1)
    params = ended["params"]
    assert (params["status"], params["result"]["content"]) == ("completed", DONE["content"])


async def test_only_calls_of_tools(bench: TaskBench) -> None:
    """Nothing else becomes a task (ext-tasks, "Supported Methods")."""

    async def get(_: web.Request, message: Any) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return reply_to(message, {"messages": []})

    bench.server.on["prompts/get"] = get
    await bench.start(task_after="1ms")
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    answer = await bench.ask(modern("prompts/get", name="p", meta=meta))
    assert answer.json["result"]["resultType"] == "complete"


async def test_the_end_of_the_proxy(bench: TaskBench, tool: Tool) -> None:
    """It does not wait for tasks, which nobody could ask for any more."""
    await bench.start(task_after=AFTER)
    await bench.handle("count")
    async with asyncio.timeout(30):
        await bench.stop()
    assert tool.answers == []


def _calling(bench: TaskBench, capabilities: Any) -> Any:
    message = modern(name="count", meta={f"{META}clientCapabilities": capabilities})
    return bench.asking(message, headers=routing(message))
