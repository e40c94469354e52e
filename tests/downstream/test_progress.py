"""The whole proxy before a server that tells of progress: whose it is, and for how long."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, reply_to, write_event
from messages import call, notification
from modern_bench import META, modern, routing
from proxy_bench import Bench, read_events, until

PROGRESS = "notifications/progress"


class Tasks:
    """A server whose GET streams a test writes to, and whose calls become tasks."""

    def __init__(self, server: HttpServer) -> None:
        self.streams: list[web.StreamResponse] = []
        self.tokens: list[Any] = []
        server.on.update({"GET": self.stream, "tools/call": self.call, "tasks/get": self.get})
        server.on["tasks/result"] = self.result
        self.status = "working"

    async def stream(self, request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        self.streams.append(response)
        await asyncio.Event().wait()
        return response

    async def call(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.tokens.append(message["params"]["_meta"].get("progressToken"))
        if "task" not in message["params"]:
            return reply_to(message, {"content": []})
        task = {"taskId": f"t{len(self.tokens)}", "status": "working", **message["params"]["task"]}
        return reply_to(message, {"task": task})

    async def get(self, request: web.Request, message: Any) -> web.StreamResponse:
        return reply_to(message, {"taskId": message["params"]["taskId"], "status": self.status})

    async def result(self, request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, self.progress(0, 7))
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}
        await write_event(response, answer)
        return response

    def progress(self, number: int, progress: int) -> dict[str, Any]:
        params = {"progressToken": self.tokens[number], "progress": progress}
        return {"jsonrpc": "2.0", "method": PROGRESS, "params": params}

    async def tell(self, message: dict[str, Any]) -> None:
        await write_event(self.streams[0], message)

    async def tell_end(self) -> None:
        """Something that every client hears, behind everything before it."""
        await self.tell({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


@pytest.fixture
async def bench(bench: Bench) -> Bench:
    await bench.start()
    return bench


@pytest.fixture
async def at(bench: Bench) -> Tasks:
    return Tasks(bench.server)


def ask(token: object, **params: Any) -> dict[str, Any]:
    return call(1, name="slow", _meta={"progressToken": token}, **params)


async def heard(bench: Bench, session: str, at: Tasks) -> list[Any]:
    """The parameters of what came on the client's GET stream, up to the end."""
    await at.tell_end()
    found = []
    async with bench.request("GET", session=session) as stream:
        while (message := (await read_events(stream.content, 1))[0][1])["method"] == PROGRESS:
            found.append(message["params"])
    return found


async def test_progress_of_a_task_goes_on(bench: Bench, at: Tasks) -> None:
    """Under the client's own token, after the call was answered, until the task is over."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask("mine", task={"ttl": 60_000}), session=session)
    await at.tell(at.progress(0, 1))
    await bench.post(call(2, "tasks/get", taskId="t1"), session=session)
    await at.tell(at.progress(0, 2))
    assert await heard(bench, session, at) == [
        {"progressToken": "mine", "progress": 1},
        {"progressToken": "mine", "progress": 2},
    ]
    at.status = "completed"
    await bench.post(call(3, "tasks/get", taskId="t1"), session=session)
    await at.tell(at.progress(0, 3))
    assert await heard(bench, session, at) == []


async def test_progress_on_the_stream_of_another_request(bench: Bench, at: Tasks) -> None:
    """A task's progress that comes with ``tasks/result`` is the task's, and that is its end."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask(5, task={}), session=session)
    await bench.post(call(9, "tasks/result", taskId="t1", _meta={"progressToken": 9}), session=session)
    await at.tell(at.progress(0, 8))
    assert await heard(bench, session, at) == [{"progressToken": 5, "progress": 7}]


async def test_a_task_that_says_that_it_is_over(bench: Bench, at: Tasks) -> None:
    """A status notification ends its token, too."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask("mine", task={}), session=session)
    status = {"taskId": "t1", "status": "failed"}
    await at.tell({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": status})
    await at.tell(at.progress(0, 1))
    await at.tell_end()
    async with bench.request("GET", session=session) as stream:
        events = [data["method"] for _, data in await read_events(stream.content, 2)]
    assert events == ["notifications/tasks/status", "notifications/tools/list_changed"]


@pytest.mark.parametrize("task", [{"ttl": 0}, {"status": "completed"}])
async def test_a_task_that_is_over_already(bench: Bench, at: Tasks, task: dict[str, Any]) -> None:
    """Its token is good for nothing."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask("mine", task=task), session=session)
    await asyncio.sleep(0.01)
    await at.tell(at.progress(0, 1))
    assert await heard(bench, session, at) == []


async def test_progress_of_a_call_that_is_over(bench: Bench, at: Tasks) -> None:
    """Our number is not passed on: the client may take it for another request's."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask("mine"), session=session)
    await at.tell(at.progress(0, 1))
    assert await heard(bench, session, at) == []


@pytest.mark.parametrize("token", [None, True, {"a": 1}, [1]])
async def test_no_token(bench: Bench, at: Tasks, token: object) -> None:
    """null is none, and so is whatever is neither a string nor a number: none of ours is put in its place."""
    session = await bench.initialize()
    await bench.post(ask(token), session=session)
    assert at.tokens == [token]


async def test_tokens_are_bounded(bench: Bench, at: Tasks) -> None:
    """The oldest task's goes when there are too many."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    for number in range(105):
        await bench.post(ask(number, task={"ttl": None}), session=session)
    (slot,) = bench.proxy.core.pool.books.slots()
    assert len(slot.session.incarnation.calls.tokens) == 100
    await at.tell(at.progress(0, 1))
    await at.tell(at.progress(104, 2))
    assert await heard(bench, session, at) == [{"progressToken": 104, "progress": 2}]


def in_one_piece(*messages: object) -> bytes:
    """Events as the TypeScript and Python SDKs write them, to be written at once."""
    texts = (json.dumps(message, separators=(",", ":")) for message in messages)
    return b"".join(b"event: message\r\ndata: %b\r\n\r\n" % text.encode() for text in texts)


@pytest.mark.parametrize("kind", ["legacy", "client session", "modern"])
async def test_much_that_comes_at_once(bench: Bench, kind: str) -> None:
    """Everything arrives once, in the server's order, under the client's token, whatever stands between."""

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        token = message["params"]["_meta"]["progressToken"]

        def progress(number: int, **more: object) -> Any:
            return notification(PROGRESS, progressToken=token, progress=number, **more)

        response = await begin_stream(request)
        log = notification("notifications/message", level="error", data="between")
        await response.write(
            in_one_piece(
                *map(progress, range(40)),
                log,
                progress(40, message='"quoted"'),
                *map(progress, range(41, 60)),
                notification(PROGRESS, progressToken=987654, progress=0),  # of a call that is over
                {"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}},
            )
        )
        return response

    bench.server.on["tools/call"] = work
    session = await bench.initialize() if kind == "client session" else None
    if kind == "modern":
        body = modern(meta={"progressToken": "mine", f"{META}logLevel": "debug"})
        answer = await bench.post(body, headers=routing(body))
    else:
        answer = await bench.post(ask("mine"), session=session)
    *said, final = answer.json
    assert final["result"]["content"] == []
    assert said.pop(40)["params"]["data"] == "between"
    assert {message["params"]["progressToken"] for message in said} == {"mine"}
    assert [message["params"]["progress"] for message in said] == list(range(60))


async def test_much_of_another_call(bench: Bench, at: Tasks) -> None:
    """What a server tells on the wrong stream is told to whose it is, also where it comes in one piece."""
    session = await bench.initialize()
    await until(lambda: at.streams)
    await bench.post(ask("first", task={}), session=session)

    async def work(request: web.Request, message: Any) -> web.StreamResponse:
        own = message["params"]["_meta"]["progressToken"]
        told = [at.progress(0, 1), at.progress(0, 2)]
        told += [notification(PROGRESS, progressToken=own, progress=number) for number in (3, 4)]
        response = await begin_stream(request)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}
        await response.write(in_one_piece(*told, answer))
        return response

    bench.server.on["tools/call"] = work
    answer = await bench.post({**ask("second"), "id": 2}, session=session)
    assert [message.get("params") for message in answer.json] == [
        {"progressToken": "second", "progress": 3},
        {"progressToken": "second", "progress": 4},
        None,
    ]
    assert [params["progress"] for params in await heard(bench, session, at)] == [1, 2]
