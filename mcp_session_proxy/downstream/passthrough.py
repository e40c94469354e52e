"""Every path of the server's origin that is not the MCP endpoint, streamed both ways.

OAuth's well-known documents, health pages, whatever else the server has: they go through unread, but
for the URLs that ``rewriting`` adapts. Nothing here knows of sessions or JSON-RPC, and nothing a
request says can lead to another origin than the server's.
"""

import asyncio
import contextlib
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import aiohttp
import msgspec
from aiohttp import hdrs, web
from aiohttp.connector import AddrInfoType
from multidict import CIMultiDict
from yarl import URL

from ..aio import break_circle
from ..bounds import METADATA_BYTES, PAGE_HELD_BYTES, SERVER_FIELDS, SERVER_HEAD_BYTES
from ..errors import (
    SOURCE,
    BadRequest,
    NotPassed,
    OverBudget,
    ProxyError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..memory import UNBOUNDED, Share
from ..protocol import revisions
from ..protocol.headers import end_to_end_request_headers, end_to_end_response_headers, writable
from ..upstream.http.aiohttp_client import trouble_of
from ..upstream.http.trouble import Trouble
from .following import Reader
from .heartbeats import Heartbeats
from .hops import Network, restate_way
from .paths import Passing, is_endpoint, is_passed
from .rewriting import Rewriter, is_metadata

# Clients read metadata whatever it is called, or not called at all, as long as it is JSON.
_MAY_BE_METADATA: Final = ("json", "text/plain", "application/octet-stream")
_ZLIB: Final = ("gzip", "x-gzip", "deflate")
_UPLOAD_SECONDS: Final = 60.0  # a client that owes a body and sends nothing of it holds a connection upstream
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_NOT_IMPLEMENTED: Final = 501
_READ_BYTES: Final = 32 * 1024
# While a piece is written, as much again is read.
_HELD_TIMES: Final = 2
# aiohttp's own headers, which a request that is passed through must not gain.
_UNWANTED: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)
# Offers to upgrade that every HTTP/1.1 server may silently decline.
_DECLINABLE: Final = frozenset({"h2c", "http/2.0", "tls/1.0", "tls/1.2"})


def _socket_that_holds_little(address: AddrInfoType) -> socket.socket:
    """A socket for a server's pages, which may come without an end and be read by nobody.

    The system would take megabytes of each before the server has to wait.
    """
    family, kind, protocol, *_ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PAGE_HELD_BYTES)
    return connection


def _hold_little(transport: asyncio.BaseTransport | None) -> None:
    """The same towards a client: what the system has not sent is little (Linux and macOS, tcp(7))."""
    connection = None if transport is None else transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if connection is not None and option is not None:
        with contextlib.suppress(OSError):  # it is a unix socket, or has gone
            connection.setsockopt(socket.IPPROTO_TCP, option, PAGE_HELD_BYTES)


