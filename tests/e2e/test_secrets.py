"""Nothing that callers show as a credential comes out again: not in a log, a metric, a page or an error."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer
from messages import INITIALIZE, call
from proxy_bench import BOTH
from token_issuer import Issuer
from token_server import TokenServer, bearer, token, unsigned

from .launch import Fleet, Proxy

pytestmark = pytest.mark.slow

# Every place where a caller may put a secret holds this word, and one of its own for the report.
MARK = "hunter2"
CREDENTIALS = {
    "Authorization": f"Bearer {MARK}-authorization",
    "Proxy-Authorization": f"Basic {MARK}-proxy",
    "Cookie": f"session={MARK}-cookie",
    "X-Api-Key": f"{MARK}-api-key",
    "X-Tenant-Id": f"{MARK}-tenant",
    "X-Mcp-Secret": f"{MARK}-mcp-secret",
}
QUERY = f"?api_key={MARK}-query"
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "openai/session": f"{MARK}-conversation",
}
MODERN = call(method="tools/list", _meta=MODERN_META)
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
# Requests that no HTTP client would send.
ROUGH = [
    b"GET /mcp?key=hunter2 HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET http://user:hunter2@127.0.0.1/other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET http://user:hunter2@[bad/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"POST //user:hunter2@evil.example/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"hunter2 hunter2 hunter2\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization hunter2\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: hunter2\x00\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: hunter2 hunter2\r\nConnection: close\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: http://hunter2\r\nConnection: close\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"hunter2" * 5000 + b"\r\n\r\n",
    b"GET /" + b"hunter2" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: hunter2\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nhunter2",
    b"GET /health\r\nAuthorization: hunter2\r\n\r\n",
    b"GET /%68\r\nhunter2: 1 HTTP/1.1\r\n\r\n",
]


async def _rough(origin: str, request: bytes) -> bytes:
    """What comes back for raw bytes."""
    host, port = origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    if writer.can_write_eof():
        writer.write_eof()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


class _Caller:
    """Sends requests with secrets everywhere, and keeps what comes back."""

    def __init__(self, http: aiohttp.ClientSession, proxy: Proxy) -> None:
        self.heard: list[str] = []
        self._http = http
        self._proxy = proxy

    async def send(self, verb: str, path: str, body: object = None, **headers: str) -> str | None:
        """One request; gives the session id of the answer."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {**CREDENTIALS, "Accept": BOTH, "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(
            verb, self._proxy.origin + path, data=data, headers=sent, allow_redirects=False
        ) as response:
            text = (await response.read()).decode(errors="replace")
            self.heard.append(f"{response.status} {dict(response.headers)} {text}")
            return response.headers.get("Mcp-Session-Id")


async def _gone(_request: web.Request, _message: Any) -> web.StreamResponse:
    return web.json_response({"error": "Session not found"}, status=404)


async def _broken(request: web.Request, _message: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _refused(_request: web.Request, _message: Any) -> web.StreamResponse:
    return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="no")


def _jwt() -> str:
    """A token whose claims hold the word, and whose signature is it; each is another one."""
    head, payload, _ = token(MARK, iss="https://issuer.example", client_id=MARK, email=MARK).split(".")
    return f"{head}.{payload}.{MARK}"


