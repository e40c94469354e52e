"""What real legacy clients send, written on the wire: one test per habit that breaks stateful servers.

Each caller is a principal of its own, so the tests share servers without meeting.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from .conftest import Desk
from .launch import Fleet
from .wire import BOTH, PROTOCOL, Caller, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(60)]

MakeDesk = Callable[..., Desk]

COUNTING = ["mcp-1.30", "mcp-1.23"]
MAIN = [*COUNTING, "everything"]
ALL = [*MAIN, "fastmcp-ts", "supergateway", "kubernetes"]


def of_kinds(kinds: list[str]) -> Callable[[Any], Any]:
    """With each of these servers, or with some of them."""
    return lambda test: pytest.mark.share(2)(pytest.mark.parametrize("kind", kinds)(test))


counting = of_kinds(COUNTING)
main_servers = of_kinds(MAIN)
all_servers = of_kinds(ALL)


async def works(desk: Desk, caller: Caller, session: str | None = None) -> None:
    """The tool that every server of the kind has answers what it must."""
    kind = desk.server.kind
    reply = await caller.call(kind.tool, kind.arguments, session=session)
    assert kind.answer in json.dumps(reply.result)


# 1 ------------------------------------------------------------------------------------------------


@counting
async def test_call_after_delete_keeps_its_state(kind: str, desk: MakeDesk) -> None:
    """OpenAI style: init, GET, initialized, tools/list, DELETE, then calls with the same id count 1, 2, 3."""
    at = desk(kind)
    caller = at.caller
    session = (await caller.initialize(client="openai-mcp", protocol="2025-03-26")).session
    assert session
    async with caller.listen(session):
        pass
    assert (await caller.notify("notifications/initialized", session=session)).status == 202
    assert (await caller.ask("tools/list", session=session)).result["tools"]
    for expected in ("1", "2", "3"):
        deleted = await caller.delete(session)
        assert deleted.status == 405
        assert deleted.headers["Allow"] == "GET, POST"
        assert (await caller.call("increment", session=session)).text == expected
    counted = await at.stats()
    assert counted["sessions"] == {"opened": 1, "closed": 0, "live": 1}


@counting
async def test_every_request_from_another_address(kind: str, desk: MakeDesk) -> None:
    """OpenAI style: each request arrives on a new connection from another source address."""
    at = desk(kind)
    session: str | None = None
    for last, step in enumerate(("initialize", "initialized", "1", "delete", "2", "delete", "3"), start=2):
        connector = aiohttp.TCPConnector(local_addr=(f"127.0.0.{last}", 0))
        async with aiohttp.ClientSession(connector=connector) as http:
            caller = Caller(http, at.proxy.url, token=at.caller.token)
            if step == "initialize":
                session = (await caller.initialize(client="openai-mcp", protocol="2025-03-26")).session
            elif step == "initialized":
                assert (await caller.notify("notifications/initialized", session=session)).status == 202
            elif step == "delete":
                assert (await caller.delete(session)).status == 405
            else:
                assert (await caller.call("increment", session=session)).text == step


@all_servers
async def test_call_after_delete(kind: str, desk: MakeDesk) -> None:
    """A call with an id that was deleted before is answered, whatever the server."""
    at = desk(kind)
    session = await at.caller.open()
    await works(at, at.caller, session)
    assert (await at.caller.delete(session)).status == 405
    await works(at, at.caller, session)


# 2 ------------------------------------------------------------------------------------------------


@counting
async def test_delete_while_a_call_is_in_flight(kind: str, desk: MakeDesk) -> None:
    """A DELETE that overtakes a running call does not cost the call its answer."""
    at = desk(kind)
    session = await at.caller.open()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("slow", {"seconds": 0.5}, session=session))
        await eventually(lambda: _running(at, "slow"))
        assert (await at.caller.delete(session)).status == 405
    assert call.result().text == "slept 0.5"


async def test_a_busy_session_is_not_handed_over(desk: MakeDesk) -> None:
    """A session whose call still runs after DELETE is not handed to the next client meanwhile."""
    at = desk("mcp-1.30")
    first = await at.caller.open()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(at.caller.call("slow", {"seconds": 1}, session=first))
        await eventually(lambda: _running(at, "slow"))
        await at.caller.delete(first)
        second = await at.caller.open()
        assert (await at.caller.call("increment", session=second)).text == "1"
        assert not call.done()
    assert (await at.stats())["sessions"]["opened"] == 2


async def _running(at: Desk, tool: str) -> bool:
    return any(r["method"] == "tools/call" and r["id"] is not None for r in await at.seen())


# 3 ------------------------------------------------------------------------------------------------


@counting
async def test_conversations_of_chatgpt(kind: str, option_desk: MakeDesk) -> None:
    """ChatGPT style: a session per batch, no DELETE; `_meta["openai/session"]` keeps conversations apart."""
    at = option_desk(kind, "--reconnect-grace", "0s")  # its batches are further apart than these
    caller = at.caller
    for expected in ("1", "2", "3"):
        for conversation in ("v1/red", "v1/blue"):
            session = await caller.open(client="openai-mcp")
            async with caller.listen(session):
                pass
            assert (await caller.ask("tools/list", session=session)).result["tools"]
            meta = {"openai/session": conversation, "openai/userAgent": "ChatGPT"}
            assert (await caller.call("increment", session=session, meta=meta)).text == expected
    counted = await at.stats()
    assert counted["sessions"]["opened"] <= 3


# 4 ------------------------------------------------------------------------------------------------


@counting
async def test_two_planes(kind: str, desk: MakeDesk) -> None:
    """One plane keeps its id, the other initialises and then calls without any: both keep their state."""
    at = desk(kind)
    first = await at.caller.open(client="plane-one")
    await at.caller.open(client="plane-two")
    kept, pooled = [], []
    for _ in range(3):
        kept.append((await at.caller.call("increment", session=first)).text)
        pooled.append((await at.caller.call("increment")).text)
    assert kept == ["1", "2", "3"]
    assert pooled == ["1", "2", "3"]
    assert (await at.stats())["sessions"]["opened"] <= 3


@all_servers
async def test_no_session_at_all(kind: str, desk: MakeDesk) -> None:
    """A caller that never initialises and never sends an id is served."""
    at = desk(kind)
    assert (await at.caller.ask("tools/list")).result["tools"]
    await works(at, at.caller)
    await works(at, at.caller)


# 5 ------------------------------------------------------------------------------------------------


@main_servers
async def test_claude_ai(kind: str, desk: MakeDesk) -> None:
    """claude.ai style: the id is never echoed, `initialized` comes from elsewhere, DELETE comes last."""
    at = desk(kind)
    caller = at.caller
    probe = await caller.ask("server/discover")  # without the _meta that makes it modern
    assert probe.status < 500
    assert probe.error["message"]
    assert (await caller.initialize(client="claude-ai")).result["protocolVersion"]
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
    async with aiohttp.ClientSession(connector=connector) as http:
        told = await Caller(http, at.proxy.url, token=caller.token).notify("notifications/initialized")
        assert (told.status, told.body) == (202, b"")
    assert (await caller.ask("tools/list")).result["tools"]
    await works(at, caller)
    assert (await caller.delete(None)).status == 405
    await works(at, caller)


@pytest.mark.parametrize("kind", ["mcp-1.30", "mcp-1.30-redirect"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_with_and_without_trailing_slash(kind: str, slash: str, desk: MakeDesk) -> None:
    """The endpoint answers at both spellings of its path, and never with a redirect."""
    at = desk(kind)
    caller = at.caller
    caller.url = f"{at.proxy.origin}/mcp{slash}"
    session = await caller.open()
    assert (await caller.call("increment", session=session)).text == "1"
    assert (await caller.call("increment", session=session)).text == "2"
    async with caller.listen(session) as stream:
        assert stream.status in (200, 405)


# 6 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
async def test_stale_id_after_a_server_restart(kind: str, own_desk: MakeDesk) -> None:
    """Claude Code and others keep their id over a server restart: the next call works."""
    at = own_desk(kind)
    session = await at.caller.open(client="claude-code")
    await works(at, at.caller, session)
    at.server.kill()
    at.server.start()
    await works(at, at.caller, session)


@counting
async def test_session_forgotten_by_the_server(kind: str, own_desk: MakeDesk) -> None:
    """A server that forgot its sessions while it kept running is handled like a restart, and told once."""
    at = own_desk(kind)
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"
    async with at.http.post(f"{at.server.origin}/forget") as response:
        assert int(await response.text()) == 1
    assert (await at.caller.call("execute", {"key": kind}, session=session)).text == "1"
    assert (await at.caller.call("execution_count", {"key": kind}, session=session)).text == "1"
    assert (await at.stats())["sessions"]["opened"] == 2


# 7 ------------------------------------------------------------------------------------------------


@counting
async def test_a_session_per_call(kind: str, desk: MakeDesk) -> None:
    """LangChain style: init, initialized, GET, call, DELETE each time; the server sees one session."""
    at = desk(kind)
    caller = at.caller
    for expected in ("1", "2", "3"):
        session = await caller.open(client="mcp")
        async with caller.listen(session):
            assert (await caller.call("increment", session=session)).text == expected
            assert (await caller.delete(session)).status == 405
    assert (await at.stats())["sessions"]["opened"] == 1


async def test_a_session_per_call_on_fastmcp_ts(desk: MakeDesk) -> None:
    """The same against FastMCP (TypeScript), whose sessions take a second to open."""
    at = desk("fastmcp-ts")
    for expected in ("1", "2", "3"):
        session = await at.caller.open(client="mcp")
        assert (await at.caller.call("increment", session=session)).text == expected
        await at.caller.delete(session)


# 8 ------------------------------------------------------------------------------------------------


@counting
async def test_conversation_in_meta_without_id(kind: str, desk: MakeDesk) -> None:
    """OpenCode style: the id is never sent, `_meta.sessionID` carries the conversation."""
    at = desk(kind)
    await at.caller.initialize(client="opencode")
    for expected in ("1", "2", "3"):
        for conversation in ("ses_a", "ses_b"):
            reply = await at.caller.call("increment", meta={"sessionID": conversation})
            assert reply.text == expected
    assert (await at.stats())["sessions"]["opened"] <= 3


# 9 ------------------------------------------------------------------------------------------------


@main_servers
async def test_no_initialized_notification(kind: str, desk: MakeDesk) -> None:
    """A client that never sends `notifications/initialized` is served all the same."""
    at = desk(kind)
    session = (await at.caller.initialize()).session
    assert (await at.caller.ask("tools/list", session=session)).result["tools"]
    await works(at, at.caller, session)
    if at.server.kind.counts:
        sent = [r["method"] for r in await at.seen()]
        assert sent.count("notifications/initialized") == sent.count("initialize") == 1


# 10 -----------------------------------------------------------------------------------------------


@main_servers
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("*/*", None),
        ("application/*", "application/json"),
        ("application/json;q=0.1, text/event-stream", None),
        (BOTH, None),
        (None, None),
    ],
)
async def test_any_accept_header(kind: str, accept: str | None, expected: str | None, desk: MakeDesk) -> None:
    """The answer comes in what the client accepts, while the server is always offered both."""
    at = desk(kind)
    headers = {"Accept": accept}
    opened = await at.caller.initialize(headers=headers)
    listed = await at.caller.ask("tools/list", session=opened.session, headers=headers)
    called = await at.caller.call(
        at.server.kind.tool, at.server.kind.arguments, session=opened.session, headers=headers
    )
    for reply in (opened, listed, called):
        assert reply.result
        assert reply.content_type in ({expected} if expected else {"application/json", "text/event-stream"})
    if at.server.kind.counts:
        posts = [r for r in await at.seen() if r["http"] == "POST"]
        assert {r["headers"]["accept"].replace(" ", "") for r in posts} == {BOTH.replace(" ", "")}


@pytest.mark.parametrize("kind", ["mcp-1.30", "mcp-1.30-json"])
async def test_progress_where_only_json_is_accepted(kind: str, desk: MakeDesk) -> None:
    """A call that reports progress is answered in one JSON document when that is all the client takes."""
    at = desk(kind)
    session = await at.caller.open()
    reply = await at.caller.call(
        "progress",
        {"n": 3},
        session=session,
        meta={"progressToken": 1},
        headers={"Accept": "application/json"},
    )
    assert reply.content_type == "application/json"
    assert reply.text == "3 steps"


# 11 -----------------------------------------------------------------------------------------------


@main_servers
@pytest.mark.parametrize("version", [None, "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_any_protocol_version_header(kind: str, version: str | None, desk: MakeDesk) -> None:
    """No or another supported `MCP-Protocol-Version` is accepted; the server gets the negotiated one."""
    at = desk(kind)
    opened = await at.caller.initialize()
    negotiated = opened.result["protocolVersion"]
    headers = {"MCP-Protocol-Version": version}
    assert (await at.caller.ask("tools/list", session=opened.session, headers=headers)).result["tools"]
    if at.server.kind.counts:
        later = [r for r in await at.seen() if r["method"] not in (None, "initialize")]
        assert {r["headers"]["mcp-protocol-version"] for r in later} == {negotiated}


# 12 -----------------------------------------------------------------------------------------------


@all_servers
async def test_get_without_id(kind: str, desk: MakeDesk) -> None:
    """A GET without a session id is answered with a stream or 405, never 400, 404 or 409."""
    at = desk(kind)
    async with at.caller.listen() as stream:
        assert stream.status in (200, 405)
        if stream.status == 200:
            assert stream.headers["Content-Type"].startswith("text/event-stream")


@main_servers
async def test_the_newest_get_wins(kind: str, desk: MakeDesk) -> None:
    """A second GET on one id is served and ends the first."""
    at = desk(kind)
    session = await at.caller.open()
    async with at.caller.listen(session) as older:
        assert older.status == 200
        async with at.caller.listen(session) as newer:
            assert newer.status == 200
            await older.wait_end()
            await works(at, at.caller, session)


@counting
async def test_dropped_gets_do_not_reach_the_server(kind: str, desk: MakeDesk) -> None:
    """However often a client opens and drops its GET, the server sees one stream that stays open."""
    at = desk(kind)
    session = await at.caller.open()
    for _ in range(4):
        async with at.caller.listen(session) as stream:
            assert stream.status == 200
        assert (await at.caller.call("increment", session=session)).text
    gets = [r for r in await at.seen() if r["http"] == "GET"]
    assert [r["status"] for r in gets] == [200]


@counting
async def test_notifications_reach_the_get_stream(kind: str, desk: MakeDesk) -> None:
    """What the server says outside of a call arrives on the client's GET stream."""
    at = desk(kind)
    session = await at.caller.open()
    async with at.caller.listen(session) as stream:
        await at.caller.call("tools_changed", session=session)
        message = await stream.next()
    assert message is not None
    assert message["method"] == "notifications/tools/list_changed"


