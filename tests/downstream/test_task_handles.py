"""Tasks of a server for clients of the extension: handles, how they stand, what they ask, how they end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import write_event
from messages import GONE
from modern_bench import ALL, META, modern, routing
from proxy_bench import read_events, until
from task_bench import ADA, DONE, EXTENSION, FORM, KNOWS_TASKS, LIFTED, TaskBench
from task_server import CREATED, RELATED, HeldTask, TaskServer

NOT_FOUND = (400, -32602, "Task not found")


@pytest.fixture
async def bench() -> AsyncIterator[TaskBench]:
    """A client that knows tasks and a server with tasks; the proxy between them is started by the test."""
    async with TaskServer() as server, TaskBench(server) as bench:
        yield bench


def said(answer: Any) -> tuple[int, int, str]:
    error = answer.json["error"]
    return answer.status, error["code"], error["message"]


# -- what is offered -------------------------------------------------------------------------------


async def test_what_is_offered(bench: TaskBench) -> None:
    """The extension is offered for the server's own tasks, which are not mentioned."""
    await bench.start()
    capabilities = (await bench.ask(modern("server/discover"))).json["result"]["capabilities"]
    assert capabilities == {"tools": {"listChanged": True}, "extensions": {EXTENSION: {}}}


async def test_what_is_not_offered(bench: TaskBench) -> None:
    """Without room for tasks there are none: a tool that needs one is a call like others."""
    await bench.start(max_tasks="0")
    capabilities = (await bench.ask(modern("server/discover"))).json["result"]["capabilities"]
    assert capabilities == {"tools": {"listChanged": True}}
    async with bench.asking(modern(name="work"), headers=routing(modern(name="work"))) as asking:
        (await bench.server.next_task()).finish(DONE)
        assert (await asking).json["result"]["content"] == DONE["content"]


@pytest.mark.parametrize("name", ["work", "choose"])
async def test_a_handle(bench: TaskBench, name: str) -> None:
    """Tools that need a task, and those that may run as one, give a handle: flat, under an id of ours."""
    await bench.start()
    answer = await bench.call(name)
    result = answer.json["result"]
    identifier = result.pop("taskId")
    assert len(identifier) == 24
    assert result.pop("lastUpdatedAt")
    assert result == {
        "resultType": "task",
        "status": "working",
        "createdAt": CREATED,
        "ttlMs": 3_600_000,
        "pollIntervalMs": 20,
        "_meta": {f"{META}serverInfo": {"name": "fake", "version": "1"}},
    }
    task = await bench.server.next_task()
    assert task.params == {"name": name, "task": {"ttl": 3_600_000}}
    assert task.id != identifier


async def test_tools_that_run_as_no_task(bench: TaskBench) -> None:
    """They are called, even by a client that asks for a task as the earlier revision has it."""
    await bench.start()
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    answer = await bench.ask(modern(name="count", task={"ttl": 1}, meta=meta))
    assert answer.json["result"]["content"][0]["text"] == "count was called"


async def test_what_the_model_is_told_meanwhile(bench: TaskBench) -> None:
    """It stays with the handle; other metadata of the server's about tasks does not."""

    async def create(_: web.Request, message: Any) -> web.StreamResponse:
        meta = {f"{META}model-immediate-response": "wait", RELATED: {"taskId": "1"}}
        task = {"taskId": "1", "status": "working", "ttl": None, "createdAt": "yesterday", "pollInterval": -1}
        result = {"task": task, "_meta": meta}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    bench.server.on["tools/call"] = create
    await bench.start()
    handle = await bench.handle()
    assert set(handle["_meta"]) == {f"{META}model-immediate-response", f"{META}serverInfo"}
    assert handle["ttlMs"] is None
    assert "pollIntervalMs" not in handle
    assert handle["createdAt"].endswith("Z")


async def test_a_longer_ttl_is_cut(bench: TaskBench) -> None:
    """However long the server wants to keep a task, its client is told how long it is kept here."""

    async def create(_: web.Request, message: Any) -> web.StreamResponse:
        task = {"taskId": "1", "status": "working", "ttl": 10**9, "createdAt": CREATED}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"task": task}})

    bench.server.on["tools/call"] = create
    await bench.start(task_ttl="10s")
    assert (await bench.handle())["ttlMs"] == 10_000


# -- how it stands, and ends -----------------------------------------------------------------------


