"""Clients that leave before they have a handle: nothing of their tasks goes on, and nobody waits for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, write_event
from messages import call
from modern_bench import ALL, META, modern, routing
from proxy_bench import until
from task_bench import DONE, FORM, KNOWS_TASKS, TaskBench
from task_server import HeldTask, TaskServer
from test_late_calls import Tool


@pytest.fixture
async def bench() -> AsyncIterator[TaskBench]:
    """A client that knows tasks and a server with tasks; the proxy between them is started by the test."""
    async with TaskServer() as server, TaskBench(server) as bench:
        yield bench


class Slow:
    """A server that says that there is a task when it is told to, whatever it has heard meanwhile."""

    def __init__(self, server: TaskServer) -> None:
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self._create = server.on["tools/call"]
        server.on["tools/call"] = self._call

    async def _call(self, request: web.Request, message: Any) -> web.StreamResponse:
        if "task" not in message["params"]:
            return await self._create(request, message)
        self.begun.set()
        await self.go_on.wait()
        return await self._create(request, message)


def of_work(capabilities: Any) -> tuple[Any, dict[str, str]]:
    message = modern(name="work", meta={f"{META}clientCapabilities": capabilities})
    return message, routing(message)


async def is_left_alone(bench: TaskBench) -> None:
    """No session is held any more, and no task is there."""
    await until(lambda: all(not slot.leases for slot in bench.proxy.core.pool.books.slots()))
    assert len(bench.proxy.core.tasks) == 0


@pytest.mark.parametrize("capabilities", [KNOWS_TASKS, ALL], ids=["extension", "plain"])
async def test_before_the_server_says_that_there_is_a_task(bench: TaskBench, capabilities: Any) -> None:
    """The call is cancelled; the task that the server has begun all the same is, too."""
    slow = Slow(bench.server)
    await bench.start()
    message, headers = of_work(capabilities)
    async with bench.asking(message, headers=headers):
        await slow.begun.wait()
    await until(lambda: bench.server.posts("notifications/cancelled"))
    slow.go_on.set()
    task = await bench.server.next_task()
    await until(lambda: task.cancels == 1)
    [(_, called)] = bench.server.posts("tools/call")
    [(_, cancelled)] = bench.server.posts("notifications/cancelled")
    assert cancelled["params"]["requestId"] == called["id"]
    await is_left_alone(bench)


async def test_a_legacy_client_that_cancels_then(bench: TaskBench) -> None:
    """Its call is over at once when the server answers, and the task is cancelled."""
    slow = Slow(bench.server)
    await bench.start()
    session = await bench.initialize()
    async with bench.asking(call(5, name="work"), session=session) as asking:
        await slow.begun.wait()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        await bench.post(cancel, session=session)
        slow.go_on.set()
        assert (await asking).json["error"]["data"]["reason"] == "cancelled"
    task = await bench.server.next_task()
    await until(lambda: task.cancels == 1)


async def test_a_server_that_is_obedient(bench: TaskBench) -> None:
    """One that gives the call up has begun nothing, so nothing more is said to it."""
    slow = Slow(bench.server)
    begin = bench.server.on["tools/call"]

    async def cancel(_: web.Request, __: Any) -> web.StreamResponse:
        slow.go_on.set()
        return web.Response(status=202)

    async def refuse(request: web.Request, message: Any) -> web.StreamResponse:
        slow.begun.set()
        await slow.go_on.wait()
        error = {"code": 0, "message": "Request cancelled"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    bench.server.on |= {"tools/call": refuse, "notifications/cancelled": cancel}
    await bench.start()
    message, headers = of_work(KNOWS_TASKS)
    async with bench.asking(message, headers=headers):
        await slow.begun.wait()
    await until(lambda: bench.server.posts("notifications/cancelled"))
    await is_left_alone(bench)
    assert bench.server.posts("tasks/cancel") == []
    bench.server.on["tools/call"] = begin
    assert (await bench.handle())["status"] == "working"


async def test_what_was_asked_before_there_was_a_task(bench: TaskBench) -> None:
    """A question on the session's stream, which was announced for the task that is left, is refused."""
    slow = Slow(bench.server)
    await bench.start()
    await bench.call("count")
    await until(lambda: bench.server.streams)
    message, headers = of_work(KNOWS_TASKS)
    (session,) = bench.server.streams
    async with bench.asking(message, headers=headers):
        await slow.begun.wait()
        told = {"taskId": "1", "status": "input_required", "statusMessage": FORM["message"]}
        stream = bench.server.streams[session]
        await _write(stream, {"method": "notifications/tasks/status", "params": told})
        await _write(stream, {"id": "1-early", "method": "elicitation/create", "params": FORM})
        await until(lambda: bench.proxy.core.tasks.followed._early)
    await until(lambda: bench.server.posts("notifications/cancelled"))
    slow.go_on.set()
    task = await bench.server.next_task()
    assert "error" in await task.answer_to("1-early")
    await until(lambda: task.cancels == 1)
    await is_left_alone(bench)


