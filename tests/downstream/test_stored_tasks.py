"""Tasks outlive the proxy, where its sessions do (``--state-dir``)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from proxy_bench import until
from task_bench import ADA, DONE, FORM, TaskBench
from task_server import TaskServer
from test_late_calls import Tool


@pytest.fixture
async def server() -> AsyncIterator[TaskServer]:
    """A server with tasks, which outlives the proxies before it."""
    async with TaskServer() as server:
        yield server


class Proxies:
    """One proxy after the other, with the same state."""

    def __init__(self, server: TaskServer, state: Path) -> None:
        self._server = server
        self._state = state
        self._bench: TaskBench | None = None

    async def begin(self, **options: Any) -> TaskBench:
        """The next one, once the one before it has ended."""
        await self.end()
        self._bench = await TaskBench(self._server).__aenter__()
        await self._bench.start(state_dir=str(self._state), **options)
        return self._bench

    async def end(self) -> None:
        """None is left."""
        if self._bench is not None:
            bench, self._bench = self._bench, None
            await bench.stop()


@pytest.fixture
async def proxies(server: TaskServer, tmp_path: Path) -> AsyncIterator[Proxies]:
    """What begins them."""
    proxies = Proxies(server, tmp_path)
    yield proxies
    await proxies.end()


@pytest.mark.parametrize("token", [None, "a"], ids=["anonymous", "token"])
async def test_a_task_of_the_servers(proxies: Proxies, server: TaskServer, token: str | None) -> None:
    """It goes on, under the same id, with questions and all; and others' ids are as unknown as before."""
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    bench = await proxies.begin()
    handle = await bench.handle(**bearer)
    task = await server.next_task()
    bench = await proxies.begin()
    state = await bench.get(handle["taskId"], token=token)
    assert (state["status"], state["createdAt"]) == ("working", handle["createdAt"])
    assert task.cancels == 0
    asked = task.ask(**FORM)
    while (state := await bench.get(handle["taskId"], token=token))["status"] != "input_required":
        pass
    await bench.about("update", handle["taskId"], token=token, inputResponses={"name": ADA})
    assert (await task.answer_to(asked))["result"] == ADA
    task.finish(DONE)
    bench = await proxies.begin()
    while (state := await bench.get(handle["taskId"], token=token))["status"] != "completed":
        pass
    assert state["result"]["content"] == DONE["content"]
    assert (await bench.about("get", handle["taskId"], token="b")).json["error"]["code"] == -32602
    assert len(server.posts("initialize")) == 1


async def test_a_task_that_is_lost_meanwhile(proxies: Proxies, server: TaskServer) -> None:
    """A server that was restarted as well knows neither: the task has failed, and may have been executed."""
    bench = await proxies.begin()
    identifier = (await bench.handle())["taskId"]
    await proxies.end()
    server.sessions.clear()
    server.tasks.clear()
    bench = await proxies.begin()
    error = (await bench.until_status(identifier, "failed"))["error"]
    assert (error["code"], "may or may not" in error["message"]) == (-32603, True)


async def test_a_task_that_has_expired_meanwhile(proxies: Proxies) -> None:
    """It is not found any more, and nothing of it is kept."""
    bench = await proxies.begin()
    identifier = (await bench.handle())["taskId"]
    bench = await proxies.begin(task_ttl="1ms")
    assert (await bench.about("get", identifier)).json["error"]["message"] == "Task not found"
    bench = await proxies.begin()
    assert (await bench.about("get", identifier)).json["error"]["message"] == "Task not found"


async def test_late_calls(proxies: Proxies, server: TaskServer) -> None:
    """One that was over is what it was; one that was under way may or may not have been executed."""
    tool = Tool(server)
    bench = await proxies.begin(task_after="20ms")
    over, running = await bench.handle("count"), await bench.handle("count")
    await until(lambda: len(server.posts("tools/call")) == 2)
    tool.finish()
    states: dict[str, Any] = {}
    while not any(state["status"] == "completed" for state in states.values()):
        states = {handle["taskId"]: await bench.get(handle["taskId"]) for handle in (over, running)}
    bench = await proxies.begin(task_after="20ms")
    for identifier, state in states.items():
        now = await bench.get(identifier)
        if state["status"] == "completed":
            assert (now["status"], now["result"]) == ("completed", state["result"])
        else:
            assert (now["status"], now["error"]["data"]["reason"]) == ("failed", "outcome-unknown")
    assert len(server.posts("tools/call")) == 2
