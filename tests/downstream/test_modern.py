"""The MCP endpoint for modern clients: the whole proxy before a small server that knows only sessions."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_server import Handler, HttpServer, begin_stream, reply_to, write_event
from messages import call
from modern_bench import ALL, CHANGING, META, NUMBERS, VERSION, Modern, modern, routing
from proxy_bench import PATIENCE_SECONDS, Answer, read_events, until


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Modern]:
    """A modern client and a server; the proxy between them is started by the test."""
    async with Modern(server) as bench:
        yield bench


# -- results ---------------------------------------------------------------------------------------


async def test_a_call(bench: Modern) -> None:
    """A request without a session has one upstream; the result says what the revision wants it to."""
    await bench.start()
    counts = []
    for number in range(3):
        answer = await bench.ask(modern(identifier=f"id-{number}"))
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json["id"] == f"id-{number}"
        assert "Mcp-Session-Id" not in answer.headers
        counts.append(answer.json["result"])
    info = {f"{META}serverInfo": {"name": "fake", "version": "1"}}
    assert counts == [{"count": n, "resultType": "complete", "_meta": info} for n in (1, 2, 3)]
    assert len(bench.server.sessions) == 1


async def test_what_the_server_sees(bench: Modern) -> None:
    """The server gets a request of its own revision, on a session that says who the client is and can do."""
    await bench.start()
    await bench.ask(modern(meta={"traceparent": "00-1"}, arguments={"a": 1}), Authorization="Bearer x")
    [(_, initialize)] = bench.server.posts("initialize")
    assert initialize["params"] == {
        "protocolVersion": "2025-11-25",
        "capabilities": ALL | {"roots": {"listChanged": True}},  # we tell, where the client cannot
        "clientInfo": {"name": "m", "version": "1"},
    }
    [(request, message)] = bench.server.posts("tools/call")
    assert message["params"] == {"name": "count", "arguments": {"a": 1}, "_meta": {"traceparent": "00-1"}}
    assert request.headers["MCP-Protocol-Version"] == "2025-11-25"
    assert request.headers["Authorization"] == "Bearer x"
    assert request.headers["Mcp-Session-Id"] in bench.server.sessions
    assert not {"mcp-method", "mcp-name"} & {name.lower() for name in request.headers}


async def test_who_shares_a_session(bench: Modern) -> None:
    """Equal callers with equal clients share one; another credential, capability or name makes another."""
    await bench.start()
    others: list[tuple[dict[str, Any], dict[str, str | None]]] = [
        ({}, {}),
        ({}, {"Authorization": "Bearer x"}),
        ({f"{META}clientCapabilities": {}}, {}),
        ({f"{META}clientInfo": {"name": "n", "version": "1"}}, {}),
        ({f"{META}clientInfo": None}, {}),
    ]
    for count in (1, 2):
        for meta, headers in others:
            answer = await bench.ask(modern(meta=meta), **headers)
            assert answer.json["result"]["count"] == count
    assert len(bench.server.sessions) == len(others)


async def test_session_headers_mean_nothing(bench: Modern) -> None:
    """An id or an event id that a modern request brings along is not looked at."""
    await bench.start()
    for number in (1, 2):
        answer = await bench.ask(modern(), Mcp_Session_Id=f"mine-{number}", Last_Event_ID="1")
        assert answer.json["result"]["count"] == number


async def test_discover(bench: Modern) -> None:
    """What the server said in its handshake, with the versions that are served here; asked for once."""
    bench.offer(CHANGING)
    await bench.start(cache_ttl=["server/discover=7"])
    for _ in range(2):
        found = (await bench.ask(modern("server/discover"))).json["result"]
    assert found["supportedVersions"] == [VERSION, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
    assert found["capabilities"] == CHANGING
    assert (found["instructions"], found["ttlMs"], found["cacheScope"]) == ("Count.", 7, "private")
    assert len(bench.server.posts("initialize")) == 1


async def test_cache_hints(bench: Modern) -> None:
    """The operator's hints are on the methods that may have some, and on no others."""
    await bench.start(cache_ttl=["tools/list=60000"], cache_scope="public")
    listed = (await bench.ask(modern("tools/list"))).json["result"]
    read = (await bench.ask(modern("resources/read", uri="a"))).json["result"]
    called = (await bench.ask(modern())).json["result"]
    assert (listed["ttlMs"], listed["cacheScope"]) == (60000, "public")
    assert (read["ttlMs"], read["cacheScope"]) == (0, "public")
    assert not {"ttlMs", "cacheScope"} & set(called)