async def test_questions_of_the_call_itself(bench: TaskBench) -> None:
    """What is asked when the client has left already is refused."""
    answers: asyncio.Queue[Any] = asyncio.Queue()
    left = asyncio.Event()
    create = bench.server.on["tools/call"]

    async def ask(request: web.Request, message: Any) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b": begun\n\n")
        begun.set()
        await left.wait()
        await _write(stream, {"id": "early", "method": "elicitation/create", "params": FORM})
        assert "error" in await answers.get()
        created: Any = await create(request, message)
        await stream.write(b"data: " + created.body + b"\n\n")
        return stream

    async def response(_: web.Request, message: Any) -> web.StreamResponse:
        answers.put_nowait(message)
        return web.Response(status=202)

    async def cancel(_: web.Request, __: Any) -> web.StreamResponse:
        left.set()
        return web.Response(status=202)

    begun = asyncio.Event()
    bench.server.on |= {"tools/call": ask, "response": response, "notifications/cancelled": cancel}
    await bench.start()
    message, headers = of_work(KNOWS_TASKS)
    async with bench.asking(message, headers=headers):
        await begun.wait()
    task = await bench.server.next_task()
    await until(lambda: task.cancels == 1)
    await is_left_alone(bench)


@pytest.mark.parametrize("asked", [False, True], ids=["working", "asked"])
async def test_while_its_record_is_written(bench: TaskBench, *, asked: bool) -> None:
    """A handle that was made and not given is none: the task is cancelled, its question goes."""
    await bench.start()
    writing, never = asyncio.Event(), asyncio.Event()

    async def written() -> None:
        writing.set()
        await never.wait()

    bench.proxy.core.tasks.written = written
    message, headers = of_work(KNOWS_TASKS)
    async with bench.asking(message, headers=headers):
        await writing.wait()
        task = await bench.server.next_task()
        if asked:
            task.ask(**FORM)
            (handle,) = bench.proxy.core.tasks._handles.values()
            await until(lambda: handle.asked)
    await until(lambda: task.cancels == 1)
    await is_left_alone(bench)
    # It is over, so the server wants no answer any more.
    assert bench.server.posts("response") == []


async def test_a_server_that_does_not_cancel(bench: TaskBench) -> None:
    """What its task asks is refused, so that it need not wait for an answer."""

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        error = {"code": -32601, "message": "no such method"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    bench.server.on["tasks/cancel"] = refuse
    await bench.start(task_ttl="1s")
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    asked = task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    assert "error" in await task.answer_to(asked)
    await is_left_alone(bench)


async def test_a_call_that_has_taken_long(server: HttpServer) -> None:
    """The same for a task of the proxy's own: the call is given up."""
    tool = Tool(server)
    async with TaskBench(server) as bench:  # type: ignore[arg-type]
        await bench.start(task_after="1ms")
        writing, never = asyncio.Event(), asyncio.Event()

        async def written() -> None:
            writing.set()
            await never.wait()

        bench.proxy.core.tasks.written = written
        message = modern(name="count", meta={f"{META}clientCapabilities": KNOWS_TASKS})
        async with bench.asking(message, headers=routing(message)):
            await writing.wait()
        await asyncio.wait_for(tool.cancelled.wait(), 30)
        await is_left_alone(bench)
        bench.proxy.core.tasks.written = None
        tool.finish(DONE)


async def _write(stream: web.StreamResponse, message: dict[str, Any]) -> None:
    await write_event(stream, {"jsonrpc": "2.0", **message})


async def test_a_task_ends_while_its_server_is_asked_how_it_stands(
    bench: TaskBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That question is not cancelled: some servers lose the session when that crosses the answer."""
    plain = HeldTask.write
    monkeypatch.setattr(HeldTask, "write", lambda task: plain(task) | {"pollInterval": 60_000})
    asked = asyncio.Event()

    async def never(request: web.Request, _: Any) -> web.StreamResponse:
        asked.set()
        while request.transport is not None:
            await asyncio.sleep(0.01)
        return web.Response()

    bench.server.on["tasks/get"] = never
    await bench.start()
    handle = await bench.handle()
    await until(lambda: bench.server.streams)
    state = asyncio.create_task(bench.until_status(handle["taskId"], "completed"))
    await asked.wait()
    task = await bench.server.next_task()
    task.finish(DONE)
    await bench.server.notify(task)
    assert (await state)["result"]["content"] == DONE["content"]
    # What was sent before this has come before it.
    await bench.call("count")
    assert bench.server.posts("notifications/cancelled") == []
