"""A client's request on its way to the member that serves its caller, and the answer on its way back.

Both go on as they came, byte for byte and as they come; nobody here reads what they say. A client that leaves
takes its connection to the other member with it, where the same follows from that as from its own leaving.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from ..aio import break_circle
from ..bounds import CACHED_HEADER_NAMES, SMALL_BYTES
from ..cluster.card import Card
from ..cluster.peer_signature import PeerClient, write_client
from ..cluster.peers import Peers
from ..errors import BadRequest, OverBudget, UpstreamError
from ..memory import Share
from ..protocol.headers import names_of_this_hop, writable
from ..protocol.revisions import MEMBER_HEADER_PREFIX
from ..upstream.http.http1 import AnswerStage, HttpAnswer
from ..upstream.transport import ConnectionLost
from .connection import Connection, begin_following
from .following import Reader
from .head import Head
from .heartbeats import Heartbeats

_DECODING: Final = ("utf-8", "surrogateescape")
# What belongs to one connection, or describes a body that leaves here in another form: read whole, and
# decompressed. Everything else goes on, also what only a proxy should see: to the client, we are one proxy.
_OF_THIS_HOP: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NO_HOST: Final = b"Host: none.invalid"
_OF_THE_ANSWER: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})
# Where the length is written anew.
_OUR_LENGTH: Final = frozenset({None, "Content-Length", "content-length"})
_WITHOUT_BODY: Final = frozenset({204, 304})
_ALLOW_ORIGIN: Final = b"access-control-allow-origin"


class Forwarding:
    """Forwards requests. ``heartbeats`` finds clients that read nothing, and ``answers`` is the memory for
    what they have not taken yet.
    """

    def __init__(self, peers: Peers, *, heartbeats: Heartbeats, answers: Share) -> None:
        self._peers = peers
        self._heartbeats = heartbeats
        self._answers = answers

    async def forward(
        self, http: web.BaseRequest, head: Head, body: bytes, card: Card, hops: int
    ) -> web.StreamResponse:
        """Have a member answer a request, which so many members have had before. The body was read whole.

        Raises:
            PeerFailure: nothing of an answer was written; which kind says what became of the request.
            BadRequest: its head cannot be sent.
        """
        fields = _write_fields(http, head, hops)
        start = f"{http.method} {http.raw_path}".encode(*_DECODING)
        answer = await self._peers.send(card, start, fields, body)
        try:
            return await self._relay(http, head, answer)
        finally:
            # Of an answer that has come whole there is nothing left to close.
            answer.close()

    async def _relay(self, http: web.BaseRequest, head: Head, answer: HttpAnswer) -> web.StreamResponse:
        if answer.stage is AnswerStage.ENDED and answer.unread_bytes <= SMALL_BYTES:
            return WholeAnswer(answer, head.cors)
        headers = _read_fields(answer.fields, head.cors)
        return await self._stream(http, answer, web.StreamResponse(status=answer.status, headers=headers))

    async def _stream(
        self, http: web.BaseRequest, answer: HttpAnswer, response: web.StreamResponse
    ) -> web.StreamResponse:
        """Pass an answer on as it comes. One that breaks off breaks the client's connection, or ends its GET:
        clients that follow a stream come back for more.
        """
        follows = http.method == "GET" and hdrs.CONTENT_LENGTH not in response.headers
        if follows:
            begin_following(http)
        reader = Reader(http, self._heartbeats.now)
        self._heartbeats.watch(reader)
        try:
            await response.prepare(http)
            while piece := await _next(answer, ends=follows):
                self._answers.take(len(piece), large=True)
                try:
                    await reader.take(response.write(piece))
                finally:
                    self._answers.give_back(len(piece))
            await reader.take(response.write_eof())
        except (ConnectionLost, UpstreamError, OSError, OverBudget) as error:
            # Whichever side broke: an end that looks complete would be a lie.
            reader.cut_off()
            break_circle(error)
        finally:
            self._heartbeats.unwatch(reader)
        return response


class WholeAnswer(web.StreamResponse):
    """A small answer that has come whole: written in one piece, its fields byte for byte.

    So little fits into the transport's buffer, so nobody has to wait for its client. To build it anew, as an
    answer of aiohttp's, would cost more than all else that is done here with a request.
    """

    def __init__(self, answer: HttpAnswer, cors: Mapping[str, str]) -> None:
        super().__init__(status=answer.status)
        lines = [
            b"%b: %b\r\n" % field for field in answer.fields if _passed_name(field[0]) not in _OUR_LENGTH
        ]
        if cors and not any(name.lower() == _ALLOW_ORIGIN for name, _ in answer.fields):
            lines += [f"{name}: {value}\r\n".encode() for name, value in cors.items()]
        self._lines = lines
        self._whole = answer.take()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it. Raises ConnectionError: the client has left."""
        if self._eof_sent:
            return None
        self._keep_alive = keep_alive = request.keep_alive
        version = request.version
        start = f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}\r\n".encode()
        connection = b""
        if keep_alive != (version >= HttpVersion11):
            connection = b"Connection: keep-alive\r\n" if keep_alive else b"Connection: close\r\n"
        length = b"" if self.status in _WITHOUT_BODY else b"Content-Length: %d\r\n" % len(self._whole)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        transport.write(b"".join((start, *self._lines, connection, length, b"\r\n", self._whole)))
        self._eof_sent = True
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """It is written already."""
        assert not data