async def test_lists_are_kept(bench: Modern) -> None:
    """A list is asked for once, until the server says that it changed."""
    bench.offer(CHANGING)
    bench.answer("tools/list", {"tools": []})
    await bench.start()
    for number in range(3):
        answer = await bench.ask(modern("tools/list", number, meta={"progressToken": number}))
        assert (answer.json["id"], answer.json["result"]["tools"]) == (number, [])
    assert len(bench.server.posts("tools/list")) == 1
    await bench.server_says("notifications/tools/list_changed")
    await until(lambda: bench.proxy.core.catalog.generation)
    await bench.ask(modern("tools/list"))
    assert len(bench.server.posts("tools/list")) == 2


async def listed(bench: Modern, **options: Any) -> Answer:
    answer = await bench.post(call(next(NUMBERS), "tools/list"), **options)
    assert answer.json["result"] == {"tools": []}
    return answer


async def test_lists_are_kept_for_session_less_legacy_clients(bench: Modern) -> None:
    """They ask for the list before each call; the server is asked once, until it says that it changed."""
    bench.offer(CHANGING)
    bench.answer("tools/list", {"tools": []})
    await bench.start()
    answers = [await listed(bench) for _ in range(3)]
    assert len({answer.json["id"] for answer in answers}) == 3
    assert len(bench.server.posts("tools/list")) == 1
    registry = bench.proxy.watchers.metrics.registry
    assert registry.get_sample_value("mcp_session_proxy_sessionless_requests_total", {"era": "legacy"}) == 3
    await bench.server_says("notifications/tools/list_changed")
    await until(lambda: bench.proxy.core.catalog.generation)
    await listed(bench)
    assert len(bench.server.posts("tools/list")) == 2


async def test_lists_are_kept_for_their_caller_alone(bench: Modern) -> None:
    """Another caller, a client with a session, and one that wants progress get an answer of their own."""
    bench.offer(CHANGING)
    bench.answer("tools/list", {"tools": []})
    await bench.start()
    await listed(bench)
    await listed(bench, headers={"Authorization": "Bearer other"})
    await listed(bench, session=await bench.initialize())
    await bench.post(call(1, "tools/list", _meta={"progressToken": 1}))
    await bench.post(call(1, "tools/list", cursor="2"))
    assert len(bench.server.posts("tools/list")) == 5
    await listed(bench)
    assert len(bench.server.posts("tools/list")) == 5


async def test_no_list_is_kept_without_a_promise(bench: Modern) -> None:
    """A server that would not tell of a change is asked each time, and errors are not kept."""
    bench.offer({"tools": {}})
    bench.answer("tools/list", {"tools": []})
    await bench.start()
    for _ in range(2):
        await listed(bench)
    assert len(bench.server.posts("tools/list")) == 2


# -- errors ----------------------------------------------------------------------------------------


async def test_errors_of_the_server(bench: Modern) -> None:
    """The server's errors keep the client's id and get the status that the revision wants."""
    await bench.start()
    bench.fail("resources/read", -32002, "Resource not found")
    bench.fail("prompts/get", -32601, "Method not found")
    bench.fail("completion/complete", 0, "oops")
    answer = await bench.ask(modern("resources/read", "r", uri="test://x"))
    assert (answer.status, answer.json["id"]) == (200, "r")
    assert answer.json["error"]["code"] == -32602
    assert answer.json["error"]["data"]["uri"] == "test://x"
    answer = await bench.ask(modern("prompts/get", "p", name="x"))
    assert (answer.status, answer.json["error"]["code"]) == (404, -32601)
    answer = await bench.ask(modern("completion/complete", "c"))
    assert (answer.status, answer.json["error"]["code"]) == (200, -32603)
    assert answer.json["error"]["data"]["original"] == {"code": 0, "message": "oops"}


