"""Whether the server is modern itself: asked once, believed for a while, and never in the way."""

import asyncio

import pytest
from fakes import FakeReply, FakeServer, Scripted, answer, error, refusal, result, settle, stream

from mcp_session_proxy.errors import UpstreamTimeout, UpstreamUnreachable
from mcp_session_proxy.upstream.era import EraProbe
from mcp_session_proxy.upstream.transport import Caller, ConnectionLost

pytestmark = pytest.mark.looptime

ALICE = Caller(headers=(("Authorization", "Bearer alice"),), query="x=1")
MODERN = result({"supportedVersions": ["2026-07-28"], "capabilities": {}})


def server_that_answers(*replies: Scripted) -> FakeServer:
    server = FakeServer(stateless=True)
    server.script("server/discover", *replies)
    return server


async def test_the_question() -> None:
    """The server is asked as the specification asks, with the caller's credentials and no session."""
    server = server_that_answers(answer(MODERN))
    assert await EraProbe(server).is_modern(ALICE)
    [sent] = server.seen
    assert (sent.session_id, sent.version, sent.caller.query) == (None, "2026-07-28", "x=1")
    assert sent.caller.headers == (("Authorization", "Bearer alice"), ("Mcp-Method", "server/discover"))
    assert sent.params["_meta"] == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, b"Bad Request: Missing session ID"),
        refusal(404),
        refusal(405),
        answer(error(-32601, "Method not found")),
        answer(result({})),
        answer(result({"supportedVersions": "2026-07-28"})),
        answer(result({"supportedVersions": ["2025-11-25", 7, None]})),
        stream(),
        FakeReply(is_stream=False, content_type="text/html"),
    ],
)
async def test_legacy_servers(reply: FakeReply) -> None:
    """Everything that does not name the modern version is legacy, and is not asked again."""
    server = server_that_answers(reply)
    probe = EraProbe(server)
    assert not await probe.is_modern(ALICE)
    await asyncio.sleep(86400)
    assert not await probe.is_modern(ALICE)
    assert len(server.seen) == 1


async def test_modern_servers_are_asked_now_and_then() -> None:
    """A yes is believed for five minutes: the server may be replaced by an older one."""
    server = server_that_answers(answer(MODERN), refusal(400))
    probe = EraProbe(server)
    for _ in range(3):
        assert await probe.is_modern(ALICE)
    await asyncio.sleep(301)
    assert not await probe.is_modern(ALICE)
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "trouble",
    [refusal(401), refusal(403), refusal(429), refusal(503), UpstreamUnreachable("down"), ConnectionLost()],
)
async def test_trouble_is_no_answer(trouble: Scripted) -> None:
    """A refusal over something else says nothing; the next request asks again."""
    server = server_that_answers(trouble, answer(MODERN))
    probe = EraProbe(server)
    assert not await probe.is_modern(ALICE)
    assert await probe.is_modern(ALICE)


async def test_what_was_away_is_asked_again() -> None:
    """After the server was down, another one may have come up."""
    server = server_that_answers(refusal(400), answer(MODERN))
    probe = EraProbe(server)
    assert not await probe.is_modern(ALICE)
    probe.forget()
    assert await probe.is_modern(ALICE)


async def test_one_question_for_all_who_come() -> None:
    """Requests that come together wait for the same answer."""
    go_on = asyncio.Event()
    server = server_that_answers(lambda _: stream(go_on))
    probe = EraProbe(server)
    asking = [asyncio.create_task(probe.is_modern(ALICE)) for _ in range(10)]
    await settle()
    asking[0].cancel()
    await settle()
    go_on.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert outcomes[1:] == [False] * 9
    assert len(server.seen) == 2  # the one who left took its question along


@pytest.mark.parametrize("silence", [stream(asyncio.Event()), UpstreamTimeout("silent")])
async def test_silent_server_does_not_hold_up_everyone(silence: Scripted) -> None:
    """A server that never answers the question is not asked by every request in turn."""
    server = server_that_answers(silence)
    probe = EraProbe(server)
    assert await asyncio.gather(*(probe.is_modern(ALICE) for _ in range(10))) == [False] * 10
    assert asyncio.get_running_loop().time() <= 10
    assert len(server.seen) == 1
    await asyncio.sleep(61)
    server.script("server/discover", answer(MODERN))
    assert await probe.is_modern(ALICE)


async def test_stray_session_is_given_back() -> None:
    """A session that a server opens even for what it refuses is closed again."""
    server = server_that_answers(refusal(400, b"no", session_id="stray"))
    assert not await EraProbe(server).is_modern(ALICE)
    assert server.deleted == ["stray"]


async def test_stray_session_that_cannot_be_given_back() -> None:
    """Trouble with the goodbye does not change the answer."""
    server = server_that_answers(refusal(400, b"no", session_id="stray"))
    server.script("DELETE", TimeoutError())
    probe = EraProbe(server)
    assert not await probe.is_modern(ALICE)
    assert not await probe.is_modern(ALICE)
    assert len(server.posts("server/discover")) == 1
