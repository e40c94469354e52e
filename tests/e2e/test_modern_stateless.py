"""What clients without a session are said to give up: all of it, before an unmodified FastMCP 1.x server.

The client holds no connection and no session between its requests: only a credential says who it is.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Desk
from .modern_wire import META, ModernCaller, accept, model_says
from .wire import Message, Stream, eventually

pytestmark = pytest.mark.e2e

MakeDesk = Callable[..., Desk]
SUBSCRIPTION = f"{META}subscriptionId"


@pytest.fixture
def at(desk: MakeDesk) -> Desk:
    """The shared counter server behind the shared proxy."""
    return desk("mcp-1.30")


@pytest.fixture
def client(at: Desk) -> ModernCaller:
    """A caller of its own with every capability, who is also the desk's."""
    at.caller = caller = ModernCaller(at.http, at.proxy.url)
    return caller


def only_question(asked: Message) -> tuple[str, Message]:
    """The key and the request of a result that asks one thing."""
    assert asked["resultType"] == "input_required"
    ((key, request),) = asked["inputRequests"].items()
    return key, request


async def called(at: Desk, tool: str) -> int:
    """How often the server was called for a tool by anybody."""
    count: int = (await at.all_stats())["calls"].get(tool, 0)
    return count


async def test_state_of_a_session(at: Desk, client: ModernCaller) -> None:
    """Requests of one caller find what the earlier ones left behind; another caller starts from nothing."""
    assert [(await client.call_modern("increment")).text for _ in range(3)] == ["1", "2", "3"]
    other = ModernCaller(at.http, at.proxy.url)
    assert (await other.call_modern("increment")).text == "1"
    assert (await client.call_modern("increment")).text == "4"
    assert (await at.stats())["sessions"]["opened"] == 1


async def test_sampling(at: Desk, client: ModernCaller) -> None:
    """The server's question to the model is the client's result; its answer reaches the call that waits."""
    before = await called(at, "sample")
    asked = (await client.call_modern("sample", {"prompt": "hi"})).result
    key, request = only_question(asked)
    assert request["method"] == "sampling/createMessage"
    assert request["params"]["messages"][0]["content"]["text"] == "hi"
    answered = await client.resume_call(asked, {key: model_says("hello")}, "sample", {"prompt": "hi"})
    assert answered.text == "hello"
    assert await called(at, "sample") == before + 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (accept(name="Ada"), "accept:Ada"),
        ({"action": "decline"}, "decline:"),
        ({"action": "cancel"}, "cancel:"),
    ],
    ids=lambda value: value.get("action") if isinstance(value, dict) else "",
)
async def test_elicitation(at: Desk, client: ModernCaller, answer: Message, said: str) -> None:
    """The user is asked by a form; what the user decides is what the server hears."""
    asked = (await client.call_modern("elicit_name")).result
    key, request = only_question(asked)
    assert key == "name"
    assert request["params"]["requestedSchema"]["required"] == ["name"]
    assert (await client.resume_call(asked, {key: answer}, "elicit_name")).text == said


async def test_roots(client: ModernCaller) -> None:
    """The server, which asks for roots on the session's GET stream, gets them with the retry."""
    asked = (await client.call_modern("list_client_roots")).result
    key, request = only_question(asked)
    assert request["method"] == "roots/list"
    roots = {"roots": [{"uri": "file:///srv/data"}]}
    answered = await client.resume_call(asked, {key: roots}, "list_client_roots")
    assert json.loads(answered.text) == ["file:///srv/data"]


async def test_progress(client: ModernCaller) -> None:
    """Progress comes on the stream of the call, under the token that the client gave."""
    params = {"name": "progress", "arguments": {"n": 3}}
    async with client.open_modern("tools/call", params, meta={"progressToken": "mine"}) as stream:
        *told, response = await stream.wait_end()
    assert [note["params"]["progress"] for note in told] == [1, 2, 3]
    assert {note["params"]["progressToken"] for note in told} == {"mine"}
    assert response["result"]["content"][0]["text"] == "3 steps"


@pytest.mark.parametrize(("level", "heard"), [("info", ["noted"]), ("error", []), (None, [])])
async def test_logging(client: ModernCaller, level: str | None, heard: list[str]) -> None:
    """Log messages come with the call that asked for them, from the level it asked for."""
    reply = await client.call_modern("log", {"message": "noted"}, log_level=level)
    assert [m["params"]["data"] for m in reply.messages if "method" in m] == heard
    assert reply.text == "logged"