@counting
async def test_reopened_get_misses_nothing(kind: str, desk: MakeDesk) -> None:
    """What came while the GET was down arrives when it is opened again with `Last-Event-ID`."""
    at = desk(kind)
    session = await at.caller.open()
    uri = f"counter://{at.caller.token}"
    subscribed = await at.caller.ask("resources/subscribe", {"uri": uri}, session=session)
    assert subscribed.result == {}
    async with at.caller.listen(session) as stream:
        assert (await at.caller.call("touch", {"uri": uri}, session=session)).text == "1"
        assert await stream.next()
        seen = stream.last_event_id
    assert (await at.caller.call("tools_changed", session=session)).text == "told"
    headers = {"Last-Event-ID": seen} if seen is not None else {}
    async with at.caller.listen(session, headers) as stream:
        message = await stream.next()
    assert message is not None
    assert message["method"] == "notifications/tools/list_changed"


# 13 -----------------------------------------------------------------------------------------------


@counting
async def test_throwaway_sessions_expire(kind: str, option_desk: MakeDesk) -> None:
    """Sessions that nobody ends (no DELETE on close) are closed at the server after the idle timeout."""
    at = option_desk(kind, "--detach-after", "0.2s", "--idle-timeout", "0.5s")
    for _ in range(20):
        await at.caller.open(client="throwaway")
    assert (await at.stats())["sessions"]["opened"] >= 1

    async def none_left() -> bool:
        return bool((await at.stats())["sessions"]["live"] == 0)

    await eventually(none_left)
    assert at.proxy.json("/sessions")


