"""Which protocol version a handshake is about, and what a refusal of its last step means."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fakes import (
    FakeFleet,
    FakeReply,
    FakeServer,
    Recorder,
    Sent,
    answer,
    make_session,
    refusal,
)
from messages import INITIALIZE_PARAMS, raw

from mcp_session_proxy.errors import HandshakeRefused, ProxyError, UpstreamProtocolError, UpstreamRejected
from mcp_session_proxy.upstream.handshake import Versions
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

ALL = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
UNSUPPORTED = "Unsupported protocol version"


class StrictServer(FakeServer):
    """Takes one version only, and refuses the others in its own way."""

    def __init__(self, takes: str | None, refuse: Callable[[Sent], FakeReply]) -> None:
        super().__init__()
        self.takes = takes
        self._refuse = refuse
        self.always()

    def always(self) -> None:
        """Judge the next ``initialize``, too."""
        self.script("initialize", self._judge)

    def _judge(self, sent: Sent) -> FakeReply:
        self.always()
        if sent.params["protocolVersion"] == self.takes:
            self.initialize_result = {**self.initialize_result, "protocolVersion": self.takes}
            return self.open_session()
        return self._refuse(sent)

    @property
    def asked(self) -> list[str]:
        """The versions that were asked for."""
        return [sent.params["protocolVersion"] for sent in self.posts("initialize")]


def failure(code: int, message: str, data: object = None) -> dict[str, Any]:
    """A JSON-RPC error response."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return {"jsonrpc": "2.0", "id": "?", "error": error}


def with_200(*what: Any) -> Callable[[Sent], FakeReply]:
    return lambda _: answer(failure(*what))


def with_status(status: int, body: object) -> Callable[[Sent], FakeReply]:
    return lambda _: refusal(status, body)


async def opened(server: FakeServer, **options: Any) -> UpstreamSession:
    session = make_session(server, version_is_free=True, **options)
    await session.open(NOBODY)
    return session


@pytest.mark.parametrize(
    "refuse",
    [
        with_200(-32602, UNSUPPORTED),
        with_200(-32602, "Invalid request parameters"),
        with_200(-32000, UNSUPPORTED),
        with_200(-32000, "Bad Request: Unsupported protocol version (supported versions: 1999-01-01)"),
        with_200(-32022, "no"),
        with_200(-32603, "cannot speak this protocolVersion"),
        with_200(-32602, UNSUPPORTED, {"supported": []}),
        with_200(-32602, UNSUPPORTED, {"supported": "all"}),
        with_200(-32602, UNSUPPORTED, {"supported": [1, None, {}, "x" * 1000, [["2024"]]]}),
        with_200(-32602, UNSUPPORTED, {"supported": [f"{year}-01-01" for year in range(100_000)]}),
        with_200(-32602, UNSUPPORTED, ["nonsense"]),
        with_status(400, failure(-32602, UNSUPPORTED)),
        with_status(400, failure(-32000, f"Bad Request: {UNSUPPORTED}")),
        with_status(400, b"Unsupported protocol version: 2025-11-25"),
        with_status(400, b""),
        with_status(400, {"error": "unsupported version"}),
        with_status(422, failure(-32600, UNSUPPORTED)),
        with_status(404, failure(-32022, "no")),
        with_status(404, failure(-32000, UNSUPPORTED)),
        with_status(500, failure(-32602, "Invalid request parameters")),
        with_status(501, failure(-32000, UNSUPPORTED)),
        with_status(503, failure(-32600, UNSUPPORTED)),
    ],
)
async def test_downwards_through_the_known_ones(refuse: Callable[[Sent], FakeReply]) -> None:
    """A server that says no more than that it does not like the version is asked with the others."""
    server = StrictServer("2024-11-05", refuse)
    session = await opened(server)
    assert server.asked == ALL
    assert session.version == "2024-11-05"
    assert json.loads(session.incarnation.initialize_result)["protocolVersion"] == "2024-11-05"
    session.abandon()


@pytest.mark.parametrize(
    "refuse",
    [
        with_200(-32602, UNSUPPORTED, {"supported": ["2024-11-05"], "requested": "2025-11-25"}),
        with_200(-32602, UNSUPPORTED, {"supported": ["2099-01-01", "2024-11-05", "1.0"]}),
        with_200(-32022, UNSUPPORTED, {"supportedVersions": ["2024-11-05"]}),
        with_200(-32000, "Unsupported protocol version (supported versions: 2024-11-05, 2024-10-07)"),
        with_status(400, failure(-32000, UNSUPPORTED, {"supported": ["2024-11-05"]})),
        with_status(400, b"protocol version must be 2024-11-05"),
    ],
)
async def test_a_version_that_the_server_names(refuse: Callable[[Sent], FakeReply]) -> None:
    """It is the next one, wherever it is named."""
    server = StrictServer("2024-11-05", refuse)
    session = await opened(server)
    assert server.asked == ["2025-11-25", "2024-11-05"]
    session.abandon()


async def test_the_newest_of_those_that_the_server_names() -> None:
    """In whatever order it names them."""
    named = {"supported": ["2024-11-05", "2025-06-18", "2025-03-26"]}
    server = StrictServer("2025-06-18", with_200(-32602, UNSUPPORTED, named))
    session = await opened(server)
    assert server.asked == ["2025-11-25", "2025-06-18"]
    session.abandon()


async def test_a_server_that_lies_about_what_it_takes() -> None:
    """No version is asked for twice."""
    server = StrictServer(
        "2025-03-26", with_200(-32602, UNSUPPORTED, {"supported": ["2025-11-25", "2024-11-05"]})
    )
    session = await opened(server)
    assert server.asked == ["2025-11-25", "2024-11-05", "2025-06-18", "2025-03-26"]
    session.abandon()


async def test_a_server_that_takes_none() -> None:
    """Each is tried once; what the server said first is what is told."""
    answers = iter([f"{UNSUPPORTED} {number}" for number in range(10)])
    server = StrictServer(None, lambda _: answer(failure(-32602, next(answers))))
    with pytest.raises(HandshakeRefused) as caught:
        await opened(server)
    assert server.asked == ALL
    assert b"version 0" in caught.value.raw_error


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        (with_200(-32000, "Server already initialized"), HandshakeRefused),
        (with_200(-32603, "Internal error"), HandshakeRefused),
        (with_200(0, "no room"), HandshakeRefused),
        (with_status(400, failure(-32600, "Bad Request: no")), UpstreamRejected),
        (with_status(401, b"Unsupported API version"), UpstreamRejected),
        (with_status(403, b""), UpstreamRejected),
        (with_status(404, b"<html>nginx version 1.2</html>"), UpstreamRejected),
        (with_status(429, b""), UpstreamRejected),
        (with_status(500, failure(-32603, UNSUPPORTED)), UpstreamRejected),
        (with_status(503, b""), UpstreamRejected),
        (with_status(503, failure(-32000, "Too many open sessions")), UpstreamRejected),
        (with_status(403, failure(-32602, UNSUPPORTED)), UpstreamRejected),
    ],
)
async def test_other_refusals_stay_as_they_are(
    refuse: Callable[[Sent], FakeReply], error: type[ProxyError]
) -> None:
    """What is about the caller, the place or the moment is told at once."""
    server = StrictServer(None, refuse)
    with pytest.raises(error):
        await opened(server)
    assert server.asked == ["2025-11-25"]


MODERN_ONLY = {"supported": ["2026-07-28"], "requested": "2025-11-25"}


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        (with_200(-32022, UNSUPPORTED, MODERN_ONLY), HandshakeRefused),
        (with_200(-32602, UNSUPPORTED, {"supported": ["2099-01-01", "2026-07-28"]}), HandshakeRefused),
        (with_200(-32601, "Method not found", MODERN_ONLY), HandshakeRefused),
        (with_200(-32000, UNSUPPORTED, {"supportedVersions": ["2026-07-28"]}), HandshakeRefused),
        (with_200(-32602, "_meta lacks io.modelcontextprotocol/protocolVersion"), HandshakeRefused),
        (with_status(400, failure(-32022, UNSUPPORTED, MODERN_ONLY)), UpstreamRejected),
    ],
)
async def test_a_server_that_knows_no_handshake(
    refuse: Callable[[Sent], FakeReply], error: type[ProxyError]
) -> None:
    """One that names modern versions alone is not asked again, which may start a command each time."""
    server = StrictServer("2024-11-05", refuse)
    with pytest.raises(error):
        await opened(server)
    assert server.asked == ["2025-11-25"]


async def test_a_server_of_both_eras() -> None:
    """One that names a modern version among others is asked with the others."""
    server = StrictServer("2025-06-18", with_200(-32022, "", {"supported": ["2026-07-28", "2025-06-18"]}))
    session = await opened(server)
    assert server.asked == ["2025-11-25", "2025-06-18"]
    session.abandon()


async def test_trouble_on_the_second_try_is_told_as_it_is() -> None:
    """It is the newest that is known of the server."""
    server = FakeServer()
    server.script("initialize", answer(failure(-32602, UNSUPPORTED)), refusal(503, b"busy"))
    with pytest.raises(UpstreamRejected) as caught:
        await opened(server)
    assert caught.value.upstream_status == 503
    assert len(server.posts("initialize")) == 2


