"""HTTP+SSE towards the server: the transport of the oldest remote servers.

MCP 2024-11-05, basic/transports, "HTTP with SSE". A session is one GET, whose event stream names the
*endpoint* in its first event and then brings whatever the server says; a message to the server is a POST to
that endpoint. So a session ends with its stream, whoever ends that, and nothing can be resumed. ``duplex``
makes of it what sessions and exchanges know.

What a POST is answered tells only that the message was taken (2xx), which some servers say when all is done
that it asked for. What a refusal means is read where that of Streamable HTTP is.
"""

import asyncio
import re
from typing import Final

from yarl import URL

from ...aio import Tasks, in_pieces
from ...errors import ProxyError, SessionLost, UpstreamProtocolError, UpstreamTimeout
from ...protocol import large, revisions
from ...protocol.jsonrpc import Message
from ...protocol.sse import SseEvent
from ..duplex import DuplexSession, Link
from ..inbox import Sweeper
from ..transport import Caller, Channel, ConnectionLost, Refused
from .cookies import SessionCookies
from .http1 import HttpAnswer
from .redirects import REDIRECTS, redirected
from .refusal import read_refusal
from .reply import HttpReply
from .streamable_http import HttpRules, SessionRef, StreamableHttp, fits_a_header

ENDPOINT_SECONDS: Final = 10.0
_ENDPOINT: Final = "endpoint"
# What a request line can hold; servers and balancers take no longer one.
_FIT_ENDPOINT: Final = re.compile(rb"[\x21-\x7e]{1,8000}")
_WORD_BYTES: Final = 64 * 1024


class EventStream(HttpReply):
    """The event stream that carries a session, from ``read_endpoint`` on."""

    __slots__ = ("_behind",)

    def __init__(self, answer: HttpAnswer, transport: StreamableHttp) -> None:
        super().__init__(answer, transport.limits)
        self._behind: list[SseEvent] = []  # what has come together with the first event

    async def read_endpoint(self) -> bytes:
        """What the first event names.

        Raises:
            UpstreamProtocolError: there is none, or it is another one.
            ConnectionLost, NoRoomForAnswer: as ``read``.
        """
        events: list[SseEvent] = []
        while not events:
            chunk = await self._answer.read()
            if not chunk:
                raise UpstreamProtocolError(
                    "The MCP server's event stream ended before it named an endpoint."
                )
            events = self._feed(chunk)
        if events[0].type != _ENDPOINT:
            raise UpstreamProtocolError("The MCP server's event stream does not begin with an endpoint.")
        self._behind = events[1:]
        return events[0].data.strip()

    async def read(self) -> list[Message] | None:
        """The messages that arrived next, none for a mere sign of life; None at the end.

        Raises as ``transport.Reply.read``.
        """
        behind, self._behind = self._behind, []
        if behind:
            return await self._messages(behind)
        chunk = await self._answer.read()
        return await self._messages(self._feed(chunk)) if chunk else None

    async def _messages(self, events: list[SseEvent]) -> list[Message]:
        # One event may hold a batch (MCP 2024-11-05 and 2025-03-26, basic, "Batching").
        bodies = [event.data for event in events if event.type == "message"]
        return await in_pieces(large.read_bodies(bodies, max_depth=self._limits.max_json_depth))

    def close(self) -> None:
        """Nobody reads any more: the connection ends, and with it the session."""
        self.give_back()
        self._answer.close()


class SseLink:
    """One event stream and the POSTs beside it. Implements ``duplex.Link``.

    ``endpoint`` is where messages go, at the same origin as the stream.
    """

    def __init__(
        self,
        session: DuplexSession,
        stream: EventStream,
        endpoint: URL,
        http: StreamableHttp,
        ref: SessionRef,
    ) -> None:
        self._session = session
        self._stream = stream
        self._endpoint = endpoint
        self._http = http
        self._ref = ref
        self._readable = asyncio.Event()
        self._readable.set()
        self._posts = Tasks()
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="event stream")

    # -- duplex.Link ---------------------------------------------------------------------------------

    def send(self, body: bytes, caller: Caller) -> asyncio.Future[None]:
        """POST one message; see ``duplex.Link.send``."""
        return self._posts.spawn(self._post(body, caller), "post")

    def pause(self) -> None:
        """Read no more for now: TCP slows the server down."""
        self._readable.clear()

    def resume(self) -> None:
        """Read on."""
        self._readable.set()

    async def close(self, caller: Caller) -> None:  # noqa: ARG002
        """Close the stream: there is no other goodbye."""
        self.drop()

    def drop(self) -> None:
        """Close the stream, and cut what is still being sent."""
        self._reading.cancel()
        self._cut()

    def _cut(self) -> None:
        self._posts.cancel()
        self._stream.close()

    # -- what comes ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Give what the stream brings to the session, to its end."""
        session, error = self._session, None
        try:
            while (messages := await self._stream.read()) is not None:
                for message in messages:
                    session.take(message)
                if not messages:
                    session.heard()
                await self._readable.wait()
            why = "its event stream ended"
        except ConnectionLost:
            why = "its event stream broke off"
        except ProxyError as found:
            why, error = "its event stream cannot be read", found
        session.end(why, error=error)
        self._cut()

    # -- what goes -------------------------------------------------------------------------------------

    async def _post(self, body: bytes, caller: Caller) -> None:
        """Send one message. Raises as ``transport.Channel.send``."""
        answer = await self._request(body, caller, self._endpoint)
        if answer.status in REDIRECTS:
            answer.close()
            answer = await self._request(body, caller, redirected(self._endpoint, answer, "POST"))
        try:
            if not 200 <= answer.status < 300:
                raise (await read_refusal(answer)).refused(sent_session_id=True)
            await answer.read_beginning(_WORD_BYTES)
        except BaseException:
            answer.close()
            raise
        answer.let_end()

    async def _request(self, body: bytes, caller: Caller, url: URL) -> HttpAnswer:
        version, ref = self._session.version, self._ref
        if version is not None and fits_a_header(version):
            ref = SessionRef(None, version, ref.cookies)
        http, headers = self._http, {"Content-Type": revisions.JSON}
        said = _without_what_is_said(caller, url)
        # A server may be silent here and talk on the stream, so whoever sends bounds this.
        return await http.request("POST", ref, said, headers, body, http.patience(None), at=url)