# 14 -----------------------------------------------------------------------------------------------


@main_servers
async def test_delete_while_its_own_get_is_open(kind: str, desk: MakeDesk) -> None:
    """A DELETE while the same session's GET is open harms neither the next call nor the proxy."""
    at = desk(kind)
    session = await at.caller.open()
    async with at.caller.listen(session) as stream:
        assert stream.status == 200
        assert (await at.caller.delete(session)).status == 405
        await works(at, at.caller, session)


# 15 -----------------------------------------------------------------------------------------------


@main_servers
@pytest.mark.parametrize("request_id", [0, 1, -7, 2**53, "0", "", "abc-ü"])
async def test_ids_come_back_as_they_went(kind: str, request_id: object, desk: MakeDesk) -> None:
    """Numbers and strings as request ids come back unchanged in value and type."""
    at = desk(kind)
    session = await at.caller.open()
    message = {"jsonrpc": "2.0", "id": request_id, "method": "ping"}
    answer = (await at.caller.post(message, session)).response
    assert answer["result"] == {}
    assert (type(answer["id"]), answer["id"]) == (type(request_id), request_id)


@counting
async def test_the_same_id_twice_in_flight(kind: str, desk: MakeDesk) -> None:
    """Equal ids in flight on one session, and 7 beside "7", are each answered with their own result."""
    at = desk(kind)
    session = await at.caller.open()
    ids: list[object] = [7, 7, "7", 0, 0]
    seconds = [0.4, 0.3, 0.2, 0.1, 0.05]
    replies = await asyncio.gather(
        *(
            at.caller.call("slow", {"seconds": s}, session=session, request_id=i)
            for i, s in zip(ids, seconds, strict=True)
        )
    )
    assert [r.response["id"] for r in replies] == ids
    assert [r.text for r in replies] == [f"slept {s}" for s in seconds]


