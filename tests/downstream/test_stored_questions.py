"""What servers ask in tasks outlives the proxy, and so does how tasks have ended (``--state-dir``)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, write_event
from proxy_bench import until
from task_bench import ADA, DONE, FORM, Proxies, TaskBench
from task_server import TaskServer

from mcp_session_proxy.exchange import upstream_task
from mcp_session_proxy.exchange.legacy_handle import LegacyHandle


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


def asked_in(state: Any) -> list[str]:
    return list(state.get("inputRequests", {}))


async def begun(proxies: Proxies) -> tuple[TaskBench, str]:
    """A task, and the proxy that has given the handle of it."""
    bench = await proxies.start()
    return bench, (await bench.handle())["taskId"]


@pytest.mark.parametrize("token", [None, "a"], ids=["anonymous", "token"])
async def test_what_was_asked_is_asked_still(proxies: Proxies, server: TaskServer, token: str | None) -> None:
    """Under the same keys, and answered under the server's own ids; no key is used for another question."""
    bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
    bench = await proxies.start()
    identifier = (await bench.handle(**bearer))["taskId"]
    task = await server.next_task()
    first, second = task.ask(**FORM), task.ask(**FORM)
    while len(asked_in(before := await bench.get(identifier, token=token))) < 2:
        pass
    bench = await proxies.start()
    assert await bench.get(identifier, token=token) == before
    await bench.about("update", identifier, token=token, inputResponses={"name": ADA})
    assert (await task.answer_to(first))["result"] == ADA
    bench = await proxies.start()
    assert asked_in(await bench.get(identifier, token=token)) == ["name_2"]
    third = task.ask(**FORM)
    while len(asked_in(await bench.get(identifier, token=token))) < 2:
        pass
    answers = {"name": {"action": "decline"}, "name_2": ADA, "name_3": ADA}
    await bench.about("update", identifier, token=token, inputResponses=answers)
    assert (await task.answer_to(second))["result"] == (await task.answer_to(third))["result"] == ADA
    task.finish(DONE)
    state = await bench.until_status(identifier, "completed", token=token)
    assert state["result"]["content"] == DONE["content"]
    assert (set(task.answers), len(server.posts("response"))) == ({first, second, third}, 3)


async def test_the_request_that_was_under_way_is_sent_anew(proxies: Proxies, server: TaskServer) -> None:
    """The former one is cancelled: what it is told, nobody would hear."""
    bench, identifier = await begun(proxies)
    task = await server.next_task()
    task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    bench = await proxies.start()
    await bench.get(identifier)
    await until(lambda: len(server.posts("tasks/result")) == 2)
    [(_, former), (_, newer)] = server.posts("tasks/result")
    # How it stands may have been asked at that moment, too.
    cancelled = [message["params"]["requestId"] for _, message in server.posts("notifications/cancelled")]
    assert (cancelled.count(former["id"]), cancelled.count(newer["id"])) == (1, 0)


