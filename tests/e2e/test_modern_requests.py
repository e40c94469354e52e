"""Modern requests written by hand, before real servers: visits, headers, sharing, the end of the proxy."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Desk
from .modern_wire import META, ModernCaller, accept, header_value
from .wire import Message, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(15)]

MakeDesk = Callable[..., Desk]


def caller(at: Desk, **options: Any) -> ModernCaller:
    """A modern caller of its own, who is also the desk's."""
    at.caller = who = ModernCaller(at.http, at.proxy.url, **options)
    return who


def only_key(asked: Message) -> str:
    """The key of the only question."""
    (key,) = asked["inputRequests"]
    return str(key)


# -- what the suite has no scenario for --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["modern", "modern-get"])
async def test_a_page_to_visit(kind: str, desk: MakeDesk) -> None:
    """A server that asks the user to visit a page hears what the user did."""
    client = caller(desk(kind))
    arguments = {"identifier": uuid.uuid4().hex}
    asked = (await client.call_modern("ask_to_visit", arguments)).result
    (question,) = asked["inputRequests"].values()
    assert question["params"]["mode"] == "url"
    assert question["params"]["url"].endswith(arguments["identifier"])
    assert "elicitationId" not in question["params"]
    answer = {only_key(asked): {"action": "accept"}}
    assert (await client.resume_call(asked, answer, "ask_to_visit", arguments)).text == "accept"


async def test_a_page_that_must_be_visited_first(desk: MakeDesk) -> None:
    """A server that refuses before a visit gets its call again once it says that the visit was made."""
    at = desk("modern")
    client = caller(at)
    arguments = {"identifier": uuid.uuid4().hex}
    asked = (await client.call_modern("demand_visit", arguments)).result
    (question,) = asked["inputRequests"].values()
    assert question["params"]["url"].endswith(arguments["identifier"])
    async with at.http.post(f"{at.server.origin}/visit/{arguments['identifier']}") as response:
        assert response.status == 200
    async with asyncio.timeout(30):
        answer = {only_key(asked): {"action": "accept"}}
        done = await client.resume_call(asked, answer, "demand_visit", arguments)
    assert done.text == "visited"


async def test_a_page_for_a_client_that_shows_none(desk: MakeDesk) -> None:
    """A client that cannot show pages is told what it would need, by either way of asking."""
    client = caller(desk("modern"), capabilities={"elicitation": {}})
    for tool in ("ask_to_visit", "demand_visit"):
        refused = await client.call_modern(tool, {"identifier": uuid.uuid4().hex})
        assert (refused.status, refused.error["code"]) == (400, -32021)
        assert refused.error["data"]["requiredCapabilities"] == {"elicitation": {"url": {}}}


@pytest.mark.parametrize("kind", ["modern", "modern-get"])
async def test_a_model_with_tools(kind: str, desk: MakeDesk) -> None:
    """A model that may use a tool answers with more than text."""
    client = caller(desk(kind))
    asked = (await client.call_modern("ask_model_with_tool")).result
    (question,) = asked["inputRequests"].values()
    assert [tool["name"] for tool in question["params"]["tools"]] == ["weather"]
    says = {
        "role": "assistant",
        "model": "none",
        "stopReason": "toolUse",
        "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "1", "name": "weather", "input": {}},
        ],
    }
    done = await client.resume_call(asked, {only_key(asked): says}, "ask_model_with_tool")
    assert done.text == "text, tool_use"


async def test_mirrored_parameters(desk: MakeDesk) -> None:
    """Parameters of a real tool are checked against their headers; integers are compared as numbers."""
    client = caller(desk("modern"))
    arguments = {"region": "Zürich", "count": 42, "dry": True}
    good: dict[str, str | None] = {
        "Mcp-Param-Region": header_value("Zürich"),
        "Mcp-Param-Count": "42.0",
        "Mcp-Param-Dry-Run": "true",
    }
    assert (await client.call_modern("test_headers", arguments, headers=good)).text == "Zürich 42 True"
    for name, value in (("Region", "Zurich"), ("Count", "43"), ("Dry-Run", None)):
        wrong = await client.call_modern(
            "test_headers", arguments, headers=good | {f"Mcp-Param-{name}": value}
        )
        assert (wrong.status, wrong.error["code"]) == (400, -32020)


async def test_changed_lists_are_seen(desk: MakeDesk) -> None:
    """A kept list is asked for anew once the server has said that it changed."""
    client = caller(desk("modern"))

    async def description() -> str:
        tools = (await client.ask_modern("tools/list")).result["tools"]
        return next(str(tool["description"]) for tool in tools if tool["name"] == "changing_tool")

    for _ in range(3):
        assert await description() == await description()
        changed = (await client.call_modern("test_trigger_tool_change")).text

        async def is_seen(expected: str = changed) -> bool:
            return await description() == expected

        await eventually(is_seen)


