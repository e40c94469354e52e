"""Tasks of 2025-11-25 between a client and a server that both know them: passed through."""

from typing import Any

import pytest
from messages import call
from proxy_bench import Bench, read_events
from task_server import TaskServer


@pytest.fixture
async def server() -> Any:
    """A server with tasks that the test ends."""
    async with TaskServer() as server:
        yield server


async def test_a_task_goes_through(bench: Bench, server: TaskServer) -> None:
    """Created, looked at, asked in and answered; its result comes where it was waited for."""
    await bench.start()
    session = await bench.initialize()
    made = await bench.post(call(1, name="work", task={"ttl": 60000}), session=session)
    task = await server.next_task()
    assert made.json["result"]["task"]["taskId"] == task.id
    # Before it is listened to: the answer begins with the first thing that there is to say.
    question = task.ask(message="Sure?", requestedSchema={"type": "object"})
    async with bench.request("POST", call(2, "tasks/result", taskId=task.id), session=session) as stream:
        ((_, asked),) = await read_events(stream.content, 1)
        assert (asked["method"], asked["params"]["message"]) == ("elicitation/create", "Sure?")
        looked = await bench.post(call(3, "tasks/get", taskId=task.id), session=session)
        assert looked.json["result"]["status"] == "input_required"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {}}}
        assert (await bench.post(answer, session=session)).status == 202
        assert (await task.answer_to(question))["result"] == {"action": "accept", "content": {}}
        task.finish({"content": []})
        ((_, result),) = await read_events(stream.content, 1)
        assert (result["id"], result["result"]) == (2, {"content": []})


async def test_a_task_is_cancelled(bench: Bench, server: TaskServer) -> None:
    """The server's own word is the answer, also when there is nothing to cancel any more."""
    await bench.start()
    session = await bench.initialize()
    await bench.post(call(1, name="work", task={}), session=session)
    task = await server.next_task()
    cancelled = await bench.post(call(2, "tasks/cancel", taskId=task.id), session=session)
    assert cancelled.json["result"]["status"] == "cancelled"
    again = await bench.post(call(3, "tasks/cancel", taskId=task.id), session=session)
    assert again.json["error"]["code"] == -32602
    server.forget(task)
    gone = await bench.post(call(4, "tasks/get", taskId=task.id), session=session)
    assert gone.json["error"]["code"] == -32602
