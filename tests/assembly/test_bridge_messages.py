"""What bridges between transports do to messages, and must not happen here: each a test by its name."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from http_server import HttpServer
from messages import INITIALIZE, INITIALIZE_PARAMS, call, request
from proxy_bench import PATIENCE_SECONDS, read_events, until
from sse_bench import SseBench
from sse_server import SseServer, Stream, answer_to
from stdio_bench import StdioBench

pytestmark = pytest.mark.slow

SERVER = str(Path(__file__).parents[1] / "servers" / "message_server.py")
PARAMS: dict[str, Any] = json.loads(INITIALIZE_PARAMS)
ABLE: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": ABLE,
}
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "ask"}
QUESTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "elicitation/create": (
        {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}},
        {"action": "accept", "content": {}},
    ),
    "sampling/createMessage": (
        {"messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}], "maxTokens": 5},
        {"role": "assistant", "content": {"type": "text", "text": "Ho"}, "model": "m"},
    ),
    "roots/list": ({}, {"roots": [{"uri": "file:///here"}]}),
}


class Desk(StdioBench):
    """The proxy before a command that writes what it is told to."""

    async def start(self, *arguments: str, **options: Any) -> None:
        await super().start(command=[sys.executable, "-I", "-S", SERVER, *arguments], **options)

    async def write(self, *pieces: bytes, times: int = 1, end: str = "") -> Any:
        """Have the child write these, so often, before its answer; gives the answer."""
        written = [piece.decode("latin-1") for piece in pieces]
        answer = (await self.use("write", pieces=written, times=times, end=end)).json
        return (answer[-1] if isinstance(answer, list) else answer)["result"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with HttpServer() as nobody, Desk(nobody) as desk:
        yield desk


# -- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "first"),
    [
        *((1, 0), (1, 1), (1, 40)),
        *((65_000, 0), (65_536, 65_535), (65_536, 65_536), (65_536, 65_537)),
        *((1_000_000, 1), (1_000_000, 262_144), (33_554_432, 20_000_000)),
    ],
)
async def test_lines_over_64_kib(desk: Desk, size: int, first: int) -> None:
    """A reader with a limit of 64 KiB ends the bridge (context-forge#2591, acp-client#32)."""
    await desk.start()
    answer = await desk.use("large", bytes=size, first=first)
    assert len(answer.json["result"]["content"][0]["text"]) == size + len('""')
    assert len(desk.told("child.started")) == 1


@pytest.mark.parametrize("size", [1, 65_536, 900_000])
async def test_large_lines_to_the_child(desk: Desk, size: int) -> None:
    """The same the other way."""
    await desk.start()
    assert await desk.read("echo", text="x" * size) == {"text": "x" * size}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"Starting the server ...\n"],
        [b"\n\n   \n\t\n"],
        [b"\r\n"],
        [b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"notifications/message","params":{}}\n'],
        [b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}\r\n'],
        [b"\xff\xfe\xfd half of a \xc3\n"],
        [b"\x1b[2J\x1b[H\x00\x07\n"],
        [b'"text"\n', b"42\n", b"[]\n", b"{}\n", b"null\n"],
        [b'{"jsonrpc":"2.0","id":\n'],
        [b"[" * 100_000 + b"\n"],
    ],
    ids=["banner", "blank", "CRLF", "BOM", "CRLF behind", "no UTF-8", "terminal", "JSON", "half", "deep"],
)
async def test_text_on_stdout(desk: Desk, pieces: list[bytes]) -> None:
    """A word among the messages ends the bridge, or the message after it is lost (eca#298)."""
    await desk.start()
    for _ in range(2):
        assert await desk.write(*pieces) is not None
    assert len(desk.told("child.started")) == 1
    assert desk.told("child.ended") == []


async def test_a_line_without_an_end(desk: Desk) -> None:
    """10 MiB of it; what follows its end is read again."""
    await desk.start()
    for _ in range(2):
        assert await desk.write(b"x" * 100_000, times=105, end="\n") is not None
    assert len(desk.told("child.started")) == 1


# -- whose a message is ----------------------------------------------------------------------------


async def test_equal_ids_of_two_clients(desk: Desk) -> None:
    """One of them gets the other's answer, or none (supergateway#18, python-sdk#3137)."""
    await desk.start(sharing="shared")
    sessions = [await desk.initialize() for _ in range(2)]

    async def ask(number: int) -> Any:
        body = call(1, name="hold", arguments={"count": 64, "number": number})
        return (await desk.post(body, session=sessions[number % 2])).json["result"]["content"][0]["text"]

    answers = await asyncio.gather(*(ask(number) for number in range(64)))
    assert [int(answer) for answer in answers] == list(range(64))
    assert desk.children == 1