@counting
async def test_cancellation_of_one_of_two(kind: str, desk: MakeDesk) -> None:
    """`notifications/cancelled` reaches the server with the server's own id, and stops that call alone."""
    at = desk(kind)
    session = await at.caller.open()
    async with asyncio.TaskGroup() as tasks:
        kept = tasks.create_task(at.caller.call("slow", {"seconds": 1.0}, session=session, request_id="kept"))
        lost = tasks.create_task(at.caller.call("slow", {"seconds": 15}, session=session, request_id="lost"))

        async def both_run() -> bool:
            return len([r for r in await at.seen() if r["method"] == "tools/call"]) == 2

        await eventually(both_run)
        before = (await at.all_stats())["cancelled"]
        params = {"requestId": "lost", "reason": "no longer needed"}
        assert (await at.caller.notify("notifications/cancelled", params, session=session)).status == 202

        async def cancelled() -> bool:
            return bool((await at.all_stats())["cancelled"] > before)

        await eventually(cancelled)
        assert (await kept).text == "slept 1.0"
        assert "error" in (await lost).response or (await lost).body == b""


async def test_progress_tokens_come_back_as_they_went(desk: MakeDesk) -> None:
    """Two calls with the same progress token each get their own progress, with the token they sent."""
    # mcp 1.23 sends progress on the GET stream, where it may come after the result.
    at = desk("mcp-1.30")
    session = await at.caller.open()
    replies = await asyncio.gather(
        at.caller.call("progress", {"n": 2}, session=session, meta={"progressToken": "t"}),
        at.caller.call("progress", {"n": 3}, session=session, meta={"progressToken": "t"}),
        at.caller.call("progress", {"n": 4}, session=session, meta={"progressToken": 0}),
    )
    for reply, steps, token in zip(replies, (2, 3, 4), ("t", "t", 0), strict=True):
        assert reply.text == f"{steps} steps"
        told = [m["params"] for m in reply.messages if m.get("method") == "notifications/progress"]
        assert [p["progress"] for p in told] == list(range(1, steps + 1))
        assert {(type(p["progressToken"]), p["progressToken"]) for p in told} == {(type(token), token)}