@pytest.mark.parametrize(
    ("message", "headers", "status", "code"),
    [
        (modern("ping"), {}, 404, -32601),
        (modern("initialize"), {}, 404, -32601),
        (modern("logging/setLevel"), {}, 404, -32601),
        (modern("tasks/list"), {}, 404, -32601),
        (modern("no/such"), {}, 404, -32601),
        (modern(), {"MCP_Protocol_Version": None}, 400, -32020),
        (modern(), {"MCP_Protocol_Version": "2025-11-25"}, 400, -32020),
        (modern(), {"Mcp_Method": None}, 400, -32020),
        (modern(), {"Mcp_Name": "other"}, 400, -32020),
        (modern(meta={f"{META}protocolVersion": None}), {}, 400, -32602),
        (modern(meta={f"{META}clientCapabilities": None}), {}, 400, -32602),
        (modern(meta={f"{META}logLevel": "loud"}), {}, 400, -32602),
        (modern("subscriptions/listen"), {}, 400, -32602),
        (modern(requestState="made-up", inputResponses={}), {}, 400, -32602),
        (modern(requestState=3), {}, 400, -32602),
        (modern(inputResponses=[]), {}, 400, -32602),
    ],
)
async def test_refused_at_the_door(
    bench: Modern, message: dict[str, Any], headers: dict[str, str | None], status: int, code: int
) -> None:
    """What is wrong with a request is said under its own id, and the server hears nothing of it."""
    await bench.start()
    answer = await bench.ask(message | {"id": "mine"}, **headers)
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (status, "mine", code)
    assert answer.json["error"]["data"]["source"] == "mcp-session-proxy"
    assert bench.server.posts(message["method"]) == []


async def test_unknown_versions(bench: Modern) -> None:
    """A version that is not served is told which ones are."""
    await bench.start()
    message = modern(meta={f"{META}protocolVersion": "2030-01-01"})
    answer = await bench.ask(message, MCP_Protocol_Version="2030-01-01")
    error = answer.json["error"]
    assert (answer.status, error["code"], error["data"]["requested"]) == (400, -32022, "2030-01-01")
    assert error["data"]["supported"][:2] == [VERSION, "2025-11-25"]


@pytest.mark.parametrize("body", [[modern()], [], {"jsonrpc": "2.0", "id": 1, "result": {}}])
async def test_one_request_at_a_time(bench: Modern, body: object) -> None:
    """This revision knows neither batches nor responses of clients."""
    await bench.start()
    answer = await bench.post(body, headers={"MCP-Protocol-Version": VERSION})
    assert (answer.status, answer.json["error"]["code"]) == (400, -32600)


async def test_notifications_are_dropped(bench: Modern) -> None:
    """A modern client has nothing to notify; what it sends is accepted and goes nowhere."""
    await bench.start()
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    answer = await bench.post(note, headers={"MCP-Protocol-Version": VERSION})
    assert (answer.status, answer.body) == (202, b"")
    assert bench.server.posts("notifications/cancelled") == []


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
async def test_other_verbs(bench: Modern, verb: str) -> None:
    """Without a session there is neither a stream to open nor anything to delete."""
    await bench.start()
    async with bench.request(verb, headers={"MCP-Protocol-Version": VERSION}) as response:
        assert response.status == 405


# -- headers that mirror parameters ------------------------------------------------------------------


def marked(name: str = "Region") -> dict[str, Any]:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": name}}}
    return {"name": "count", "inputSchema": schema}


