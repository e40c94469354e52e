"""JSON that is nested too deep, from clients and from servers: the whole proxy, on the wire."""

import json
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import Bench, until


def nested(depth: int) -> Any:
    """A value that is so deep, as what it is easily made of."""
    value: Any = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


def deep_call(depth: int, identifier: object = 7) -> dict[str, Any]:
    """A call whose JSON is so deep."""
    return call(identifier, arguments=nested(depth - 2))


@pytest.mark.parametrize("session", [None, "some"])
async def test_requests(bench: Bench, session: str | None) -> None:
    """At the limit all is well; one level more is refused under the client's own id, and why."""
    await bench.start()
    assert (await bench.post(deep_call(512), session=session)).status == 200
    answer = await bench.post(deep_call(513), session=session)
    assert answer.status == 400
    assert answer.error == (7, -32700, "json-too-deep")
    assert "512" in answer.json["error"]["message"]
    assert "--max-json-depth" in answer.json["error"]["message"]
    assert len(bench.server.posts("tools/call")) == 1


@pytest.mark.parametrize("depth", [900, 1100, 5000, 200_000])
@pytest.mark.parametrize("first", [True, False])
async def test_depths_that_interpreters_judge_differently(bench: Bench, depth: int, first: bool) -> None:
    """However deep, the client is told under its id, wherever in the message that is."""
    await bench.start()
    params = b'"params":{"x":' + b"[" * depth + b"]" * depth + b"}"
    members = [b'"jsonrpc":"2.0","id":"mine","method":"tools/call"', params]
    answer = await bench.post(b"{" + b",".join(members if first else members[::-1]) + b"}")
    assert answer.status == 400
    assert answer.error == ("mine", -32700, "json-too-deep")


async def test_brackets_in_texts(bench: Bench) -> None:
    """Only structure counts."""
    await bench.start()
    text = '[{"' * 5000 + "\\" * 3
    assert (await bench.post(call(1, arguments={"code": text, text: "]"}))).status == 200


async def test_flat_messages(bench: Bench) -> None:
    """A large message with many brackets is not a deep one."""
    await bench.start()
    assert (await bench.post(call(1, arguments=[[n, {}] for n in range(20_000)]))).status == 200


async def test_the_limit_can_be_chosen(bench: Bench) -> None:
    """For requests, notifications and batches, and for what the server answers."""
    await bench.start(max_json_depth=5)
    assert (await bench.post(deep_call(5))).status == 200
    assert (await bench.post(deep_call(6))).error[2] == "json-too-deep"
    assert (await bench.post([deep_call(5)])).error[2] == "json-too-deep"
    assert (await bench.post(notification("notifications/x", a=nested(4)))).status == 400
    bench.server.on["tools/call"] = Deep(bench, 6).as_json
    assert (await bench.post(call())).error[2] == "upstream-protocol-error"


# -- servers ---------------------------------------------------------------------------------------


class Deep:
    """A tool whose result is so deep."""

    def __init__(self, bench: Bench, depth: int) -> None:
        self.text = json.dumps(nested(depth - 1)) if depth < 900 else "[" * depth + "]" * depth

    def response(self, message: Any) -> bytes:
        identifier = json.dumps(message["id"])
        return f'{{"jsonrpc":"2.0","id":{identifier},"result":{self.text}}}'.encode()

    async def as_json(self, _: web.Request, message: Any) -> web.StreamResponse:
        return web.Response(body=self.response(message), content_type="application/json")

    async def as_stream(self, request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, self.response(message))
        return response

    async def as_news(self, request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        news = f'{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":{self.text}}}}}'
        await write_event(response, news.encode())
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"ok": 1}})
        return response


@pytest.mark.parametrize("kind", ["as_json", "as_stream"])
@pytest.mark.parametrize("depth", [513, 900, 5000])
async def test_answers(bench: Bench, kind: str, depth: int) -> None:
    """An answer over the limit is the server's fault, and the next call is no worse for it."""
    await bench.start()
    bench.server.on["tools/call"] = getattr(Deep(bench, 512), kind)
    assert (await bench.post(call("x"))).status == 200
    bench.server.on["tools/call"] = getattr(Deep(bench, depth), kind)
    answer = await bench.post(call("x"))
    assert (answer.status, answer.error) == (502, ("x", -32603, "upstream-protocol-error"))
    assert "--max-json-depth" in answer.json["error"]["message"]
    del bench.server.on["tools/call"]
    assert (await bench.post(call())).json["result"] == {"count": 1}
    assert len(bench.server.sessions) == 1


async def test_notifications(bench: Bench) -> None:
    """Other messages over the limit are dropped, and the call they came with goes on."""
    await bench.start()
    bench.server.on["tools/call"] = Deep(bench, 5000).as_news
    assert (await bench.post(call("x"))).json["result"] == {"ok": 1}


async def test_news_on_the_get_stream(bench: Bench) -> None:
    """What is too deep there is dropped; the stream goes on."""
    await bench.start()

    async def stream(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        deep = f'{{"jsonrpc":"2.0","method":"notifications/x","params":{{"a":{"[" * 600 + "]" * 600}}}}}'
        await write_event(response, deep.encode())
        await write_event(response, notification("notifications/tools/list_changed"))
        return response

    bench.server.on["GET"] = stream
    session = await bench.initialize()
    [client] = [client for client in bench.proxy.core.binder.directory if client.id == session]
    await until(lambda: bench.proxy.core.delivery.mailbox(client).standalone.after(0))
    assert b"list_changed" in bench.proxy.core.delivery.mailbox(client).standalone.after(0)[0].data


async def test_handshake(bench: Bench) -> None:
    """A server that cannot be read from the beginning."""

    async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
        return web.Response(body=Deep(bench, 600).response(message), content_type="application/json")

    await bench.start()
    bench.server.on["initialize"] = initialize
    answer = await bench.post(INITIALIZE)
    assert (answer.status, answer.error[2]) == (502, "upstream-protocol-error")
