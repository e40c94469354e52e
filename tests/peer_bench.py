"""Two members, one behind the other, and a client: what it sends to the one is answered by the other.

The fixture ``pair`` is a :class:`Pair`; the test says what the owner answers::

    async def test_an_answer(pair: Pair) -> None:
        pair.answer = web.Response(text="hello")
        async with pair.http.post(pair.url, data=b"{}") as response:
            assert await response.text() == "hello"
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from mcp_session_proxy.assembly.in_force import InForce
from mcp_session_proxy.assembly.peer_listener import PeerListener
from mcp_session_proxy.cluster.card import Card
from mcp_session_proxy.cluster.lease import LeaseAnswer
from mcp_session_proxy.cluster.outcomes import PeerFailure
from mcp_session_proxy.cluster.peers import Peers
from mcp_session_proxy.downstream.app import HttpServer, HttpServerRules
from mcp_session_proxy.downstream.body import read_body
from mcp_session_proxy.downstream.connection import Connection
from mcp_session_proxy.downstream.forwarding import Forwarding
from mcp_session_proxy.downstream.head import Head
from mcp_session_proxy.downstream.heartbeats import HeartbeatRules, Heartbeats
from mcp_session_proxy.events import Event
from mcp_session_proxy.memory import UNBOUNDED
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.tls import Contexts
from mcp_session_proxy.upstream.http.client import HttpClient

KEY = b"k" * 32
OWNER, SENDER = "a" * 16, "b" * 16
MAX_BODY_BYTES = 8 * 1024 * 1024

Handler = Callable[[web.BaseRequest, Head], Awaitable[web.StreamResponse]]


class Pair:
    """The owner's listener, and the sender that forwards to it whatever a client sends.

    ``answer`` is what the owner answers, or a handler that does. ``seen`` are the requests that have come to
    it, with their bodies; ``failures`` are what became of those that were not answered.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answer: Handler | web.StreamResponse = web.Response(text="answered")
        self.seen: list[tuple[web.BaseRequest, Head, bytes]] = []
        self.failures: list[PeerFailure] = []
        self.events: list[Event] = []
        self.members = {OWNER, SENDER}
        self.lease = LeaseAnswer(store=True, left_seconds=2.5)
        self.hops = 1
        self.cors: Mapping[str, str] = {}
        self.http: aiohttp.ClientSession
        self.listener: PeerListener
        self.peers: Peers
        self.card: Card
        self._stack = AsyncExitStack()

    async def start(self, **options: Any) -> None:
        """Start both, with these options for each; on a unix socket unless they say otherwise."""
        settings = load({"upstream": "http://127.0.0.1:1/mcp", "max_body_bytes": MAX_BODY_BYTES, **options})
        tls = self.tls = Contexts(settings)
        self.listener = await PeerListener.open(
            InForce(settings),
            member=OWNER,
            keys=[KEY],
            handle=self._handle,
            on_lease=self._on_lease,
            knows=self._knows,
            heads=UNBOUNDED,
            observe=self.events.append,
            directory=None if settings.peer_listen is not None else self.directory,
            tls=tls.peer_listener,
        )
        self._stack.push_async_callback(self.listener.close)
        self.card = Card(
            member=OWNER, pid=1, started=0.0, version="1", addresses=list(self.listener.addresses)
        )
        self.peers = Peers(SENDER, [KEY], tls=tls.peers)
        self._stack.callback(self.peers.close)
        self.heartbeats = Heartbeats(HeartbeatRules(interval_seconds=15.0))
        self._stack.callback(self.heartbeats.close)
        self.forwarding = Forwarding(self.peers, heartbeats=self.heartbeats, answers=UNBOUNDED)
        self.front = HttpServer(
            self._forward,
            rules=HttpServerRules(
                max_body_bytes=MAX_BODY_BYTES, max_header_bytes=16 * 1024, max_connections=20_000
            ),
            idle_timeout_seconds=75.0,
            is_accepted=lambda _: True,
            heads=UNBOUNDED,
        )
        runner = web.ServerRunner(self.front, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.port = port
        self.url = f"http://{host}:{port}/mcp"
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start_client(self) -> aiohttp.ClientSession:
        """Another client, with connections of its own."""
        return await self._stack.enter_async_context(aiohttp.ClientSession())

    @property
    def client(self) -> HttpClient:
        """The sender's connections to the owner."""
        client = self.peers._ways[OWNER].client
        assert client is not None
        return client

    @property
    def connections(self) -> int:
        """How many connections the owner has from other members."""
        return len(self.listener.server.connections)

    async def _forward(self, http: web.BaseRequest) -> web.StreamResponse:
        """What the sender does with a client's request: nothing but forwarding it."""
        connection = http.protocol
        assert isinstance(connection, Connection)
        head = connection.head
        if head is None or not head.is_of(http):
            head = connection.head = Head(http)
            head.cors = self.cors
        body = await read_body(http, MAX_BODY_BYTES, UNBOUNDED)
        try:
            return await self.forwarding.forward(http, head, body, self.card, self.hops)
        except PeerFailure as error:
            self.failures.append(error)
            return web.Response(status=503, text=type(error).__name__)

    async def _handle(self, http: web.BaseRequest, head: Head) -> web.StreamResponse:
        self.seen.append((http, head, await read_body(http, MAX_BODY_BYTES, UNBOUNDED)))
        if isinstance(self.answer, web.StreamResponse):
            return web.Response(
                status=self.answer.status, headers=self.answer.headers, body=_body(self.answer)
            )
        return await self.answer(http, head)

    async def _knows(self, member: str) -> bool:
        return member in self.members

    async def _on_lease(self, member: str | None, shard: str | None) -> LeaseAnswer:
        self.asked: tuple[str | None, str | None] = (member, shard)
        return self.lease


def _body(answer: web.StreamResponse) -> bytes:
    body = (answer.body or b"") if isinstance(answer, web.Response) else b""
    assert isinstance(body, bytes)
    return body


async def talk(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send raw bytes to the sender."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer
