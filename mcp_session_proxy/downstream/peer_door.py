"""Where other members come in with what their clients have sent: the door beside the front door.

Who comes is believed by its signature alone. What it brings is as powerful as what comes in by the front
door, and no more: who the caller is, is found out here, from what the client has sent. Whether the client may
come in at all (host, origin) was judged where it came in. Beside that, members ask each other questions.

Requests of many clients take turns on one connection here. What is kept with a client's own connection, so
that its next request is known again, is kept with the number that it has at the other member.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from .. import events
from ..aio import peer_process
from ..bounds import HEAD_FIELDS, PEER_BODY_BYTES, PEER_CLIENTS
from ..cluster.outcomes import Misdirected
from ..cluster.peer_signature import OWN_SCHEME, OWNER, REFUSED, Disbelief, Judge, NotBelieved, Signed
from ..errors import BadRequest, InternalError, PeerNotBelieved, ProxyError
from ..events import Observer
from ..memory import Share
from .answers import no_id, refuse
from .app import MAX_KEPT_HEAD_BYTES, HttpServer, HttpServerRules
from .body import read_body
from .connection import Connection, measure_head, next_number
from .forwarded import ForwardedRequest
from .head import Head, Sender

# Answers what a client has sent.
Serve = Callable[[web.BaseRequest, Head], Awaitable[web.StreamResponse]]
# What answers another member's own question: it gets the request and its body.
Answer = Callable[[web.BaseRequest, bytes], Awaitable[web.Response]]

_MISDIRECTED: Final = 421
# Beside the client's own fields there are those of the member, and how long the body is.
_MORE_FIELDS: Final = 6
# A member that is known is not looked for again so soon.
_KNOWN_SECONDS: Final = 10.0
# Whoever is not believed again and again is told of so often.
_TELL_SECONDS: Final = 1.0


class PeerDoor:
    """The handler for requests of other members, to ``member``. ``keys`` are all that are good.

    ``handle`` answers what clients have sent to ``paths``, and ``questions`` what members ask, by its path.
    ``knows`` tells whether there is a member of this name.
    """

    def __init__(
        self,
        member: str,
        judge: Judge,
        *,
        handle: Serve,
        paths: frozenset[str],
        questions: Mapping[str, Answer],
        knows: Callable[[str], Awaitable[bool]],
        observe: Observer,
    ) -> None:
        self._member = member
        self._judge = judge
        self._handle = handle
        self._paths = paths
        self._questions = questions
        self._knows = knows
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._known_until: dict[str, float] = {}
        self._told_at: dict[Disbelief, float] = {}
        self._untold: dict[Disbelief, int] = {}
        self._clients: OrderedDict[tuple[str, int], _ClientConnection] = OrderedDict()

    def judge(self, message: RawRequestMessage) -> Signed:
        """Whose request this is. Raises NotBelieved."""
        # Of what is no HTTP, aiohttp has a head of its own that is none.
        if not isinstance(message.raw_headers, tuple):
            raise NotBelieved(Disbelief.UNSIGNED)
        return self._judge.judge(message.method, message.path, message.raw_headers)

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            if not isinstance(http, ForwardedRequest):
                assert isinstance(http, UnbelievedRequest)
                raise http.error
            await self._check_member(http.signed.member)
            if http.signed.to != self._member:
                return _misdirected(None)
            return await self._answer(http)
        except NotBelieved as error:
            return self._refuse(http, error)
        except Misdirected as error:
            return _misdirected(error.owner)
        except PeerNotBelieved as error:
            cause = error.__cause__
            assert isinstance(cause, NotBelieved)
            return self._refuse(http, cause)
        except ProxyError as error:
            return refuse(error, no_id(http), {})
        # The client has left, or aiohttp has an answer of its own: nothing of ours has crashed.
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            self._observe(events.Crashed(where="peer door", error=repr(error)))
            return refuse(InternalError("The proxy failed. Its log has the details."), no_id(http), {})

    async def _check_member(self, member: str) -> None:
        """Raises NotBelieved: there is no such member."""
        now = self._now()
        if self._known_until.get(member, 0.0) > now:
            return
        if not await self._knows(member):
            raise NotBelieved(Disbelief.UNKNOWN_MEMBER, member)
        self._known_until = {each: until for each, until in self._known_until.items() if until > now}
        self._known_until[member] = now + _KNOWN_SECONDS

    async def _answer(self, http: ForwardedRequest) -> web.StreamResponse:
        client, path = http.signed.client, http.rel_url.raw_path
        if client.scheme == OWN_SCHEME:
            answer = self._questions.get(path)
            if answer is None:
                return web.Response(status=404)
            share = Share("what members say", PEER_BODY_BYTES)
            return await answer(http, await read_body(http, PEER_BODY_BYTES, share))
        if path not in self._paths:
            raise BadRequest("Another member has forwarded what is not for the MCP endpoint.")
        return await self._serve(http, (http.signed.member, client.connection), client.hops)

    async def _serve(self, http: ForwardedRequest, key: tuple[str, int], hops: int) -> web.StreamResponse:
        """Answer a client's request, as on the connection that it has at the other member."""
        connection = http.protocol
        assert isinstance(connection, Connection)
        known = self._clients.pop(key, None) or _ClientConnection()
        head = known.head
        if head is None or not head.is_of(http):
            size_bytes = measure_head(http)
            head = Head(http)
            head.cors, head.to_endpoint, head.expects = {}, True, False
            known.head = head if size_bytes <= MAX_KEPT_HEAD_BYTES else None
        head.hops = hops
        connection.number, connection.sender = known.number, known.sender
        self._clients[key] = known
        if len(self._clients) > PEER_CLIENTS:
            self._clients.popitem(last=False)
        try:
            return await self._handle(http, head)
        finally:
            known.sender = connection.sender

    def _refuse(self, http: web.BaseRequest, error: NotBelieved) -> web.Response:
        self._tell(error)
        response = refuse(PeerNotBelieved(error.why), no_id(http), {REFUSED: error.why})
        response.force_close()
        return response

    def _tell(self, error: NotBelieved) -> None:
        """Tell of it, but of each kind once in a second: whoever can connect can try as often as it likes."""
        why, now = error.why, self._now()
        times = self._untold.get(why, 0) + 1
        if self._told_at.get(why, -_TELL_SECONDS) > now - _TELL_SECONDS:
            self._untold[why] = times
            return
        self._told_at[why], self._untold[why] = now, 0
        self._observe(events.PeerNotTrusted(problem=why, member=_shown(error.member), times=times))


