"""The listener for other members: who comes in there, and what they may ask."""

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from peer_bench import KEY, OWNER, SENDER, Pair
from proxy_bench import PATIENCE_SECONDS, until

from mcp_session_proxy import events
from mcp_session_proxy.assembly.peer_listener import remove_socket, socket_path
from mcp_session_proxy.cluster.lease import LeaseAnswer
from mcp_session_proxy.cluster.outcomes import PeerBroke, PeerRefused, PeerUnreachable
from mcp_session_proxy.cluster.peer_signature import OWN_SCHEME, PeerClient, Signer, write_client
from mcp_session_proxy.cluster.peers import Peers

FIELDS = write_client(PeerClient(1, "http", 1, None)) + b"\r\nHost: h"


async def ask(pair: Pair, request: bytes) -> bytes:
    """Send raw bytes to the owner; gives the beginning of its answer."""
    reader, writer = await asyncio.open_unix_connection(pair.card.addresses[0].removeprefix("unix:"))
    writer.write(request)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


def sign(signer: Signer | None = None, start: bytes = b"POST /mcp", to: str = OWNER) -> bytes:
    return (signer or Signer(SENDER, [KEY], now=time.time)).sign(to, start, FIELDS, b"{}") + b"{}"


def late(seconds: float) -> Callable[[], float]:
    return lambda: time.time() + seconds


# Made when they are sent, for they tell the time.
REFUSED: dict[str, Callable[[], bytes]] = {
    "unsigned": lambda: b"POST /mcp HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
    "wrong-mac": lambda: sign(Signer(SENDER, [b"x" * 32], now=time.time)),
    "itself": lambda: sign(Signer(OWNER, [KEY], now=time.time)),
    "unknown-member": lambda: sign(Signer("c" * 16, [KEY], now=time.time)),
    "other-version": lambda: sign().replace(b"v1", b"v9", 1),
}


def told(pair: Pair) -> list[tuple[str, str | None, int]]:
    return [(e.problem, e.member, e.times) for e in pair.events if isinstance(e, events.PeerNotTrusted)]


@pytest.mark.parametrize("why", REFUSED)
async def test_who_is_not_believed(pair: Pair, why: str) -> None:
    """It is answered 403, nothing is done, and an event says why."""
    answer = await ask(pair, REFUSED[why]())
    assert answer.startswith(b"HTTP/1.1 403")
    assert f"Msp-Refused: {why}".encode() in answer
    assert [reason for reason, _, _ in told(pair)] == [why]
    assert pair.seen == []


@pytest.mark.parametrize(("seconds", "why"), [(-60.0, "too-old"), (60.0, "too-new")])
async def test_of_another_time(pair: Pair, seconds: float, why: str) -> None:
    """Clocks that differ by a minute."""
    assert (await ask(pair, sign(Signer(SENDER, [KEY], now=late(seconds))))).startswith(b"HTTP/1.1 403")
    assert told(pair) == [(why, SENDER, 1)]


async def test_a_request_is_caught_and_sent_again(pair: Pair) -> None:
    """It is answered once."""
    request = sign()
    assert (await ask(pair, request)).startswith(b"HTTP/1.1 200")
    assert (await ask(pair, request)).startswith(b"HTTP/1.1 403")
    assert told(pair) == [("replayed", SENDER, 1)]
    assert len(pair.seen) == 1


@pytest.mark.parametrize("sent", [b"[]", b""])
async def test_another_body(pair: Pair, sent: bytes) -> None:
    """One that was put in the place of what was signed is not looked at, however it arrives."""
    head = sign().removesuffix(b"{}")
    reader, writer = await asyncio.open_unix_connection(pair.card.addresses[0].removeprefix("unix:"))
    writer.write(head + sent)
    if not sent:
        await asyncio.sleep(0.05)
        writer.write(b"[]")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403")
    writer.close()
    assert told(pair) == [("wrong-body", SENDER, 1)]
    assert pair.seen == []


async def test_it_is_told_once_a_second(pair: Pair) -> None:
    """Who can connect can try as often as it likes, and fills no log."""
    for _ in range(5):
        await ask(pair, REFUSED["unsigned"]())
    assert told(pair) == [("unsigned", None, 1)]


async def test_the_one_that_is_refused_is_told(pair: Pair) -> None:
    """For it, the owner cannot be reached: nothing was done."""
    peers = Peers(SENDER, [b"x" * 32])
    with pytest.raises(PeerUnreachable, match="wrong-mac"):
        await peers.send(pair.card, b"POST /mcp", FIELDS, b"{}")
    peers.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/mcpx", "/peer/lease", "/.well-known/x"])
