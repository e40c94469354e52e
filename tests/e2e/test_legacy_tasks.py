"""A real client with tasks of 2025-11-25 before real servers that have them: the proxy is in nobody's way."""

from collections.abc import Callable
from typing import Any

import pytest
from mcp import types

from .conftest import Desk
from .sdk import connected

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(0)]


async def _elicited(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


@pytest.mark.share(3)
@pytest.mark.parametrize("server", ["tasks-mcp", "tasks-fastmcp", "tasks-ts"])
async def test_the_official_client(server: str, desk: Callable[..., Desk]) -> None:
    """It follows two tasks of one tool to their ends, and cancels one that has a question."""
    at = desk(server)
    async with connected(at.proxy.url, at.caller.token, elicitation_callback=_elicited) as client:
        tasks = client.experimental
        topics = ("tea", "rice")
        made = [(await tasks.call_tool_as_task("report", {"topic": topic})).task.taskId for topic in topics]
        assert made[0] != made[1]
        for topic, task in zip(topics, made, strict=True):
            assert [seen.status async for seen in tasks.poll_task(task)][-1] == "completed"
            result = await tasks.get_task_result(task, types.CallToolResult)
            assert result.content == [types.TextContent(type="text", text=f"Report on {topic}")]
        asking = (await tasks.call_tool_as_task("confirm_delete", {"filename": "a"})).task.taskId
        await tasks.cancel_task(asking)
        assert (await tasks.get_task(asking)).status == "cancelled"
