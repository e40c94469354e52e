"""The HTTP client towards the server: the one interface to aiohttp's, and where its exceptions end.

``HttpClient.request`` is the same for POST, GET and DELETE: it gives an answer from its status on, whose body
is read piece by piece. Nothing here knows of MCP. The pass-through of other paths streams bodies both ways
and uses aiohttp by itself; what its exceptions mean it asks here, too (``trouble_of``).
"""

import asyncio
import io
import ssl
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from .. import __version__
from ..bounds import SERVER_FIELD_BYTES, SERVER_FIELDS
from ..errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from ..protocol import revisions
from .transport import ConnectionLost

# Servers close idle connections after 5 seconds (uvicorn, Node). Letting go of ours earlier avoids
# sending a call into a connection that is just being closed, whose outcome nobody would know.
_KEEP_CONNECTION_SECONDS: Final = 3.0
_END_OF_STREAM_SECONDS: Final = 1.0
_LARGE_BYTES: Final = 512 * 1024
# What a request says unless it says otherwise: all that aiohttp would add of its own accord.
_HEADERS: Final = {
    "User-Agent": f"mcp-session-proxy/{__version__}",
    "Accept-Encoding": "identity",
    "Accept": revisions.ACCEPT_BOTH,
}

Patience: TypeAlias = aiohttp.ClientTimeout


def patience(*, connect_seconds: float, silence_seconds: float | None) -> Patience:
    """How long one request may take to connect, and between two pieces of its answer; None is without end."""
    return Patience(total=None, sock_connect=connect_seconds, sock_read=silence_seconds)


def http_session(*, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """What an ``HttpClient`` sends with; whoever opens it closes it.

    It has no connection limit, so that it is not a second, hidden pool, and keeps no cookies.
    """
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=_KEEP_CONNECTION_SECONDS, ssl=True if tls is None else tls
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        read_bufsize=2**18,
        max_line_size=SERVER_FIELD_BYTES,
        max_field_size=SERVER_FIELD_BYTES,
        max_headers=SERVER_FIELDS,
    )


# -- what can go wrong -----------------------------------------------------------------------------


class Trouble(Enum):
    """What became of a request that has no answer."""

    UNREACHABLE = "unreachable"  # no connection: nothing was sent
    NO_TLS = "no-tls"  # a connection, but no TLS on it: nothing was sent
    UNSENDABLE = "unsendable"  # it cannot be written as HTTP: nothing was sent
    SILENT = "silent"  # sent, and no sign of an answer for too long
    BAD_HEAD = "bad-head"  # sent, and what came back is no HTTP, or its head is too large
    BROKEN = "broken"  # it was, or may have been, sent, and the connection ended


# The exceptions of one request before the head of its answer.
FOREIGN: Final = (aiohttp.ClientError, OSError, ValueError)


def trouble_of(error: BaseException) -> Trouble:
    """What one of the ``FOREIGN`` exceptions means. The order counts: most are of several kinds."""
    if isinstance(error, aiohttp.ClientSSLError):
        return Trouble.NO_TLS
    if isinstance(error, aiohttp.ClientResponseError):  # not of a status: none of those is an error here
        # In a chunk: the head was fine, and a broken body came with it.
        return Trouble.BROKEN if "in chunk" in error.message else Trouble.BAD_HEAD
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Trouble.UNREACHABLE
    if isinstance(error, TimeoutError):
        return Trouble.SILENT
    if isinstance(error, ValueError):  # aiohttp.InvalidURL is one, too
        return Trouble.UNSENDABLE
    return Trouble.BROKEN


_TOLD: Final[Mapping[Trouble, tuple[type[UpstreamError], str]]] = {
    Trouble.UNREACHABLE: (
        UpstreamUnreachable,
        "The MCP server cannot be reached. Is it running, and is its address right?",
    ),
    Trouble.NO_TLS: (
        UpstreamProtocolError,
        "There is no TLS connection to the MCP server: its certificate is not one that the proxy trusts "
        "(--upstream-ca), or it wants one of the proxy (--upstream-cert), or it speaks no TLS.",
    ),
    Trouble.UNSENDABLE: (UpstreamProtocolError, "The request cannot be sent to the MCP server."),
    Trouble.SILENT: (UpstreamTimeout, "The MCP server accepted the request and then fell silent."),
    Trouble.BAD_HEAD: (
        UpstreamProtocolError,
        "The head of the MCP server's answer cannot be read: it is malformed or over 64 KiB. "
        "What was asked of the server may have been done, and was not asked again.",
    ),
}


def _told(trouble: Trouble) -> Exception:
    """The same in the words of ``transport``."""
    if trouble is Trouble.BROKEN:
        return ConnectionLost()
    kind, text = _TOLD[trouble]
    return kind(text)