async def test_mirrored_parameters(bench: Modern) -> None:
    """A marked parameter must be in its header; base64 and other spellings of the name are as good."""
    bench.answer("tools/list", {"tools": [marked()]})
    await bench.start()
    text = "\u00fc"
    message = modern(arguments={"region": text})
    encoded = f"=?base64?{base64.b64encode(text.encode()).decode()}?="
    assert (await bench.ask(message, mcp_param_REGION=encoded)).status == 200
    for wrong in ({}, {"Mcp_Param_Region": "u"}, {"Mcp_Param_Region": "=?base64?!?="}):
        answer = await bench.ask(message, **wrong)
        assert (answer.status, answer.error[:2]) == (400, (1, -32020))
    assert (await bench.ask(modern(), Mcp_Param_Other="x")).status == 200
    assert len(bench.server.posts("tools/call")) == 2
    assert len(bench.server.posts("tools/list")) == 1


async def test_badly_marked_tools_are_not_listed(bench: Modern) -> None:
    """A tool that no client could call by the rules is not shown to modern clients; legacy ones see it."""
    bench.answer("tools/list", {"tools": [marked("a b"), {"name": "good", "inputSchema": {}}]})
    await bench.start()
    listed = (await bench.ask(modern("tools/list"))).json["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["good"]
    listed = (await bench.post(call(method="tools/list"))).json["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["count", "good"]


# -- streams ---------------------------------------------------------------------------------------


def talk(*levels: str) -> Handler:
    """A tool that logs."""

    async def tool(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        for level in levels:
            params = {"level": level, "data": level}
            await write_event(
                response, {"jsonrpc": "2.0", "method": "notifications/message", "params": params}
            )
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"done": True}})
        return response

    return tool


async def test_stream_or_json(bench: Modern) -> None:
    """An answer becomes a stream when there is something to say before it, and only then."""
    bench.offer(CHANGING)
    await bench.start()
    bench.server.on["tools/call"] = talk("info")
    assert (await bench.ask(modern())).headers["Content-Type"] == "application/json"
    answer = await bench.ask(modern(meta={f"{META}logLevel": "info"}))
    assert answer.headers["Content-Type"] == "text/event-stream"
    note, response = answer.json
    assert note["params"]["data"] == "info"
    assert response["result"]["done"]


async def test_clients_that_take_no_streams(bench: Modern) -> None:
    """A client that asks for JSON alone gets the answer without what came before it."""
    bench.offer(CHANGING)
    await bench.start()
    bench.server.on["tools/call"] = talk("info")
    message = modern(meta={f"{META}logLevel": "info"})
    answer = await bench.post(message, headers=routing(message), accept="application/json")
    assert answer.json["result"]["done"]


async def test_log_level(bench: Modern) -> None:
    """The server is told to be as talkative as the most curious request; each gets what it asked for."""
    bench.offer(CHANGING)
    await bench.start()
    bench.answer("logging/setLevel", {})
    bench.server.on["tools/call"] = talk("debug", "info", "error")
    for wanted, heard in (
        (None, []),
        ("error", ["error"]),
        ("info", ["info", "error"]),
        ("error", ["error"]),
        ("debug", ["debug", "info", "error"]),
    ):
        answer = await bench.ask(modern(meta={f"{META}logLevel": wanted}))
        messages = answer.json if isinstance(answer.json, list) else [answer.json]
        assert [m["params"]["level"] for m in messages if "method" in m] == heard
    levels = [message["params"]["level"] for _, message in bench.server.posts("logging/setLevel")]
    assert levels == ["error", "info", "debug"]


async def test_leaving_cancels(bench: Modern) -> None:
    """A client that closes its response cancels the call at the server."""
    await bench.start()
    begun = asyncio.Event()

    async def tool(request: web.Request, _: Any) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        return web.Response()

    bench.server.on["tools/call"] = tool
    message = modern()
    async with bench.asking(message, headers=routing(message)), asyncio.timeout(PATIENCE_SECONDS):
        await begun.wait()
    await until(lambda: bench.server.posts("notifications/cancelled"))
    [(_, cancelled)] = bench.server.posts("notifications/cancelled")
    [(_, asked)] = bench.server.posts("tools/call")
    assert cancelled["params"]["requestId"] == asked["id"]
    assert bench.endpoint.exchanges() == []


