"""Streamable HTTP towards the server (MCP 2025-11-25, basic/transports, "Streamable HTTP").

Foreign exceptions (aiohttp's, the operating system's) are turned into the project's here and
nowhere else. Redirects within the server's own origin (``/mcp`` to ``/mcp/``) are followed once and
remembered; nothing ever goes to another origin.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from .. import __version__
from ..errors import (
    NoRoomForAnswer,
    OverBudget,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..memory import SMALL_BYTES, UNBOUNDED, Share
from ..protocol import jsonrpc, revisions
from ..protocol.depth import DEFAULT_MAX_DEPTH
from ..protocol.headers import explaining_response_headers
from ..protocol.jsonrpc import Message
from ..protocol.sse import DEFAULT_MAX_EVENT_BYTES, SseParser
from .transport import Caller, ConnectionLost, Reply, SessionRef

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Those after which a POST goes out again as what it was (RFC 9110, section 15.4).
_KEEPING_METHOD: Final = frozenset({307, 308})
_MAX_TEXT_BYTES: Final = 64 * 1024
_MAX_SHOWN_CHARS: Final = 100
_CACHED_TYPES: Final = 64  # the texts are servers' choice, so the cache has a bound
_LARGE_BYTES: Final = 512 * 1024
# Servers close idle connections after 5 seconds (uvicorn, Node). Letting go of ours earlier avoids
# sending a call into a connection that is just being closed, whose outcome nobody would know.
_KEEP_CONNECTION_SECONDS: Final = 3.0
_GOODBYE_SECONDS: Final = 3.0
_END_OF_STREAM_SECONDS: Final = 1.0
_NO_TLS: Final = (
    "There is no TLS connection to the MCP server: its certificate is not one that the proxy trusts "
    "(--upstream-ca), or it wants one of the proxy (--upstream-cert), or it speaks no TLS."
)
# Of an answer: cookies, policies and tokens grow fat. aiohttp bounds each line, and the number of lines.
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 512
_BAD_HEAD: Final = (
    "The head of the MCP server's answer cannot be read: it is malformed or over 64 KiB. "
    "What was asked of the server may have been done, and was not asked again."
)
_JSON_BODY: Final = {"Content-Type": revisions.JSON}
# What a request says unless it says otherwise: all that aiohttp would add of its own accord.
_HEADERS: Final = {
    "User-Agent": f"mcp-session-proxy/{__version__}",
    "Accept-Encoding": "identity",
    "Accept": revisions.ACCEPT_BOTH,
}


def http_session(*, auto_decompress: bool = True, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """The HTTP client: unlimited connections, so that it is not a second, hidden pool; no cookies kept."""
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=_KEEP_CONNECTION_SECONDS, ssl=True if tls is None else tls
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=auto_decompress,
        read_bufsize=2**18,
        max_line_size=_MAX_HEAD_BYTES,
        max_field_size=_MAX_HEAD_BYTES,
        max_headers=_MAX_HEADERS,
    )


@lru_cache(maxsize=_CACHED_TYPES)
def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


class HttpReply:
    """One answer of the server. Implements ``transport.Reply``."""

    __slots__ = (
        "_answers",
        "_max_depth",
        "_parser",
        "_response",
        "_taken",
        "content_type",
        "is_stream",
        "status",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, answers: Share, *, max_depth: int = DEFAULT_MAX_DEPTH
    ) -> None:
        self._response = response
        self._answers = answers
        self._taken = 0
        self._max_depth = max_depth
        self._parser: SseParser | None = None
        self.status = response.status
        header = response.headers.get("Content-Type")
        self.content_type = None if header is None else _media_type(header)
        self.is_stream = self.content_type == revisions.SSE

    @property
    def session_id(self) -> str | None:
        """The session id of a 2xx answer."""
        return self._response.headers.get(revisions.SESSION_HEADER) if self._response.ok else None

    @property
    def stray_session_id(self) -> str | None:
        """The session id of an answer outside 2xx."""
        return None if self._response.ok else self._response.headers.get(revisions.SESSION_HEADER)

    @property
    def last_event_id(self) -> str | None:
        """The newest event id of the stream."""
        return None if self._parser is None else self._parser.last_event_id

    @property
    def retry_seconds(self) -> float | None:
        """How long the stream asks to wait before it is resumed."""
        if self._parser is None or self._parser.retry_milliseconds is None:
            return None
        return self._parser.retry_milliseconds / 1000

    def explanation(self) -> Mapping[str, str]:
        """The headers that explain a refusal."""
        return explaining_response_headers(self._response.headers)

    async def read(self) -> list[Message] | None:
        """The JSON-RPC messages that arrived next; None at the end of the body."""
        try:
            chunk = await self._response.content.readany()
            if not self.is_stream and not self._response.content.at_eof():
                chunk = await self._read_rest(chunk)
        except TimeoutError as error:
            raise UpstreamTimeout("The MCP server accepted the request and then fell silent.") from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # aiohttp's for a closed connection
            raise ConnectionLost from error
        if not chunk:
            return None
        if not self.is_stream:
            return jsonrpc.parse_upstream_body(chunk, max_depth=self._max_depth)
        parser = self._parser = self._parser or SseParser()
        events = parser.feed(chunk)
        if parser.pending_bytes > SMALL_BYTES or self._taken:
            self._account(parser.pending_bytes)
        messages = (jsonrpc.parse_upstream(e.data, max_depth=self._max_depth) for e in events)
        return [message for message in messages if message is not None]

    async def _read_rest(self, beginning: bytes) -> bytes:
        """The whole body, of which this has come."""
        pieces, size = [beginning], len(beginning)
        while piece := await self._response.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                self._account(size)
            if size > DEFAULT_MAX_EVENT_BYTES:
                raise UpstreamProtocolError(
                    f"The server sent an answer of more than {DEFAULT_MAX_EVENT_BYTES} bytes."
                )
        return b"".join(pieces)

    def _account(self, size_bytes: int) -> None:
        """So much is in memory of an answer that has not come whole."""
        more_bytes = size_bytes - self._taken
        try:
            if more_bytes > 0:
                self._answers.take(more_bytes, large=True)
            else:
                self._answers.give_back(-more_bytes)
        except OverBudget as error:
            raise NoRoomForAnswer(
                "The MCP server's answer is too large for the memory that is left (--memory-budget). "
                "The request may have been executed."
            ) from error
        self._taken = size_bytes

    def close(self) -> None:
        """Nothing more will be read."""
        if self._taken:
            self._answers.give_back(self._taken)
            self._taken = 0

    async def text(self) -> bytes:
        """The beginning of a body that is not JSON-RPC."""
        pieces: list[bytes] = []
        missing = _MAX_TEXT_BYTES
        try:
            while missing > 0 and (piece := await self._response.content.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
        except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError):
            pass  # what came is enough to judge by
        return b"".join(pieces)


class _Post:
    """One POST under way, as the context manager that ``StreamableHttp.post`` gives.

    A class of its own rather than a generator: every request of every client comes through here.
    """

    __slots__ = ("_body", "_caller", "_reply", "_response", "_session", "_timeout", "_told", "_transport")

    def __init__(
        self,
        transport: "StreamableHttp",
        body: bytes,
        session: SessionRef,
        caller: Caller,
        timeout: aiohttp.ClientTimeout | None,
    ) -> None:
        self._transport = transport
        self._body = body
        self._session = session
        self._caller = caller
        self._timeout = timeout

    async def __aenter__(self) -> HttpReply:
        """The answer, from its status on."""
        response = self._response = await self._transport.send(
            "POST", self._session, self._caller, _JSON_BODY, self._body, self._timeout
        )
        self._told = None if response.content.is_eof() else _EndOfConnection(response)
        transport = self._transport
        reply = self._reply = HttpReply(response, transport.answers, max_depth=transport.max_json_depth)
        return reply

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The answer has been read, or nobody wants the rest of it."""
        self._reply.close()
        if self._told is not None:
            self._told.forget()
        if kind is not None:
            self._response.close()
        elif not self._response.content.at_eof():
            self._transport.let_end(self._response)


