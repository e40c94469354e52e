"""One HTTP request to the server and what came of it. Nothing raises: an answer that never came is one, too.

Remembers every session that the server opened, also for what it refused, and ends them all in the end.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Self

import aiohttp
from yarl import URL

from .. import __version__
from ..errors import SOURCE, ProxyError, UpstreamTimeout, UpstreamUnreachable
from ..protocol import jsonrpc, revisions
from ..protocol.headers import explaining_response_headers
from ..protocol.jsonrpc import Response
from ..upstream.http.aiohttp_client import http_session
from ..upstream.http.cookies import SessionCookies
from ..upstream.http.http1 import HttpAnswer
from ..upstream.http.http_sse import HttpSse
from ..upstream.http.refusal import media_type, read_refusal
from ..upstream.http.reply import HttpReply
from ..upstream.http.streamable_http import NO_SESSION, HttpRules, SessionRef, StreamableHttp
from ..upstream.transport import Caller, ConnectionLost, Refused, Reply, first_response
from .audience import METADATA_PATH, metadata_url, read_audience
from .looking import Looker
from .observations import Failure, ServerAnswer
from .old_transport import Look
from .text import conceal

_STREAM_LOOK_SECONDS: Final = 0.3
# A server that is started by its first request takes longer to begin a session than to answer in it.
_PATIENCE: Final = {revisions.INITIALIZE: 4.0}
_MAX_METADATA_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 307, 308})


class Wire:
    """The way of one client to one server, for as long as the block.

    ``timeout_seconds`` is how long a request may take; ``initialize`` may take four times that. A client
    without ``cookies`` keeps none; others keep them from one session to the next, as a browser does.
    """

    def __init__(
        self,
        url: str,
        *,
        cookies: SessionCookies | None,
        headers: tuple[tuple[str, str], ...] = (),
        secrets: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float,
    ) -> None:
        self.url = URL(url)
        self._given_headers = headers
        self._headers = (("User-Agent", f"mcp-session-proxy-check/{__version__}"), *headers)
        self._secrets = secrets
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._cookies = cookies
        # What is to be ended, and the cookies that find it again, also those of a client that keeps none.
        self._open: dict[str, SessionCookies | None] = {}

    async def __aenter__(self) -> Self:
        self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.end_all()
        finally:
            await self._disconnect()

    def apart(self, cookies: SessionCookies | None) -> "Wire":
        """The way of another client, with connections and, if it keeps any, cookies of its own."""
        return Wire(
            str(self.url),
            cookies=cookies,
            headers=self._given_headers,
            secrets=self._secrets,
            tls=self._tls,
            timeout_seconds=self._timeout_seconds,
        )

    def showing(self, authorization: str) -> "Wire":
        """The way of a client that is the same but for this credential."""
        others = tuple(pair for pair in self._given_headers if pair[0].lower() != "authorization")
        return Wire(
            str(self.url),
            cookies=SessionCookies(),
            headers=(*others, ("Authorization", authorization)),
            secrets=self._secrets,
            tls=self._tls,
            timeout_seconds=self._timeout_seconds,
        )

    @property
    def has_token(self) -> bool:
        """Whether it sends a credential in the usual header."""
        return any(name.lower() == "authorization" for name, _ in self._given_headers)

    @property
    def audience(self) -> tuple[str, ...] | None:
        """For whom its bearer token is, if that can be read from it."""
        return read_audience(self._given_headers)

    async def hang_up(self) -> None:
        """Close every connection, and leave the sessions as they are."""
        await self._disconnect()
        self._connect()

    @property
    def cookie_names(self) -> tuple[str, ...]:
        """The cookies that the server has set. Their values are nobody's business."""
        return () if self._cookies is None else self._cookies.names

    async def end_all(self) -> None:
        """End every session that is not ended yet."""
        await asyncio.gather(*(self.end(SessionRef(each, None)) for each in tuple(self._open)))

    async def request(
        self,
        method: str,
        params: Mapping[str, bytes] | None = None,
        session: SessionRef = NO_SESSION,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> ServerAnswer:
        """Ask something. ``params`` are raw JSON members."""
        raw = None if params is None else jsonrpc.write_object(params)
        return await self._post(
            jsonrpc.write_request(b"1", method, raw),
            session,
            headers,
            wants_answer=True,
            seconds=self._timeout_seconds * _PATIENCE.get(method, 1.0),
        )

    async def notify(self, method: str, session: SessionRef) -> ServerAnswer:
        """Send a notification. Servers answer 202, so only the status and a refusal are of interest."""
        return await self._post(jsonrpc.write_notification(method, None), session, (), wants_answer=False)

    async def send_nonsense(self) -> ServerAnswer:
        """Send JSON that is no message. Who refuses that, and how, shows whose server it is."""
        return await self._post(b"{}", NO_SESSION, (), wants_answer=True)

    async def end(self, session: SessionRef) -> ServerAnswer:
        """Send DELETE (MCP 2025-11-25, basic/transports, "Session Management"); 405 is a fit answer, too."""
        named = replace(session, cookies=self._open.pop(session.session_id or "", self._cookies))

        async def ask() -> ServerAnswer:
            found = await self._transport.request("DELETE", named, self._caller(), {}, None)
            found.close()
            return ServerAnswer(status=found.status)

        return await self._bounded("DELETE", session, ask)

    @asynccontextmanager
    async def stream(self, session: SessionRef) -> AsyncIterator["ServerStream"]:
        """Open a GET stream; it is closed with the block."""
        with contextlib.ExitStack() as stack:
            replies: list[Reply] = []

            async def ask() -> ServerAnswer:
                named, accept = self._with_cookies(session), {"Accept": revisions.SSE}
                found = await self._transport.request(
                    "GET", named, self._caller(), accept, None, self._transport.patience(None)
                )
                stack.callback(found.close)
                self._note(found, named.cookies)
                reply = HttpReply(found, self._transport.limits)
                if found.status == 200 and reply.is_stream:
                    replies.append(reply)
                    return ServerAnswer(status=found.status, content_type=media_type(found.headers))
                return await self._read_refusal(found)

            answer = await self._bounded("GET", session, ask)
            yield ServerStream(answer, replies[0] if replies else None)

    async def find_redirect(self) -> str | None:
        """The path that the URL redirects to, if it does. Other requests follow by themselves."""
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._http.post(
                    self.url,
                    data=jsonrpc.write_notification(revisions.INITIALIZED, None),
                    headers=[
                        *self._headers,
                        ("Content-Type", revisions.JSON),
                        ("Accept", revisions.ACCEPT_BOTH),
                    ],
                    allow_redirects=False,
                ) as response,
            ):
                self._keep(response.headers.get(revisions.SESSION_HEADER), self._cookies)
                if response.status in _REDIRECTS:
                    return self.url.join(URL(response.headers.get("Location", ""))).path
        return None

    async def find_resource(self, refusal: ServerAnswer) -> str | None:
        """What tokens must be for, as the server's metadata say (RFC 9728).

        Nobody but the server is asked: metadata that are said to be at another origin are looked for at its
        own.
        """
        own = self.url.origin().with_path(METADATA_PATH + self.url.raw_path.rstrip("/"), encoded=True)
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
            named = metadata_url(refusal)
            url = own if named is None else self.url.join(URL(named))
            if url.origin() != own.origin():
                url = own
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._http.get(url, headers=self._headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    return None
                body = conceal(await response.content.read(_MAX_METADATA_BYTES), self._secrets)
                return jsonrpc.read_string(jsonrpc.read_object(body).get("resource"))
        return None

    async def first_event_type(self) -> str | None:
        """What the first event of a plain GET is called: ``endpoint`` on the transport of 2024-11-05."""
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._http.get(self.url, headers=[*self._headers, ("Accept", revisions.SSE)]) as response,
            ):
                if response.status != 200 or response.content_type != revisions.SSE:
                    return None
                async for line in response.content:
                    name, _, value = line.partition(b":")
                    if name == b"event":
                        return value.decode("utf-8", "replace").strip()
                    if name == b"data":
                        return "message"
        return None

    async def look_at_old_transport(self) -> Look | None:
        """What sessions over HTTP+SSE are like; None if there are none."""
        transport = HttpSse(self._transport, self.url)
        try:
            return await Looker(transport, self._caller(), self._timeout_seconds).look()
        except (ProxyError, ConnectionLost, Refused):
            return None

    # -- below -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._http = http_session(tls=self._tls)
        self._transport = StreamableHttp(
            self.url,
            tls=self._tls,
            rules=HttpRules(
                connect_timeout_seconds=self._timeout_seconds,
                # Each request has a deadline of its own; this one is only for what it leaves behind.
                request_timeout_seconds=self._timeout_seconds * max(_PATIENCE.values()),
            ),
        )

    async def _disconnect(self) -> None:
        self._transport.close()
        await self._http.close()

    def _with_cookies(self, session: SessionRef) -> SessionRef:
        """The session with the client's cookies; a client that keeps none has new, empty ones each time."""
        return replace(session, cookies=SessionCookies() if self._cookies is None else self._cookies)

    def _caller(self, headers: tuple[tuple[str, str], ...] = ()) -> Caller:
        return Caller(headers=(*self._headers, *headers))

    async def _post(
        self,
        body: bytes,
        session: SessionRef,
        headers: tuple[tuple[str, str], ...],
        *,
        wants_answer: bool,
        seconds: float | None = None,
    ) -> ServerAnswer:
        async def ask() -> ServerAnswer:
            named, kind = self._with_cookies(session), {"Content-Type": revisions.JSON}
            found = await self._transport.request("POST", named, self._caller(headers), kind, body)
            try:
                self._note(found, named.cookies)
                if not _is_fine(found):
                    return await self._read_refusal(found)
                response = (
                    await first_response(HttpReply(found, self._transport.limits)) if wants_answer else None
                )
            except BaseException:
                found.close()
                raise
            found.let_end()
            return self._answer(found, response)

        return await self._bounded("POST", session, ask, seconds)

    async def _bounded(
        self,
        verb: str,
        session: SessionRef,
        ask: Callable[[], Awaitable[ServerAnswer]],
        seconds: float | None = None,
    ) -> ServerAnswer:
        """Whatever comes of ``ask``, in time or not."""
        started = asyncio.get_running_loop().time()
        allowed = seconds or self._timeout_seconds
        try:
            async with asyncio.timeout(allowed):
                answer = await ask()
        except (TimeoutError, UpstreamTimeout):
            answer = ServerAnswer(failure=Failure.SILENT, explanation=f"no answer in {allowed:g} s")
        except UpstreamUnreachable as error:
            answer = ServerAnswer(failure=Failure.UNREACHABLE, explanation=_cause(error))
        except ConnectionLost:
            answer = ServerAnswer(
                failure=Failure.BROKEN, explanation="the connection ended without an answer"
            )
        except ProxyError as error:
            answer = ServerAnswer(failure=Failure.UNUSABLE, explanation=error.message)
        return replace(
            answer,
            verb=verb,
            sent_session_id=session.session_id is not None,
            seconds=asyncio.get_running_loop().time() - started,
        )

    def _note(self, found: HttpAnswer, cookies: SessionCookies | None) -> None:
        self._keep(found.headers.get(revisions.SESSION_HEADER), cookies)

    def _keep(self, session_id: str | None, cookies: SessionCookies | None) -> None:
        if session_id is not None:
            self._open.setdefault(session_id, cookies)

    async def _read_refusal(self, found: HttpAnswer) -> ServerAnswer:
        refusal = await read_refusal(found)
        return replace(self._answer(found, refusal.response), body=conceal(refusal.body, self._secrets))

    def _answer(self, found: HttpAnswer, response: Response | None) -> ServerAnswer:
        session_id = found.headers.get(revisions.SESSION_HEADER)
        error = None if response is None or response.error is None else conceal(response.error, self._secrets)
        result = None if response is None or response.result is None else response.result
        return ServerAnswer(
            status=found.status,
            content_type=media_type(found.headers),
            headers=explaining_response_headers(found.headers.items()),
            session_id=session_id if _is_fine(found) else None,
            stray_session=session_id is not None and not _is_fine(found),
            result=None if result is None else conceal(result, self._secrets),
            error=None if error is None else jsonrpc.read_error(error),
            error_id=None if response is None or error is None else response.id,
            error_source=None if error is None else _read_source(error),
        )


class ServerStream:
    """An open GET stream, or the refusal of one."""

    def __init__(self, answer: ServerAnswer, reply: Reply | None) -> None:
        self.answer = answer
        self._reply = reply

    async def has_ended(self) -> bool:
        """Whether the server ends it within a moment."""
        if self._reply is None:
            return True
        try:
            async with asyncio.timeout(_STREAM_LOOK_SECONDS):
                while await self._reply.read() is not None:
                    pass
        except TimeoutError:
            return False
        except (ConnectionLost, ProxyError):
            pass
        return True


def _is_fine(found: HttpAnswer) -> bool:
    """Whether the status is one of success."""
    return 200 <= found.status < 300


def _read_source(error: bytes) -> str | None:
    """Our own name, where the error is one of ours."""
    data = jsonrpc.read_object(jsonrpc.read_object(error).get("data"))
    source = jsonrpc.read_string(data.get("source"))
    return source if source == SOURCE else None


def _cause(error: ProxyError) -> str:
    """What the system says about a connection that did not come about."""
    cause = error.__cause__
    if isinstance(cause, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(cause, TimeoutError):
        return "the connection took too long"
    if isinstance(cause, OSError):
        return os.strerror(cause.errno).lower() if cause.errno else str(cause)
    return error.message