# -- rounds ----------------------------------------------------------------------------------------

FORM = {"message": "Name?", "requestedSchema": {"type": "object", "title": "Name", "properties": {}}}
NAME = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": FORM}
ADA = {"action": "accept", "content": {"name": "Ada"}}


async def test_a_round(bench: Modern) -> None:
    """The server's question is the result, the answer comes with the retry, the call is made once."""
    bench.ask_client(NAME, {"content": []})
    await bench.start()
    asked = (await bench.ask(modern(arguments={"a": 1}))).json["result"]
    assert asked["resultType"] == "input_required"
    assert asked["inputRequests"] == {"name": {"method": "elicitation/create", "params": FORM}}
    assert asked["_meta"] == {f"{META}serverInfo": {"name": "fake", "version": "1"}}
    retry = modern(
        identifier=2, arguments={"a": 1}, inputResponses={"name": ADA}, requestState=asked["requestState"]
    )
    answer = await bench.ask(retry)
    assert (answer.json["id"], answer.json["result"]["resultType"]) == (2, "complete")
    [(_, response)] = bench.server.posts("response")
    assert (response["id"], response["result"]) == ("q", ADA)
    assert len(bench.server.posts("tools/call")) == 1
    assert (await bench.ask(retry)).error == (2, -32602, "request-state-refused")


async def test_answers_before_the_question(bench: Modern) -> None:
    """A client that brings its answer along is not asked."""
    bench.ask_client(NAME, {"content": []})
    await bench.start()
    answer = await bench.ask(modern(inputResponses={"name": ADA, "other": ADA}))
    assert answer.json["result"]["resultType"] == "complete"


async def test_a_server_that_does_without_an_answer(bench: Modern) -> None:
    """A question that the client cannot answer is refused; what the server then gives is the result."""
    bench.ask_client(NAME, {"content": []})
    await bench.start()
    answer = await bench.ask(modern(meta={f"{META}clientCapabilities": {}}))
    assert answer.json["result"]["content"] == []
    assert bench.server.posts("response")[0][1]["error"]["code"] == -32603


@pytest.mark.slow
async def test_a_client_that_cannot_answer(bench: Modern) -> None:
    """A client that declared nothing is told what the server needs, if it does not go on without."""

    async def tool(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, NAME)
        await asyncio.Event().wait()
        return response

    bench.server.on["tools/call"] = tool
    await bench.start()
    answer = await bench.ask(modern(meta={f"{META}clientCapabilities": {}}))
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (400, -32021)
    assert error["data"]["requiredCapabilities"] == {"elicitation": {"form": {}}}
    assert bench.server.posts("response")[0][1]["error"]["code"] == -32603
    await until(lambda: bench.server.posts("notifications/cancelled"))


# -- subscriptions/listen --------------------------------------------------------------------------


def listen(identifier: object = "l", **wanted: object) -> dict[str, Any]:
    return modern("subscriptions/listen", identifier, notifications=wanted)


async def test_listening(bench: Modern) -> None:
    """A listener is acknowledged first, with what the server can do, and hears that and nothing else."""
    bench.offer(CHANGING)
    await bench.start()
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a"]}
    async with bench.stream(listen(**wanted)) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        [(_, first)] = await read_events(response.content, 1)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"] == {
            "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a"]},
            "_meta": {f"{META}subscriptionId": "l"},
        }
        await bench.server_says("notifications/prompts/list_changed")
        await bench.server_says("notifications/resources/updated", uri="b")
        await bench.server_says("notifications/resources/updated", uri="a")
        await bench.server_says("notifications/tools/list_changed")
        events = [event for _, event in await read_events(response.content, 2)]
    assert [event["method"].rpartition("/")[2] for event in events] == ["updated", "list_changed"]
    assert all(event["params"]["_meta"] == {f"{META}subscriptionId": "l"} for event in events)
    await until(lambda: bench.server.posts("resources/unsubscribe"))
    assert len(bench.server.posts("resources/subscribe")) == 1


