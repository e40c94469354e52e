"""The front door: every request of a client comes in here, is checked, and goes to its handler.

The MCP endpoint answers at the server's path, with and without a trailing slash and never with a
redirect; everything else is passed through. This is aiohttp's low-level server: with two targets and
one check for all there is nothing to route.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from .. import events
from ..bounds import FIRST_REQUEST_SECONDS, HEAD_FIELDS
from ..errors import ForbiddenOrigin, InternalError, ProxyError
from ..events import Observer
from ..memory import UNBOUNDED, Share
from .answers import no_id, refuse
from .connection import Connection, measure_head, require_http_1
from .endpoint import Endpoint
from .guard import Guard
from .head import Head
from .in_flight import InFlight, UnderWay
from .known_heads import KnownHeads
from .passthrough import NoOtherPaths, Passthrough
from .places import Place, Places
from .routed import RoutedEndpoint
from .unfinished import UnfinishedHeads

# aiohttp logs requests that are no HTTP as errors of ours, with a traceback and a piece of what it could
# not read, in which a credential may be; its 400 is answer enough.
SILENT: Final = logging.getLogger(f"{__name__}.http")
SILENT.setLevel(logging.CRITICAL)
_ALLOW: Final = "GET, POST, DELETE, OPTIONS"
# Larger ones are judged with each request, so that idle connections do not hold on to them.
MAX_KEPT_HEAD_BYTES: Final = 4096
# After a larger one a connection ends: the parser keeps the newest head until the next one comes.
_MAX_IDLE_HEAD_BYTES: Final = 16 * 1024
# The first in milliseconds, the others in seconds (Linux, tcp(7)).
_TCP_OPTIONS: Final = {"TCP_USER_TIMEOUT": 60_000, "TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15}


class FrontDoor:
    """The handler for aiohttp's server. ``rules`` say who may call, and may be replaced at any time."""

    def __init__(
        self,
        *,
        rules: Guard,
        endpoint: Endpoint | RoutedEndpoint,
        passthrough: Callable[[], Passthrough | NoOtherPaths],
        in_flight: InFlight,
        path: str,
        observe: Observer,
    ) -> None:
        bare = path.rstrip("/")
        # The root has no second spelling.
        self._paths: Final = frozenset({bare, bare + "/"} - {""})
        self.rules = rules
        self._endpoint = endpoint
        self._passthrough = passthrough
        self._in_flight = in_flight
        self._observe = observe
        self._known = KnownHeads()

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        # Until the guard has let it in: a page that may not call us must not read why.
        cors: Mapping[str, str] = {}
        try:
            connection = http.protocol
            assert isinstance(connection, Connection)
            head = connection.head
            # New rules count for connections that are open, too.
            if head is None or head.admitted_by is not self.rules or not head.is_of(http):
                head = self._recall(http, connection) or self._admit(http, connection)
            cors = head.cors
            # Who is refused by the head need not send the body.
            if head.expects:
                await _continue(http)
            if not head.to_endpoint:
                return await self._pass_through(http, cors)
            # On the server's other paths it is the server that answers this.
            if http.method == "OPTIONS":
                return self._preflight(http)
            return await self._endpoint.handle(http, head)
        except ProxyError as error:
            return refuse(error, no_id(http), cors)
        # The client has left, or aiohttp has an answer of its own: nothing of ours has crashed.
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            self._observe(events.Crashed(where="front door", error=repr(error)))
            return refuse(InternalError("The proxy failed. Its log has the details."), no_id(http), cors)

    def _recall(self, http: web.BaseRequest, connection: Connection) -> Head | None:
        """The same head of an earlier request, of whatever connection, if these rules have let it in."""
        head = self._known.find(http, connection)
        return head if head is not None and head.admitted_by is self.rules else None

    def _admit(self, http: web.BaseRequest, connection: Connection) -> Head:
        """The head of a request that may come in.

        Raises:
            HeadTooLarge, UnsupportedHttp, ForbiddenHost, ForbiddenOrigin: it may not.
        """
        former, connection.head = connection.head, None
        require_http_1(http)
        size_bytes = measure_head(http)
        guard, headers = self.rules, http.headers
        origin = headers.get("Origin")
        guard.check(host=headers.get("Host"), origin=origin, scheme=http.scheme)
        if http.raw_path[:1] not in ("/", "*"):
            # A target in absolute form names the host; ``Host`` is the sender's to get wrong then (RFC 9112,
            # section 3.2.2).
            guard.check(host=http.url.host_port_subcomponent, origin=None, scheme=http.scheme)
        if origin is not None and len(headers.getall("Origin")) > 1:
            raise ForbiddenOrigin("This request has two headers that say from which page it comes.")
        head = Head(http)
        head.admitted_by = guard
        head.cors = {} if origin is None else guard.cors_headers(origin)
        head.to_endpoint = http.rel_url.raw_path in self._paths
        head.expects = "Expect" in headers
        if size_bytes <= MAX_KEPT_HEAD_BYTES:
            connection.head = head
            if former is not None:
                self._known.keep(http, connection, head, former)
        elif size_bytes > _MAX_IDLE_HEAD_BYTES:
            http._message = http._message._replace(should_close=True)
        return head

    async def _pass_through(self, http: web.BaseRequest, cors: Mapping[str, str]) -> web.StreamResponse:
        """Nobody has been accepted on these paths, so callers are told apart by their addresses alone."""
        with UnderWay(self._in_flight, f"peer {http.remote}"):
            return await self._passthrough().handle(http, cors)

    def _preflight(self, http: web.BaseRequest) -> web.Response:
        wanted = http.headers.get("Access-Control-Request-Headers")
        granted = self.rules.preflight_headers(http.headers.get("Origin"), wanted)
        return web.Response(status=204, headers={"Allow": _ALLOW, **granted})


