"""Nonsense about tasks, from clients and from servers: each is told what it is worth, and nothing breaks."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import reply_to
from modern_bench import META, modern, routing
from task_bench import DONE, KNOWS_TASKS, TaskBench
from task_server import CREATED, TaskServer

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
