"""What a server needs of us with modern requests: asked for once, believed for a while, never in the way."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeReply, FakeServer, Scripted, answer, refusal, settle, stream
from messages import error, result

from mcp_session_proxy.errors import UpstreamTimeout, UpstreamUnreachable
from mcp_session_proxy.protocol.revisions import UpstreamEra
from mcp_session_proxy.upstream.era import EraProbe, Finding
from mcp_session_proxy.upstream.transport import Caller, ConnectionLost

pytestmark = pytest.mark.looptime

ALICE = Caller(headers=(("Authorization", "Bearer alice"),), query="x=1")
MODERN = result({"supportedVersions": ["2026-07-28"], "capabilities": {}})
TRANSLATED = Finding(modern=False, stateful=False)


def rpc_refusal(status: int, code: int, message: str, **data: object) -> FakeReply:
    """A JSON-RPC error with a status of its own."""
    failure = {"code": code, "message": message, "data": data}
    return refusal(status, {"jsonrpc": "2.0", "id": None, "error": failure})


class Asked(FakeServer):
    """A server whose answers to the two questions are given; it goes on giving the last of each."""

    def __init__(self, *discovery: Scripted, handshake: Scripted | None = None) -> None:
        super().__init__(stateless=handshake is None)
        self.script("server/discover", *discovery)
        if handshake is not None:
            self.script("initialize", *[handshake] * 4)


async def passes(server: FakeServer, asker: str = "alice", **options: Any) -> bool:
    return await EraProbe(server, **options).ask(ALICE, asker)


# -- the questions ---------------------------------------------------------------------------------


async def test_the_question() -> None:
    """The server is asked as the specification asks, with the caller's credentials and no session."""
    server = Asked(answer(MODERN))
    assert await passes(server)
    sent = server.seen[0]
    assert (sent.session_id, sent.version, sent.caller.query) == (None, "2026-07-28", "x=1")
    assert sent.caller.headers == (("Authorization", "Bearer alice"), ("Mcp-Method", "server/discover"))
    assert sent.params["_meta"] == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }


async def test_a_modern_server_with_sessions_is_translated() -> None:
    """State that the server keeps in sessions would be lost: the session of the question is given back."""
    server = FakeServer()
    server.script("server/discover", answer(MODERN))
    assert not await passes(server)
    await settle()
    assert server.transcript == ["server/discover", "initialize", "DELETE @s1"]
    assert server.seen[1].caller == ALICE


async def test_a_modern_server_without_sessions_needs_no_help() -> None:
    """A handshake that gives no id: nothing is kept, so nothing is lost."""
    server = Asked(answer(MODERN))
    assert await passes(server)
    assert server.transcript == ["server/discover", "initialize"]


async def test_living_sessions_answer_the_second_question() -> None:
    """No handshake is tried while a session lives there: a server that can have but one would refuse."""
    server = Asked(answer(MODERN))
    assert not await passes(server, keeps_sessions=lambda: True)
    assert server.transcript == ["server/discover"]


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, b"Bad Request: Missing session ID"),
        refusal(400, b"Bad Request: No valid session ID provided"),
        refusal(422, b"Unexpected message, expect initialize request"),
        refusal(400, b"Bad Request: Unsupported protocol version: 2026-07-28"),
        rpc_refusal(400, -32000, "Bad Request: Server not initialized"),
        rpc_refusal(404, -32601, "Method not found"),
        rpc_refusal(405, -32000, "Method not allowed."),
        rpc_refusal(400, -32022, "Unsupported", supported=["2025-11-25"]),
        answer(error(-32601, "Method not found")),
        answer(error(0, 'method "server/discover" is invalid during session initialization')),
        answer(result({})),
        answer(result({"supportedVersions": "2026-07-28"})),
        answer(result({"supportedVersions": ["2025-11-25", 7, None]})),
    ],
)
async def test_legacy_servers(reply: FakeReply) -> None:
    """A server's own refusal, or an answer that does not name the modern version, settles it for a while."""
    server = Asked(reply)
    probe = EraProbe(server)
    for asker in ("alice", "bob"):
        assert not await probe.ask(ALICE, asker)
    assert server.transcript == ["server/discover"]
    assert probe.finding == TRANSLATED


@pytest.mark.parametrize("code", [-32020, -32021])
async def test_errors_of_the_modern_revision_are_a_yes(code: int) -> None:
    """Only a modern server has these codes, whatever it has against the question."""
    assert await passes(Asked(rpc_refusal(400, code, "no")))


@pytest.mark.parametrize(
    "handshake",
    [
        answer(error(-32601, "Method not found")),
        rpc_refusal(404, -32601, "Method not found"),
        rpc_refusal(400, -32022, "Unsupported protocol version", supported=["2026-07-28"]),
        rpc_refusal(400, -32602, "_meta lacks a protocol version"),
        refusal(400, b"no such thing here"),
        refusal(501, b"not implemented"),
    ],
)
async def test_servers_that_refuse_handshakes(handshake: FakeReply) -> None:
    """A server that knows nothing of ``initialize`` gets modern requests as they are."""
    assert await passes(Asked(answer(MODERN), handshake=handshake))


