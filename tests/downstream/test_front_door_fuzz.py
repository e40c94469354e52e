"""The front door under requests that nobody chose with care: always an answer, never a bug of ours.

A whole proxy runs in front of a small server; what it is sent is random, at HTTP's level and below.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from fakes import Recorder
from http_server import HttpServer
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import INITIALIZE, call
from proxy_bench import BOTH, Bench

from mcp_session_proxy.protocol import revisions

pytestmark = pytest.mark.slow

# What a client can get for a request of its own making, in front of a server that behaves.
EXPECTED = {200, 202, 204, 400, 403, 404, 405, 413, 415, 417, 501, 502, 503, 504}
PATIENCE_SECONDS = 30
OPTIONS = {
    "acquire_timeout": "300ms",
    "heartbeat": "50ms",
    "max_body_bytes": 64 * 1024,
    "max_sessions": 20,
    "request_timeout": "1s",
}

printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
header_values = (
    st.sampled_from(
        [
            "",
            "2026-07-28",
            "2025-11-25",
            "2030-01-01",
            "a, b",
            "=?base64?!?=",
            "=?base64?dG9vbA==?=",
            "tools/call",
            BOTH,
            "text/event-stream",
            "application/json;q=0",
            "http://127.0.0.1",
            "null",
            "é",
            "x" * 3000,
        ]
    )
    | printable
)
header_names = st.sampled_from(
    [
        revisions.SESSION_HEADER,
        revisions.VERSION_HEADER,
        revisions.METHOD_HEADER,
        revisions.NAME_HEADER,
        revisions.LAST_EVENT_ID_HEADER,
        "Mcp-Param-A",
        "Accept",
        "Authorization",
        "Cookie",
        "Origin",
        "Connection",
        "Content-Type",
        "Content-Encoding",
        "Upgrade",
        "Access-Control-Request-Headers",
        "X-Forwarded-For",
        "TE",
    ]
)
leaves = st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=8) | st.booleans()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["_meta", "name", "uri", "arguments", "progressToken", "requestState", "requestId"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
METHODS = st.sampled_from([*sorted(revisions.KNOWN_METHODS), "notifications/cancelled", "x"])
META = {revisions.META_VERSION: "2026-07-28", revisions.META_CAPABILITIES: {}}
messages = st.one_of(
    st.just(INITIALIZE),
    st.builds(call, st.integers() | st.text(max_size=5), METHODS),
    st.builds(call, st.just(1), METHODS, _meta=st.just(META), name=st.text(max_size=5)),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": METHODS}, optional={"params": values, "id": leaves}
    ),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "id": leaves}, optional={"result": values, "error": values}
    ),
    values,
)
bodies = st.one_of(
    messages.map(lambda message: json.dumps(message).encode()),
    st.lists(messages, max_size=4).map(lambda batch: json.dumps(batch).encode()),
    st.sampled_from(
        [b"", b"[" * 30_000, b"\xff", b'{"a":' * 20_000, b" " * 70_000, b"[" + b"7," * 200 + b"7]"]
    ),
    st.binary(max_size=100),
)
verbs = st.sampled_from(["POST"] * 6 + ["GET", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH", "TRACE"])
paths = st.sampled_from(
    ["/mcp"] * 8 + ["/mcp/", "/mcp/../mcp", "/%6dcp", "//mcp", "/other", "/mcp?a=1", "/%ff"]
)


class TolerantServer(HttpServer):
    """Answers 400 where the other one would fail, and has a page."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/mcp":
            return web.Response(text="a page")
        try:
            return await super().answer(request)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return web.Response(status=400)


def with_bench(check: Callable[[Bench, Recorder], Awaitable[None]], recorder: Recorder) -> None:
    """Run a check against a proxy of its own."""

    async def run() -> None:
        async with TolerantServer() as server, Bench(server) as bench:
            await bench.start(**OPTIONS)
            bench.watch(recorder)
            await check(bench, recorder)

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(verbs, paths, bodies, st.dictionaries(header_names, header_values, max_size=5)),
        min_size=1,
        max_size=12,
    )
)
def test_requests(requests):
    """Whatever the method, the path, the headers and the body: an answer of a known kind, in time."""

    async def check(bench: Bench, recorder: Recorder) -> None:
        session = ""
        for verb, path, body, headers in requests:
            sent = {"Accept": BOTH, **headers}
            if sent.get(revisions.SESSION_HEADER) == "":
                sent[revisions.SESSION_HEADER] = session
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    async with bench.http.request(
                        verb,
                        bench.proxy.listen_url + path,
                        data=body or None,
                        headers=sent,
                        allow_redirects=False,
                    ) as response:
                        session = response.headers.get(revisions.SESSION_HEADER, session)
                        if verb != "GET":
                            await response.read()
                        assert response.status in EXPECTED, (response.status, await response.text())
                except aiohttp.ClientPayloadError:
                    continue  # the other server's answer broke off, and so does ours
        assert recorder.named("proxy.bug") == []

    with_bench(check, Recorder())


lines = st.one_of(
    st.sampled_from(
        [
            b"Host: localhost",
            b"Content-Length: 2",
            b"Content-Length: -1",
            b"Content-Length: 2, 3",
            b"Host: a b",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: identity, chunked",
            b"Connection: close",
            b"Expect: 100-continue",
            b"Expect: x",
            b"Content-Encoding: gzip",
            b"Content-Encoding: br",
            b" folded",
            b"Upgrade: websocket\r\nConnection: upgrade",
            b"Mcp-Session-Id: a\x00b",
            b"X: " + b"y" * 9000,
            b":",
        ]
    ),
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
)
heads = st.sampled_from(
    [
        b"POST /mcp HTTP/1.1",
        b"GET /mcp HTTP/1.0",
        b"GET http://evil.example/mcp HTTP/1.1",
        b"GET * HTTP/1.1",
        b"CONNECT evil.example:80 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"POST /mcp",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(heads, st.lists(lines, max_size=5), st.binary(max_size=30)), min_size=1, max_size=3)
)
def test_bytes(requests):
    """Whatever bytes come over a connection, it ends, and nothing of ours breaks."""

    async def check(bench: Bench, recorder: Recorder) -> None:
        host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for head, fields, body in requests:
            writer.write(b"\r\n".join([head, *fields]) + b"\r\n\r\n" + body)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        writer.close()
        assert b" 500 " not in answer
        assert b"Traceback" not in answer
        assert recorder.named("proxy.bug") == []

    with_bench(check, Recorder())
