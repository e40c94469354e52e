"""Streamable HTTP towards the server (MCP 2025-11-25, basic/transports, "Streamable HTTP").

A message is a POST, the standalone stream a GET, the end of a session a DELETE; a session is an id in a
header. Redirects within the server's own origin (``/mcp`` to ``/mcp/``) are followed once and remembered;
nothing ever goes to another origin. What a status means is read in ``refusal``, and nowhere above.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from ..errors import NoRoomForAnswer, OverBudget, ProxyError, UpstreamProtocolError
from ..memory import SMALL_BYTES, UNBOUNDED, Share
from ..protocol import jsonrpc, revisions
from ..protocol.depth import DEFAULT_MAX_DEPTH
from ..protocol.jsonrpc import Message
from ..protocol.sse import DEFAULT_MAX_EVENT_BYTES, SseParser
from .cookies import SessionCookies
from .http_client import HttpAnswer, HttpClient, Patience, patience
from .refusal import media_type, read_refusal, why_no_stream
from .transport import Caller, ConnectionLost, Refused, Reply, StreamRefused

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Those after which a POST goes out again as what it was (RFC 9110, section 15.4).
_KEEPING_METHOD: Final = frozenset({307, 308})
_MAX_SHOWN_CHARS: Final = 100
_CACHED_TYPES: Final = 64  # the texts are servers' choice, so the cache has a bound
_GOODBYES: Final = 2
_GOODBYE_SECONDS: Final = 3.0
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]{1,64}")
_JSON_BODY: Final = {"Content-Type": revisions.JSON}
_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class SessionRef:
    """How a request names its session: the server's id, if it gave one, and the version.

    ``cookies`` are those that the server has set on the session; with None, what it sets is not kept.
    """

    session_id: str | None
    version: str | None
    cookies: SessionCookies | None = field(default=None, repr=False, compare=False)
    headers: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """``headers`` say the same to the server, with each request."""
        pairs = ((revisions.SESSION_HEADER, self.session_id), (revisions.VERSION_HEADER, self.version))
        object.__setattr__(
            self, "headers", tuple((name, value) for name, value in pairs if value is not None)
        )


NO_SESSION: Final = SessionRef(None, None)


def fits_a_header(version: str) -> bool:
    """Whether a protocol version can be named in a header."""
    return _HEADER_SAFE.fullmatch(version) is not None


@lru_cache(maxsize=_CACHED_TYPES)
def _is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == revisions.SSE


class HttpReply:
    """The messages of one answer. Implements ``transport.Reply``."""

    __slots__ = ("_answer", "_parser", "_taken", "_transport", "is_stream")

    def __init__(self, transport: "StreamableHttp", answer: HttpAnswer) -> None:
        self._transport = transport
        self._answer = answer
        self._taken = 0
        self._parser: SseParser | None = None
        self.is_stream = _is_event_stream(answer.headers.get("Content-Type", ""))

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

    async def read(self) -> list[Message] | None:
        """The JSON-RPC messages that arrived next; None at the end. Raises as ``transport.Reply.read``."""
        answer = self._answer
        chunk = await answer.read()
        if not self.is_stream:
            if not answer.at_end():
                chunk = await self._read_rest(chunk)
            max_depth = self._transport.max_json_depth
            return jsonrpc.parse_upstream_body(chunk, max_depth=max_depth) if chunk else None
        return self._read_events(chunk) if chunk else None

    def _read_events(self, chunk: bytes) -> list[Message]:
        """The messages of the events that this piece of the stream completes."""
        parser = self._parser = self._parser or SseParser()
        events = parser.feed(chunk)
        if parser.pending_bytes > SMALL_BYTES or self._taken:
            self._account(parser.pending_bytes)
        max_depth = self._transport.max_json_depth
        messages = (jsonrpc.parse_upstream(event.data, max_depth=max_depth) for event in events)
        return [message for message in messages if message is not None]

    async def _read_rest(self, beginning: bytes) -> bytes:
        """The whole body, of which this has come."""
        pieces, size = [beginning], len(beginning)
        while piece := await self._answer.read():
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
        more_bytes, room = size_bytes - self._taken, self._transport.answers
        try:
            if more_bytes > 0:
                room.take(more_bytes, large=True)
            else:
                room.give_back(-more_bytes)
        except OverBudget as error:
            raise NoRoomForAnswer(
                "The MCP server's answer is too large for the memory that is left (--memory-budget). "
                "The request may have been executed."
            ) from error
        self._taken = size_bytes

    def close(self) -> None:
        """Nothing more will be read."""
        if self._taken:
            self._transport.answers.give_back(self._taken)
            self._taken = 0


class _Sending:
    """One message on its way, and the reply to it: the context manager that ``HttpChannel.send`` gives.

    A class of its own rather than a generator: every request of every client comes through here.
    """

    __slots__ = ("_answer", "_body", "_caller", "_channel", "_patience", "_reply")

    def __init__(
        self, channel: "HttpChannel", body: bytes, caller: Caller, patience: Patience | None = None
    ) -> None:
        self._channel = channel
        self._body = body
        self._caller = caller
        self._patience = patience

    async def __aenter__(self) -> HttpReply:
        """The reply, once the server has begun one."""
        channel = self._channel
        transport = channel.transport
        answer = self._answer = await transport.request(
            "POST", channel.ref, self._caller, _JSON_BODY, self._body, self._patience
        )
        if answer.status >= 300:
            raise await self._refusal()
        reply = self._reply = HttpReply(transport, answer)
        return reply

    async def _refusal(self) -> Refused:
        """What an answer outside 2xx means. Nobody will leave the block for it, as nobody has entered it."""
        answer, id_sent = self._answer, self._channel.session_id is not None
        try:
            refused = (await read_refusal(answer)).refused(sent_session_id=id_sent)
        except BaseException:
            answer.close()
            raise
        answer.let_end()
        return refused

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The reply has been read, or nobody wants the rest of it."""
        self._reply.close()
        if kind is None:
            self._answer.let_end()
        else:
            self._answer.close()