class StreamableHttp:
    """The transport to one server. Implements ``transport.Transport``.

    ``request_timeout_seconds`` bounds the silence between two pieces of an answer, not its length.
    ``max_json_depth`` may be changed at any time. ``answers`` is the memory for large ones on their way.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        *,
        connect_timeout_seconds: float,
        request_timeout_seconds: float,
        max_json_depth: int = DEFAULT_MAX_DEPTH,
        answers: Share = UNBOUNDED,
    ) -> None:
        self.answers = answers
        self.max_json_depth = max_json_depth
        self._http = http
        self._url = url
        self._ending: set[aiohttp.ClientResponse] = set()
        self.set_timeouts(connect_seconds=connect_timeout_seconds, request_seconds=request_timeout_seconds)

    def set_timeouts(self, *, connect_seconds: float, request_seconds: float) -> None:
        """Other timeouts, for requests from now on."""
        self.silence_seconds = request_seconds
        self._connect_seconds = connect_seconds
        self._answer_timeout = self._bounded(request_seconds)
        self._listen_timeout = self._bounded(None)

    def _bounded(self, silence_seconds: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_seconds, sock_read=silence_seconds
        )

    def post(
        self, body: bytes, session: SessionRef, caller: Caller, *, silence_seconds: float | None = None
    ) -> "_Post":
        """Send one message; see ``transport.Transport.post``."""
        timeout = None if silence_seconds is None else self._bounded(silence_seconds)
        return _Post(self, body, session, caller, timeout)

    def let_end(self, response: aiohttp.ClientResponse) -> None:
        """Let a body end whose last event was read; one that stays open is cut.

        Servers end an event stream just after its last event: the connection returns to its pool by itself
        when that arrives.
        """
        self._ending.add(response)
        asyncio.get_running_loop().call_later(_END_OF_STREAM_SECONDS, self._cut, response)

    def _cut(self, response: aiohttp.ClientResponse) -> None:
        self._ending.discard(response)
        response.close()

    def close(self) -> None:
        """Cut what is about to end."""
        for response in list(self._ending):
            self._cut(response)

    @asynccontextmanager
    async def listen(
        self,
        session: SessionRef,
        caller: Caller,
        last_event_id: str | None,
        *,
        for_answer: bool = False,
    ) -> AsyncIterator[Reply]:
        """Open or resume a stream; see ``transport.Transport.listen``."""
        headers = {"Accept": revisions.SSE}
        if last_event_id is not None:
            headers[revisions.LAST_EVENT_ID_HEADER] = last_event_id
        timeout = self._answer_timeout if for_answer else self._listen_timeout
        response = await self.send("GET", session, caller, headers, timeout=timeout)
        told = _EndOfConnection(response)
        reply = HttpReply(response, self.answers, max_depth=self.max_json_depth)
        try:
            yield reply
        finally:
            reply.close()
            told.forget()
            response.close()

    async def delete(self, session: SessionRef, caller: Caller) -> int:
        """End the session at the server."""
        async with asyncio.timeout(_GOODBYE_SECONDS):
            response = await self.send("DELETE", session, caller, {})
            response.close()
            return response.status

    async def send(
        self,
        verb: str,
        session: SessionRef,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request; gives its answer, from its status on. Raises as ``transport.Transport.post``."""
        asked = self._url
        timeout = timeout or self._answer_timeout
        try:
            response = await self._request(asked, verb, session, caller, headers, body, timeout)
            if response.status in _REDIRECTS:
                target = _redirected(asked, response, verb)
                response = await self._request(target, verb, session, caller, headers, body, timeout)
                if _is_same_but_for_a_slash(asked, target) and _speaks_mcp(response):
                    self._url = target
        except aiohttp.ClientSSLError as error:
            raise UpstreamProtocolError(_NO_TLS) from error
        except aiohttp.ClientResponseError as error:  # not of a status: none of those is an error here
            if "in chunk" in error.message:  # the head was fine, and a broken body came with it
                raise ConnectionLost from error
            raise UpstreamProtocolError(_BAD_HEAD) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable(
                "The MCP server cannot be reached. Is it running, and is its address right?"
            ) from error
        except TimeoutError as error:
            raise UpstreamTimeout("The MCP server accepted the request and then fell silent.") from error
        except ValueError as error:  # aiohttp.InvalidURL is one, too
            raise UpstreamProtocolError("The request cannot be sent to the MCP server.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost from error
        return response

    async def _request(
        self,
        url: URL,
        verb: str,
        session: SessionRef,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        # aiohttp writes a large body in pieces if it is a file, so that it does not hold up the event loop.
        response = await self._http.request(
            verb,
            _with_query(url, caller.query) if caller.query else url,
            headers=_headers(session, caller, headers, url),
            data=body if body is None or len(body) < _LARGE_BYTES else io.BytesIO(body),
            timeout=timeout,
            allow_redirects=False,
        )
        if session.cookies is not None and hdrs.SET_COOKIE in response.headers:
            session.cookies.take(response.headers.getall(hdrs.SET_COOKIE), url)
        return response


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


def _headers(session: SessionRef, caller: Caller, own: Mapping[str, str], url: URL) -> CIMultiDict[str]:
    """The headers of one request: the caller's, the session's, and those of our ``own`` making."""
    cookies = session.cookies
    if cookies is None or not cookies.kept:
        headers = CIMultiDict(caller.headers)
    else:
        headers = CIMultiDict(cookies.add_to(caller.headers, url))
    headers.update(own)
    headers.update(session.headers)
    return headers


def _redirected(asked: URL, response: aiohttp.ClientResponse, verb: str) -> URL:
    """Where this one request goes instead.

    A server may send some callers elsewhere, those without a credential to its login page, say. So a
    redirect concerns the request that it answers; only another spelling of the endpoint is worth keeping.

    Raises:
        UpstreamProtocolError: not to the same server, or not with this request's method and body.
    """
    target = _follow(asked, response.headers.get("Location"))
    response.close()
    if target is None:
        raise UpstreamProtocolError(
            f"The MCP server redirects (HTTP {response.status}) to another place. "
            "Point the proxy at the final URL."
        )
    keeps = verb == "GET" or response.status in _KEEPING_METHOD
    if not keeps and not _is_same_but_for_a_slash(asked, target):
        raise UpstreamProtocolError(
            f"The MCP server redirects this request (HTTP {response.status}) to another page, "
            f"{target.raw_path[:_MAX_SHOWN_CHARS]}. It may want a credential; "
            "or point the proxy at the final URL."
        )
    return target


def _is_same_but_for_a_slash(one: URL, other: URL) -> bool:
    """Whether two paths are the spellings of one endpoint that frameworks redirect between."""
    return one.raw_path.rstrip("/") == other.raw_path.rstrip("/")


def _speaks_mcp(response: aiohttp.ClientResponse) -> bool:
    """Whether this may be an MCP endpoint's answer, by its head."""
    return response.status == 202 or (
        response.ok and response.content_type in (revisions.JSON, revisions.SSE)
    )


def _follow(asked: URL, location: str | None) -> URL | None:
    """Where a redirect leads, if that is another path of the same origin."""
    try:
        target = None if location is None else asked.join(URL(location))
    except ValueError:
        return None
    if target is None or target.raw_path == asked.raw_path:
        return None
    # A server behind TLS termination may name the wrong scheme: only the path is taken.
    if (target.host, _explicit_port(target)) != (asked.host, _explicit_port(asked)):
        return None
    moved = asked.with_path(target.raw_path, encoded=True)
    return URL(f"{moved}?{asked.raw_query_string}", encoded=True) if asked.raw_query_string else moved


def _explicit_port(url: URL) -> int | None:
    """The port, unless it is the scheme's own."""
    return None if url.is_default_port() else url.port


def _with_query(url: URL, query: str) -> URL:
    """The server's URL with the client's raw query string added to its own."""
    own = url.raw_query_string
    text = f"{own}&{query}" if own else query
    return URL(f"{url.with_query(None)}?{text}", encoded=True)