class HttpSse:
    """The transport to one server. Implements ``transport.Transport``.

    ``http`` sends its requests; ``url`` is where the event stream is opened. ``rules`` may be replaced at any
    time, for requests from then on.
    """

    sessions_only = True

    def __init__(self, http: StreamableHttp, url: URL) -> None:
        self._http = http
        self._url = url
        self._sweeper = Sweeper(http.silence_seconds)

    @property
    def rules(self) -> HttpRules:
        """The timeouts, and how deep JSON may be."""
        return self._http.rules

    @rules.setter
    def rules(self, rules: HttpRules) -> None:
        self._http.rules = rules
        self._sweeper.silence_seconds = rules.request_timeout_seconds

    def connect(self) -> DuplexSession:
        """A channel for a session that is to be opened."""

        async def open_link(session: DuplexSession, caller: Caller) -> Link:
            return (await self.open(caller)).carry(session)

        return DuplexSession(open_link, self._sweeper)

    def connect_over(self, opened: "OpenedStream") -> DuplexSession:
        """The same, over a stream that has been opened: it has to be used, or closed."""

        async def open_link(session: DuplexSession, _: Caller) -> Link:
            return opened.carry(session)

        return DuplexSession(open_link, self._sweeper)

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> Channel:  # noqa: ARG002
        """Sessions live no longer than their streams."""
        raise SessionLost("A session over HTTP+SSE ends with its event stream.")

    async def reconsider(self, refused: Refused, caller: Caller) -> Channel | None:  # noqa: ARG002
        """There is no other way."""
        return None

    def close(self) -> None:
        """Cut what is about to end."""
        self._http.close()

    async def open(self, caller: Caller) -> "OpenedStream":
        """Open an event stream, and wait for its endpoint.

        Raises:
            Refused: the server refuses it.
            UpstreamProtocolError: its answer is no event stream of this kind.
            UpstreamUnreachable, ConnectionLost, UpstreamTimeout: as ``StreamableHttp.request``, or no
                endpoint was named in 10 s.
        """
        http = self._http
        ref = SessionRef(None, None, SessionCookies())
        headers = {"Accept": revisions.SSE, "Cache-Control": "no-store"}
        answer = await http.request("GET", ref, caller, headers, None, http.patience(None))
        stream = EventStream(answer, http)
        try:
            if answer.status != 200:
                raise (await read_refusal(answer)).refused(sent_session_id=False)
            if not stream.is_stream:
                raise UpstreamProtocolError("The MCP server answers a GET, but not with an event stream.")
            async with asyncio.timeout(ENDPOINT_SECONDS):
                named = await stream.read_endpoint()
            return OpenedStream(stream, self._url, named, http, ref)
        except TimeoutError as error:
            stream.close()
            raise UpstreamTimeout(
                f"The MCP server opened an event stream and named no endpoint in {ENDPOINT_SECONDS:g} s."
            ) from error
        except BaseException:
            stream.close()
            raise


class OpenedStream:
    """An event stream, opened at ``url``, that has named its endpoint and carries no session yet."""

    def __init__(
        self, stream: EventStream, url: URL, named: bytes, http: StreamableHttp, ref: SessionRef
    ) -> None:
        self._stream = stream
        self._url = url
        self._named = named
        self._http = http
        self._ref = ref

    def carry(self, session: DuplexSession) -> SseLink:
        """Let it carry this session.

        Raises:
            UpstreamProtocolError: its endpoint is at another origin, or nowhere; then it is closed.
        """
        try:
            endpoint = _endpoint(self._url, self._named)
        except ProxyError:
            self.close()
            raise
        return SseLink(session, self._stream, endpoint, self._http, self._ref)

    def close(self) -> None:
        """Nobody wants it."""
        self._stream.close()


def _endpoint(url: URL, named: bytes) -> URL:
    """Where messages go: a path of the stream's own origin, for credentials travel with every one of them."""
    if _FIT_ENDPOINT.fullmatch(named) is None:
        raise UpstreamProtocolError("The MCP server names an endpoint that is no URL.")
    try:
        target = url.join(URL(named.decode(), encoded=True))
        if target.origin() != url.origin():
            raise UpstreamProtocolError(
                "The MCP server wants messages to be sent to another origin than its own. "
                "Is its public address other than the one that the proxy was given?"
            )
    except ValueError as error:
        raise UpstreamProtocolError("The MCP server names an endpoint that is no URL.") from error
    # User information is that of the configured URL, and a fragment is nobody's.
    path = url.with_path(target.raw_path, encoded=True).with_fragment(None)
    query = target.raw_query_string
    return URL(f"{path}?{query}", encoded=True) if query else path


def _without_what_is_said(caller: Caller, endpoint: URL) -> Caller:
    """The caller without what its query says by the endpoint's own names: these name the session."""
    if not caller.query:
        return caller
    taken = set(endpoint.query)
    kept = [pair for pair in caller.query.split("&") if URL(f"?{pair}").query.keys().isdisjoint(taken)]
    return Caller(headers=caller.headers, query="&".join(kept))
