"""Streamable HTTP towards the server (MCP 2025-11-25, basic/transports, "Streamable HTTP").

A message is a POST, the standalone stream a GET, the end of a session a DELETE; a session is an id in a
header. Redirects within the server's own origin (``/mcp`` to ``/mcp/``) are followed once and remembered;
nothing ever goes to another origin. What a status means is read in ``refusal``, and nowhere above.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Final

import msgspec
from multidict import CIMultiDict
from yarl import URL

from ...errors import ProxyError
from ...memory import UNBOUNDED, Share
from ...protocol import revisions
from ...protocol.depth import DEFAULT_MAX_DEPTH
from ..transport import Caller, Channel, ConnectionLost, Refused, Reply, StreamRefused
from .client import HttpClient, Timeouts, patience
from .cookies import SessionCookies
from .head import write_end, write_fields_or_none, write_post
from .http1 import HttpAnswer
from .redirects import REDIRECTS, is_same_but_for_a_slash, redirected, speaks_mcp
from .refusal import read_refusal, why_no_stream
from .reply import BodyLimits, HttpReply

# One for each try at a goodbye. The first may go over a kept connection that a firewall forgot; the second
# has one of its own, and a busy server may take its time: what it is given up for stays there for good.
_GOODBYE_SECONDS: Final = (3.0, 10.0)
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
    written: bytes | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """``headers`` say the same to the server, with each request; ``written`` are they as bytes."""
        pairs = ((revisions.SESSION_HEADER, self.session_id), (revisions.VERSION_HEADER, self.version))
        headers = tuple((name, value) for name, value in pairs if value is not None)
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "written", write_fields_or_none(headers))


NO_SESSION: Final = SessionRef(None, None)


def fits_a_header(version: str) -> bool:
    """Whether a protocol version can be named in a header."""
    return _HEADER_SAFE.fullmatch(version) is not None


class _Sending(HttpReply):
    """A POST on its way: the context manager that ``HttpChannel.send`` gives, and, once entered, the reply.

    A class rather than a generator, and one object rather than two: every request of every client comes
    through here.
    """

    __slots__ = ("_body", "_caller", "_channel", "_patience")

    names_session: ClassVar[bool] = False

    def __init__(
        self, channel: "HttpChannel", body: bytes, caller: Caller, patience: Timeouts | None = None
    ) -> None:
        self._channel = channel
        self._body = body
        self._caller = caller
        self._patience = patience

    async def __aenter__(self) -> HttpReply:
        """The reply, once the server has begun one."""
        channel = self._channel
        transport = channel.transport
        answer = await transport.post(channel.ref, self._caller, self._body, self._patience)
        if self.names_session:
            # Before anything can fail: a session that a refusal names is ended like any other.
            channel.note_session(answer)
        if answer.status >= 300:
            raise await channel.refusal(answer)
        self._begin(answer, transport.limits)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """The reply has been read, or nobody wants the rest of it."""
        if self._taken:
            self.give_back()
        if kind is None:
            self._answer.let_end()
        else:
            # An answer that nobody waits for any more could still come on this connection, so it is cut.
            self._answer.close()


class _Opening(_Sending):
    """The same for ``initialize``, whose answer names the session."""

    __slots__ = ()

    names_session = True


class HttpChannel:
    """One session at a server. Implements ``transport.Channel``.

    ``ref`` is how the session is named. A server may name one even as it refuses it: that is not used, but it
    is ended like any other.
    """

    __slots__ = ("_left_behind", "ref", "transport")

    def __init__(
        self, transport: "StreamableHttp", session_id: str | None = None, route: bytes | None = None
    ) -> None:
        self.transport = transport
        self.ref = SessionRef(session_id, None, cookies := SessionCookies())
        if route is not None:
            cookies.take_route(route)
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
    def route(self) -> bytes | None:
        """The cookies that a balancer sticks by."""
        return None if self.ref.cookies is None else self.ref.cookies.route()

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

    async def refusal(self, answer: HttpAnswer) -> Refused:
        """What an answer outside 2xx means. It is read to its end here."""
        try:
            refused = (await read_refusal(answer)).refused(sent_session_id=self.session_id is not None)
        except BaseException:
            answer.close()
            raise
        answer.let_end()
        return refused

    def open_stream(self, caller: Caller, last_event_id: str | None) -> AbstractAsyncContextManager[Reply]:
        """The standalone stream; see ``transport.Channel.open_stream``."""
        return self._get(caller, last_event_id, self.transport.patience(None))

    def resume(self, caller: Caller, last_event_id: str) -> AbstractAsyncContextManager[Reply]:
        """The stream of a request; see ``transport.Channel.resume``."""
        return self._get(caller, last_event_id, None)

    @asynccontextmanager
    async def _get(
        self, caller: Caller, last_event_id: str | None, patience: Timeouts | None
    ) -> AsyncIterator[HttpReply]:
        headers = {"Accept": revisions.SSE}
        if last_event_id is not None:
            headers[revisions.LAST_EVENT_ID_HEADER] = last_event_id
        transport = self.transport
        answer = await transport.request("GET", self.ref, caller, headers, None, patience)
        reply = HttpReply(answer, transport.limits)
        try:
            if answer.status != 200 or not reply.is_stream:
                raise StreamRefused(why_no_stream(answer.status))
            yield reply
        finally:
            reply.give_back()
            answer.close()

    def drop(self) -> None:
        """Nothing carries a session but its requests."""

    async def close(self, caller: Caller) -> None:
        """DELETE the session, if there is one; the server may not offer that (405): no matter."""
        session_id = self.ref.session_id or self._left_behind
        if session_id is None:
            return
        named = SessionRef(session_id, self.ref.version, self.ref.cookies)
        for seconds in _GOODBYE_SECONDS:
            try:
                async with asyncio.timeout(seconds):
                    (await self.transport.request("DELETE", named, caller, _NO_HEADERS, None)).close()
            except (ConnectionLost, TimeoutError):
                continue  # it may not have arrived, and a second one does no harm
            # It takes no connections, or speaks no HTTP, and would not do better in a moment.
            except ProxyError:
                return
            return


class HttpRules(msgspec.Struct, frozen=True, kw_only=True):
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

    sessions_only = False

    def __init__(
        self, url: URL, *, rules: HttpRules, tls: ssl.SSLContext | None = None, answers: Share = UNBOUNDED
    ) -> None:
        self._answers = answers
        self._client = HttpClient(url, tls)
        self._go_to(url)
        self.rules = rules

    def _go_to(self, url: URL) -> None:
        self._url = url
        self._post = write_post(url)

    @property
    def rules(self) -> HttpRules:
        """The timeouts, and how deep JSON may be."""
        return self._rules

    @rules.setter
    def rules(self, rules: HttpRules) -> None:
        self._rules = rules
        # Worked out now, because every request needs them.
        self.limits = BodyLimits(rules.max_json_depth, self._answers)
        self.silence_seconds = rules.request_timeout_seconds
        self._usual_patience = self.patience(rules.request_timeout_seconds)

    def patience(self, silence_seconds: float | None) -> Timeouts:
        """For a request whose server may be silent for so long, or for ever."""
        return patience(connect_seconds=self._rules.connect_timeout_seconds, silence_seconds=silence_seconds)

    def connect(self) -> HttpChannel:
        """A channel for a session that is to be opened."""
        return HttpChannel(self)

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> HttpChannel:
        """A channel for a session that stands already; of its cookies only those are left of the route."""
        return HttpChannel(self, session_id, route)

    async def reconsider(self, refused: Refused, caller: Caller) -> Channel | None:  # noqa: ARG002
        """There is no other way."""
        return None

    def close(self) -> None:
        """Cut all connections."""
        self._client.close()

    async def post(
        self, session: SessionRef, caller: Caller, body: bytes, patience: Timeouts | None = None
    ) -> HttpAnswer:
        """``request`` for what nearly all requests are: nothing in it has to be merged or worked out anew."""
        fields, named, cookies = caller.written, session.written, session.cookies
        if fields is None or named is None or caller.query or (cookies is not None and cookies.kept):
            return await self.request("POST", session, caller, _JSON_BODY, body, patience)
        url = self._url
        head = b"".join((self._post, fields, named, write_end(len(body))))
        answer = await self._client.send(head, body, patience or self._usual_patience)
        if answer.sets_cookies or answer.status in REDIRECTS:
            return await self._follow(answer, url, "POST", session, caller, _JSON_BODY, body, patience)
        return answer

    async def request(
        self,
        verb: str,
        session: SessionRef,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | None,
        patience: Timeouts | None = None,
        *,
        at: URL | None = None,
    ) -> HttpAnswer:
        """Send one request, and follow one redirect; gives the answer from its status on.

        ``at`` is where it was redirected to.

        Raises:
            UpstreamUnreachable, ConnectionLost, UpstreamTimeout: as ``client.HttpClient.request``.
            UpstreamProtocolError: as there, or the server redirects to where the request must not go.
        """
        url, cookies = at or self._url, session.cookies
        sent = CIMultiDict(caller.headers if cookies is None else cookies.add_to(caller.headers, url))
        # What MCP says by headers takes the place of whatever a caller sent by the same names.
        sent.update(headers)
        sent.update(session.headers)
        answer = await self._client.request(
            verb, url, sent.items(), body, patience or self._usual_patience, query=caller.query
        )
        # Followed once: a server that redirects back and forth is shown as it is.
        if at is not None:
            _take_cookies(answer, session, url)
            return answer
        return await self._follow(answer, url, verb, session, caller, headers, body, patience)

    async def _follow(
        self,
        answer: HttpAnswer,
        asked: URL,
        verb: str,
        session: SessionRef,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | None,
        patience: Timeouts | None,
    ) -> HttpAnswer:
        """The answer of a request, or of the one that it is redirected to."""
        _take_cookies(answer, session, asked)
        if answer.status not in REDIRECTS:
            return answer
        answer.close()
        target = redirected(asked, answer, verb)
        answer = await self.request(verb, session, caller, headers, body, patience, at=target)
        # Else it stays this request's affair: who is sent to a login page takes nobody along.
        if is_same_but_for_a_slash(asked, target) and speaks_mcp(answer):
            self._go_to(target)
        return answer


def _take_cookies(answer: HttpAnswer, session: SessionRef, url: URL) -> None:
    if session.cookies is not None and answer.sets_cookies:
        session.cookies.take(answer.headers.getall("Set-Cookie"), url)