class _ClientConnection:
    """A client's connection at another member: the head of its newest request, and who has sent that."""

    __slots__ = ("head", "number", "sender")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.sender: Sender | None = None
        self.number = next_number()


class UnbelievedRequest(web.BaseRequest):
    """A request of which nothing is believed."""

    error: NotBelieved


class PeerConnection(Connection):
    """Our end of another member's connection."""

    def sent_by(self, sender: Sender) -> None:
        """It carries the requests of many, so it counts for none of them."""
        self.sender = sender


class PeerServer(HttpServer):
    """aiohttp's server for other members: of a unix socket, for processes of the same user alone."""

    connection_type = PeerConnection

    def __init__(
        self,
        door: PeerDoor,
        *,
        rules: HttpServerRules,
        idle_timeout_seconds: float,
        heads: Share,
        user: int,
    ) -> None:
        super().__init__(
            door,
            rules=rules,
            idle_timeout_seconds=idle_timeout_seconds,
            is_accepted=lambda _: True,
            heads=heads,
            max_fields=HEAD_FIELDS + _MORE_FIELDS,
        )
        self._door = door
        self._user = user

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Another member has connected, or somebody who has no business here."""
        super().connection_made(handler, transport)
        connection = transport.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            return
        if peer_process(connection)[1] != self._user:
            # Not at once: aiohttp has not begun to listen to this connection.
            self._loop.call_soon(transport.abort)

    def _make(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        message = self._begin(message, payload, protocol, task)
        try:
            signed = self._door.judge(message)
        except NotBelieved as error:
            request = UnbelievedRequest(message, payload, protocol, writer, task, self._loop)
            request.error = error
            return request
        return ForwardedRequest.restore(
            signed,
            message,
            payload,
            protocol,
            writer,
            task,
            self._loop,
            max_body_bytes=self._max_body_bytes,
        )


def _misdirected(owner: str | None) -> web.Response:
    return web.Response(status=_MISDIRECTED, headers={OWNER: owner or ""})


def _shown(member: str | None) -> str | None:
    """A name that anybody may have made up, as far as it is worth telling."""
    return None if member is None or not member.isalnum() or not member.isascii() else member[:32]