# -- who gets which session --------------------------------------------------------------------------


async def test_many_callers_at_once(desk: MakeDesk) -> None:
    """Callers do not see each other's state, however many there are."""
    at = desk("mcp-1.30")

    async def count() -> list[str]:
        who = ModernCaller(at.http, at.proxy.url)
        return [(await who.call_modern("increment")).text for _ in range(3)]

    assert await asyncio.gather(*(count() for _ in range(20))) == [["1", "2", "3"]] * 20


async def test_calls_run_side_by_side(desk: MakeDesk) -> None:
    """Calls of one caller share a session and do not wait for one another."""
    at = desk("mcp-1.30")
    client = caller(at)
    everybody = {"number": 20, "place": uuid.uuid4().hex}
    replies = await asyncio.gather(*(client.call_modern("meet", everybody) for _ in range(20)))
    assert {reply.text for reply in replies} == {"20 met"}
    assert (await at.stats())["sessions"]["opened"] == 1


async def test_conversations(desk: MakeDesk) -> None:
    """A conversation that the client names has a session of its own."""
    client = caller(desk("mcp-1.30"))
    counted = [
        (await client.call_modern("increment", meta={"openai/session": name})).text
        for name in ("a", "b", "a", "b", "a")
    ]
    assert counted == ["1", "1", "2", "2", "3"]
    assert (await client.call_modern("increment")).text == "1"


async def test_a_session_for_every_request(option_desk: MakeDesk) -> None:
    """With --sharing fresh, a modern request finds nothing that an earlier one left behind."""
    at = option_desk("mcp-1.30", "--sharing", "fresh")
    client = caller(at)
    assert [(await client.call_modern("increment")).text for _ in range(3)] == ["1", "1", "1"]
    asked = (await client.call_modern("elicit_name")).result
    assert (await client.resume_call(asked, {"name": accept(name="Bo")}, "elicit_name")).text == "accept:Bo"

    async def closed() -> bool:
        return bool((await at.stats())["sessions"]["live"] == 0)

    await eventually(closed)


# -- a server that is modern itself ------------------------------------------------------------------


async def test_a_modern_server_gets_modern_requests(desk: MakeDesk) -> None:
    """A server that speaks this revision is asked as the client asked, and no session is opened."""
    at = desk("grafana")

    def opened() -> float:
        counted = at.proxy.metrics().items()
        return sum(n for name, n in counted if name.startswith("upstream_sessions_opened_total"))

    client, before = caller(at, capabilities={}), opened()
    direct = ModernCaller(at.http, at.server.url, capabilities={})
    for method in ("server/discover", "tools/list"):
        through, past = await client.ask_modern(method), await direct.ask_modern(method)
        assert through.result == past.result
        assert through.result["_meta"][f"{META}serverInfo"]["name"] == "mcp-grafana"
    assert opened() == before
    legacy = await client.open()
    assert (await client.ask("tools/list", session=legacy)).result["tools"]


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.at_one
async def test_the_proxy_leaves(own_desk: MakeDesk) -> None:
    """On SIGTERM a listener gets its result, a parked call is given up, and the server's sessions end."""
    at = own_desk("mcp-1.30", "--drain-timeout", "5s")
    client = caller(at)
    asked = (await client.call_modern("elicit_name")).result
    assert asked["resultType"] == "input_required"
    async with client.listen_modern(toolsListChanged=True) as stream:
        await stream.next()
        leaving = asyncio.create_task(asyncio.to_thread(at.proxy.stop))
        last = await stream.wait_end()
        assert [message["result"]["resultType"] for message in last] == ["complete"]
        async with asyncio.timeout(30):
            assert await leaving == 0
    assert (await at.stats())["sessions"]["live"] == 0


async def test_the_eras_are_told_apart(desk: MakeDesk) -> None:
    """What is served is counted by era; a modern request names a session to nobody."""
    at = desk("mcp-1.30")
    client = caller(at)

    def modern_calls() -> float:
        name = 'requests_total{era="modern",method="tools/call",outcome="ok"}'
        return at.proxy.metrics().get(name, 0)

    before = modern_calls()
    reply = await client.call_modern("whoami")
    assert reply.session is None
    assert modern_calls() == before + 1
    seen = [request for request in await at.seen() if request["method"] == "tools/call"]
    assert [request["headers"]["mcp-protocol-version"] for request in seen] == ["2025-11-25"]
    assert json.loads(reply.text)["protocol"] == "2025-11-25"