# 16 -----------------------------------------------------------------------------------------------


@main_servers
@pytest.mark.parametrize("accept", [BOTH, "application/json", "text/event-stream"])
async def test_batches(kind: str, accept: str, desk: MakeDesk) -> None:
    """A batch of a 2025-03-26 client is run and every request in it answered, in any order."""
    at = desk(kind)
    session = await at.caller.open(protocol="2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "tools/list"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "none such"}},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
        {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": at.server.kind.tool, "arguments": dict(at.server.kind.arguments)},
        },
    ]
    headers = {"Accept": accept, "MCP-Protocol-Version": "2025-03-26"}
    reply = await at.caller.post(batch, session, headers)
    assert reply.status == 200
    answers = {m["id"]: m for m in reply.messages}
    assert set(answers) == {"a", 2, 3}
    assert answers["a"]["result"]["tools"]
    assert answers[2]["result"] == {}
    assert at.server.kind.answer in json.dumps(answers[3]["result"])


async def test_batch_of_notifications(desk: MakeDesk) -> None:
    """A batch without requests is accepted with an empty 202."""
    at = desk("mcp-1.30")
    session = await at.caller.open(protocol="2025-03-26")
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}
    reply = await at.caller.post([note, note], session)
    assert (reply.status, reply.body) == (202, b"")