async def _drive(caller: _Caller, server: HttpServer, proxy: Proxy) -> None:
    mcp = "/mcp" + QUERY
    session = await caller.send("POST", mcp, INITIALIZE) or ""
    for body in (
        call(),
        MODERN,
        [call(), 7],
        b"{",
        b"[",
        call(7.5),
        {"id": 7},
        call(method=f"{MARK}-method"),
    ):
        await caller.send("POST", mcp, body, Mcp_Session_Id=session)
        await caller.send("POST", mcp, body)
    await caller.send("POST", mcp, MODERN, **MODERN_HEADERS)
    for name in ("Mcp-Session-Id", "Last-Event-ID", "MCP-Protocol-Version", "Mcp-Name", "Mcp-Method"):
        await caller.send("POST", mcp, MODERN, **{**MODERN_HEADERS, name: f"{MARK}-{name}"})
        await caller.send("POST", mcp, call(), **{name: f"{MARK}-{name}"})
    for verb in ("DELETE", "OPTIONS", "PUT", "HUNTER"):
        await caller.send(verb, mcp, Mcp_Session_Id=session)
    for path in ("/other", "/mcp/../mcp", "/%ff%fe", "/.well-known/oauth-protected-resource"):
        await caller.send("GET", path + QUERY)
    await caller.send("GET", "/other" + QUERY, Origin=f"http://{MARK}.example")
    await caller.send("GET", "/other" + QUERY, Host=f"{MARK}.example")
    for trouble in (_gone, _broken, _refused):
        server.on["tools/call"] = server.on["initialize"] = trouble
        await caller.send("POST", mcp, call(), Mcp_Session_Id=session)
        await caller.send("POST", mcp, call(), Authorization=f"Bearer {MARK}-other")
    server.on.clear()
    for _ in range(3):  # at this server, any signature will do
        await caller.send("POST", mcp, call(), Authorization=f"Bearer {_jwt()}")
    for request in ROUGH:
        caller.heard.append((await _rough(proxy.origin, request)).decode(errors="replace"))
        await _rough(proxy.admin, request)  # for what the log says about it
    for path in (
        *("/", "/metrics", "/healthz", "/readyz", "/sessions", "/nothing"),
        *("/api/v1/status", "/api/v1/events", "/api/v1/openapi.json"),
    ):
        async with caller._http.get(proxy.admin + path + QUERY, headers=CREDENTIALS) as response:
            caller.heard.append(f"{path} {response.status} {await response.text()}")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_credentials_never_come_out_again(
    owned: Fleet, http: aiohttp.ClientSession, server: HttpServer, form: str, tmp_path: Path
) -> None:
    """At the loudest log level, after requests of every kind: the word is nowhere, and nothing crashed."""
    state = tmp_path / "state"
    proxy = owned.new_proxy(
        f"{server.url}?token={MARK}-upstream",
        *("--log-level", "debug", "--log-format", form, "--acquire-timeout", "1s"),
        *("--state-dir", str(state)),
    )
    caller = _Caller(http, proxy)
    await _drive(caller, server, proxy)
    # What lies there while it works, and what at the end.
    stored = [file.read_bytes() for file in state.iterdir() if file.is_file()]
    assert any(MARK in str(request.headers) for request, _ in server.seen), "the server never saw them"
    assert proxy.stop() == 0
    stored += [file.read_bytes() for file in state.iterdir() if file.is_file()]
    assert sum(map(len, stored)) > 10_000
    assert not any(MARK.encode() in data for data in stored)
    log = proxy.program.log.read_text()
    assert log.count("request.finished") > 10
    places = [("log", line) for line in log.splitlines()] + [("answer", text) for text in caller.heard]
    found = [(where, text[:500]) for where, text in places if MARK in text and not _is_an_echo(text)]
    assert found == []
    assert "Traceback" not in log
    assert "proxy.bug" not in log


class _Holder:
    """Somebody whose tokens hold the word, and everything else that a token may be."""

    def __init__(self, make: Callable[..., str]) -> None:
        self._make = make
        self.shown: list[str] = []

    def token(self, **more: Any) -> str:
        """A good one, unless ``more`` says otherwise; it is looked for afterwards."""
        claims = {"client_id": f"{MARK}-client", "email": f"{MARK}@example.com", "tid": f"{MARK}-tenant"}
        self.shown.append(self._make(f"{MARK}-user", **{**claims, **more}))
        return self.shown[-1]

    def kinds(self) -> list[str]:
        """Good ones in turn with such that are over, forged, without a signature, cut, large, or deep."""
        signed, _, signature = self.token().rpartition(".")
        odd = [
            self.token(exp=time.time() - 5),
            f"{signed}.{signature[::-1]}",
            f"{unsigned(MARK)}",
            signed,
            self.token(aud=f"https://{MARK}.example"),
            self.token(large=[f"{MARK}-large"] * 700),
            self.token(deep=json.loads("[" * 40 + "]" * 40)),
            f"{MARK}-opaque",
        ]
        self.shown += odd
        return [each for other in odd for each in (self.token(), other)]

    def parts(self) -> set[str]:
        """What of them tells anything: not their heads, which are the same for many."""
        return {part for text in self.shown for part in text.split(".")[1:] if part}