async def test_only_the_endpoint(pair: Pair, path: str) -> None:
    """What clients have sent to other paths is not forwarded, so it does not come in here."""
    answer = await ask(pair, sign(start=b"POST " + path.encode()))
    assert answer.startswith(b"HTTP/1.1 400")
    assert pair.seen == []


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\n\r\n", b"rubbish\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"]
)
async def test_what_is_no_http(pair: Pair, request_: bytes) -> None:
    """It is refused like anything else that is not signed."""
    assert (await ask(pair, request_)).split(b" ")[1] in (b"400", b"403")
    assert pair.seen == []


async def test_a_bug_is_told(pair: Pair) -> None:
    """The connection goes on."""

    async def answer(*_: object) -> web.StreamResponse:
        raise ValueError("a bug")

    pair.answer = answer
    async with pair.http.post(pair.url, data=b"{}") as response:
        assert response.status == 500
    assert [event.where for event in pair.events if isinstance(event, events.Crashed)] == ["peer door"]


# -- the socket ------------------------------------------------------------------------------------------


async def test_the_socket_is_for_this_user(pair: Pair) -> None:
    """Nobody else can connect, as the file says."""
    path = socket_path(pair.directory, OWNER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_another_user(pair: Pair) -> None:
    """Nor, where the file is readable for some reason, as the system says."""
    pair.listener.server._user = os.geteuid() + 1
    with pytest.raises(PeerRefused):
        await pair.peers.send(pair.card, b"POST /mcp", FIELDS, b"{}")


async def test_the_socket_goes_with_its_member(pair: Pair) -> None:
    """One that was killed leaves its own, which somebody else removes; twice is no harm."""
    await pair.listener.close()
    assert list(pair.directory.iterdir()) == []
    socket_path(pair.directory, OWNER).touch()
    remove_socket(pair.directory, OWNER)
    remove_socket(pair.directory, OWNER)
    assert list(pair.directory.iterdir()) == []


async def test_a_long_path(tmp_path: Path) -> None:
    """A path may be longer than what the system takes for a socket."""
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    async with Pair(directory) as pair:
        await pair.start()
        async with pair.http.post(pair.url, data=b"{}") as response:
            assert response.status == 200


# -- questions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["anonymous#a/b&c", None])
async def test_a_lease(pair: Pair, shard: str | None) -> None:
    """Members ask each other what the store says of one of them, and who has a shard."""
    assert await pair.peers.ask_lease(pair.card, SENDER, shard) == pair.lease
    assert pair.asked == (SENDER, shard)
    pair.lease = LeaseAnswer(store=False, owns=True, fence=3)
    assert await pair.peers.ask_lease(pair.card, SENDER, shard) == pair.lease


async def test_who_serves_a_shard(pair: Pair) -> None:
    """That is asked of nobody's lease."""
    pair.lease = LeaseAnswer(store=False, owns=True, fence=3)
    assert await pair.peers.ask_lease(pair.card, None, "one") == pair.lease
    assert pair.asked == (None, "one")


async def test_an_unknown_question(pair: Pair) -> None:
    """It is answered, with nothing; a lease is none."""
    assert await pair.peers.ask(pair.card, b"POST /peer/future", b"{}") == (404, b"")
    pair.lease = "nonsense"  # type: ignore[assignment]
    with pytest.raises(PeerBroke):
        await pair.peers.ask_lease(pair.card, SENDER, None)


async def test_a_large_question(pair: Pair) -> None:
    """What members ask has a bound."""
    status, _ = await pair.peers.ask(pair.card, b"POST /peer/lease", b"x" * 2_000_000)
    assert status == 413


async def test_no_answer_to_a_question(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question is given up after a moment, and its connection with it."""
    monkeypatch.setattr("mcp_session_proxy.cluster.peers.PEER_ANSWER_SECONDS", 0.05)

    async def never(*_: object) -> LeaseAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    pair.listener.server._door._questions = {"/peer/lease": never}  # type: ignore[dict-item]
    with pytest.raises(PeerBroke, match="in time"):
        await pair.peers.ask_lease(pair.card, SENDER, None)
    await until(lambda: not pair.client._connections)


async def test_its_own_questions_are_no_clients(pair: Pair) -> None:
    """A member that asks for itself comes to no client's endpoint."""
    own = write_client(PeerClient(0, OWN_SCHEME, 0, None)) + b"\r\nHost: h"
    answer = await pair.peers.send(pair.card, b"POST /mcp", own, b"{}")
    assert answer.status == 404
    answer.close()
    assert pair.seen == []


async def test_many_members_come_and_go(pair: Pair) -> None:
    """Of members that have gone, nothing is kept."""
    for number in range(20):
        member = f"{number:016x}"
        pair.members.add(member)
        peers = Peers(member, [KEY])
        (await peers.send(pair.card, b"POST /mcp", FIELDS, b"{}")).close()
        peers.close()
    door = pair.listener.server._door
    assert len(door._known_until) == 20
    door._now = lambda: asyncio.get_running_loop().time() + 11
    (await pair.peers.send(pair.card, b"POST /mcp", FIELDS, b"{}")).close()
    assert list(door._known_until) == [SENDER]