async def next_update(stream: Stream) -> Message:
    """The next notification of a listener, without its tag."""
    note = await stream.next()
    assert note is not None
    assert note["params"]["_meta"].pop(SUBSCRIPTION) is not None
    return note


async def subscriptions(client: ModernCaller) -> list[str]:
    """What the caller's session is subscribed to, as the server sees it."""
    uris: list[str] = json.loads((await client.call_modern("whoami")).text)["subscriptions"]
    return uris


async def test_resource_updates(client: ModernCaller) -> None:
    """A listener is subscribed upstream, hears of a change that another request made, and is unsubscribed."""
    async with client.listen_modern(resourceSubscriptions=["counter://shared"]) as stream:
        first = await stream.next()
        assert first is not None
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"resourceSubscriptions": ["counter://shared"]}
        assert await subscriptions(client) == ["counter://shared"]
        await client.call_modern("touch")
        note = await next_update(stream)
        assert (note["method"], note["params"]["uri"]) == (
            "notifications/resources/updated",
            "counter://shared",
        )

    async def none_left() -> bool:
        return await subscriptions(client) == []

    await eventually(none_left)


async def test_two_listeners_one_subscription(client: ModernCaller) -> None:
    """Two listeners of a resource share one subscription, which lasts until the second has gone."""
    wanted: dict[str, Any] = {"resourceSubscriptions": ["counter://shared"]}
    async with client.listen_modern(**wanted) as second:
        await second.next()
        async with client.listen_modern(**wanted) as first:
            await first.next()
            await client.call_modern("touch")
            notes = await asyncio.gather(next_update(first), next_update(second))
            assert [note["method"] for note in notes] == ["notifications/resources/updated"] * 2
        await client.call_modern("touch")
        assert (await next_update(second))["params"]["uri"] == "counter://shared"


async def test_list_changes(client: ModernCaller) -> None:
    """A listener hears that the server's tools changed, and nothing that it did not ask for."""
    async with client.listen_modern(toolsListChanged=True) as stream:
        first = await stream.next()
        assert first is not None
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        await client.call_modern("touch")
        await client.call_modern("tools_changed")
        assert (await next_update(stream))["method"] == "notifications/tools/list_changed"


async def test_listener_survives_a_lost_session(at: Desk, client: ModernCaller) -> None:
    """When the server forgets a session, its listener is subscribed anew and told of a possible change."""
    async with client.listen_modern(resourceSubscriptions=["counter://shared"]) as stream:
        await stream.next()
        await client.call_modern("expire")
        # The next call finds the session gone and has it opened again.
        assert (await client.call_modern("increment")).text == "1"
        assert (await next_update(stream))["params"]["uri"] == "counter://shared"
        assert await subscriptions(client) == ["counter://shared"]
        await client.call_modern("touch")
        assert (await next_update(stream))["method"] == "notifications/resources/updated"


async def test_the_server_hears_what_the_client_can_do(at: Desk) -> None:
    """What a modern request declares is in its session's handshake; other capabilities, another session."""
    able = ModernCaller(at.http, at.proxy.url)
    unable = ModernCaller(at.http, at.proxy.url, token=able.token, capabilities={})
    told = json.loads((await able.call_modern("whoami")).text)
    assert set(told["capabilities"]) == {"elicitation", "roots", "sampling"}
    assert told["client"] == "modern-wire"
    other = json.loads((await unable.call_modern("whoami")).text)
    assert other["capabilities"] == {}
    assert other["session"] != told["session"]


async def test_metadata_of_the_revision_stays_here(client: ModernCaller) -> None:
    """The server sees the client's own metadata, and none of the revision's."""
    reply = await client.call_modern("whoami", meta={"traceparent": "00-1-2-01", "vendor/x": {"y": 1}})
    assert json.loads(reply.text)["meta"] == {"traceparent": "00-1-2-01", "vendor/x": {"y": 1}}


async def test_modern_and_legacy_callers_at_once(at: Desk, client: ModernCaller) -> None:
    """A legacy client session of the same caller goes on beside its modern requests."""
    session = await client.open()
    assert (await client.call("increment", session=session)).text == "1"
    assert (await client.call_modern("increment")).text == "1"
    assert (await client.call("increment", session=session)).text == "2"
    assert (await client.call_modern("increment")).text == "2"
