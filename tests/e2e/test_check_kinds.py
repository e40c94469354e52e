"""The command `check` against servers that need something special, made by hand."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, reply_to

from .checking import Command, Outcome
from .launch import Fleet

pytestmark = pytest.mark.e2e

STUCK = {
    "jsonrpc": "2.0",
    "error": {"code": -32600, "message": "Invalid Request: Server already initialized"},
}
OLD = "2025-03-26"


def advice(outcome: Outcome) -> dict[str, Any]:
    """The pieces of advice by their words."""
    return {piece["key"]: piece for piece in outcome.document["advice"]}


def with_counter(server: HttpServer) -> HttpServer:
    """The same server, whose tool `count` is listed."""

    async def tools(request: web.Request, message: Any) -> web.StreamResponse:
        if request.headers.get("Mcp-Session-Id") not in server.sessions:
            return web.json_response({"error": "Session not found"}, status=404)
        return reply_to(message, {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]})

    server.on["tools/list"] = tools
    return server


class TestStrictVersions:
    """A server that refuses a version instead of offering one of its own."""

    @pytest.fixture(params=[(400, -32602), (200, -32000), (422, None)])
    async def server(self, request: pytest.FixtureRequest) -> AsyncIterator[HttpServer]:
        """It speaks 2025-03-26 only; the refusal comes in one of the forms that are met."""
        status, code = request.param

        async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
            if message["params"]["protocolVersion"] == OLD:
                return server.open_session(message)
            if code is None:
                return web.Response(status=status, text="unsupported protocol version")
            error = {"code": code, "message": "Unsupported protocol version"}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error}, status=status)

        async with HttpServer() as server:
            server.on["initialize"] = initialize
            yield server

    async def test_are_told_and_do_not_end_the_check(self, check: Command, server: HttpServer) -> None:
        """The rest is done in the version that it takes."""
        outcome = await check(server.url, "--json")
        assert outcome.status == 1
        side = outcome.document["direct"]
        assert side["server"]["refused_versions"] == ["2025-11-25", "2025-06-18"]
        assert side["server"]["protocol_version"] == OLD
        assert "nsupported protocol version" in side["behaviour"]["refused_versions"]["text"]
        assert outcome.verdicts()["session-keeping"] == "works"
        assert "2025-11-25" in advice(outcome)["strict-versions"]["text"]
        assert server.sessions == {}

    async def test_are_no_matter_through_the_proxy(
        self, check: Command, owned: Fleet, server: HttpServer
    ) -> None:
        """Clients without a session and modern ones, who cannot choose what the server is asked for, work."""
        outcome = await check(server.url, "--through", owned.new_proxy(server.url).url, "--json")
        verdicts = outcome.verdicts("through")
        assert (verdicts["never-sends-id"], verdicts["modern"]) == ("works", "works")


async def test_a_server_that_had_to_start(check: Command) -> None:
    """The first handshake takes longer than others may: it is waited for, and told."""
    first = True

    async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
        nonlocal first
        if first:
            first = False
            await asyncio.sleep(1.5)
        return server.open_session(message)

    async with HttpServer() as server:
        server.on["initialize"] = initialize
        outcome = await check(server.url, "--json", "--timeout", "1s")
    assert outcome.verdicts()["session-keeping"] == "works"
    assert outcome.document["direct"]["server"]["first_session_ms"] >= 1500
    assert outcome.document["direct"]["behaviour"]["start"]["text"].startswith("1.")
    assert "--handshake-timeout" in advice(outcome)["slow-start"]["text"]


class TestOneSession:
    """A server that can have one session."""

    @asynccontextmanager
    async def serving(self, *, frees: bool) -> AsyncIterator[HttpServer]:
        """`frees`: whether DELETE makes room for the next one."""
        taken = False

        async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
            nonlocal taken
            if server.sessions or (taken and not frees):
                return web.json_response({**STUCK, "id": message["id"]}, status=400)
            taken = True
            return server.open_session(message)

        async with HttpServer() as server:
            server.on["initialize"] = initialize
            yield with_counter(server)

    async def test_is_found_out(self, check: Command) -> None:
        """And shared; whoever comes alone is not said to fail."""
        async with self.serving(frees=True) as server:
            outcome = await check(server.url, "--json")
            assert server.sessions == {}
        assert outcome.document["direct"]["server"]["one_session"] is True
        assert "already initialized" in outcome.document["direct"]["behaviour"]["second_session"]["text"]
        assert advice(outcome)["one-session"]["flags"] == ["--sharing shared"]
        assert outcome.document["command"] == f"mcp-session-proxy serve {server.url} --sharing shared"
        assert outcome.verdicts()["session-per-call"] == "not-tried"

    async def test_that_is_never_free_again_is_owned_up_to(self, check: Command) -> None:
        """The first check uses it up and says so; the second one says that somebody has it."""
        async with self.serving(frees=False) as server:
            first = await check(server.url, "--json")
            second = await check(server.url)
        assert "restart the server first" in advice(first)["one-session"]["text"]
        assert second.status == 3
        assert "one session" in second.out
        assert "--sharing shared" in second.out

    async def test_is_enough_for_everybody_with_the_mode_that_is_advised(
        self, check: Command, owned: Fleet
    ) -> None:
        """Through the proxy with --sharing shared, state survives for all kinds."""
        async with self.serving(frees=False) as server:
            proxy = owned.new_proxy(server.url, "--sharing", "shared")
            outcome = await check(proxy.url, "--call", "count", "--json")
        assert set(outcome.verdicts().values()) == {"works"}
        assert outcome.status == 0

    async def test_is_not_enough_with_another_mode(self, check: Command, owned: Fleet) -> None:
        """Then the report names the one that is needed."""
        async with self.serving(frees=False) as server:
            proxy = owned.new_proxy(server.url, "--acquire-timeout", "1s")
            outcome = await check(proxy.url, "--json")
        assert [(piece["key"], piece["flags"]) for piece in outcome.document["advice"]] == [
            ("one-session", ["--sharing shared"])
        ]


class TestStickyCookies:
    """Two replicas behind a balancer that sticks by cookie, and takes turns otherwise."""

    @pytest.fixture
    async def origin(self) -> AsyncIterator[str]:
        """The balancer's origin."""
        async with (
            with_counter(HttpServer(name="one")) as one,
            with_counter(HttpServer(name="two")) as two,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        ):
            replicas = [one, two]
            turn = itertools.count()

            async def balance(request: web.Request) -> web.StreamResponse:
                named = request.cookies.get("AWSALB")
                number = int(named) if named in ("0", "1") else next(turn) % 2
                headers = {
                    name: value
                    for name, value in request.headers.items()
                    if name.lower() not in ("host", "cookie", "content-length", "transfer-encoding")
                }
                body = await request.read()
                async with http.request(
                    request.method, replicas[number].url, headers=headers, data=body
                ) as answer:
                    passed = {
                        name: value
                        for name, value in answer.headers.items()
                        if name.lower() in ("content-type", "mcp-session-id")
                    }
                    response = web.Response(status=answer.status, body=await answer.read(), headers=passed)
                response.set_cookie("AWSALB", str(number), path="/")
                return response

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", balance)
            runner = web.AppRunner(app, shutdown_timeout=0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            await runner.cleanup()
            assert one.sessions == {}
            assert two.sessions == {}

    async def test_are_found_out(self, check: Command, origin: str) -> None:
        """A client with cookies works, one without does not; no session is left at either replica."""
        outcome = await check(f"{origin}/mcp", "--json")
        assert outcome.verdicts()["session-keeping"] == "works"
        assert outcome.verdicts()["keeps-no-cookies"] == "fails"
        assert outcome.document["direct"]["server"]["cookies"] == ["AWSALB"]
        text = "AWSALB; without them 3 of 3 sessions failed"
        assert outcome.document["direct"]["behaviour"]["cookies"]["text"] == text
        assert "AWSALB" in advice(outcome)["cookies"]["text"]

    async def test_are_no_matter_through_the_proxy(self, check: Command, owned: Fleet, origin: str) -> None:
        """Nobody needs to keep any, and nobody sees any."""
        proxy = owned.new_proxy(f"{origin}/mcp")
        outcome = await check(f"{origin}/mcp", "--through", proxy.url, "--call", "count", "--json")
        assert set(outcome.verdicts("through").values()) == {"works"}
        assert outcome.document["through"]["server"]["cookies"] == []
        # The balancer answers from this event loop, so that the goodbyes must not wait in it.
        assert await asyncio.to_thread(proxy.stop) == 0


class TestAudience:
    """A server that takes only tokens that are for it."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[HttpServer]:
        """It names itself in its metadata, and says nothing more than the standard words."""

        async def metadata(request: web.Request, message: Any) -> web.StreamResponse:
            if request.path != "/.well-known/oauth-protected-resource/mcp":
                return web.Response(status=405)
            return web.json_response({"resource": server.url, "authorization_servers": ["http://idp"]})

        async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
            if f'"{server.url}"' not in claims_of(request):
                where = server.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
                challenge = f'Bearer error="invalid_token", resource_metadata="{where}"'
                return web.json_response(
                    {"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": challenge}
                )
            return server.open_session(message)

        async with HttpServer() as server:
            server.on |= {"initialize": initialize, "server/discover": initialize, "GET": metadata}
            yield server

    async def test_is_told_where_it_is_accepted(self, check: Command, server: HttpServer) -> None:
        """That tokens are for this URL matters to whoever puts a proxy in front."""
        outcome = await check(server.url, "--json", "--header", f"Authorization: Bearer {jwt(server.url)}")
        assert outcome.document["direct"]["behaviour"]["audience"]["text"] == server.url
        assert "public URL" in advice(outcome)["audience"]["text"]

    async def test_is_why_a_token_is_refused(self, check: Command, server: HttpServer) -> None:
        """A token for the proxy's public URL; it does not appear in the report."""
        token = jwt("https://mcp.example.com/mcp")
        outcome = await check(server.url, "--header", f"Authorization: Bearer {token}")
        assert outcome.status == 3
        said = " ".join(outcome.out.split())
        assert f"The server calls itself {server.url}, and the token's audience is another one." in said
        assert "public URL" in said
        assert token not in outcome.out
        assert "example.com" not in outcome.out

    async def test_is_named_to_those_without_a_token(self, check: Command, server: HttpServer) -> None:
        """So that they ask for the right one."""
        outcome = await check(server.url)
        assert f"Tokens must be for {server.url}." in " ".join(outcome.out.split())


def claims_of(request: web.Request) -> str:
    """The claims of the bearer token, as text; nothing is verified here either."""
    pieces = request.headers.get("Authorization", "").removeprefix("Bearer ").split(".")
    if len(pieces) != 3:
        return ""
    return base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)).decode()


def jwt(audience: str) -> str:
    """A token for somebody."""
    claims = base64.urlsafe_b64encode(json.dumps({"aud": audience}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{claims}.c2lnbmF0dXJl"
