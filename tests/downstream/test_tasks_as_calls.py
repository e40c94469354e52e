"""Tools that only run as tasks, for clients that know nothing of that."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import write_event
from messages import INITIALIZE, call
from modern_bench import modern
from proxy_bench import PATIENCE_SECONDS, read_events, until
from task_bench import ADA, DONE, FORM, TaskBench
from task_server import RELATED, TaskServer


@pytest.fixture
async def bench() -> AsyncIterator[TaskBench]:
    """A client and a server with tasks; the proxy between them is started by the test."""
    async with TaskServer() as server, TaskBench(server) as bench:
        yield bench


async def end(bench: TaskBench, result: Any = DONE, status: str = "completed") -> Any:
    """The next task ends so."""
    task = await bench.server.next_task()
    task.finish(result, status)
    return task


# -- legacy clients --------------------------------------------------------------------------------


@pytest.mark.parametrize("politely", [False, True], ids=["error", "failed-result"])
@pytest.mark.parametrize("kept", [True, False], ids=["session", "session-less"])
async def test_legacy_clients(bench: TaskBench, *, politely: bool, kept: bool) -> None:
    """The call is refused as it is, made as a task, and answered with the task's result."""
    bench.server.refuses_politely = politely
    await bench.start()
    session = await bench.initialize() if kept else None
    async with bench.asking(call(7, name="work", arguments={"a": 1}), session=session) as asking:
        task = await end(bench, {**DONE, "_meta": {RELATED: {"taskId": "1"}, "a": 1}})
        answer = await asking
    assert answer.json == {"jsonrpc": "2.0", "id": 7, "result": {**DONE, "_meta": {"a": 1}}}
    assert task.params["arguments"] == {"a": 1}
    assert task.params["task"] == {"ttl": 3_600_000}
    assert len(bench.server.posts("tools/call")) == 2


async def test_a_client_that_asks_for_a_task_itself(bench: TaskBench) -> None:
    """Who knows tasks of its own revision gets one, as the server gives it."""
    await bench.start()
    session = await bench.initialize()
    answer = await bench.post(call(name="work", task={"ttl": 1000}), session=session)
    assert answer.json["result"]["task"]["taskId"] == "1"
    assert len(bench.server.posts("tools/call")) == 1
    (await bench.server.next_task()).finish(DONE)
    result = await bench.post(call(2, "tasks/result", taskId="1"), session=session)
    assert result.json["result"] == DONE


async def test_lists_for_legacy_clients(bench: TaskBench) -> None:
    """Clients that know no tasks refuse to call what needs one, so here no tool does."""
    await bench.start()
    session = await bench.initialize()
    for of in (session, None, None):
        answer = await bench.post(call(1, "tools/list"), session=of)
        support = {tool["name"]: tool["execution"]["taskSupport"] for tool in answer.json["result"]["tools"]}
        assert support == {"work": "optional", "choose": "optional", "count": "forbidden"}