async def test_until_it_is_completed(bench: TaskBench) -> None:
    """Its result comes with how it stands, as often as it is asked for, and is fetched once."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    working = await bench.get(identifier)
    assert (working["resultType"], working["status"], working["taskId"]) == (
        "complete",
        "working",
        identifier,
    )
    assert "result" not in working
    task = await bench.server.next_task()
    task.finish({**DONE, "_meta": {RELATED: {"taskId": task.id}}})
    state = await bench.until_status(identifier, "completed")
    assert state["result"] == LIFTED | DONE
    assert (await bench.get(identifier))["result"] == LIFTED | DONE
    assert len(bench.server.posts("tasks/result")) == 1


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        ("failed", {"result": {**DONE, "isError": True}}, ("completed", {**LIFTED, **DONE, "isError": True})),
        ("failed", {"error": {"code": -32010, "message": "x"}}, ("failed", {"code": -32010, "message": "x"})),
        ("failed", {"error": {"code": 0, "message": "x"}}, ("failed", None)),
        ("failed", {"result": {}}, ("failed", {"code": -32603, "message": "why not"})),
        ("cancelled", {"result": {}}, ("cancelled", None)),
    ],
)
async def test_ends(bench: TaskBench, status: str, outcome: Any, told: Any) -> None:
    """A failed tool has completed; only what ends in an error of JSON-RPC has failed."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.outcome = outcome
    task.become(status, "why not")
    state = await bench.until_status(identifier, told[0])
    if told[1] is not None:
        assert state.get("result", state.get("error")) == told[1]
    elif told[0] == "failed":
        assert state["error"]["code"] == -32603
    assert state["statusMessage"] == "why not"
    assert ("result" in state, "error" in state) == (told[0] == "completed", told[0] == "failed")


@pytest.mark.slow
async def test_the_session_is_held(bench: TaskBench) -> None:
    """Until a task is over its session is not idle; after that it is."""
    await bench.start(idle_timeout="1ms", linger="1ms")
    await bench.handle()
    task = await bench.server.next_task()
    await bench.call("count")
    assert [slot.leases for slot in bench.proxy.core.pool.books.slots()] == [1]
    task.finish(DONE)
    await until(lambda: task.session in bench.server.deleted)


# -- questions -------------------------------------------------------------------------------------


async def test_questions(bench: TaskBench) -> None:
    """They come with how the task stands, under keys that are never used again, and are answered once."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    first = task.ask(**FORM)
    state = await bench.until_status(identifier, "input_required")
    assert state["inputRequests"] == {"name": {"method": "elicitation/create", "params": FORM}}
    answer = await bench.about("update", identifier, inputResponses={"name": ADA, "other": {}})
    assert {key: answer.json["result"][key] for key in answer.json["result"] if key != "_meta"} == {
        "resultType": "complete"
    }
    assert (await task.answer_to(first))["result"] == ADA
    assert (await bench.get(identifier))["status"] == "working"
    second = task.ask(**FORM)
    state = await bench.until_status(identifier, "input_required")
    assert list(state["inputRequests"]) == ["name_2"]
    # The first key is not asked any more, so an answer to it is dropped.
    await bench.about("update", identifier, inputResponses={"name": ADA})
    assert list((await bench.get(identifier))["inputRequests"]) == ["name_2"]
    await bench.about("update", identifier, inputResponses={"name_2": ADA})
    assert (await task.answer_to(second))["result"] == ADA
    task.finish(DONE)
    assert (await bench.until_status(identifier, "completed"))["result"] == LIFTED | DONE


async def announce(server: TaskServer, task: HeldTask) -> str:
    """Ask as FastMCP does: a status with the question's text, another one, a question that names no task."""
    await server.notify(task, status="input_required", statusMessage=FORM["message"])
    await server.notify(task)
    return await server.ask_unrelated(task, **FORM)


async def test_questions_that_are_announced(bench: TaskBench) -> None:
    """A question that names no task is that one's for which it was announced, whatever was told since."""
    await bench.start()
    handles = [(await bench.handle())["taskId"] for _ in range(3)]
    held = [await bench.server.next_task() for _ in handles]
    await until(lambda: held[1].session in bench.server.streams)
    asked = await announce(bench.server, held[1])
    assert list((await bench.until_status(handles[1], "input_required"))["inputRequests"]) == ["name"]
    assert [(await bench.get(handle))["status"] for handle in handles[::2]] == ["working", "working"]
    await bench.about("update", handles[1], inputResponses={"name": ADA})
    assert (await held[1].answer_to(asked))["result"] == ADA


