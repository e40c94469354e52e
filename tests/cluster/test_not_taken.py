"""A member goes when it has been sent a request: one that it certainly had not read is sent again."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from proxy_bench import until

from mcp_session_proxy.aio import readable
from mcp_session_proxy.cluster.card import Card
from mcp_session_proxy.cluster.outcomes import PeerBroke, PeerRefused
from mcp_session_proxy.cluster.peer_signature import PeerClient, write_client
from mcp_session_proxy.cluster.peers import Peers
from mcp_session_proxy.upstream.http.dialing import Dialer, UnixDialer
from mcp_session_proxy.upstream.http.http1 import HttpAnswer, ServerConnection

OTHER = "a" * 16
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LARGE = b"x" * 16 * 1024 * 1024


class Other:
    """Another member, whose end of each connection does what the test says, byte for byte."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        listening.setblocking(False)
        self.listening = listening
        self._accepted: list[socket.socket] = []
        self.peers = Peers("b" * 16, [b"k" * 32])
        self._card = Card(member=OTHER, pid=1, started=0.0, version="1", addresses=[address])

    def send(self, body: bytes = b"{}") -> asyncio.Task[HttpAnswer]:
        """Send it a request."""
        fields = write_client(PeerClient(1, "http", 1, None)) + b"\r\nHost: h"
        return asyncio.create_task(self.peers.send(self._card, b"POST /mcp", fields, body))

    async def accept(self) -> socket.socket:
        """Its end of the next connection, on which a request has come."""
        await readable(self.listening)
        connection, _ = self.listening.accept()
        connection.setblocking(False)
        self._accepted.append(connection)
        await readable(connection)
        return connection

    async def kept(self) -> socket.socket:
        """Its end of a connection that is kept: one request was answered on it."""
        sending = self.send()
        connection = await self.accept()
        self.answer(connection)
        assert (await sending).status == 200
        return connection

    @staticmethod
    def answer(connection: socket.socket) -> bytes:
        """Read what has come, and answer it."""
        came = connection.recv(65536)
        connection.send(OK)
        return came

    def close(self) -> None:
        self.peers.close()
        for each in (self.listening, *self._accepted):
            each.close()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Other]:
    """One that listens on a unix socket."""
    path = tmp_path / "peer.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    other = Other(listening, f"unix:{path}")
    yield other
    other.close()


@pytest.fixture
async def remote() -> AsyncIterator[Other]:
    """One that listens on a port."""
    listening = socket.create_server(("127.0.0.1", 0))
    other = Other(listening, f"http://127.0.0.1:{listening.getsockname()[1]}")
    yield other
    other.close()


async def test_it_dies_with_a_request_unread(local: Other) -> None:
    """What lies in the buffer of a process that is killed was never seen by it."""
    connection = await local.kept()
    sending = local.send()
    await readable(connection)
    connection.close()
    again = await local.accept()
    assert b"POST /mcp" in local.answer(again)
    assert (await sending).status == 200


async def test_it_dies_with_a_request_read(local: Other) -> None:
    """What it has read, it may have done."""
    connection = await local.kept()
    sending = local.send()
    await readable(connection)
    connection.recv(65536)
    connection.close()
    with pytest.raises(PeerBroke):
        await sending


async def test_it_dies_amid_an_answer(local: Other) -> None:
    """So much the more what it has begun to answer."""
    connection = await local.kept()
    sending = local.send()
    await readable(connection)
    connection.send(b"HTTP/1.1 2")  # and has read nothing
    connection.close()
    with pytest.raises(PeerBroke):
        await sending


async def test_it_has_died_before(local: Other, remote: Other) -> None:
    """A connection that was kept is of no use any more, which the event loop has not heard of yet."""
    for other in (local, remote):
        connection = await other.kept()
        connection.close()
        sending = other.send()
        other.answer(await other.accept())
        assert (await sending).status == 200


async def test_nobody_comes_after_it(local: Other) -> None:
    """Then it is as if nobody had listened: whoever sends it asks who has the caller now."""
    connection = await local.kept()
    sending = local.send()
    await readable(connection)
    local.listening.close()
    connection.close()
    with pytest.raises(PeerRefused):
        await sending


async def test_it_dies_before_it_has_accepted(local: Other) -> None:
    """A process that stands still has connections in its queue, and requests on them."""
    sending = local.send()
    await until(lambda: OTHER in local.peers._ways and local.peers._ways[OTHER].client)
    local.listening.close()
    with pytest.raises(PeerRefused):
        await sending


async def test_a_large_body_that_was_not_sent_whole(remote: Other) -> None:
    """Nobody can have executed the half of a request."""
    sending = remote.send(LARGE)
    connection = await remote.accept()
    connection.recv(1000)
    connection.close()
    with pytest.raises(PeerRefused):
        await sending


async def test_over_a_network_a_reset_tells_nothing(remote: Other) -> None:
    """It may have come from anybody on the way, when the other member had long begun."""
    connection = await remote.kept()
    sending = remote.send()
    await readable(connection)
    connection.close()
    with pytest.raises(PeerBroke):
        await sending


@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("how", ["it dies", "it dies at once", "it is known to be gone"])
async def test_it_goes_before_it_takes_the_connection(
    local: Other, remote: Other, monkeypatch: pytest.MonkeyPatch, is_local: bool, how: str
) -> None:
    """Nothing was sent, and nobody listens any more: whoever has asked waits for what becomes of it, and is
    not told that it cannot be reached.
    """
    other, kind = (local, UnixDialer) if is_local else (remote, Dialer)
    dial: Any = kind.dial

    async def dial_too_late(self: Any, make: Any) -> ServerConnection:
        connection: ServerConnection = await dial(self, make)
        if how == "it dies":
            other.listening.close()
            await until(lambda: not connection.is_open)
        elif how == "it dies at once":
            raise ConnectionResetError(errno.ECONNRESET, "reset while connecting")
        else:
            other.peers.drop(OTHER)
        return connection

    monkeypatch.setattr(kind, "dial", dial_too_late)
    with pytest.raises(PeerRefused):
        await other.send()