async def test_listening_to_a_server_that_tells_nothing(bench: Modern) -> None:
    """A listener is acknowledged even if there is nothing to hear, ever."""
    await bench.start()
    async with bench.stream(listen(toolsListChanged=True, resourceSubscriptions=["a"])) as response:
        [(_, first)] = await read_events(response.content, 1)
        assert first["params"]["notifications"] == {}
    assert bench.server.posts("resources/subscribe") == []


async def test_heartbeats(bench: Modern) -> None:
    """A stream on which nothing happens is kept alive."""
    await bench.start(heartbeat="50ms")
    async with bench.stream(listen()) as response, asyncio.timeout(PATIENCE_SECONDS):
        await read_events(response.content, 1)
        while not (await response.content.readline()).startswith(b":"):
            pass


async def test_listening_needs_a_stream(bench: Modern) -> None:
    """A client that takes only JSON cannot listen."""
    await bench.start()
    message = listen()
    answer = await bench.post(message, headers=routing(message), accept="application/json")
    assert (answer.status, answer.error[:2]) == (400, ("l", -32600))


async def test_the_end_of_listening(bench: Modern) -> None:
    """When we leave, a listener gets the response to its request."""
    await bench.start(drain_timeout="2s")
    async with bench.stream(listen(identifier=7)) as response:
        await read_events(response.content, 1)
        stopping = asyncio.create_task(bench.stop())
        [(_, last)] = await read_events(response.content, 1)
        assert last["id"] == 7
        assert last["result"] == {"resultType": "complete", "_meta": {f"{META}subscriptionId": 7}}
        assert await response.content.read() == b""
    await stopping


async def test_a_listener_outlives_its_session(bench: Modern) -> None:
    """When the server loses a session, its listener is subscribed anew and told that all may have changed."""
    bench.offer(CHANGING)
    await bench.start()
    async with bench.stream(listen(toolsListChanged=True, resourceSubscriptions=["a"])) as response:
        await read_events(response.content, 1)
        bench.server.sessions.clear()
        assert (await bench.ask(modern())).json["result"]["count"] == 1
        events = [event["method"] for _, event in await read_events(response.content, 2)]
    assert sorted(events) == ["notifications/resources/updated", "notifications/tools/list_changed"]
    assert len(bench.server.posts("resources/subscribe")) == 2


# -- tasks -----------------------------------------------------------------------------------------


async def test_tools_that_need_a_task(bench: Modern) -> None:
    """They are in the list like others. Without a server that runs tasks, calling one is any call."""
    tools = [
        {"name": "slow", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}},
        {"name": "count", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}},
    ]
    bench.answer("tools/list", {"tools": tools})
    await bench.start()
    listed = (await bench.ask(modern("tools/list"))).json["result"]["tools"]
    assert listed == [
        {"name": "slow", "inputSchema": {"type": "object"}},
        {"name": "count", "inputSchema": {"type": "object"}},
    ]
    answer = await bench.ask(modern(identifier="s", name="slow"))
    assert (answer.json["id"], answer.json["result"]["count"]) == ("s", 1)
    [(_, message)] = bench.server.posts("tools/call")
    assert message["params"] == {"name": "slow"}


async def test_no_call_becomes_a_task(bench: Modern) -> None:
    """A request for a task, which this revision does not know, runs as a call."""
    await bench.start()
    answer = await bench.ask(modern(task={"ttl": 1000}, arguments={"task": 1}))
    assert answer.json["result"]["count"] == 1
    [(_, message)] = bench.server.posts("tools/call")
    assert message["params"] == {"name": "count", "arguments": {"task": 1}}


# -- metadata and hints ------------------------------------------------------------------------------


async def test_keys_of_extensions_reach_the_server(bench: Modern) -> None:
    """Only what the core says with each request stays here."""
    await bench.start()
    await bench.ask(modern(meta={f"{META}ui": {"a": 1}, f"{META}related-task": {"taskId": "t"}}))
    [(_, message)] = bench.server.posts("tools/call")
    assert message["params"]["_meta"] == {f"{META}ui": {"a": 1}, f"{META}related-task": {"taskId": "t"}}