async def test_questions_that_are_there_before_their_task(bench: TaskBench) -> None:
    """What is asked on one stream may come before the answer on another that says that there is a task."""
    create = bench.server.on["tools/call"]
    asked = []

    async def create_late(request: web.Request, message: Any) -> web.StreamResponse:
        answer = await create(request, message)
        asked.append(await announce(bench.server, bench.server.tasks["1"]))
        await asyncio.sleep(0.05)
        return answer

    await bench.start()
    await bench.call("count")
    await until(lambda: bench.server.streams)
    bench.server.on["tools/call"] = create_late
    identifier = (await bench.handle())["taskId"]
    await bench.until_status(identifier, "input_required")
    await bench.about("update", identifier, inputResponses={"name": ADA})
    assert (await bench.server.tasks["1"].answer_to(asked[0]))["result"] == ADA


async def test_questions_of_a_task_that_is_cancelled(bench: TaskBench) -> None:
    """The server hears nothing more of them: some end the whole session over an answer to what is over."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    cancelling, _ = await asyncio.gather(
        bench.about("cancel", identifier),
        bench.until_status(identifier, "cancelled"),
    )
    assert cancelling.status == 200
    late = await bench.about("update", identifier, inputResponses={"name": ADA})
    assert late.json["result"]["resultType"] == "complete"
    assert (task.cancels, bench.server.posts("response")) == (1, [])


async def test_some_answers(bench: TaskBench) -> None:
    """A part of the answers is taken; what is not answered stays asked."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.ask(**FORM)
    task.ask(**FORM)
    while len((await bench.until_status(identifier, "input_required"))["inputRequests"]) < 2:
        pass
    await bench.about("update", identifier, inputResponses={"name_2": ADA})
    state = await bench.get(identifier)
    assert (state["status"], list(state["inputRequests"])) == ("input_required", ["name"])


@pytest.mark.parametrize("responses", [None, [], {"name": 3}, {"name": {"action": "perhaps"}}])
async def test_malformed_answers(bench: TaskBench, responses: Any) -> None:
    """None of them is given to the server, and the question stays asked."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    more = {} if responses is None else {"inputResponses": responses}
    answer = await bench.about("update", identifier, **more)
    assert (answer.status, answer.json["error"]["code"]) == (400, -32602)
    assert list((await bench.get(identifier))["inputRequests"]) == ["name"]
    assert task.answers == {}


async def test_questions_that_its_client_cannot_answer(bench: TaskBench) -> None:
    """They are refused, and the task goes on."""
    await bench.start()
    meta: dict[str, Any] = {f"{META}clientCapabilities": {"extensions": {EXTENSION: {}}}}
    identifier = (await bench.ask(modern(name="work", meta=meta))).json["result"]["taskId"]
    task = await bench.server.next_task()
    asked = task.ask(**FORM)
    assert "error" in await task.answer_to(asked)
    assert (await bench.get(identifier))["status"] == "working"


async def test_questions_before_there_is_a_task(bench: TaskBench) -> None:
    """They are those of the call, which is parked; the retry gives the handle."""
    bench.server.tools = {"work": "required"}
    create = bench.server.on["tools/call"]
    heard = asyncio.Event()
    respond = bench.server.on["response"]

    async def ask_first(request: web.Request, message: Any) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        question = {"jsonrpc": "2.0", "id": "early", "method": "elicitation/create", "params": FORM}
        await write_event(stream, question)
        await heard.wait()
        created: Any = await create(request, message)
        await stream.write(b"data: " + created.body + b"\n\n")
        return stream

    async def response(request: web.Request, message: Any) -> web.StreamResponse:
        if message["id"] == "early":
            heard.set()
        return await respond(request, message)

    bench.server.on |= {"tools/call": ask_first, "response": response}
    await bench.start()
    asked = (await bench.call("work")).json["result"]
    assert (asked["resultType"], "taskId" in asked) == ("input_required", False)
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    again = modern(name="work", meta=meta, requestState=asked["requestState"], inputResponses={"name": ADA})
    handle = (await bench.ask(again)).json["result"]
    assert (handle["resultType"], "requestState" in handle) == ("task", False)
    assert (await bench.get(handle["taskId"]))["status"] == "working"


# -- cancelling ------------------------------------------------------------------------------------


async def test_cancelling(bench: TaskBench) -> None:
    """It is passed on, acknowledged with nothing, and no error for a task that is over."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    for _ in range(2):
        result = (await bench.about("cancel", identifier)).json["result"]
        assert (result.pop("resultType"), set(result)) == ("complete", {"_meta"})
        await bench.until_status(identifier, "cancelled")
    assert task.cancels == 1