class EventStore:
    """``tasks/result`` of a server that keeps events: what is said while nobody listens is not lost."""

    def __init__(self, server: TaskServer) -> None:
        self.events: list[Any] = [None]
        self.said = asyncio.Event()
        self.resumed: list[str] = []
        self.request: Any = None
        self._get = server.on["GET"]
        server.on |= {"tasks/result": self._result, "GET": self._resume}

    def say(self, message: Any) -> None:
        self.events.append(message)
        self.said.set()

    async def _result(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.request = message
        return await self._write(request, 0)

    async def _resume(self, request: web.Request, message: Any) -> web.StreamResponse:
        after = request.headers.get("Last-Event-ID")
        if after is None:
            return await self._get(request, message)
        self.resumed.append(after)
        return await self._write(request, int(after) + 1)

    async def _write(self, request: web.Request, place: int) -> web.StreamResponse:
        stream = await begin_stream(request)
        while True:
            for number, message in enumerate(self.events[place:], place):
                if message is None:
                    await stream.write(b"id: 0\ndata: \n\n")
                else:
                    await write_event(stream, message, event_id=str(number))
                if message is not None and "result" in message:
                    return stream
                place = number + 1
            self.said.clear()
            await self.said.wait()


async def test_a_stream_that_is_gone_on_with(proxies: Proxies, server: TaskServer) -> None:
    """What the server has said between two proxies is heard by the second, where the server keeps it."""
    events = EventStore(server)
    bench, identifier = await begun(proxies)
    task = await server.next_task()
    task.become("input_required")
    await bench.get(identifier)
    await until(lambda: events.request is not None)
    (handle,) = bench.proxy.core.tasks._handles.values()
    assert isinstance(handle, LegacyHandle)
    upstream = handle.upstream
    await until(lambda: upstream.reading.place and upstream.reading.place.after == "0")
    await proxies.stop()
    events.say({"jsonrpc": "2.0", "id": "1-q1", "method": "elicitation/create", "params": FORM})
    bench = await proxies.start()
    state = await bench.until_status(identifier, "input_required")
    assert asked_in(state) == ["name"]
    await bench.about("update", identifier, inputResponses={"name": ADA})
    assert (await task.answer_to("1-q1"))["result"] == ADA
    task.become("working")
    events.say({"jsonrpc": "2.0", "id": events.request["id"], "result": DONE})
    assert (await bench.until_status(identifier, "completed"))["result"]["content"] == DONE["content"]
    assert len(server.posts("tasks/result")) == 1
    assert events.resumed == ["0"]


async def test_a_question_that_was_lost(
    proxies: Proxies, server: TaskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that waits for the answer to what nobody has heard is not waited for: the task has failed."""
    monkeypatch.setattr(upstream_task, "_DUE_SECONDS", 0.2)
    _, identifier = await begun(proxies)
    task = await server.next_task()
    await proxies.stop()
    task.become("input_required")
    bench = await proxies.start()
    state = await bench.until_status(identifier, "failed")
    assert state["error"]["data"]["reason"] == "outcome-unknown"
    assert "lost" in state["error"]["message"]
    assert task.cancels == 1


async def test_a_question_that_was_only_late(
    proxies: Proxies, server: TaskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is asked after all is asked, and no time is counted any more."""
    monkeypatch.setattr(upstream_task, "_DUE_SECONDS", 0.5)
    _, identifier = await begun(proxies)
    task = await server.next_task()
    await proxies.stop()
    task.become("input_required")
    bench = await proxies.start()
    await bench.get(identifier)
    asked = task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    await asyncio.sleep(0.7)
    await bench.about("update", identifier, inputResponses={"name": ADA})
    assert (await task.answer_to(asked))["result"] == ADA
    assert task.cancels == 0


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_ends(proxies: Proxies, server: TaskServer, end: str) -> None:
    """What a client has heard of an end stays so to the letter, though the server knows nothing any more."""
    bench, identifier = await begun(proxies)
    task = await server.next_task()
    if end == "cancelled":
        await bench.about("cancel", identifier)
    elif end == "failed":
        task.fail(-32010, "no")
    else:
        task.message = "all of it"
        task.finish(DONE)
    state = await bench.until_status(identifier, end)
    server.forget(task)
    for _ in range(2):
        bench = await proxies.start()
        assert await bench.get(identifier) == state
        server.sessions.clear()


async def test_an_end_is_told_when_it_is_written(proxies: Proxies, server: TaskServer) -> None:
    """Before that the task goes on, as it would for whoever came after this process."""
    bench, identifier = await begun(proxies)
    task = await server.next_task()
    write, go_on = bench.proxy.core.tasks.written, asyncio.Event()
    assert write is not None

    async def written() -> None:
        await go_on.wait()
        await write()

    bench.proxy.core.tasks.written = written
    task.finish(DONE)
    await until(lambda: server.posts("tasks/result"))
    assert (await bench.get(identifier))["status"] == "working"
    go_on.set()
    await bench.until_status(identifier, "completed")


async def test_a_question_is_told_when_it_is_written(proxies: Proxies, server: TaskServer) -> None:
    """A client that is asked is asked by the next process as well, however soon this one is killed."""
    bench, identifier = await begun(proxies)
    task = await server.next_task()
    await bench.get(identifier)
    write, go_on = bench.proxy.core.tasks.written, asyncio.Event()
    assert write is not None

    async def written() -> None:
        await go_on.wait()
        await write()

    bench.proxy.core.tasks.written = written
    task.ask(**FORM)
    (handle,) = bench.proxy.core.tasks._handles.values()
    await until(lambda: handle.asked)
    asking = asyncio.create_task(bench.get(identifier))
    await asyncio.sleep(0.05)
    assert not asking.done()
    go_on.set()
    assert asked_in(await asking) == ["name"]


async def test_a_large_end(proxies: Proxies, server: TaskServer) -> None:
    """It is not stored, but the server is asked for it again."""
    bench, identifier = await begun(proxies)
    large = {"content": [{"type": "text", "text": "x" * 2_000_000}]}
    (await server.next_task()).finish(large)
    await bench.until_status(identifier, "completed")
    bench = await proxies.start()
    assert (await bench.until_status(identifier, "completed"))["result"]["content"] == large["content"]
    assert len(server.posts("tasks/result")) == 2


async def test_a_client_that_does_not_come_back(proxies: Proxies, server: TaskServer) -> None:
    """Nothing is said in its name; once it comes for something else, what its task has asked is refused."""
    bearer = {"Authorization": "Bearer a"}
    bench = await proxies.start()
    identifier = (await bench.handle(**bearer))["taskId"]
    task = await server.next_task()
    asked = task.ask(**FORM)
    await bench.until_status(identifier, "input_required", token="a")
    bench = await proxies.start(task_ttl="500ms")
    await until(lambda: not len(bench.proxy.core.tasks))
    assert (task.cancels, task.answers) == (0, {})
    await bench.call("count", **bearer)
    assert "error" in await task.answer_to(asked)


async def test_what_answers_nothing(proxies: Proxies, server: TaskServer) -> None:
    """An answer to a task that was over when the next proxy came is kept from the server."""

    bench, identifier = await begun(proxies)
    task = await server.next_task()
    task.ask(**FORM)
    await bench.until_status(identifier, "input_required")
    await proxies.stop()
    task.finish(DONE)
    bench = await proxies.start()
    await bench.about("update", identifier, inputResponses={"name": ADA})
    await bench.until_status(identifier, "completed")
    assert server.posts("response") == []