def open_client_session(*, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """A client session as :class:`Passthrough` needs it; whoever opens it closes it.

    It neither decodes bodies nor keeps cookies, and has no connection limit of its own.
    """
    return aiohttp.ClientSession(
        auto_decompress=False,
        # A limit would be a second, hidden queue: ``in_flight`` bounds what is under way.
        connector=aiohttp.TCPConnector(
            limit=0, ssl=True if tls is None else tls, socket_factory=_socket_that_holds_little
        ),
        read_bufsize=_READ_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=SERVER_HEAD_BYTES,
        max_field_size=SERVER_HEAD_BYTES,
        max_headers=SERVER_FIELDS,
    )


class PassingRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose for the paths that pass the endpoint by.

    A side that owes something and is silent for ``idle_timeout_seconds`` is given up.
    """

    connect_timeout_seconds: float = 10.0
    idle_timeout_seconds: float = 600.0
    passing: Passing = Passing.ALL
    trusted_proxies: Sequence[Network] = ()

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        """The same in aiohttp's terms."""
        return aiohttp.ClientTimeout(
            total=None, sock_connect=self.connect_timeout_seconds, sock_read=self.idle_timeout_seconds
        )


class Passthrough:
    """The handler for all paths but the MCP endpoint's.

    ``http`` comes from :func:`open_client_session`. ``upstream_origin`` is the server's, without a path;
    ``endpoint_path`` that of its MCP endpoint, which is served elsewhere; ``replicas`` are the origins of its
    equals, by which it may call itself; ``public_url`` is where clients see us, if that is not where we
    listen. ``heartbeats`` finds clients that read nothing, and ``answers`` is the memory for what they have
    not taken yet. ``rules`` may be replaced at any time, for requests from then on.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        upstream_origin: URL,
        endpoint_path: str,
        public_url: str | None,
        *,
        rules: PassingRules,
        heartbeats: Heartbeats,
        answers: Share = UNBOUNDED,
        replicas: Sequence[URL] = (),
    ) -> None:
        if http.auto_decompress:
            raise ValueError("the client session must not decode bodies; see open_client_session")
        self._http = http
        self._origin = upstream_origin.origin()
        self.rules = rules
        self._heartbeats = heartbeats
        self._answers = answers
        self._endpoint_path = endpoint_path
        self.rewriter = Rewriter(
            upstream_origin=str(self._origin),
            endpoint_path=endpoint_path,
            public_url=public_url,
            replicas=[str(replica.origin()) for replica in replicas],
        )

    def challenge(self, value: str) -> str:
        """A challenge of the server's (``WWW-Authenticate``) as clients may have it."""
        return self.rewriter.challenge(value)

    async def handle(
        self, request: web.BaseRequest, cors: Mapping[str, str] = _NO_HEADERS, *, to_endpoint: bool = False
    ) -> web.StreamResponse:
        """Pass one request through. The server must cancel its handlers when their clients leave.

        ``to_endpoint``: it is for the MCP endpoint, and the server needs no help with it.

        ``cors`` headers are added where the answer has none of its own. Errors of ours are plain JSON,
        because the caller need not speak JSON-RPC:
        ``{"error": {"source": ..., "reason": ..., "message": ...}}``.
        """
        if _wants_tunnel(request):
            return _plain_error(
                _NOT_IMPLEMENTED,
                "upgrade-not-supported",
                "The proxy passes HTTP requests through, but neither upgrades nor tunnels.",
                cors,
            )
        try:
            upstream = await self._send(request, to_endpoint=to_endpoint)
        except ProxyError as error:
            return _plain_error(error.http_status, error.reason, error.message, cors)
        try:
            return await self._relay(request, upstream, cors)
        finally:
            # Completely read, its connection is back in the pool already; else this closes it.
            upstream.close()

    async def _send(self, request: web.BaseRequest, *, to_endpoint: bool) -> aiohttp.ClientResponse:
        """Send the request on and wait for the head of the answer.

        Raises:
            BadRequest: the request's target or its body is malformed.
            NotPassed: the path is not for everybody.
            UpstreamUnreachable, UpstreamTimeout, UpstreamProtocolError: there is no answer.
        """
        url = self._target(request, to_endpoint=to_endpoint)
        upload = _Upload(request.content, min(self.rules.idle_timeout_seconds, _UPLOAD_SECONDS))
        try:
            return await self._http.request(
                request.method,
                url,
                headers=self._request_headers(request, url),
                data=upload if request.can_read_body else None,
                skip_auto_headers=_UNWANTED,
                allow_redirects=False,
                timeout=self.rules.timeout,
            )
        except (aiohttp.ClientError, OSError) as error:
            # To aiohttp it looks as if the connection to the server had failed.
            if upload.failed:
                raise BadRequest("The request's body is malformed or incomplete.") from error
            raise _explain(error) from error

    def _target(self, request: web.BaseRequest, *, to_endpoint: bool) -> URL:
        """The same path and query, byte for byte, at the server's origin."""
        target = request.raw_path
        if target[:1] != "/":
            # The absolute form names an origin, which is not for the client to choose.
            target = request.rel_url.raw_path_qs or "/"
        path, question_mark, query = target.partition("#")[0].partition("?")
        if to_endpoint:
            path = self._endpoint_path
        elif is_endpoint(path, self._endpoint_path):
            raise NotPassed(f"This path is another spelling of the MCP endpoint, {self._endpoint_path}.")
        elif not is_passed(path, self.rules.passing, self._endpoint_path):
            raise NotPassed("The proxy does not pass requests for this path through (--passthrough).")
        path = self.rewriter.upstream_path(path)
        try:
            url = URL(f"{self._origin}{path}{question_mark}{query}", encoded=True)
            # Nothing that follows the origin should make another one of it; if it does, it goes nowhere.
            is_ours = url.origin() == self._origin
        except ValueError as error:
            raise BadRequest("The request's target is malformed.") from error
        if not is_ours or not target.isascii():
            raise BadRequest("The request's target is malformed.")
        return url

    def _request_headers(self, request: web.BaseRequest, url: URL) -> CIMultiDict[str]:
        host = url.host_port_subcomponent or ""
        restated = restate_way(
            end_to_end_request_headers(request.headers.items(), host),
            peer=request.remote,
            scheme=request.scheme,
            trusted=self.rules.trusted_proxies,
        )
        headers = CIMultiDict(restated)
        if self._may_be_rewritten(url):
            # In parts it could not be, and encoded it could be in more ways than there are decoders here.
            headers.popall(hdrs.ACCEPT_ENCODING, None)
            headers.popall(hdrs.RANGE, None)
        return headers

    async def _relay(
        self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, cors: Mapping[str, str]
    ) -> web.StreamResponse:
        """Pass the answer on as it comes; an answer that breaks off breaks the client's connection.

        A client that takes nothing of it is cut off, or it would hold a connection to the server for ever.
        """
        reader = Reader(request, self._heartbeats.now)
        self._heartbeats.watch(reader)
        response = web.StreamResponse(
            status=upstream.status,
            reason=None if upstream.reason is None else writable(upstream.reason),
            headers=self._response_headers(upstream, cors),
        )
        try:
            body: AsyncIterator[bytes] = upstream.content.iter_any()
            if self._is_rewritable(upstream):
                body = await self._rewrite_metadata(upstream, response)
            await response.prepare(request)
            _hold_little(request.transport)
            async for chunk in body:
                # Nobody knows whose they are: over the share, they end, and not calls' answers.
                self._answers.take(_HELD_TIMES * len(chunk), large=True)
                try:
                    await reader.take(response.write(chunk))
                finally:
                    self._answers.give_back(_HELD_TIMES * len(chunk))
            await reader.take(response.write_eof())
        except (aiohttp.ClientError, OSError, OverBudget) as error:
            # Whichever side broke: an end that looks complete would be a lie.
            reader.cut_off()
            break_circle(error)
        finally:
            self._heartbeats.unwatch(reader)
        return response

    def _response_headers(
        self, upstream: aiohttp.ClientResponse, cors: Mapping[str, str]
    ) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in end_to_end_response_headers(upstream.headers.items()):
            kind = name.lower()
            if kind in ("location", "content-location"):
                value = self.rewriter.location(value)
            elif kind == "www-authenticate":
                value = self.rewriter.challenge(value)
            headers.add(name, value)
        # The server's own grants stay alone: browsers take two of a kind for none (Fetch, "CORS check").
        if hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in headers:
            headers.extend(cors)
        return headers

    def _may_be_rewritten(self, url: URL) -> bool:
        return self.rewriter.public_url is not None and is_metadata(url.raw_path)

    def _is_rewritable(self, upstream: aiohttp.ClientResponse) -> bool:
        return (
            upstream.status == 200
            and self._may_be_rewritten(upstream.url)
            and upstream.content_type.endswith(_MAY_BE_METADATA)
            and upstream.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() in ("identity", *_ZLIB)
        )

    async def _rewrite_metadata(
        self, upstream: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> AsyncIterator[bytes]:
        """The metadata document with our URLs; one that is too large stays as it is.

        Servers that encode it unasked get it rewritten, too: it leaves decoded.
        """
        body = bytearray()
        async for chunk in upstream.content.iter_any():
            body += chunk
            if len(body) > METADATA_BYTES:
                return _chain(bytes(body), upstream.content.iter_any())
        document = _decode(bytes(body), response.headers.get(hdrs.CONTENT_ENCODING, ""))
        rewritten = self.rewriter.metadata(document)
        # Without a document there is no saying how long ours would be.
        if upstream.method == hdrs.METH_HEAD:
            response.headers.popall(hdrs.CONTENT_LENGTH, None)
        elif rewritten == document:
            return _chain(bytes(body))
        else:
            response.headers[hdrs.CONTENT_LENGTH] = str(len(rewritten))
            response.headers.popall(hdrs.CONTENT_ENCODING, None)
            for digest in ("Content-MD5", "Content-Digest", "Repr-Digest", "Digest"):
                response.headers.popall(digest, None)
        return _chain(rewritten)


class NoOtherPaths:
    """What stands in for ``Passthrough`` before a server that has no URL, and so no other paths either."""

    async def handle(
        self, _: web.BaseRequest, cors: Mapping[str, str] = _NO_HEADERS, *, to_endpoint: bool = False
    ) -> web.StreamResponse:
        """Say so. Nothing can be passed to its endpoint as it came (``to_endpoint``)."""
        assert not to_endpoint
        error = NotPassed("The MCP server behind the proxy has no other paths.")
        return _plain_error(error.http_status, error.reason, error.message, cors)

    def challenge(self, value: str) -> str:
        """There is nothing in it that names the server."""
        return value


def _decode(body: bytes, encoding: str) -> bytes:
    """A body without its content coding; as it is where that is another one, broken, or beyond bounds."""
    if encoding.lower() not in _ZLIB:
        return body
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # of gzip and zlib, whichever it is
    try:
        document = decoder.decompress(body, METADATA_BYTES)
    except zlib.error:
        return body
    return document if decoder.eof else body


async def _chain(first: bytes, rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    if first:
        yield first
    if rest is not None:
        async for chunk in rest:
            yield chunk


class _Upload:
    """A request's body on its way to the server. ``failed`` tells that it broke on the client's side."""

    def __init__(self, content: aiohttp.StreamReader, idle_timeout_seconds: float) -> None:
        self.failed = False
        self._content = content
        self._idle_timeout_seconds = idle_timeout_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                # aiohttp never ends a body whose framing breaks, so silence has to.
                async with asyncio.timeout(self._idle_timeout_seconds):
                    chunk = await self._content.readany()
                if not chunk:
                    return
                yield chunk
        except Exception:
            self.failed = True
            raise


_TOLD: Final[Mapping[Trouble, tuple[type[UpstreamError], str]]] = {
    Trouble.NO_TLS: (UpstreamProtocolError, "There is no TLS connection to the server behind the proxy."),
    Trouble.UNREACHABLE: (UpstreamUnreachable, "The server behind the proxy cannot be reached."),
    Trouble.SILENT: (UpstreamTimeout, "The server behind the proxy did not answer in time."),
    Trouble.BAD_HEAD: (
        UpstreamProtocolError,
        "The head of the answer of the server behind the proxy cannot be read: "
        "it is malformed or over 64 KiB.",
    ),
}
_BROKE: Final = "The server behind the proxy closed the connection without an answer."


def _explain(error: aiohttp.ClientError | OSError) -> ProxyError:
    """An error of aiohttp's before the head of an answer, as one of ours."""
    kind, text = _TOLD.get(trouble_of(error), (UpstreamProtocolError, _BROKE))
    return kind(text)


def _plain_error(status: int, reason: str, message: str, cors: Mapping[str, str]) -> web.Response:
    body = msgspec.json.encode({"error": {"source": SOURCE, "reason": reason, "message": message}})
    return web.Response(status=status, body=body, content_type=revisions.JSON, headers=cors)


def _wants_tunnel(request: web.BaseRequest) -> bool:
    """CONNECT, or an upgrade that would leave HTTP, as a WebSocket does (RFC 9110, section 7.8)."""
    offers = {offer.strip().lower() for offer in request.headers.get(hdrs.UPGRADE, "").split(",")}
    return request.method == hdrs.METH_CONNECT or not offers <= {"", *_DECLINABLE}