async def test_what_a_refused_handshake_opened_is_given_back() -> None:
    """Some servers make a session even for what they refuse."""
    server = FakeServer()
    server.script("initialize", answer(failure(-32602, UNSUPPORTED), session_id="stray"))
    session = await opened(server)
    assert server.deleted == ["stray"]
    assert session.incarnation.channel.session_id == "s1"
    session.abandon()


async def test_a_clients_own_version_is_not_touched() -> None:
    """The client asked, so the client decides."""
    server = StrictServer("2024-11-05", with_200(-32602, UNSUPPORTED, {"supported": ["2024-11-05"]}))
    with pytest.raises(HandshakeRefused):
        await make_session(server).open(NOBODY)
    assert server.asked == ["2025-11-25"]


async def test_it_is_remembered_for_the_server() -> None:
    """The next session begins with what worked; when the server was away, from the top."""
    server = StrictServer("2025-03-26", with_200(-32602, UNSUPPORTED))
    fleet = FakeFleet(server)
    for session in [await opened(server, fleet=fleet) for _ in range(2)]:
        session.abandon()
    assert server.asked == ["2025-11-25", "2025-06-18", "2025-03-26", "2025-03-26"]
    fleet.replicas[0].versions.forget()
    (await opened(server, fleet=fleet)).abandon()
    assert server.asked[4:] == ["2025-11-25", "2025-06-18", "2025-03-26"]


async def test_a_server_that_learns() -> None:
    """What worked once and does no more leads to the others, newer ones too."""
    versions = Versions()
    versions.note("2024-11-05")
    assert versions.in_order() == ["2024-11-05", "2025-11-25", "2025-06-18", "2025-03-26"]
    server = StrictServer("2025-11-25", with_200(-32602, UNSUPPORTED))
    fleet = FakeFleet(server)
    fleet.replicas[0].versions = versions
    (await opened(server, fleet=fleet)).abandon()
    assert server.asked == ["2024-11-05", "2025-11-25"]
    assert versions.in_order()[0] == "2025-11-25"


async def test_a_session_that_is_opened_anew() -> None:
    """A server that was replaced by a stricter one is no trouble."""
    server = FakeServer()
    session = await opened(server)
    server.forget()
    server.script("initialize", answer(failure(-32602, UNSUPPORTED)))
    await session.revive(session.incarnation, "404", NOBODY)
    assert [sent.params["protocolVersion"] for sent in server.posts("initialize")[1:]] == ALL[:2]
    session.abandon()


# -- versions that nobody knows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "version", ["2099-01-01", "2026-07-28", "1.0", "", "x" * 5000, 20251125, None, ["2025-11-25"]]
)
async def test_a_version_that_nobody_knows_is_left(version: object) -> None:
    """Nothing of ours runs on it; the session that the server opened is ended."""
    server = FakeServer()
    server.initialize_result = {**server.initialize_result, "protocolVersion": version}
    with pytest.raises(UpstreamProtocolError, match="version that nobody here knows") as caught:
        await opened(server)
    assert len(caught.value.message) < 250
    assert server.sessions == []


async def test_a_server_that_names_no_version() -> None:
    """Sloppy, but it worked before."""
    server = FakeServer()
    server.initialize_result = {"capabilities": {}}
    session = await opened(server)
    assert session.version is None
    session.abandon()


async def test_a_client_gets_the_servers_own_unknown_version() -> None:
    """Whoever asked for the session may know it, or leaves, as without the proxy."""
    server = FakeServer()
    server.initialize_result = {**server.initialize_result, "protocolVersion": "2099-01-01"}
    session = make_session(server, initialize_params=INITIALIZE_PARAMS)
    await session.open(NOBODY)
    assert session.version == "2099-01-01"
    session.abandon()


# -- notifications/initialized -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 405, 406, 500, 503])
async def test_a_refusal_of_initialized_is_no_end(status: int) -> None:
    """It is told, and the session's next request decides."""
    server, recorder = FakeServer(), Recorder()
    server.script("notifications/initialized", refusal(status, raw({"error": "no such notification"})))
    session = await opened(server, observe=recorder)
    assert [event.status for event in recorder.named("session.initialized_refused")] == [status]
    assert await session.incarnation.confirm()
    session.abandon()


@pytest.mark.parametrize(("size", "opens"), [(1_000_000, True), (1_100_000, False)])
async def test_what_a_server_says_of_itself_is_bounded(size: int, opens: bool) -> None:
    """It is kept as long as the session lives, so a mebibyte has to do."""
    server = FakeServer()
    server.initialize_result = {**server.initialize_result, "instructions": "x" * size}
    session = make_session(server)
    if opens:
        await session.open(NOBODY)
        assert len(session.incarnation.initialize_result) > size
    else:
        with pytest.raises(UpstreamProtocolError, match="1048576 bytes"):
            await session.open(NOBODY)