class _Opening(_Sending):
    """The same for ``initialize``, whose answer names the session: that is noted before anything can fail."""

    __slots__ = ()

    async def __aenter__(self) -> HttpReply:
        """The reply, once the server has begun one."""
        channel = self._channel
        transport = channel.transport
        answer = self._answer = await transport.request(
            "POST", channel.ref, self._caller, _JSON_BODY, self._body, self._patience
        )
        channel.note_session(answer)
        if answer.status >= 300:
            raise await self._refusal()
        reply = self._reply = HttpReply(transport, answer)
        return reply


class HttpChannel:
    """One session at a server. Implements ``transport.Channel``.

    ``ref`` is how the session is named. A server may name one even as it refuses it: that is not used, but it
    is ended like any other.
    """

    __slots__ = ("_left_behind", "ref", "transport")

    def __init__(self, transport: "StreamableHttp") -> None:
        self.transport = transport
        self.ref = SessionRef(None, None, SessionCookies())
        self._left_behind: str | None = None

    @property
    def silence_seconds(self) -> float:
        """How long the server may say nothing about a request."""
        return self.transport.silence_seconds

    @property
    def session_id(self) -> str | None:
        """The server's id of the session, if it gave one."""
        return self.ref.session_id

    @property
    def version(self) -> str | None:
        """The protocol version that was agreed on, if it can be sent."""
        return self.ref.version

    def open(
        self, body: bytes, caller: Caller, _: bytes, /, *, silence_seconds: float
    ) -> AbstractAsyncContextManager[Reply]:
        """Send ``initialize``; see ``transport.Channel.open``."""
        return _Opening(self, body, caller, self.transport.patience(silence_seconds))

    def note_session(self, answer: HttpAnswer) -> None:
        """Which session this answer to ``initialize`` is of."""
        session_id = answer.headers.get(revisions.SESSION_HEADER)
        if 200 <= answer.status < 300:
            self.ref = SessionRef(session_id, self.ref.version, self.ref.cookies)
        else:
            self._left_behind = session_id

    def agree(self, version: str) -> None:
        """Name this version with all that follows. One that is not fit for a header is not named."""
        if fits_a_header(version):
            self.ref = SessionRef(self.ref.session_id, version, self.ref.cookies)

    def send(
        self,
        body: bytes,
        caller: Caller,
        _: bytes | None = None,
        /,
        *,
        silence_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[Reply]:
        """Send one message; see ``transport.Channel.send``."""
        if silence_seconds is None:
            return _Sending(self, body, caller)
        return _Sending(self, body, caller, self.transport.patience(silence_seconds))

    def open_stream(self, caller: Caller, last_event_id: str | None) -> AbstractAsyncContextManager[Reply]:
        """The standalone stream; see ``transport.Channel.open_stream``."""
        return self._get(caller, last_event_id, self.transport.patience(None))

    def resume(self, caller: Caller, last_event_id: str) -> AbstractAsyncContextManager[Reply]:
        """The stream of a request; see ``transport.Channel.resume``."""
        return self._get(caller, last_event_id, None)

    @asynccontextmanager
    async def _get(
        self, caller: Caller, last_event_id: str | None, patience: Patience | None
    ) -> AsyncIterator[HttpReply]:
        headers = {"Accept": revisions.SSE}
        if last_event_id is not None:
            headers[revisions.LAST_EVENT_ID_HEADER] = last_event_id
        transport = self.transport
        answer = await transport.request("GET", self.ref, caller, headers, None, patience)
        reply = HttpReply(transport, answer)
        try:
            if answer.status != 200 or not reply.is_stream:
                raise StreamRefused(why_no_stream(answer.status))
            yield reply
        finally:
            reply.close()
            answer.close()

    async def close(self, caller: Caller) -> None:
        """DELETE the session, if there is one; the server may not offer that (405): no matter."""
        session_id = self.ref.session_id or self._left_behind
        if session_id is None:
            return
        named = SessionRef(session_id, self.ref.version, self.ref.cookies)
        for _ in range(_GOODBYES):
            try:
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    (await self.transport.request("DELETE", named, caller, _NO_HEADERS, None)).close()
            except (ConnectionLost, TimeoutError):
                continue  # it may not have arrived, and a second one does no harm
            except ProxyError:
                return
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRules:
    """What the operator chose for the way to a server.

    ``request_timeout_seconds`` bounds the silence between two pieces of an answer, not its length.
    """

    connect_timeout_seconds: float
    request_timeout_seconds: float
    max_json_depth: int = DEFAULT_MAX_DEPTH


class StreamableHttp:
    """The transport to one server. Implements ``transport.Transport``.

    ``rules`` may be replaced at any time, for requests from then on. ``answers`` is the memory for large
    answers on their way.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        *,
        rules: HttpRules,
        answers: Share = UNBOUNDED,
    ) -> None:
        self.answers = answers
        self._client = HttpClient(http)
        self._url = url
        self.rules = rules

    @property
    def rules(self) -> HttpRules:
        """The timeouts, and how deep JSON may be."""
        return self._rules

    @rules.setter
    def rules(self, rules: HttpRules) -> None:
        self._rules = rules
        self.max_json_depth = rules.max_json_depth
        self.silence_seconds = rules.request_timeout_seconds
        self._usual_patience = self.patience(rules.request_timeout_seconds)

    def patience(self, silence_seconds: float | None) -> Patience:
        """For a request whose server may be silent for so long, or for ever."""
        return patience(connect_seconds=self._rules.connect_timeout_seconds, silence_seconds=silence_seconds)

    def connect(self) -> HttpChannel:
        """A channel for a session that is to be opened."""
        return HttpChannel(self)

    def close(self) -> None:
        """Cut what is about to end."""
        self._client.close()

    async def request(
        self,
        verb: str,
        session: SessionRef,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | None,
        patience: Patience | None = None,
        *,
        at: URL | None = None,
    ) -> HttpAnswer:
        """Send one request, and follow one redirect; gives the answer from its status on.

        ``at`` is where it was redirected to.

        Raises:
            UpstreamUnreachable, ConnectionLost, UpstreamTimeout: as ``http_client.HttpClient.request``.
            UpstreamProtocolError: as there, or the server redirects to where the request must not go.
        """
        url, cookies = at or self._url, session.cookies
        patience = patience or self._usual_patience
        answer = await self._client.request(
            verb,
            _with_query(url, caller.query) if caller.query else url,
            _headers(session, caller, headers, url),
            body,
            patience,
        )
        if cookies is not None and hdrs.SET_COOKIE in answer.headers:
            cookies.take(answer.headers.getall(hdrs.SET_COOKIE), url)
        if answer.status not in _REDIRECTS or at is not None:
            return answer
        answer.close()
        target = _redirected(url, answer, verb)
        answer = await self.request(verb, session, caller, headers, body, patience, at=target)
        if _is_same_but_for_a_slash(url, target) and _speaks_mcp(answer):
            self._url = target
        return answer


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


def _redirected(asked: URL, answer: HttpAnswer, verb: str) -> URL:
    """Where this one request goes instead.

    A server may send some callers elsewhere, those without a credential to its login page, say. So a
    redirect concerns the request that it answers; only another spelling of the endpoint is worth keeping.

    Raises:
        UpstreamProtocolError: not to the same server, or not with this request's method and body.
    """
    target = _follow(asked, answer.headers.get("Location"))
    if target is None:
        raise UpstreamProtocolError(
            f"The MCP server redirects (HTTP {answer.status}) to another place. "
            "Point the proxy at the final URL."
        )
    keeps = verb == "GET" or answer.status in _KEEPING_METHOD
    if not keeps and not _is_same_but_for_a_slash(asked, target):
        raise UpstreamProtocolError(
            f"The MCP server redirects this request (HTTP {answer.status}) to another page, "
            f"{target.raw_path[:_MAX_SHOWN_CHARS]}. It may want a credential; "
            "or point the proxy at the final URL."
        )
    return target


def _is_same_but_for_a_slash(one: URL, other: URL) -> bool:
    """Whether two paths are the spellings of one endpoint that frameworks redirect between."""
    return one.raw_path.rstrip("/") == other.raw_path.rstrip("/")


def _speaks_mcp(answer: HttpAnswer) -> bool:
    """Whether this may be an MCP endpoint's answer, by its head."""
    is_json_or_stream = media_type(answer.headers) in (revisions.JSON, revisions.SSE)
    return answer.status == 202 or (answer.status < 400 and is_json_or_stream)


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
    try:
        return URL(f"{url.with_query(None)}?{text}", encoded=True)
    except ValueError as error:
        raise UpstreamProtocolError("The request cannot be sent to the MCP server.") from error