# -- who may ask -----------------------------------------------------------------------------------


async def test_clients_that_do_not_know_tasks(bench: TaskBench) -> None:
    """Whoever has not declared the extension with the request is told what it lacks."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    for method in ("get", "update", "cancel"):
        answer = await bench.about(method, identifier, capabilities=ALL, inputResponses={})
        assert (answer.status, answer.json["error"]["code"]) == (400, -32021)
        assert answer.json["error"]["data"]["requiredCapabilities"] == {"extensions": {EXTENSION: {}}}


async def test_ids_of_others(bench: TaskBench) -> None:
    """Another's id, one of the server's and one that never was are all told the same."""
    await bench.start()
    identifier = (await bench.handle(Authorization="Bearer a"))["taskId"]
    task = await bench.server.next_task()
    for method in ("get", "update", "cancel"):
        for other, token in [(identifier, "b"), (identifier, None), (task.id, "a"), ("x", "a"), ("", "a")]:
            answer = await bench.about(method, other, token=token, inputResponses={})
            assert said(answer) == NOT_FOUND
    assert (await bench.get(identifier, token="a"))["status"] == "working"
    assert task.cancels == 0


async def test_headers(bench: TaskBench) -> None:
    """``Mcp-Name`` repeats the id; another is refused. Some clients send none, which is let through."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    assert (await bench.about("get", identifier, name="other")).json["error"]["code"] == -32020
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    message = modern("tasks/get", meta=meta, taskId=identifier)
    assert (await bench.post(message, headers=routing(message))).json["result"]["taskId"] == identifier


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list"])
async def test_methods_of_the_earlier_revision(bench: TaskBench, method: str) -> None:
    """There are no such methods here."""
    await bench.start()
    meta = {f"{META}clientCapabilities": KNOWS_TASKS}
    message = modern(method, meta=meta, taskId="x")
    answer = await bench.post(message, headers=routing(message, {"Mcp-Name": "x"}))
    assert (answer.status, answer.json["error"]["code"]) == (404, -32601)


# -- limits and time -------------------------------------------------------------------------------


async def test_too_many_tasks(bench: TaskBench) -> None:
    """One more than there may be, of one caller or of all, is refused before the server hears of it."""
    await bench.start(max_tasks="2", max_tasks_per_principal="1")
    await bench.handle(Authorization="Bearer a")
    for token, room in [("a", False), ("b", True), ("c", False)]:
        answer = await bench.call("work", Authorization=f"Bearer {token}")
        assert (answer.status == 200) is room, answer.json
        if not room:
            assert answer.json["error"]["data"]["reason"] == "too-many-tasks"
    assert len(bench.server.tasks) == 2


async def test_expired_tasks(bench: TaskBench) -> None:
    """What has run for too long is cancelled, and not found any more; nor is what was kept for its time."""
    await bench.start(task_ttl="400ms")
    running, over = await bench.handle(), await bench.handle()
    task = await bench.server.next_task()
    (await bench.server.next_task()).finish(DONE)
    await bench.until_status(over["taskId"], "completed")
    await until(lambda: task.cancels == 1)
    assert said(await bench.about("get", running["taskId"])) == NOT_FOUND
    await until(lambda: not len(bench.proxy.core.tasks))
    assert said(await bench.about("get", over["taskId"])) == NOT_FOUND


# -- listening -------------------------------------------------------------------------------------


def listen(*identifiers: str, capabilities: Any = KNOWS_TASKS) -> dict[str, Any]:
    meta = {f"{META}clientCapabilities": capabilities}
    return modern("subscriptions/listen", 9, meta=meta, notifications={"taskIds": list(identifiers)})


