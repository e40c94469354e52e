"""Tasks outlive the proxy, where its sessions do (``--state-dir``)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from proxy_bench import until
from task_bench import ADA, DONE, FORM, Proxies
from task_server import TaskServer
from test_late_calls import Tool


@pytest.fixture
async def server() -> AsyncIterator[TaskServer]:
    """A server with tasks, which outlives the proxies before it."""
    async with TaskServer() as server:
        yield server


@pytest.fixture
async def proxies(server: TaskServer, tmp_path: Path) -> AsyncIterator[Proxies]:
    """What begins them."""
    async with Proxies(server, tmp_path) as proxies:
        yield proxies


@pytest.mark.parametrize("token", [None, "a"], ids=["anonymous", "token"])
async def test_a_task_of_the_servers(proxies: Proxies, server: TaskServer, token: str | None) -> None:
    """It goes on, under the same id, with questions and all; and others' ids are as unknown as before."""
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    bench = await proxies.start()
    handle = await bench.handle(**bearer)
    task = await server.next_task()
    bench = await proxies.start()
    state = await bench.get(handle["taskId"], token=token)
    assert (state["status"], state["createdAt"]) == ("working", handle["createdAt"])
    assert task.cancels == 0
    asked = task.ask(**FORM)
    while (state := await bench.get(handle["taskId"], token=token))["status"] != "input_required":
        pass
    await bench.about("update", handle["taskId"], token=token, inputResponses={"name": ADA})
    assert (await task.answer_to(asked))["result"] == ADA
    task.finish(DONE)
    bench = await proxies.start()
    while (state := await bench.get(handle["taskId"], token=token))["status"] != "completed":
        pass
    assert state["result"]["content"] == DONE["content"]
    assert (await bench.about("get", handle["taskId"], token="b")).json["error"]["code"] == -32602
    assert len(server.posts("initialize")) == 1


async def test_a_task_that_is_lost_meanwhile(proxies: Proxies, server: TaskServer) -> None:
    """A server that was restarted as well knows neither: the task has failed, and may have been executed."""
    bench = await proxies.start()
    identifier = (await bench.handle())["taskId"]
    await proxies.stop()
    server.sessions.clear()
    server.tasks.clear()
    bench = await proxies.start()
    error = (await bench.until_status(identifier, "failed"))["error"]
    assert (error["code"], "may or may not" in error["message"]) == (-32603, True)


async def test_a_task_that_has_expired_meanwhile(proxies: Proxies) -> None:
    """It is not found any more, and nothing of it is kept."""
    bench = await proxies.start()
    identifier = (await bench.handle())["taskId"]
    bench = await proxies.start(task_ttl="1ms")
    assert (await bench.about("get", identifier)).json["error"]["message"] == "Task not found"
    bench = await proxies.start()
    assert (await bench.about("get", identifier)).json["error"]["message"] == "Task not found"


async def test_late_calls(proxies: Proxies, server: TaskServer) -> None:
    """One that was over is what it was; one that was under way may or may not have been executed."""
    tool = Tool(server)
    bench = await proxies.start(task_after="20ms")
    over, running = await bench.handle("count"), await bench.handle("count")
    await until(lambda: len(server.posts("tools/call")) == 2)
    tool.finish()
    states: dict[str, Any] = {}
    while not any(state["status"] == "completed" for state in states.values()):
        states = {handle["taskId"]: await bench.get(handle["taskId"]) for handle in (over, running)}
    bench = await proxies.start(task_after="20ms")
    for identifier, state in states.items():
        now = await bench.get(identifier)
        if state["status"] == "completed":
            assert (now["status"], now["result"]) == ("completed", state["result"])
        else:
            assert (now["status"], now["error"]["data"]["reason"]) == ("failed", "outcome-unknown")
    assert len(server.posts("tools/call")) == 2
