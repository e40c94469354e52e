"""Nonsense about tasks, from clients and from servers: each is told what it is worth, and nothing breaks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from http_server import reply_to, write_event
from messages import call
from modern_bench import META, modern, routing
from proxy_bench import until
from task_bench import ADA, DONE, FORM, KNOWS_TASKS, LIFTED, TaskBench
from task_server import CREATED, RELATED, HeldTask, TaskServer

from mcp_session_proxy.bounds import QUESTIONS_A_CALL, UNKNOWN_TASKS
from mcp_session_proxy.exchange import upstream_task

METHODS = ["get", "update", "cancel"]


@pytest.fixture
async def bench() -> AsyncIterator[TaskBench]:
    """A client that knows tasks and a server with tasks; the proxy between them is started by the test."""
    async with TaskServer() as server, TaskBench(server) as bench:
        yield bench


def tampered(handle: str) -> list[str]:
    """What somebody may make of a handle."""
    changed = [
        handle[:at] + ("a" if handle[at] != "a" else "b") + handle[at + 1 :] for at in range(len(handle))
    ]
    others = [
        handle[1:],
        handle[:-1],
        handle * 2,
        handle + "=",
        f" {handle}",
        handle.swapcase(),
        f"{handle}\u0000",
    ]
    return changed + others


@pytest.mark.parametrize("method", METHODS)
async def test_tampered_handles(bench: TaskBench, method: str) -> None:
    """Whatever is not the very handle is as unknown as anything; the task goes on."""
    await bench.start()
    handle = (await bench.handle())["taskId"]
    told = set()
    for other in [*tampered(handle), "never-was"]:
        answer = await bench.about(
            method, other, inputResponses={}, name=handle if "\u0000" in other else None
        )
        told.add((answer.status, answer.body.replace(other.encode(), b"")))
    # One of them has a character that the header cannot have, so the two cannot agree.
    assert {status for status, _ in told} == {400}
    assert len(told) == 2
    task = await bench.server.next_task()
    assert (task.cancels, (await bench.get(handle))["status"]) == (0, "working")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("identifier", [None, 7, True, [], {}, ["x"]], ids=repr)
async def test_ids_that_are_no_strings(bench: TaskBench, method: str, identifier: Any) -> None:
    """They are refused as any malformed parameter."""
    await bench.start()
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    message = modern(f"tasks/{method}", meta=meta, taskId=identifier, inputResponses={})
    answer = await bench.post(message, headers=routing(message))
    assert (answer.status, answer.json["error"]["code"]) == (400, -32602)


def _task(**changed: Any) -> dict[str, Any]:
    fit = {"taskId": "1", "status": "working", "createdAt": CREATED, "lastUpdatedAt": CREATED, "ttl": 60000}
    return {"task": fit | changed}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"task": None},
        {"task": {}},
        {"task": [1]},
        {"task": "1"},
        _task(taskId=1),
        _task(taskId=""),
        _task(taskId="x" * 5000),
        _task(status="dancing"),
        _task(status=None),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("capabilities", [{}, KNOWS_TASKS], ids=["plain", "extension"])
async def test_tasks_that_are_none(bench: TaskBench, nonsense: Any, capabilities: Any) -> None:
    """What cannot be followed is the answer as it came, and nothing is made of it; the next task is one."""
    make = bench.server.on["tools/call"]

    async def create(_: web.Request, message: Any) -> web.StreamResponse:
        return reply_to(message, nonsense)

    bench.server.on["tools/call"] = create
    await bench.start()
    answer = await bench.call(capabilities=capabilities)
    assert answer.json["result"]["resultType"] == "complete"
    assert answer.json["result"]["task"] == nonsense["task"]
    bench.server.on["tools/call"] = make
    handle = (await bench.handle())["taskId"]
    (await bench.server.next_task()).finish(DONE)
    assert (await bench.until_status(handle, "completed"))["result"]["content"] == DONE["content"]


@pytest.mark.parametrize(
    "changed",
    [
        {"ttl": -5},
        {"ttl": "soon"},
        {"ttl": 1e300},
        {"pollInterval": 0},
        {"pollInterval": -1},
        {"pollInterval": [1]},
        {"createdAt": 5, "lastUpdatedAt": "yesterday"},
        {"statusMessage": {"a": 1}},
        {"statusMessage": "x" * 100_000},
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_details_that_are_none(bench: TaskBench, changed: dict[str, Any]) -> None:
    """A task with some nonsense about it is one; its client hears of it what has the form."""

    async def create(request: web.Request, message: Any) -> web.StreamResponse:
        await make(request, message)
        return reply_to(message, _task(**changed))

    make = bench.server.on["tools/call"]
    bench.server.on["tools/call"] = create
    await bench.start()
    handle = await bench.handle()
    assert handle["ttlMs"] is None or handle["ttlMs"] > 0
    assert "pollIntervalMs" not in handle or handle["pollIntervalMs"] > 0
    assert all(handle[name][:2] == "20" for name in ("createdAt", "lastUpdatedAt"))
    assert len(handle.get("statusMessage", "")) <= 4096
    (await bench.server.next_task()).finish(DONE)
    assert (await bench.until_status(handle["taskId"], "completed"))["result"]["content"] == DONE["content"]


# -- what servers say later ------------------------------------------------------------------------


async def begun(bench: TaskBench, **options: Any) -> tuple[str, HeldTask]:
    """A handle, and the server's task."""
    await bench.start(**options)
    handle = (await bench.handle())["taskId"]
    return handle, await bench.server.next_task()