async def test_answers_are_dropped_when_buffers_are_full(desk: Desk) -> None:
    """At a hundred messages (toolhive#5952). A thousand calls in flight have a thousand answers."""
    await desk.start(max_exchanges_per_principal=5000, max_exchanges=10_000)
    calls = [call(number, name="hold", arguments={"count": 1000, "number": number}) for number in range(1000)]
    batches = [calls[start : start + 100] for start in range(0, 1000, 100)]
    session = await desk.initialize()
    answers = await asyncio.gather(*(desk.post(batch, session=session) for batch in batches))
    told = [(each["id"], int(each["result"]["content"][0]["text"])) for one in answers for each in one.json]
    assert sorted(told) == [(number, number) for number in range(1000)]


@pytest.mark.parametrize("listens", [False, True], ids=["no stream", "a stream"])
async def test_the_first_progress_is_lost(desk: Desk, listens: bool) -> None:
    """Or what comes just after the call has begun (supergateway PR #214, toolhive#5744): 100 of 100."""
    await desk.start()
    session = await desk.initialize()
    stream = desk.request("GET", session=session) if listens else None
    if stream is not None:
        await stream.__aenter__()
    for number in range(10):
        body = call(number, name="notes", arguments={"count": 100}, _meta={"progressToken": f"p{number}"})
        heard = (await desk.post(body, session=session)).json
        progress = [each["params"] for each in heard if each.get("method") == "notifications/progress"]
        assert progress == [{"progressToken": f"p{number}", "progress": each} for each in range(100)]
        logs = [each["params"]["data"] for each in heard if each.get("method") == "notifications/message"]
        assert logs[-100:] == list(range(100))
        assert heard[-1]["id"] == number
    if stream is not None:
        await stream.__aexit__(None, None, None)


async def test_progress_of_calls_at_the_same_time(desk: Desk) -> None:
    """Each hears its own, though all come on one pipe."""
    await desk.start()
    session = await desk.initialize()

    async def ask(number: int) -> Any:
        body = call(number, name="notes", arguments={"count": 20}, _meta={"progressToken": number})
        heard = (await desk.post(body, session=session)).json
        return [
            each["params"]["progressToken"]
            for each in heard
            if each.get("method") == "notifications/progress"
        ]

    for number, tokens in enumerate(await asyncio.gather(*(ask(number) for number in range(20)))):
        assert tokens == [number] * 20


# -- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", QUESTIONS)
async def test_questions_are_dropped_or_go_to_another_client(desk: Desk, method: str) -> None:
    """Each client is asked in its own call, and only there (punkpeye/mcp-proxy, supergateway PR #189)."""
    await desk.start()
    params, answer = QUESTIONS[method]
    hello = {**INITIALIZE, "params": {**PARAMS, "capabilities": ABLE}}
    answers = []
    for name in ("ada", "bob"):
        headers = {"Authorization": name}
        session = (await desk.post(hello, headers=headers)).headers["Mcp-Session-Id"]
        said = {**answer, "_meta": {"by": name}}
        body = call(1, name="ask", arguments={"method": method, "params": params})
        async with desk.request("POST", body, session=session, headers=headers) as response:
            [(_, asked)] = await read_events(response.content, 1)
            assert asked["method"] == method
            reply = {"jsonrpc": "2.0", "id": asked["id"], "result": said}
            assert (await desk.post(reply, session=session, headers=headers)).status == 202
            [(_, final)] = await read_events(response.content, 1)
        answers.append(json.loads(final["result"]["content"][0]["text"])["_meta"]["by"])
    assert answers == ["ada", "bob"]


@pytest.mark.parametrize("method", QUESTIONS)
async def test_questions_to_modern_clients(desk: Desk, method: str) -> None:
    """The same for those that are asked in results."""
    await desk.start()
    params, answer = QUESTIONS[method]
    for name in ("ada", "bob"):
        headers = {"Authorization": name, **MODERN_HEADERS}
        arguments = {"method": method, "params": params}
        body = call(1, name="ask", arguments=arguments, _meta=MODERN)
        asked = (await desk.post(body, headers=headers)).json["result"]
        assert asked["resultType"] == "input_required"
        [(key, question)] = asked["inputRequests"].items()
        assert question["method"] == method
        body["params"] |= {"inputResponses": {key: answer}, "requestState": asked["requestState"]}
        result = (await desk.post(body, headers=headers)).json["result"]
        assert json.loads(result["content"][0]["text"]) == answer