@pytest.mark.parametrize(
    "handshake",
    [
        rpc_refusal(400, -32600, "Invalid Request: Server already initialized"),
        rpc_refusal(503, -32000, "Too many open sessions"),
        refusal(400, b"Maximum number of sessions reached"),
    ],
)
async def test_servers_without_room_keep_sessions(handshake: FakeReply) -> None:
    """What refuses one more session has some."""
    assert not await passes(Asked(answer(MODERN), handshake=handshake))


@pytest.mark.parametrize("words", ["Unsupported protocol version", "Invalid request parameters"])
async def test_a_handshake_in_a_version_that_the_server_wants(words: str) -> None:
    """A server that is strict about versions is asked again with an earlier one."""
    server = FakeServer()
    server.script("server/discover", answer(MODERN))
    server.script("initialize", rpc_refusal(400, -32602, words))
    assert not await passes(server)
    versions = [sent.params["protocolVersion"] for sent in server.posts("initialize")]
    assert versions == ["2025-11-25", "2025-06-18"]


# -- what settles nothing --------------------------------------------------------------------------

TROUBLE: list[Callable[[], Scripted]] = [
    *(lambda status=status: refusal(status, b"no") for status in (401, 403, 407, 429, 431, 500, 502, 503)),
    *(lambda status=status: refusal(status, b"<html>session</html>") for status in (400, 404, 405)),
    lambda: refusal(404, b""),
    lambda: refusal(400, b"Invalid HTTP request received."),
    lambda: refusal(400, {"error": "nothing here"}),
    lambda: FakeReply(is_stream=False, content_type="text/html"),
    lambda: stream(),
    lambda: answer(error(-32603, "Internal error")),
    lambda: UpstreamUnreachable("down"),
    lambda: ConnectionLost(),
]


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_is_no_answer(trouble: Callable[[], Scripted]) -> None:
    """A refusal over something else, or a page, says nothing; the next request asks again."""
    probe = EraProbe(Asked(trouble(), trouble(), answer(MODERN)))
    assert not await probe.ask(ALICE, "stranger")
    assert probe.finding is None
    assert not await probe.ask(ALICE, "stranger")
    assert await probe.ask(ALICE, "stranger")


@pytest.mark.parametrize("status", [401, 403, 429, 431, 500, 503])
async def test_trouble_with_the_handshake_is_no_answer(status: int) -> None:
    """As long as it is not known whether state would be lost, requests are translated."""
    server = Asked(answer(MODERN), answer(MODERN))
    server.script("initialize", refusal(status, b"no"))
    probe = EraProbe(server)
    assert not await probe.ask(ALICE, "alice")
    assert await probe.ask(ALICE, "alice")


async def test_who_asks_in_vain_asks_ever_more_seldom() -> None:
    """A server with answers of its own is not asked twice for every request of a caller; others may ask."""
    server = Asked(*(refusal(404) for _ in range(100)))
    probe = EraProbe(server)
    for _ in range(100):
        assert not await probe.ask(ALICE, "alice")
    assert len(server.seen) == 3
    await asyncio.sleep(600)
    for _ in range(600):
        await asyncio.sleep(1)
        await probe.ask(ALICE, "alice")
    assert len(server.seen) < 25
    server.script("server/discover")
    seen = len(server.seen)
    await probe.ask(ALICE, "bob")
    assert len(server.seen) == seen + 1


async def test_those_who_ask_in_vain_are_remembered_in_bounds() -> None:
    """A thousand and more callers cost no more memory than a thousand."""
    server = Asked(*(refusal(404) for _ in range(3000)))
    probe = EraProbe(server)
    for number in range(2000):
        await probe.ask(ALICE, f"caller {number}")
    assert len(probe._undecided) == 1000


# -- how long an answer counts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [(answer(MODERN), refusal(400, b"no session")), (refusal(400, b"no session"), answer(MODERN))],
)
async def test_every_answer_is_asked_for_again(first: Scripted, then: Scripted) -> None:
    """Yes and no are believed for five minutes: the server may be replaced by another one."""
    server = Asked(first, then)
    probe = EraProbe(server)
    before = await probe.ask(ALICE, "alice")
    for _ in range(3):
        assert await probe.ask(ALICE, "alice") is before
    await asyncio.sleep(301)
    assert await probe.ask(ALICE, "alice") is not before
    assert len(server.posts("server/discover")) == 2


async def test_a_doubtful_answer_does_not_replace_a_clear_one() -> None:
    """A stranger's trouble, just when the question is due again, changes nothing for the others."""
    server = Asked(answer(MODERN), refusal(431, b"no"), answer(MODERN))
    probe = EraProbe(server)
    assert await probe.ask(ALICE, "alice")
    await asyncio.sleep(301)
    assert await probe.ask(ALICE, "stranger")
    assert await probe.ask(ALICE, "alice")
    assert len(server.posts("server/discover")) == 2
    await asyncio.sleep(11)
    assert await probe.ask(ALICE, "alice")
    assert len(server.posts("server/discover")) == 3