async def test_listening(bench: TaskBench) -> None:
    """A listener hears all of each change of its own tasks, and of no others."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    await bench.handle()
    task, other = await bench.server.next_task(), await bench.server.next_task()
    async with bench.stream(listen(identifier, "x")) as response:
        [(_, acknowledged), (_, first)] = await read_events(response.content, 2)
        assert acknowledged["params"]["notifications"] == {"taskIds": [identifier]}
        assert (first["method"], first["params"]["status"]) == ("notifications/tasks", "working")
        other.finish(DONE)
        task.ask(**FORM)
        [(_, asked)] = await read_events(response.content, 1)
        assert (asked["params"]["taskId"], asked["params"]["status"]) == (identifier, "input_required")
        assert list(asked["params"]["inputRequests"]) == ["name"]
        await bench.about("update", identifier, inputResponses={"name": ADA})
        task.finish(DONE)
        while (event := (await read_events(response.content, 1))[0][1])["params"]["status"] != "completed":
            assert event["params"]["taskId"] == identifier
        assert event["params"]["result"] == LIFTED | DONE
        assert event["params"]["_meta"][f"{META}subscriptionId"] == 9


async def test_listening_without_the_extension(bench: TaskBench) -> None:
    """Who does not know tasks is told what it lacks."""
    await bench.start()
    answer = await bench.ask(listen("x", capabilities=ALL))
    assert (answer.status, answer.json["error"]["code"]) == (400, -32021)


# -- servers in trouble ----------------------------------------------------------------------------


async def test_a_server_that_tells_of_the_end_itself(bench: TaskBench) -> None:
    """What it tells is believed at once, even if it comes before the answer that there is a task."""
    create = bench.server.on["tools/call"]

    async def create_late(request: web.Request, message: Any) -> web.StreamResponse:
        answer = await create(request, message)
        task = bench.server.tasks["1"]
        task.finish(DONE)
        await bench.server.notify(task)
        await asyncio.sleep(0.05)
        return answer

    polls = bench.server.on["tasks/get"]
    asked = []

    async def get(request: web.Request, message: Any) -> web.StreamResponse:
        asked.append(message)
        return await polls(request, message)

    bench.server.on["tasks/get"] = get
    await bench.start()
    await bench.call("count")
    await until(lambda: bench.server.streams)
    bench.server.on["tools/call"] = create_late
    identifier = (await bench.handle())["taskId"]
    assert (await bench.until_status(identifier, "completed"))["result"] == LIFTED | DONE
    assert asked == []


async def test_a_task_that_ends_twice(bench: TaskBench) -> None:
    """Nothing follows what is final."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.finish(DONE)
    state = await bench.until_status(identifier, "completed")
    for status in ("working", "failed", "cancelled"):
        await bench.server.notify(task, status=status)
    assert await bench.get(identifier) == state


def not_completed(message: Any) -> web.Response:
    """What some servers answer who asks for a result before the end."""
    error = {"code": -32602, "message": "Task not completed yet (current state: working)"}
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})


async def test_a_result_that_is_refused_before_the_end(bench: TaskBench) -> None:
    """Some servers refuse it then, and the refusal may come when the task is over: it is asked for again."""
    give, refuse = bench.server.on["tasks/result"], asyncio.Event()

    async def result(request: web.Request, message: Any) -> web.StreamResponse:
        if refuse.is_set():
            return await give(request, message)
        await refuse.wait()
        return not_completed(message)

    bench.server.on["tasks/result"] = result
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    await until(lambda: task.session in bench.server.streams)
    await bench.server.notify(task, status="input_required")
    await until(lambda: bench.server.posts("tasks/result"))
    task.finish(DONE)
    await bench.server.notify(task)
    refuse.set()
    assert (await bench.until_status(identifier, "completed"))["result"] == LIFTED | DONE


async def test_a_task_that_is_over_when_its_result_was_refused(bench: TaskBench) -> None:
    """A refusal from before the end says nothing of it, though it is over when that is looked at."""
    give = bench.server.on["tasks/result"]

    async def result(_: web.Request, message: Any) -> web.StreamResponse:
        bench.server.on["tasks/result"] = give
        task.finish(DONE)
        return not_completed(message)

    bench.server.on["tasks/result"] = result
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.become("input_required")
    assert (await bench.until_status(identifier, "completed", "failed"))["result"] == LIFTED | DONE


async def test_a_session_that_is_lost_before_the_result(bench: TaskBench) -> None:
    """The task was over, but what it came to is gone; another session knows nothing of it."""

    async def result(request: web.Request, message: Any) -> web.StreamResponse:
        if bench.server.sessions.pop(task.session, None) is not None:
            return web.json_response({**GONE, "id": None}, status=404)
        error = {"code": -32602, "message": f"Task not found: {task.id}"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    bench.server.on["tasks/result"] = result
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    task = await bench.server.next_task()
    task.finish(DONE)
    state = await bench.until_status(identifier, "failed")
    assert state["error"]["code"] == -32603
    assert "may or may not" in state["error"]["message"]


async def test_a_task_that_is_forgotten(bench: TaskBench) -> None:
    """It has failed, and may have been executed."""
    await bench.start()
    identifier = (await bench.handle())["taskId"]
    bench.server.forget(await bench.server.next_task())
    state = await bench.until_status(identifier, "failed")
    assert state["error"]["code"] == -32603
    assert "may or may not" in state["error"]["message"]