@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared", "fresh"])
async def test_a_shared_child_mixes_callers(desk: Desk, sharing: str) -> None:
    """One sees the other's page (supergateway#35). Two callers have two children, however they share."""
    await desk.start(sharing=sharing)
    asking = [
        asyncio.create_task(
            desk.read("hold", {"Authorization": name}, count=2, number=number)
            if sharing != "fresh"
            else desk.read("hold", {"Authorization": name}, count=1, number=number)
        )
        for number, name in enumerate(("ada", "bob"))
    ]
    if sharing == "fresh":
        assert await asyncio.gather(*asking) == [0, 1]
        return
    # Each waits for a second one that comes to the very same child: the other's does not.
    await until(lambda: desk.children == 2)
    rest = [desk.read("hold", {"Authorization": name}, count=2, number=9) for name in ("ada", "bob")]
    assert await asyncio.gather(*asking, *rest) == [0, 1, 9, 9]


# -- HTTP+SSE --------------------------------------------------------------------------------------


@pytest.fixture
async def sse() -> AsyncIterator[SseBench]:
    async with HttpServer() as nobody, SseServer() as server, SseBench(nobody) as desk:
        desk.sse = server
        yield desk


@pytest.mark.parametrize("choice", ["auto", "sse"])
async def test_an_endpoint_on_another_origin(sse: SseBench, choice: str) -> None:
    """A server could have credentials sent anywhere (advisories of several SDKs)."""
    async with HttpServer() as thief:
        sse.sse.endpoint = lambda _: thief.url
        await sse.start(upstream_transport=choice)
        answer = await sse.post(call(1, name="x"), headers={"Authorization": "Bearer secret"})
        assert answer.error == (1, -32603, "upstream-protocol-error")
        assert thief.seen == []
        await asyncio.wait_for(sse.sse.opened[0].ended.wait(), PATIENCE_SECONDS)
        assert len(sse.sse.gets) == 1


async def test_the_answer_comes_before_the_202(sse: SseBench) -> None:
    """And nobody waits for it yet."""
    go_on = asyncio.Event()

    async def answer_first(stream: Stream, message: Any) -> None:
        await stream.say(answer_to(message, {"early": True}))
        await go_on.wait()

    sse.sse.on["tools/call"] = sse.sse.on["tools/list"] = answer_first
    await sse.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in range(20):
            assert (await sse.post(call(number, name="x"))).json["result"] == {"early": True}
    go_on.set()


async def test_two_clients_crash_the_bridge(sse: SseBench) -> None:
    """One transport object for all of them (supergateway#138): here each caller has a stream."""
    await sse.start()
    asking = [
        sse.post(call(1, name="x"), headers={"Authorization": f"caller {number}"}) for number in range(20)
    ]
    answers = [answer.json["result"] for answer in await asyncio.gather(*asking)]
    assert sorted(answer["from"] for answer in answers) == sorted(sse.sse.streams)
    assert len(sse.sse.streams) == 20
    # One leaves; the others do not notice.
    sse.sse.streams["s1"].end()
    again = [
        await sse.post(call(2, name="x"), headers={"Authorization": f"caller {number}"})
        for number in range(20)
    ]
    assert sorted(answer.json["result"]["count"] for answer in again) == [1, *[2] * 19]


async def test_a_question_over_sse(sse: SseBench) -> None:
    """It is asked in the call of the client whose call it is."""
    held: list[Any] = []

    async def ask(stream: Stream, message: Any) -> None:
        held.append(message)
        await stream.say(request("q", "roots/list"))

    async def take(stream: Stream, message: Any) -> None:
        await stream.say(answer_to(held[-1], message["result"]))

    sse.sse.on["tools/call"], sse.sse.on["response"] = ask, take
    await sse.start()
    headers = {**MODERN_HEADERS, "Mcp-Name": "x"}
    body = call(1, name="x", _meta=MODERN)
    asked = (await sse.post(body, headers=headers)).json["result"]
    [key] = asked["inputRequests"]
    answer = QUESTIONS["roots/list"][1]
    body["params"] |= {"inputResponses": {key: answer}, "requestState": asked["requestState"]}
    assert (await sse.post(body, headers=headers)).json["result"]["roots"] == answer["roots"]