async def _next(answer: HttpAnswer, *, ends: bool) -> bytes:
    """The next piece of an answer; nothing at its end, and where it breaks off, if that ``ends`` it, too."""
    try:
        return await answer.read()
    except (ConnectionLost, UpstreamError):
        if ends:
            return b""
        raise


def _write_fields(http: web.BaseRequest, head: Head, hops: int) -> bytes:
    """The fields of a request as they are sent on, with where it has come from in front of them.

    What the client has sent under the names of ours goes no further. Written once for a head.

    Raises:
        BadRequest: a field cannot be written as one.
    """
    connection = http.protocol
    assert isinstance(connection, Connection)
    if head.forwarded_as is not None and head.forwarded_as[:2] == (hops, connection.number):
        return head.forwarded_as[2]
    lines = [write_client(PeerClient(hops, http.scheme, connection.number, http.remote))]
    claimed = names_of_this_hop(http.headers.items())
    for name, value in http.raw_headers:
        kind = name.decode(*_DECODING).lower()
        if kind in _OF_THIS_HOP or kind in claimed or kind.startswith(MEMBER_HEADER_PREFIX):
            continue
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise BadRequest("A header of this request has more than one line.")
        lines.append(b"%b: %b" % (name, value))
    if hdrs.HOST not in http.headers:
        lines.append(_NO_HOST)  # a client of HTTP/1.0's
    fields = b"\r\n".join(lines)
    head.forwarded_as = (hops, connection.number, fields)
    return fields


def _read_fields(fields: Iterable[tuple[bytes, bytes]], cors: Mapping[str, str]) -> CIMultiDict[str]:
    """The fields of an answer as the client gets them."""
    headers: CIMultiDict[str] = CIMultiDict()
    for raw, value in fields:
        if (name := _passed_name(raw)) is not None:
            headers.add(name, writable(value.decode(*_DECODING)))
    # Browsers take two of a kind for none (Fetch, "CORS check").
    if cors and hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in headers:
        headers.extend(cors)
    return headers


@lru_cache(maxsize=CACHED_HEADER_NAMES)
def _passed_name(raw: bytes) -> str | None:
    name = raw.decode(*_DECODING)
    kind = name.lower()
    return None if kind in _OF_THE_ANSWER or kind.startswith(MEMBER_HEADER_PREFIX) else name