async def test_what_was_away_is_asked_again() -> None:
    """After the server was down, another one may have come up."""
    probe = EraProbe(Asked(refusal(400, b"no session"), answer(MODERN)))
    assert not await probe.ask(ALICE, "alice")
    probe.forget()
    assert await probe.ask(ALICE, "alice")


async def test_handshakes_tell_the_same() -> None:
    """A session of the pool's with an id, or without one, says what the server is like now."""
    told: list[Finding] = []
    probe = EraProbe(Asked(answer(MODERN)), tell=told.append)
    probe.note_handshake(gave_id=True)  # nobody has asked yet: it is not known whether it matters
    assert probe.passes() is None
    assert await probe.ask(ALICE, "alice")
    probe.note_handshake(gave_id=True)
    assert probe.passes() is False
    probe.note_handshake(gave_id=True)
    probe.note_handshake(gave_id=False)
    assert probe.passes() is True
    assert [finding.stateful for finding in told] == [False, True, False]


async def test_handshakes_of_a_legacy_server_tell_nothing() -> None:
    """A server that does not speak modern is translated whether it gives ids or not."""
    probe = EraProbe(Asked(refusal(400, b"no session")))
    await probe.ask(ALICE, "alice")
    probe.note_handshake(gave_id=False)
    assert probe.passes() is False


@pytest.mark.parametrize("choice", [UpstreamEra.LEGACY, UpstreamEra.MODERN])
async def test_the_operator_knows_better(choice: UpstreamEra) -> None:
    """A choice is a choice: nobody is asked."""
    server = FakeServer()
    probe = EraProbe(server)
    probe.rules = choice
    assert probe.passes() is (choice is UpstreamEra.MODERN)
    assert await probe.ask(ALICE, "alice") is (choice is UpstreamEra.MODERN)
    assert server.seen == []


# -- many at once ----------------------------------------------------------------------------------


async def test_one_question_for_all_who_come() -> None:
    """Requests that come together wait for the same answer, and who leaves does not take it along."""
    go_on = asyncio.Event()
    server = Asked(lambda _: FakeReply([go_on], status=400, is_stream=False, body=b"no session"))
    probe = EraProbe(server)
    asking = [asyncio.create_task(probe.ask(ALICE, f"caller {number}")) for number in range(10)]
    await settle()
    asking[0].cancel()
    await settle()
    go_on.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert outcomes[1:] == [False] * 9
    assert len(server.seen) == 1


async def test_who_comes_in_the_moment_that_a_question_ends_in_vain_asks_anew() -> None:
    """Not one turn of the loop later: waiting for what is over would never end, and stop everything."""
    server = Asked(refusal(400))
    probe = EraProbe(server)

    async def ask_when_it_has_ended() -> None:
        # Looks in each turn of the loop, so also in that between the end of the question and its callbacks.
        while (asking := probe._asking) is None or not asking.done():
            await asyncio.sleep(0)
        assert not await probe.ask(ALICE, "bob")

    watching = asyncio.create_task(ask_when_it_has_ended())
    assert not await probe.ask(ALICE, "alice")
    await watching
    assert server.transcript == ["server/discover", "server/discover"]


async def test_no_answer_for_one_is_a_question_for_the_next() -> None:
    """Whoever waited for another caller's answer, and that was none, asks for itself."""
    probe = EraProbe(Asked(refusal(431), answer(MODERN)))
    asking = [asyncio.create_task(probe.ask(ALICE, name)) for name in ("stranger", "alice", "bob")]
    assert (await asyncio.gather(*asking))[1:] == [True, True]


@pytest.mark.parametrize("silence", [stream(asyncio.Event()), UpstreamTimeout("silent")])
async def test_silent_server_does_not_hold_up_everyone(silence: Scripted) -> None:
    """A server that never answers the question is not asked by every request in turn."""
    server = Asked(silence)
    probe = EraProbe(server)
    assert await asyncio.gather(*(probe.ask(ALICE, "alice") for _ in range(10))) == [False] * 10
    assert asyncio.get_running_loop().time() <= 10
    assert len(server.seen) == 1
    await asyncio.sleep(61)
    server.script("server/discover", answer(MODERN))
    assert await probe.ask(ALICE, "alice")


# -- sessions that nobody wanted -------------------------------------------------------------------


async def test_stray_session_is_given_back() -> None:
    """A session that a server opens even for what it refuses is closed again."""
    server = Asked(refusal(400, b"no session", session_id="stray"))
    assert not await passes(server)
    await settle()
    assert server.deleted == ["stray"]


async def test_stray_session_that_cannot_be_given_back() -> None:
    """Trouble with the goodbye does not change the answer."""
    server = Asked(refusal(400, b"no session", session_id="stray"))
    server.script("DELETE", TimeoutError())
    probe = EraProbe(server)
    assert not await probe.ask(ALICE, "alice")
    await settle()
    assert not await probe.ask(ALICE, "alice")
    assert len(server.posts("server/discover")) == 1