async def test_empty_batch(desk: MakeDesk) -> None:
    """An empty batch is an invalid request (JSON-RPC 2.0, section 6)."""
    reply = await desk("mcp-1.30").caller.post([])
    assert reply.status == 400
    assert reply.error["code"] == -32600


# 17 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [None, 1.5, True, {"a": 1}, [1]])
async def test_odd_ids_are_refused(request_id: object, desk: MakeDesk) -> None:
    """Ids that are neither strings nor whole numbers: 400 and -32600."""
    at = desk("mcp-1.30")
    session = await at.caller.open()
    reply = await at.caller.post({"jsonrpc": "2.0", "id": request_id, "method": "ping"}, session)
    assert reply.status == 400
    assert reply.error["code"] == -32600


# 18 -----------------------------------------------------------------------------------------------


@counting
async def test_the_platforms_own_session_id(kind: str, desk: MakeDesk) -> None:
    """AgentCore style: an id of the platform's own on every request, even initialize, keeps its state."""
    at = desk(kind)
    platform = "agentcore-5c5b2f0e-0001"
    opened = await at.caller.initialize(session=platform)
    assert opened.result["protocolVersion"]
    assert (await at.caller.notify("notifications/initialized", session=platform)).status == 202
    for expected in ("1", "2", "3"):
        assert (await at.caller.ask("ping", session=platform)).result == {}
        assert (await at.caller.call("increment", session=platform)).text == expected
    assert (await at.all_stats())["initialize_with_session_id"] == 0
    assert (await at.stats())["sessions"]["opened"] == 1


@main_servers
async def test_a_platform_id_on_any_server(kind: str, desk: MakeDesk) -> None:
    """An id the proxy never minted is adopted, whatever the server."""
    at = desk(kind)
    await at.caller.initialize(session="platform-1")
    await works(at, at.caller, "platform-1")
    await works(at, at.caller, "never-seen-before")


