"""What a real server asks in a task outlives the proxy: its client is asked still, and heard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from .conftest import Desk
from .launch import unused_port
from .modern_wire import EVERYTHING, TASKS_EXTENSION, ModernCaller, accept
from .wire import Message, eventually

pytestmark = pytest.mark.e2e


async def until_status(caller: ModernCaller, task: str, status: str) -> Message:
    """How a task stands, as soon as it stands so."""
    state: Message = {}

    async def stands_so() -> bool:
        state.clear()
        state.update((await caller.ask_modern("tasks/get", {"taskId": task})).result)
        return bool(state["status"] == status)

    await eventually(stands_so)
    return state


@pytest.mark.share(3)
@pytest.mark.parametrize("server", ["tasks-mcp", "tasks-fastmcp", "tasks-ts"])
async def test_questions_outlive_the_proxy(
    server: str, own_desk: Callable[..., Desk], http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Over kill -9 and SIGTERM the same is asked under the same key, and the tool goes on with the answer."""
    listen = f"127.0.0.1:{unused_port()}"
    at = own_desk(server, "--state-dir", str(tmp_path / "state"), "--listen", listen)
    caller = ModernCaller(http, at.proxy.url, capabilities=EVERYTHING | TASKS_EXTENSION)
    tasks = [
        (await caller.call_modern("confirm_delete", {"filename": name})).result["taskId"] for name in "abc"
    ]
    asked = [await until_status(caller, task, "input_required") for task in tasks]
    for task, end in zip(tasks, (at.proxy.program.kill, at.proxy.program.terminate, None), strict=True):
        if end is not None:
            # At once: what a client has heard of is on the disk.
            await asyncio.to_thread(end)
            await asyncio.to_thread(at.proxy.start)
        for other in asked:
            state = (await caller.ask_modern("tasks/get", {"taskId": other["taskId"]})).result
            assert (state["status"], state["inputRequests"]) == ("input_required", other["inputRequests"])
        (key,) = asked.pop(0)["inputRequests"]
        answers = {key: accept(confirm=True)}
        await caller.ask_modern("tasks/update", {"taskId": task, "inputResponses": answers})
        state = await until_status(caller, task, "completed")
        assert state["result"]["content"][0]["text"].startswith("Deleted ")
    assert set((await at.all_stats())["runs"].values()) == {1}