async def _continue(http: web.BaseRequest) -> None:
    """Let a client send its body that asks first (RFC 9110, section 10.1.1)."""
    if http.version == HttpVersion11 and http.headers["Expect"].lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        http.writer.output_size = 0  # the answer itself has not begun


class HttpServerRules(msgspec.Struct, frozen=True, kw_only=True):
    """How much may come in. The limit of headers counts for new connections."""

    max_body_bytes: int
    max_header_bytes: int
    max_connections: int


class HttpServer(web.Server):
    """aiohttp's server, with a bound on what connections can do without ever making a request.

    Each connection has a place (``places.py``). One whose first request does not begin in time is closed; for
    the time between requests aiohttp has a timeout of its own. One whose other side takes nothing of what it
    is sent is given up by the operating system. ``rules`` may be replaced at any time. ``is_accepted`` tells
    whether the server knows a principal; ``heads`` is the memory for heads that have not ended, ``bodies``
    that for bodies, of which some counts before it is read. A head has ``max_fields`` at most.
    """

    connection_type: type[Connection] = Connection

    def __init__(
        self,
        door: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        rules: HttpServerRules,
        idle_timeout_seconds: float,
        is_accepted: Callable[[str], bool],
        heads: Share,
        bodies: Share = UNBOUNDED,
        max_fields: int = HEAD_FIELDS,
    ) -> None:
        super().__init__(
            door,
            request_factory=self._make,
            access_log=None,
            logger=SILENT,
            keepalive_timeout=idle_timeout_seconds,
            auto_decompress=False,  # see body.py
            max_headers=max_fields,
        )
        self.places = Places(
            max_connections=rules.max_connections,
            first_request_seconds=min(FIRST_REQUEST_SECONDS, idle_timeout_seconds),
        )
        self.heads = UnfinishedHeads[Connection](heads)
        self.bodies = bodies
        self._is_accepted = is_accepted
        self._parting = False
        self.rules = rules

    @property
    def rules(self) -> HttpServerRules:
        """The limits."""
        return self._rules

    @rules.setter
    def rules(self, rules: HttpServerRules) -> None:
        self._rules = rules
        self._max_body_bytes = rules.max_body_bytes
        self.places.max_connections = rules.max_connections

    def __call__(self) -> Connection:
        """Our end of a new connection."""
        limit = self._rules.max_header_bytes
        connection = self.connection_type(
            self, loop=self._loop, max_line_size=limit, max_field_size=limit, **self._kwargs
        )
        connection.place = None
        connection.heads = self.heads
        connection.bodies = self.bodies
        connection.places = self.places
        return connection

    def answer(self, place: Place) -> Connection:
        """Our end of a connection that has this place already."""
        connection = self()
        connection.place = place
        return connection

    def part(self) -> None:
        """From now on each answer is the last one on its connection, and says so (RFC 9112, section 9.6)."""
        self._parting = True
        for connection in self.connections:
            assert isinstance(connection, Connection)
            connection.part()

    def close_quiet(self, looks: int) -> int:
        """Close the connections that were idle each time in so many looks; gives how many are left on which
        something may be asked, or is being answered. Those that answer a GET do not count, perhaps for ever.

        Looks are counted and not seconds, because between two of them the event loop reads what has arrived:
        where this process itself was held up for seconds, they say nothing of its clients.
        """
        left = 0
        for connection in self.connections:
            assert isinstance(connection, Connection)
            if not connection.is_idle:
                connection.quiet_looks = 0
                left += not connection.answers_get
            elif connection.quiet_looks < looks:
                connection.quiet_looks += 1
                left += 1
            else:
                connection.force_close()
        return left

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection)
        # Not at once: aiohttp has not begun to listen to this connection, and cannot if it is over before.
        end = partial(self._loop.call_soon, transport.abort)
        if handler.place is None:
            handler.place = self.places.take(transport.get_extra_info("peername"))
            if handler.place is None:
                end()
                return
        set_timeouts(transport)
        handler.place.end = end
        handler.place.owner = partial(self._owner, handler)
        handler.place.can_go = partial(self._can_go, handler)
        handler.place.follows = lambda: handler.follows

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """A client's connection is over."""
        assert isinstance(handler, Connection)
        if handler.place is not None:
            self.places.leave(handler.place)
            handler.place = None
        super().connection_lost(handler, exc)

    def _owner(self, connection: Connection) -> str | None:
        """Whose it is; None for all together whom the server has not accepted: anybody can make up many."""
        if connection.sender is None:
            return None
        principal = connection.sender.principal.digest
        return principal if self._is_accepted(principal) else None

    def _can_go(self, connection: Connection) -> bool:
        """Whether it can make room: what waits for its client, only if that is nobody that we know."""
        return connection.is_idle or (connection.is_kept_open and self._owner(connection) is None)

    def _make(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        message = self._begin(message, payload, protocol, task)
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body_bytes
        )

    def _begin(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        task: asyncio.Task[None],
    ) -> RawRequestMessage:
        """A request begins on a connection. Gives its head, which may say that it is the last one."""
        if isinstance(protocol, Connection):
            place = protocol.place
            if place is not None and not place.has_asked:
                self.places.ask(place)
            protocol.begin(task, payload)
        return message._replace(should_close=True) if self._parting else message


def set_timeouts(transport: asyncio.Transport) -> None:
    """Have the operating system look after a connection (Linux only).

    It is closed when the other side takes nothing for a while (RFC 5482), and while it is silent, it is kept
    up by probes that clients and servers see nothing of: an answer in JSON may take its time.
    """
    connection = transport.get_extra_info("socket")
    if connection is None:
        return
    for name, value in _TCP_OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
