"""Each sharing mode's rule, as seen at the server: who gets which upstream session, and when it is closed."""

import asyncio
import json
from collections.abc import Callable

import pytest

from .conftest import Desk
from .wire import Caller, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(9)]

MakeDesk = Callable[..., Desk]


async def number(caller: Caller, session: str | None = None, **options: object) -> int:
    """Which session of the server a call arrives on."""
    found: int = json.loads((await caller.call("whoami", session=session, **options)).text)["session"]  # type: ignore[arg-type]
    return found


async def closes(at: Desk, count: int) -> None:
    """Wait until the server has seen `count` sessions of the caller closed."""

    async def closed() -> bool:
        return bool((await at.stats())["sessions"]["closed"] == count)

    await eventually(closed)


# handover -----------------------------------------------------------------------------------------


async def test_handover_one_attached_client_at_a_time(desk: MakeDesk) -> None:
    """handover: two clients attached at once get two sessions; the next one inherits what one left."""
    at = desk("mcp-1.30")
    caller = at.caller
    first, second = await caller.open(), await caller.open()
    async with caller.listen(first), caller.listen(second):
        a, b = await number(caller, first), await number(caller, second)
        assert a != b
        await caller.delete(second)
    third = await caller.open()
    assert await number(caller, third) in (a, b)
    assert (await at.stats())["sessions"] == {"opened": 2, "closed": 0, "live": 2}


async def test_handover_when_the_get_stream_stays_closed(option_desk: MakeDesk) -> None:
    """handover: a client whose GET stream closed, and that does not come back, has left its session."""
    at = option_desk("mcp-1.30", "--reconnect-grace", "0.2s")

    async def left() -> bool:
        return not any(client["attached"] for client in at.proxy.json("/sessions")["client_sessions"])

    for expected in ("1", "2", "3"):
        session = await at.caller.open()
        async with at.caller.listen(session):
            assert (await at.caller.call("increment", session=session)).text == expected
        await eventually(left)
    assert (await at.stats())["sessions"]["opened"] == 1


async def test_a_cut_get_stream_is_no_goodbye(desk: MakeDesk) -> None:
    """handover: a client whose GET stream is cut for a moment keeps its session from the next client."""
    at = desk("mcp-1.30")
    session = await at.caller.open()
    async with at.caller.listen(session):
        assert (await at.caller.call("increment", session=session)).text == "1"
    assert (await at.caller.call("increment", session=await at.caller.open())).text == "1"
    async with at.caller.listen(session):
        assert (await at.caller.call("increment", session=session)).text == "2"
    assert (await at.stats())["sessions"]["opened"] == 2


async def test_handover_after_silence(option_desk: MakeDesk) -> None:
    """handover: a client without a GET stream counts as gone after --detach-after of silence."""
    at = option_desk("mcp-1.30", "--detach-after", "0.5s")
    first = await number(at.caller, await at.caller.open())
    second = await number(at.caller, await at.caller.open())
    assert first != second

    async def both_left() -> bool:
        return not any(client["attached"] for client in at.proxy.json("/sessions")["client_sessions"])

    await eventually(both_left)
    assert await number(at.caller, await at.caller.open()) in (first, second)
    assert (await at.stats())["sessions"]["opened"] == 2


async def test_handover_back_to_its_own(desk: MakeDesk) -> None:
    """handover: a client that comes back finds its own session again, though another has it now."""
    at = desk("mcp-1.30")
    caller = at.caller
    first = await caller.open()
    assert (await caller.call("increment", session=first)).text == "1"
    await caller.delete(first)
    second = await caller.open()
    assert (await caller.call("increment", session=second)).text == "2"
    assert (await caller.call("increment", session=first)).text == "3"
    assert (await caller.call("increment", session=second)).text == "4"


async def test_handover_only_to_the_same_profile(desk: MakeDesk) -> None:
    """handover: a client with other capabilities, version or name does not inherit a session."""
    at = desk("mcp-1.30")
    seen = []
    for options in (
        {"client": "one"},
        {"client": "two"},
        {"client": "one", "capabilities": {"sampling": {}}},
        {"client": "one", "protocol": "2025-03-26"},
    ):
        session = await at.caller.open(**options)
        seen.append(await number(at.caller, session))
        await at.caller.delete(session)
    assert len(set(seen)) == 4


async def test_handover_capabilities_in_another_order(desk: MakeDesk) -> None:
    """handover: the order in which capabilities are written does not make a different profile."""
    at = desk("mcp-1.30")
    seen = []
    for capabilities in (
        {"sampling": {}, "roots": {"listChanged": True}},
        {"roots": {"listChanged": True}, "sampling": {}},
    ):
        session = await at.caller.open(capabilities=capabilities)
        seen.append(await number(at.caller, session))
        await at.caller.delete(session)
    assert seen[0] == seen[1]


async def test_sessionless_requests_share(desk: MakeDesk) -> None:
    """handover: concurrent requests without a session share one upstream session."""
    at = desk("mcp-1.30")
    numbers = await asyncio.gather(*(number(at.caller) for _ in range(10)))
    assert len(set(numbers)) == 1
    assert (await at.stats())["sessions"]["opened"] == 1


async def test_affinity_beats_the_session_id(desk: MakeDesk) -> None:
    """A request that carries an affinity key is routed by it, whatever its session id says."""
    at = desk("mcp-1.30")
    one, two = await at.caller.open(), await at.caller.open()
    meta = {"sessionID": "ses_1"}
    assert await number(at.caller, one, meta=meta) == await number(at.caller, two, meta=meta)
    assert await number(at.caller, one, meta=meta) != await number(at.caller, one)


async def test_affinity_header_option(option_desk: MakeDesk) -> None:
    """--affinity-header names a header whose value keeps requests on one session."""
    at = option_desk("mcp-1.30", "--affinity-header", "X-Conversation")
    for expected in ("1", "2"):
        for conversation in ("a", "b"):
            reply = await at.caller.call("increment", headers={"X-Conversation": conversation})
            assert reply.text == expected


# isolated -----------------------------------------------------------------------------------------


async def test_isolated(option_desk: MakeDesk) -> None:
    """isolated: a session of one's own, closed after DELETE plus linger; session-less requests share."""
    at = option_desk("mcp-1.30", "--sharing", "isolated", "--linger", "0.3s")
    caller = at.caller
    seen = set()
    for _ in range(3):
        session = await caller.open()
        assert (await caller.call("increment", session=session)).text == "1"
        assert (await caller.delete(session)).status == 405
        assert (await caller.call("increment", session=session)).text == "2"
        seen.add(await number(caller, session))
        await caller.delete(session)
    assert len(seen) == 3
    await closes(at, 3)
    assert await number(caller) == await number(caller)


# shared -------------------------------------------------------------------------------------------


async def test_shared(option_desk: MakeDesk) -> None:
    """shared: one session for all of a caller's clients, another for another caller."""
    at = option_desk("mcp-1.30", "--sharing", "shared")
    sessions = [await at.caller.open() for _ in range(4)]
    numbers = await asyncio.gather(*(number(at.caller, session) for session in sessions))
    assert len(set(numbers)) == 1
    stranger = at.another()
    assert await number(stranger, await stranger.open()) not in numbers
    assert (await at.stats())["sessions"]["opened"] == 1


# fresh --------------------------------------------------------------------------------------------


async def test_fresh(option_desk: MakeDesk) -> None:
    """fresh: every request without session and affinity key gets a never-used session, closed afterwards."""
    at = option_desk("mcp-1.30", "--sharing", "fresh")
    assert [(await at.caller.call("increment")).text for _ in range(4)] == ["1"] * 4
    await closes(at, 4)
    session = await at.caller.open()
    assert [(await at.caller.call("increment", session=session)).text for _ in range(2)] == ["1", "2"]
    meta = {"sessionID": "kept"}
    assert [(await at.caller.call("increment", meta=meta)).text for _ in range(2)] == ["1", "2"]


async def test_fresh_with_spares(option_desk: MakeDesk) -> None:
    """fresh with --min-idle: spares are opened in advance, none is used twice, their number is bounded."""
    at = option_desk("mcp-1.30", "--sharing", "fresh", "--min-idle", "2")
    assert [(await at.caller.call("increment")).text for _ in range(6)] == ["1"] * 6

    async def settled() -> bool:
        sessions = (await at.stats())["sessions"]
        return bool(sessions["closed"] == 6 and sessions["live"] == 2)

    await eventually(settled)


# anonymous ----------------------------------------------------------------------------------------


async def test_anonymous_callers_are_one_party(own_desk: MakeDesk) -> None:
    """Callers without any credential share by default."""
    at = own_desk("mcp-1.30")
    one, two = at.another(token=None), at.another(token=None)
    assert (await one.call("increment")).text == "1"
    assert (await two.call("increment")).text == "2"


async def test_anonymous_isolate(own_desk: MakeDesk) -> None:
    """--anonymous isolate: anonymous requests never meet; those with a credential do."""
    at = own_desk("mcp-1.30", "--anonymous", "isolate")
    one, two = at.another(token=None), at.another(token=None)
    assert [(await caller.call("increment")).text for caller in (one, two, one)] == ["1", "1", "1"]
    a, b = await one.open(), await two.open()
    assert await number(one, a) != await number(two, b)
    assert [(await at.caller.call("increment")).text for _ in range(2)] == ["1", "2"]


# limits -------------------------------------------------------------------------------------------


async def test_limit_per_principal(option_desk: MakeDesk) -> None:
    """--max-sessions-per-principal: one more attached client gets 503 with Retry-After, others are served."""
    at = option_desk("mcp-1.30", "--max-sessions-per-principal", "2", "--acquire-timeout", "0.3s")
    caller = at.caller
    one, two = await caller.open(), await caller.open()
    async with caller.listen(one), caller.listen(two):
        refused = await caller.initialize()
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.error["code"] == -32603
        assert refused.error["data"]["source"] == "mcp-session-proxy"
        stranger = at.another()
        assert (await stranger.call("increment")).text == "1"
        assert await number(caller, one) != await number(caller, two)
        await caller.delete(two)
    assert (await caller.initialize()).status == 200
    assert (await at.stats())["sessions"]["opened"] == 2


async def test_waiter_gets_the_session_that_is_left(option_desk: MakeDesk) -> None:
    """A client that waits for a session gets it as soon as another leaves."""
    at = option_desk("mcp-1.30", "--max-sessions-per-principal", "1")
    first = await at.caller.open()
    async with at.caller.listen(first):
        assert (await at.caller.call("increment", session=first)).text == "1"
        waiting = asyncio.create_task(at.caller.initialize())

        async def waits() -> bool:
            return at.proxy.metrics()["waiters"] == 1

        await eventually(waits)
        await at.caller.delete(first)
    second = (await waiting).session
    assert (await at.caller.call("increment", session=second)).text == "2"


async def test_most_sessions_in_all(own_desk: MakeDesk) -> None:
    """--max-sessions: at the limit the longest idle session makes room; the server never has more open."""
    at = own_desk("mcp-1.30", "--max-sessions", "3")
    for _ in range(8):
        caller = at.another()
        assert (await caller.call("increment")).text == "1"
        assert (await at.all_stats())["sessions"]["live"] <= 3