async def test_hints_that_are_none(bench: Modern) -> None:
    """A server's nonsense about caching does not reach a client, from the server or from what we kept."""
    bench.offer(CHANGING)
    bench.answer("tools/list", {"tools": [], "ttlMs": -5, "cacheScope": "everybody"})
    await bench.start(cache_ttl=["tools/list=60000"])
    for _ in range(2):
        listed = (await bench.ask(modern("tools/list"))).json["result"]
        assert (listed["ttlMs"], listed["cacheScope"]) == (60000, "private")


# -- the other era ---------------------------------------------------------------------------------


async def test_both_eras_at_once(bench: Modern) -> None:
    """A legacy client session and the modern requests of the same caller do not disturb each other."""
    await bench.start()
    session = await bench.initialize()
    for count in (1, 2):
        assert (await bench.post(call(), session=session)).json["result"]["count"] == count
        assert (await bench.ask(modern())).json["result"]["count"] == count
    assert len(bench.server.sessions) == 2


async def test_draining(bench: Modern) -> None:
    """While we are leaving, modern requests are told to come back."""
    await bench.start()
    bench.endpoint.drain()
    answer = await bench.ask(modern())
    assert (answer.status, answer.error) == (503, (1, -32603, "draining"))


# -- headers ---------------------------------------------------------------------------------------


async def test_answers_travel_with_the_headers_of_their_own_request(bench: Modern) -> None:
    """A parked call keeps the headers it was made with; the answers come with those of the retry."""
    bench.offer({"tools": {}})
    asked = {"jsonrpc": "2.0", "id": "q", "method": "roots/list", "params": {}}

    async def handle(request: web.Request, message: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, asked)
        await until(lambda: bench.server.posts("response"))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}})
        return response

    bench.server.on["tools/call"] = handle
    await bench.start()
    first = (await bench.ask(modern(), X_Mark="first")).json["result"]
    answers: dict[str, object] = {key: {"roots": []} for key in first["inputRequests"]}
    retry = modern(identifier=2, requestState=first["requestState"], inputResponses=answers)
    assert (await bench.ask(retry, X_Mark="second")).status == 200

    def marks(method: str) -> list[str | None]:
        return [request.headers.get("X-Mark") for request, _ in bench.server.posts(method)]

    assert marks("initialize") == ["first"]
    assert marks("tools/call") == ["first"]
    assert marks("response") == ["second"]
    assert set(marks("tools/list") + marks("server/discover")) == {None}  # asked by the proxy itself


# -- a server that asks without end ----------------------------------------------------------------


async def test_a_flood_of_questions(bench: Modern) -> None:
    """Twenty thousand questions in one call: a hundred reach the client, and others are served meanwhile."""
    refused, done = set(), asyncio.Event()
    form = {"message": "?", "requestedSchema": {"type": "object", "properties": {}, "title": "Same"}}

    async def tool(request: web.Request, message: Any) -> web.StreamResponse:
        if message["params"]["name"] != "flood":
            return reply_to(message, {"content": []})
        response = await begin_stream(request)
        for number in range(0, 20_000, 100):
            asked = [
                {"jsonrpc": "2.0", "id": n, "method": "elicitation/create", "params": form}
                for n in range(number, number + 100)
            ]
            await response.write(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in asked))
        await done.wait()
        return response

    async def response(_: web.Request, message: Any) -> web.StreamResponse:
        refused.add(message["id"])
        return web.Response(status=202)

    bench.server.on |= {"tools/call": tool, "response": response}
    await bench.start()
    asked = (await bench.ask(modern(name="flood"))).json["result"]
    assert len(asked["inputRequests"]) <= 100
    assert len(set(asked["inputRequests"])) == len(asked["inputRequests"])
    # Refusals go on one by one; a call of another caller comes in between.
    before = len(refused)
    assert (await bench.ask(modern(name="other"), Authorization="Bearer x")).status == 200
    await until(lambda: len(refused) > before)
    assert len(refused) < 20_000
    done.set()