def say_instead(bench: TaskBench, method: str, make: Callable[[Any], Any]) -> None:
    """Let the server answer a method with what is made of the message."""

    async def answer(_: web.Request, message: Any) -> web.StreamResponse:
        return reply_to(message, make(message))

    bench.server.on[method] = answer


@pytest.mark.parametrize(
    "nonsense",
    [
        {"taskId": "1", "status": "dancing"},
        {"taskId": "1", "status": 3},
        {"taskId": "1"},
        {"status": "completed"},
        {"taskId": "", "status": "completed"},
        {"taskId": "x" * 2**20, "status": "completed"},
        {"task": {"taskId": "1", "status": "completed"}},
        [],
        None,
        "completed",
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_nonsense_without_end(bench: TaskBench, nonsense: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing else of a task is not asked for ever: the task has failed."""
    monkeypatch.setattr(upstream_task, "FAILING_SECONDS", 0.2)
    handle, _ = await begun(bench)
    say_instead(bench, "tasks/get", lambda _: nonsense)
    state = await bench.until_status(handle, "failed")
    assert state["error"] == {"code": -32603, "message": "The MCP server does not say how the task stands."}


@pytest.mark.parametrize(
    "changed",
    [
        {"taskId": "another"},
        {"createdAt": "2001-01-01T00:00:00Z", "lastUpdatedAt": "2001-01-01T00:00:00Z"},
        {"createdAt": 7, "ttl": "soon", "pollInterval": "often", "statusMessage": 5},
        {"ttl": -1, "pollInterval": -1},
        {"ttl": 0, "pollInterval": 0},
        {"pollInterval": 1e18},
        {"pollInterval": 1e15},
        {"ttl": 1e300},
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_details_that_change(bench: TaskBench, changed: dict[str, Any]) -> None:
    """What was said first of the beginning counts, times are fit for clients, and the task ends as ever."""
    await bench.start()
    first = await bench.handle()
    task = await bench.server.next_task()
    say_instead(bench, "tasks/get", lambda _: task.write() | changed)
    await until(lambda: bench.server.posts("tasks/get"))
    for _ in range(3):
        state = await bench.get(first["taskId"])
    assert (state["taskId"], state["createdAt"], state["ttlMs"]) == (
        first["taskId"],
        CREATED,
        first["ttlMs"],
    )
    assert 0 < state.get("pollIntervalMs", 1) <= 3_600_000
    task.finish(DONE)
    await until(lambda: task.session in bench.server.streams)
    await bench.server.notify(task)  # whatever it has said of when it wants to be asked
    assert (await bench.until_status(first["taskId"], "completed"))["result"] == LIFTED | DONE


async def test_a_beginning_that_is_told_late(bench: TaskBench) -> None:
    """When a task was begun does not change for its client, be it said by the server or by us."""

    async def create(request: web.Request, message: Any) -> web.StreamResponse:
        await make(request, message)
        return reply_to(message, _task(createdAt=None))

    make = bench.server.on["tools/call"]
    bench.server.on["tools/call"] = create
    await bench.start()
    first = await bench.handle()
    for _ in range(3):
        assert (await bench.get(first["taskId"]))["createdAt"] == first["createdAt"]


@pytest.mark.parametrize("result", [[], [1], "done", 3, True, None], ids=repr)
async def test_results_that_are_none(bench: TaskBench, result: Any) -> None:
    """A task whose result has not the form of one is over all the same, for a client of either kind."""
    handle, task = await begun(bench)
    say_instead(bench, "tasks/result", lambda _: result)
    task.become("completed")
    state = await bench.until_status(handle, "completed", "failed")
    assert isinstance(state.get("result", state.get("error")), dict)
    async with bench.asking(call(name="work"), session=await bench.initialize()) as asking:
        (await bench.server.next_task()).become("completed")
        assert {"result", "error"} & (await asking).json.keys()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_an_end_without_a_result(bench: TaskBench, status: str) -> None:
    """What a server says to be over is over, though it refuses to say what it came to."""

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        error = {"code": -32602, "message": "Task not completed yet"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    handle, task = await begun(bench)
    bench.server.on["tasks/result"] = refuse
    task.become(status)
    state = await bench.until_status(handle, "completed", "failed", "cancelled")
    assert state["status"] == ("cancelled" if status == "cancelled" else "failed")


async def test_news_of_tasks_that_never_were(bench: TaskBench) -> None:
    """They are nobody's, and few are remembered; the next task is one."""
    _, task = await begun(bench)
    await until(lambda: task.session in bench.server.streams)
    for number in range(200):
        await bench.server.notify(task, taskId=f"no-{number}", status="completed")
    await bench.server.notify(task, taskId="x" * 2**20)
    await bench.server.notify(task, taskId="")
    await bench.server.notify(task, statusMessage="seen")
    (held,) = bench.proxy.core.tasks._handles.values()
    await until(lambda: held.message == "seen")
    (early,) = bench.proxy.core.tasks.followed._early.values()
    assert len(early) == UNKNOWN_TASKS
    handle = (await bench.handle())["taskId"]
    (await bench.server.next_task()).finish(DONE)
    await bench.until_status(handle, "completed")


async def test_questions_of_tasks_that_never_were(bench: TaskBench) -> None:
    """What is announced and asked without end while a task may begin is refused in the end, all of it."""
    count = 3 * QUESTIONS_A_CALL
    _, task = await begun(bench)
    await until(lambda: task.session in bench.server.streams)
    stream = bench.server.streams[task.session]
    (held,) = bench.proxy.core.tasks._handles.values()
    assert held.session is not None
    bench.proxy.core.tasks.followed.expect(held.session)
    for number in range(count):
        await bench.server.notify(task, taskId="no", status="input_required", statusMessage=f"{number}")
        params = {**FORM, "message": f"{number}"}
        question = {"jsonrpc": "2.0", "id": f"no-{number}", "method": "elicitation/create", "params": params}
        await write_event(stream, question)
    await bench.server.notify(task, statusMessage="seen")
    await until(lambda: held.message == "seen")
    (early,) = bench.proxy.core.tasks.followed._early.values()
    assert len(early["no"].questions) == QUESTIONS_A_CALL
    bench.proxy.core.tasks.followed.forget(held.session, "no")
    await until(lambda: len(bench.server.posts("response")) == count - len(held.asked))


async def test_a_flood_of_questions(bench: TaskBench) -> None:
    """A task may ask so much at the same time, and no more: the rest is refused, and all of it answered."""
    count = 5 * QUESTIONS_A_CALL
    handle, task = await begun(bench)
    await until(lambda: task.session in bench.server.streams)
    stream = bench.server.streams[task.session]
    params = {**FORM, "_meta": {RELATED: {"taskId": task.id}}}
    for number in range(count):
        question = {"jsonrpc": "2.0", "id": f"1-f{number}", "method": "elicitation/create", "params": params}
        await write_event(stream, question)
    await until(lambda: len(task.answers) == count - QUESTIONS_A_CALL)
    assert len((await bench.get(handle))["inputRequests"]) == QUESTIONS_A_CALL
    task.finish(DONE)
    await bench.until_status(handle, "completed")


# -- what clients say more than once ---------------------------------------------------------------


async def test_answers_at_the_same_time(bench: TaskBench) -> None:
    """The server gets one of them, and each client is told that all is well."""
    handle, task = await begun(bench)
    task.ask(**FORM)
    await bench.until_status(handle, "input_required")
    answers = [
        bench.about("update", handle, inputResponses={"name": ADA | {"content": {"name": str(number)}}})
        for number in range(10)
    ]
    for answer in await asyncio.gather(*answers):
        assert answer.json["result"]["resultType"] == "complete"
    assert len(bench.server.posts("response")) == 1


async def test_a_client_that_leaves_while_it_answers(bench: TaskBench) -> None:
    """The server gets the answer all the same: the question would be asked no more."""
    handle, task = await begun(bench)
    asked = task.ask(**FORM)
    await bench.until_status(handle, "input_required")
    respond, go_on, came = bench.server.on["response"], asyncio.Event(), asyncio.Event()

    async def slowly(request: web.Request, message: Any) -> web.StreamResponse:
        came.set()
        await go_on.wait()
        return await respond(request, message)

    bench.server.on["response"] = slowly
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    update = modern("tasks/update", meta=meta, taskId=handle, inputResponses={"name": ADA})
    async with bench.asking(update, headers=routing(update)):
        await came.wait()
    go_on.set()
    assert (await task.answer_to(asked))["result"] == ADA


@pytest.mark.parametrize(
    "responses",
    [
        {f"n{number}": ADA for number in range(2000)},
        {"name": ADA, "other": 3},
        {"name": {"action": "accept", "content": []}},
        {"name": []},
        "name",
        3,
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_answers_without_form(bench: TaskBench, responses: Any) -> None:
    """None of what comes with one is taken, and the question stays asked."""
    handle, task = await begun(bench)
    task.ask(**FORM)
    await bench.until_status(handle, "input_required")
    answer = await bench.about("update", handle, inputResponses=responses)
    assert (answer.status, answer.json["error"]["code"]) == (400, -32602)
    assert list((await bench.get(handle))["inputRequests"]) == ["name"]
    assert bench.server.posts("response") == []


@pytest.mark.parametrize("method", METHODS)
async def test_handles_that_have_expired(bench: TaskBench, method: str) -> None:
    """They are answered to the letter as those that never were."""
    await bench.start(task_ttl="1ms")
    handle = (await bench.handle())["taskId"]
    await until(lambda: not len(bench.proxy.core.tasks))
    said = {
        (answer.status, answer.body.replace(each.encode(), b""))
        for each in (handle, "A" * len(handle))
        for answer in [await bench.about(method, each, inputResponses={})]
    }
    assert len(said) == 1