# -- one answer ------------------------------------------------------------------------------------


class HttpAnswer:
    """One answer of a server, from its status on. Whoever gets it calls ``close`` or ``let_end``.

    ``at_end()`` says whether the whole body has been read.
    """

    __slots__ = ("_client", "_content", "_ended", "_response", "at_end", "headers", "status")

    def __init__(self, client: "HttpClient", response: aiohttp.ClientResponse) -> None:
        self._client = client
        self._response = response
        content = self._content = response.content
        # Most bodies have come with their heads, so that nothing of a connection's end needs to be heard.
        self._ended = None if content.is_eof() else _EndOfConnection(response)
        self.at_end = content.at_eof
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers

    async def read(self) -> bytes:
        """What has come of the body, or comes next; empty at its end.

        Raises:
            ConnectionLost: it broke off.
            UpstreamTimeout: nothing came for too long.
        """
        try:
            return await self._content.readany()
        except TimeoutError as error:
            raise _told(Trouble.SILENT) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # aiohttp's for a closed connection
            raise ConnectionLost from error

    async def read_beginning(self, size_bytes: int) -> bytes:
        """At most so much of the body, as far as it comes: a beginning is enough. Raises nothing."""
        pieces: list[bytes] = []
        missing = size_bytes
        try:
            while missing > 0 and (piece := await self._content.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
        except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError):
            pass
        return b"".join(pieces)

    def close(self) -> None:
        """Nobody wants more of it: a connection on which there is more is cut."""
        if self._ended is not None:
            self._ended.forget()
        self._response.close()

    def let_end(self) -> None:
        """All that matters was read. The connection serves again, if its body ends within a moment.

        Servers end an event stream just after its last event: the connection returns to its pool by itself
        when that arrives.
        """
        if self._ended is not None:
            self._ended.forget()
        if not self.at_end():
            self._client.let_end(self._response)


class HttpClient:
    """Sends requests. ``close`` cuts what is about to end; the session stays its owner's."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._ending: set[aiohttp.ClientResponse] = set()

    async def request(
        self, verb: str, url: URL, headers: Mapping[str, str], body: bytes | None, patience: Patience
    ) -> HttpAnswer:
        """Send one request; gives its answer from its status on, whatever that is. Redirects are answers.

        Raises:
            UpstreamUnreachable: no connection: nothing was sent.
            UpstreamProtocolError: it cannot be sent, or what came back is not HTTP.
            UpstreamTimeout: no answer for too long.
            ConnectionLost: the connection broke after it was, or may have been, sent.
        """
        try:
            # aiohttp writes a large body in pieces if it is a file, so that it does not hold up the loop.
            response = await self._http.request(
                verb,
                url,
                headers=headers,
                data=body if body is None or len(body) < _LARGE_BYTES else io.BytesIO(body),
                timeout=patience,
                allow_redirects=False,
            )
        except FOREIGN as error:
            raise _told(trouble_of(error)) from error
        return HttpAnswer(self, response)

    def let_end(self, response: aiohttp.ClientResponse) -> None:
        """Wait a moment for the end of a body; one that stays open is cut."""
        self._ending.add(response)
        asyncio.get_running_loop().call_later(_END_OF_STREAM_SECONDS, self._cut, response)

    def _cut(self, response: aiohttp.ClientResponse) -> None:
        self._ending.discard(response)
        # One whose body has ended meanwhile has given its connection back, so that this closes nothing.
        response.close()

    def close(self) -> None:
        """Cut what is about to end."""
        for response in list(self._ending):
            self._cut(response)


class _EndOfConnection:
    """Lets the reader of a body hear that its connection has ended, until it ``forget``s.

    aiohttp (3.14) closes the connection over a malformed chunk and does not tell who waits for the next one:
    the wait would last for ever, as the timeouts end with the connection.
    """

    __slots__ = ("_closed", "_content")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._closed: asyncio.Future[None] | None = None
        connection = response.connection
        if connection is None or connection.protocol is None:  # the body has arrived whole
            return
        self._content = response.content
        closed = self._closed = connection.protocol.closed
        if closed is None:
            self._tell()
            return
        # Once, however many answers there were on this connection before.
        closed.remove_done_callback(_hear)
        closed.add_done_callback(_hear)
        closed.add_done_callback(self._tell)

    def _tell(self, _: object = None) -> None:
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("The connection ended within the body."))

    def forget(self) -> None:
        """Nobody reads any more."""
        if self._closed is not None:
            self._closed.remove_done_callback(self._tell)


def _hear(closed: "asyncio.Future[None]") -> None:
    """Take note of how a connection ended, or asyncio would complain that nobody did."""
    if not closed.cancelled():
        closed.exception()