# 19 -----------------------------------------------------------------------------------------------


@main_servers
async def test_copilot_studio(kind: str, desk: MakeDesk) -> None:
    """Copilot Studio style: empty 202 for notifications, a stream or 405 on GET, DELETE after every call."""
    at = desk(kind)
    session = (await at.caller.initialize(client="copilot-studio")).session
    for method in ("notifications/initialized", "notifications/roots/list_changed", "notifications/unknown"):
        told = await at.caller.notify(method, session=session)
        assert (told.status, told.body) == (202, b"")
    async with at.caller.listen(session) as stream:
        assert stream.status in (200, 405)
    for _ in range(3):
        await works(at, at.caller, session)
        assert (await at.caller.delete(session)).status == 405


# 21 -----------------------------------------------------------------------------------------------


async def test_token_refresh(desk: MakeDesk) -> None:
    """A call with a refreshed token and the old id is answered, on a session that the server accepts."""
    at = desk("mcp-1.30-auth")
    old, new = at.another(token="alice-1"), at.another(token="alice-2")
    session = await old.open()
    assert (await old.call("increment", session=session)).text == "1"
    assert (await new.call("increment", session=session)).text in ("1", "2")
    assert (await old.call("increment", session=session)).text in ("2", "3")


async def test_a_stolen_id_is_worth_nothing(desk: MakeDesk) -> None:
    """Somebody else's session id leads another principal to a session of its own, never to the owner's."""
    at = desk("mcp-1.30")
    session = await at.caller.open()
    assert (await at.caller.call("increment", session=session)).text == "1"
    thief = at.another()
    assert (await thief.call("increment", session=session)).text == "1"
    assert (await at.caller.call("increment", session=session)).text == "2"
    seen = json.loads((await thief.call("whoami", session=session)).text)
    assert seen["authorization"] == thief.authorization


# 22 -----------------------------------------------------------------------------------------------


@pytest.mark.at_one  # nginx goes by what it is asked there, and keeps that to itself
async def test_streams_ask_not_to_be_buffered(desk: MakeDesk) -> None:
    """SSE responses carry `X-Accel-Buffering: no` and forbid caching."""
    at = desk("mcp-1.30")
    session = await at.caller.open()
    called = await at.caller.call(
        "progress", {"n": 1}, session=session, headers={"Accept": "text/event-stream"}
    )
    async with at.caller.listen(session) as stream:
        for headers in (called.headers, stream.headers):
            assert headers["X-Accel-Buffering"] == "no"
            assert "no-" in headers["Cache-Control"]


async def test_heartbeats(option_desk: MakeDesk) -> None:
    """Comment lines keep an idle GET stream and a slow call's stream alive."""
    at = option_desk("mcp-1.30", "--heartbeat", "0.2s")
    session = await at.caller.open()
    async with at.caller.listen(session) as stream:
        assert await stream.next_comment()
        assert await stream.next_comment()
    request = at.caller.request("tools/call", {"name": "slow", "arguments": {"seconds": 1}})
    async with at.caller.stream(request, session) as stream:
        answers = await stream.wait_end()
        assert [m["id"] for m in answers if "result" in m] == [request["id"]]
        assert stream.comments >= 1


# The server's dialects of "gone", from real servers -----------------------------------------------


@pytest.mark.parametrize("kind", ["fastmcp-ts", "supergateway", "kubernetes", "everything"])
async def test_server_closes_the_session_behind_our_back(kind: str, own_desk: MakeDesk, owned: Fleet) -> None:
    """Each server's own way to say that a session is gone is understood: the call is sent again."""
    at = own_desk(kind)
    session = await at.caller.open()
    await works(at, at.caller, session)
    at.server.kill()
    at.server.start()
    await works(at, at.caller, session)
    await works(at, at.caller, session)
    assert at.caller.headers(session)["MCP-Protocol-Version"] == PROTOCOL