@pytest.mark.parametrize("code", [-32601, -32600, -32602, -32000])
async def test_other_errors_are_the_answer(bench: TaskBench, code: int) -> None:
    """What is no refusal of a call without a task is passed on, and nothing is called again."""

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        error = {"code": code, "message": "no such thing"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

    bench.server.on["tools/call"] = refuse
    await bench.start()
    answer = await bench.post(call(name="count"), session=await bench.initialize())
    assert answer.json["error"] == {"code": code, "message": "no such thing"}
    assert len(bench.server.posts("tools/call")) == 1


async def test_failed_tools_that_speak_of_tasks(bench: TaskBench) -> None:
    """A tool that has run and failed is not run again, whatever it says."""
    result = {"content": [{"type": "text", "text": "requires task augmentation"}], "isError": True}

    async def fail(_: web.Request, message: Any) -> web.StreamResponse:
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    bench.server.on["tools/call"] = fail
    await bench.start()
    answer = await bench.post(call(name="choose"), session=await bench.initialize())
    assert answer.json["result"] == result
    assert len(bench.server.posts("tools/call")) == 1


async def test_what_a_legacy_client_is_asked(bench: TaskBench) -> None:
    """Questions of a task reach the client on the stream of its call, as if there was no task."""
    await bench.start(heartbeat="50ms", heartbeat_format="sse")  # streams begin soon
    params = {**INITIALIZE["params"], "capabilities": {"elicitation": {}}}
    answer = await bench.post({**INITIALIZE, "params": params})
    session = answer.headers["Mcp-Session-Id"]
    async with bench.request("POST", call(1, name="work"), session=session) as response:
        task = await bench.server.next_task()
        asked = task.ask(**FORM)
        [(_, question)] = await read_events(response.content, 1)
        assert (question["method"], question["params"]) == ("elicitation/create", FORM)
        await bench.post({"jsonrpc": "2.0", "id": question["id"], "result": ADA}, session=session)
        assert (await task.answer_to(asked))["result"] == ADA
        task.finish(DONE)
        [(_, answer)] = await read_events(response.content, 1)
    assert (answer["id"], answer["result"]) == (1, DONE)


async def test_a_legacy_client_cancels(bench: TaskBench) -> None:
    """Its task is cancelled, and the call is over."""
    await bench.start()
    session = await bench.initialize()
    async with bench.asking(call(5, name="work"), session=session) as asking:
        task = await bench.server.next_task()
        await until(lambda: task.times_asked > 0)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        await bench.post(cancel, session=session)
        assert (await asking).json["error"]["data"]["reason"] == "cancelled"
    await until(lambda: task.cancels == 1)


async def test_progress(bench: TaskBench) -> None:
    """It is told under the token of the client's call, however long after that has become a task."""
    await bench.start(heartbeat="50ms", heartbeat_format="sse")  # streams begin soon
    session = await bench.initialize()
    asked = call(1, name="work", _meta={"progressToken": "mine"})
    async with bench.request("POST", asked, session=session) as response:
        task = await bench.server.next_task()
        token = task.params["_meta"]["progressToken"]
        await until(lambda: task.times_asked > 0)
        stream = bench.server.streams[task.session]
        params = {"progressToken": token, "progress": 1}
        told = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        await write_event(stream, told)
        [(_, progress)] = await read_events(response.content, 1)
        assert progress["params"] == {"progressToken": "mine", "progress": 1}
        task.finish(DONE)
        [(_, answer)] = await read_events(response.content, 1)
    assert answer["result"] == DONE


# -- modern clients --------------------------------------------------------------------------------


async def test_modern_clients(bench: TaskBench) -> None:
    """What needs a task is known beforehand, so the call is made once; the list has the tool, too."""
    await bench.start()
    tools = (await bench.ask(modern("tools/list"))).json["result"]["tools"]
    assert [(tool["name"], tool.get("execution")) for tool in tools] == [
        ("work", None),
        ("choose", None),
        ("count", None),
    ]
    async with bench.asking(modern(name="work"), headers=_headers("work")) as asking:
        await end(bench)
        answer = await asking
    assert answer.json["result"]["content"] == DONE["content"]
    assert answer.json["result"]["resultType"] == "complete"
    assert len(bench.server.posts("tools/call")) == 1
    for name in ("choose", "count"):
        answer = await bench.ask(modern(name=name))
        assert answer.json["result"]["content"][0]["text"] == f"{name} was called"


async def test_without_the_capability_nothing_is_a_task(bench: TaskBench) -> None:
    """A server that does not say that it runs tasks is not asked for one, whatever it says of a tool."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        return bench.server.open_session(message, capabilities={"tools": {}})

    bench.server.on["initialize"] = initialize
    await bench.start()
    answer = await bench.call("work")
    assert answer.json["error"]["code"] == -32601
    assert len(bench.server.posts("tools/call")) == 1


async def test_what_a_modern_client_is_asked(bench: TaskBench) -> None:
    """Questions come as those of any call; the retry goes on with the task."""
    await bench.start()
    async with bench.asking(modern(name="work"), headers=_headers("work")) as asking:
        task = await bench.server.next_task()
        first = task.ask(**FORM)
        result = (await asking).json["result"]
    assert result["resultType"] == "input_required"
    assert result["inputRequests"] == {"name": {"method": "elicitation/create", "params": FORM}}
    again = modern(name="work", requestState=result["requestState"], inputResponses={"name": ADA})
    async with bench.asking(again, headers=_headers("work")) as asking:
        assert (await task.answer_to(first))["result"] == ADA
        task.finish(DONE)
        assert (await asking).json["result"]["content"] == DONE["content"]
    assert len(bench.server.posts("tools/call")) == 1


async def test_questions_that_name_no_task(bench: TaskBench) -> None:
    """Some servers say that a task needs input, and then ask on the GET stream without a word of it."""
    await bench.start()
    async with bench.asking(modern(name="work"), headers=_headers("work")) as asking:
        task = await bench.server.next_task()
        await until(lambda: task.session in bench.server.streams)
        await bench.server.notify(task, status="input_required")
        asked = await bench.server.ask_unrelated(task, **FORM)
        result = (await asking).json["result"]
    again = modern(name="work", requestState=result["requestState"], inputResponses={"name": ADA})
    async with bench.asking(again, headers=_headers("work")) as asking:
        assert (await task.answer_to(asked))["result"] == ADA
        task.finish(DONE)
        assert (await asking).json["result"]["content"] == DONE["content"]


async def test_a_modern_client_leaves(bench: TaskBench) -> None:
    """Closing the response cancels the task."""
    await bench.start()
    async with bench.asking(modern(name="work"), headers=_headers("work")):
        task = await bench.server.next_task()
        await until(lambda: task.times_asked > 0)
    await until(lambda: task.cancels == 1)


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        ("completed", {"result": {**DONE, "isError": True}}, {"result": {**DONE, "isError": True}}),
        ("failed", {"result": {**DONE, "isError": True}}, {"result": {**DONE, "isError": True}}),
        ("failed", {"error": {"code": -32050, "message": "x"}}, {"error": {"code": -32050, "message": "x"}}),
        ("failed", {"result": {}}, {"error": {"code": -32603, "message": "why not"}}),
        ("cancelled", {"result": {}}, {"error": {"code": -32603, "message": "why not"}}),
    ],
)
async def test_ends(bench: TaskBench, status: str, outcome: Any, told: Any) -> None:
    """Whatever a task has come to is what the call has."""
    await bench.start()
    session = await bench.initialize()
    async with bench.asking(call(name="work"), session=session) as asking:
        task = await bench.server.next_task()
        task.outcome = outcome
        task.become(status, "why not")
        answer = (await asking).json
    assert {key: value for key, value in answer.items() if key in ("result", "error")} == told


async def test_a_task_that_is_forgotten(bench: TaskBench) -> None:
    """The client hears that it may have been executed."""
    await bench.start()
    session = await bench.initialize()
    async with bench.asking(call(name="work"), session=session) as asking:
        task = await bench.server.next_task()
        bench.server.forget(task)
        error = (await asking).json["error"]
    assert error["data"]["reason"] == "outcome-unknown"
    assert "does not know this task any more" in error["message"]


async def test_a_session_that_is_lost(bench: TaskBench) -> None:
    """The task is asked for once in the new one; a server that does not know it there has lost it."""
    await bench.start()
    session = await bench.initialize()
    async with bench.asking(call(name="work"), session=session) as asking:
        task = await bench.server.next_task()
        bench.server.sessions.clear()
        bench.server.tasks.clear()

        async def know_sessions(request: web.Request, message: Any) -> web.StreamResponse:
            if request.headers["Mcp-Session-Id"] not in bench.server.sessions:
                return web.json_response(
                    {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Session not found"}},
                    status=404,
                )
            error = {"code": -32602, "message": f"Task not found: {task.id}"}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})

        bench.server.on["tasks/get"] = know_sessions
        error = (await asking).json["error"]
    assert "lost the session" in error["message"]
    assert error["data"]["reason"] == "outcome-unknown"


async def test_a_task_without_end(bench: TaskBench) -> None:
    """It is cancelled when it has taken as long as tasks may."""
    await bench.start(task_ttl="300ms")
    answer = await bench.ask(modern(name="work"))
    assert answer.json["error"]["data"]["reason"] == "upstream-timeout"
    task = await bench.server.next_task()
    await until(lambda: task.cancels == 1)


@pytest.mark.parametrize("nonsense", [{}, {"task": 3}, {"taskId": 1}, {"taskId": "1", "status": "odd"}])
async def test_nonsense_about_a_task(bench: TaskBench, nonsense: Any) -> None:
    """A server that for a while says nothing fit of a task is asked again."""
    polls = 0
    told = bench.server.on["tasks/get"]

    async def get(request: web.Request, message: Any) -> web.StreamResponse:
        nonlocal polls
        polls += 1
        if polls > 2:
            return await told(request, message)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": nonsense})

    bench.server.on["tasks/get"] = get
    await bench.start()
    async with bench.asking(modern(name="work"), headers=_headers("work")) as asking:
        await end(bench)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await asking).json["result"]["content"] == DONE["content"]


def _headers(name: str) -> dict[str, str]:
    return {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