@pytest.mark.share(2)
@pytest.mark.parametrize("identity", ["server", "unchecked", "jwks", "bytes"])
async def test_tokens_never_come_out_again(owned: Fleet, http: aiohttp.ClientSession, identity: str) -> None:
    """Neither a token, nor a part of one, nor what it claims: however tokens count, and whatever they are."""
    async with TokenServer() as server, Issuer() as issuer:
        server.checks = identity in ("server", "bytes")
        holder = _Holder(issuer.token if identity == "jwks" else token)
        options = ["--log-level", "debug", "--acquire-timeout", "1s", "--handshake-timeout", "2s"]
        options += ["--token-identity", "server" if identity == "unchecked" else identity]
        if identity == "jwks":
            options += ["--token-issuer", issuer.origin]
        proxy = owned.new_proxy(server.url, *options)
        caller = _Caller(http, proxy)
        session = await caller.send("POST", "/mcp", INITIALIZE, **bearer(holder.token())) or ""
        for text in holder.kinds():
            for body in (call(), MODERN, INITIALIZE, [call(), call(2)]):
                await caller.send("POST", "/mcp", body, **bearer(text), Mcp_Session_Id=session)
                await caller.send("POST", "/mcp", body, **bearer(text))
            await caller.send("DELETE", "/mcp", **bearer(text), Mcp_Session_Id=session)
        for trouble in (_broken, _refused, _gone):
            server.on["initialize"] = trouble
            for text in (holder.token(), holder.token()):
                await caller.send("POST", "/mcp", call(), **bearer(text))
                await caller.send("POST", "/mcp", INITIALIZE, **bearer(text))
        server.on.clear()
        for path in ("/", "/metrics", "/sessions", "/api/v1/status", "/api/v1/events?limit=2000"):
            async with http.get(proxy.admin + path) as response:
                caller.heard.append(f"{path} {response.status} {await response.text()}")
        judged = proxy.json("/api/v1/status")["tokens"]
        assert proxy.stop() == 0
    assert (judged["accepted"] > 5) is (identity in ("server", "jwks"))
    assert (judged["not_believed"] > 5) is (identity == "unchecked")
    assert (judged["refused"] > 1) is (identity in ("server", "jwks"))
    log = proxy.program.log.read_text()
    secrets = {MARK, *holder.parts()}
    places = [("log", line) for line in log.splitlines()] + [("answer", text) for text in caller.heard]
    found = [(where, text[:500]) for where, text in places if any(secret in text for secret in secrets)]
    assert found == []
    assert "Traceback" not in log
    assert "proxy.bug" not in log


def _is_an_echo(text: str) -> bool:
    """Whether an answer only names the method, the version or the session id that its own request chose."""
    echoes = (
        f"{MARK}-method",
        f"{MARK}-MCP-Protocol-Version",
        f"{MARK}-Mcp-Session-Id",
        f"http://{MARK}.example",
    )
    for echo in echoes:
        text = text.replace(echo, "")
    return MARK not in text


@pytest.mark.parametrize("option", ["--upstream", "--replica", "--listen"])
def test_secrets_of_the_configuration_are_masked(tmp_path: Path, owned: Fleet, option: str) -> None:
    """A URL that is refused for the password in it is not repeated with it."""
    bad = f"http://user:{MARK}@127.0.0.1:1/mcp?token={MARK}"
    url = bad if option == "--upstream" else "http://127.0.0.1:1/mcp"
    extra = [] if option == "--upstream" else [option, bad]
    proxy = owned.new_proxy(url, *extra, start=False)
    with pytest.raises(Exception, match="exited with 2") as caught:
        proxy.start()
    assert MARK not in str(caught.value)
