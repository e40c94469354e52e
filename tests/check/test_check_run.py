"""The check against small servers on real sockets."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from certificates import Authority
from http_server import HttpServer, begin_stream, reply_to

from mcp_session_proxy.check.clients import ClientVerdict
from mcp_session_proxy.check.observations import Client
from mcp_session_proxy.check.plan import Plan, Target, ToolCall
from mcp_session_proxy.check.plays import Player
from mcp_session_proxy.check.report import ExitStatus, to_json
from mcp_session_proxy.check.run import _check
from mcp_session_proxy.check.wire import Wire
from mcp_session_proxy.upstream.http.cookies import SessionCookies

CALLS_OF_TOOLS = "tools/call"


def make_plan(url, **options) -> Plan:
    return Plan(**{"direct": Target(url=url), "timeout_seconds": 30.0, **options})


async def check(url, **options):
    return await _check(make_plan(url, **options))


def make_wire(url, **options) -> Wire:
    return Wire(url, cookies=SessionCookies(), timeout_seconds=5.0, **options)


def verdicts(side):
    return {fate.client: fate.verdict for fate in side.fates}


def facts(side):
    return {fact.key: fact.text for fact in side.facts}


@asynccontextmanager
async def serving(handler, path="/{path:.*}"):
    """A web server with one handler; gives its origin."""
    app = web.Application()
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_stateful_server():
    """Clients fare as they would, and the handshake is that of the server."""
    async with HttpServer() as server:
        report = await check(server.url)
    assert report.status is ExitStatus.SUFFERS
    assert verdicts(report.direct) == {
        Client.KEEPS: ClientVerdict.WORKS,
        Client.OPENAI: ClientVerdict.FAILS,
        Client.PER_CALL: ClientVerdict.NOT_TRIED,
        Client.LEAVES: ClientVerdict.NOT_TRIED,
        Client.FORGETFUL: ClientVerdict.FAILS,
        Client.STALE: ClientVerdict.FAILS,
        Client.MODERN: ClientVerdict.FAILS,
    }
    assert facts(report.direct)["server"] == "fake 1"
    assert facts(report.direct)["stream"].startswith("405")


async def test_a_client_that_leaves_closes_its_connections():
    """Its session is not ended before the check is over, or it would be no such client."""
    async with HttpServer() as server, make_wire(server.url) as wire:
        async with wire.apart(None) as leaving:
            player = Player(wire, reads="tools/list", version="2025-11-25", call=None)
            play = await player.leave_without_delete(leaving)
            transports = [request.transport for request, _ in server.seen]
            async with asyncio.timeout(5):
                while not all(transport is None or transport.is_closing() for transport in transports):
                    await asyncio.sleep(0.01)
            assert play.failed is None
            assert len(server.sessions) == 1
        assert server.sessions == {}


async def test_a_server_whose_newest_session_ends_the_others():
    """What the check did to its own session is not told of the server's clients."""

    async def only_the_newest(request, message):
        server.sessions.clear()
        return server.open_session(message)

    async with HttpServer() as server:
        server.on["initialize"] = only_the_newest
        report = await check(server.url)
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.WORKS
    assert verdicts(report.direct)[Client.PER_CALL] is ClientVerdict.NOT_TRIED
    assert facts(report.direct)["second_session"] == "ends the first"
    assert "--sharing shared" in report.command


async def test_a_server_with_the_same_session_for_everybody():
    """It is not ended under the feet of the first client."""

    async def always_the_same(request, message):
        response = server.open_session(message)
        server.sessions = {"the-one": 0}
        response.headers["Mcp-Session-Id"] = "the-one"
        return response

    async with HttpServer() as server:
        server.on["initialize"] = always_the_same
        report = await check(server.url)
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.WORKS
    assert facts(report.direct)["second_session"] == "the first again: there is one for all"
    assert "--sharing shared" in report.command


async def test_replicas_behind_something_that_does_not_stick():
    """It is named as what it looks like, and not as a server that fails."""

    async def forget(request, message):
        return web.json_response({"error": "Session not found"}, status=404)

    async with HttpServer() as server:
        server.on |= {"notifications/initialized": forget, "tools/list": forget}
        report = await check(server.url)
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.FAILS
    assert [piece.key for piece in report.advice] == ["replicas"]


async def test_every_session_is_ended():
    """Nothing is left behind at the server."""
    async with HttpServer() as server:
        await check(server.url)
        assert server.deleted
        assert server.sessions == {}


async def test_sessions_of_refused_requests_are_ended_too():
    """Some servers open one for whatever they refuse."""
    ended = []

    async def refuse(request, message):
        refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Missing session ID"}}
        return web.json_response(refusal, status=400, headers={"Mcp-Session-Id": "stray"})

    async def end(request, message):
        ended.append(request.headers.get("Mcp-Session-Id"))
        return web.Response()

    async with HttpServer() as server:
        server.on |= {"server/discover": refuse, "DELETE": end}
        await check(server.url)
    assert "stray" in ended


async def test_clients_say_what_they_would_say():
    """OpenAI's speak 2025-03-26, and end their session before they use it."""
    async with HttpServer() as server:
        await check(server.url)
        versions = {m["params"]["protocolVersion"] for _, m in server.posts("initialize")}
        notified = [r.headers.get("Mcp-Session-Id") for r, _ in server.posts("notifications/initialized")]
    assert versions == {"2025-03-26", "2025-11-25"}
    assert None in notified


async def test_calls_are_made_one_after_the_other():
    """Or one client's would come between two of another's, whose answers are compared."""
    running = most = 0

    async def tools(request, message):
        return reply_to(message, {"tools": [{"name": "count"}]})

    async def count(request, message):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return reply_to(message, {"content": []})

    async with HttpServer() as server:
        server.on |= {"tools/list": tools, "tools/call": count}
        await check(server.url, call=ToolCall(name="count"))
    assert most == 1


async def test_no_tool_is_called_unasked():
    """Tools may do anything."""
    async with HttpServer() as server:
        await check(server.url, idle_seconds=0.01)
        assert server.posts("tools/list")
        assert server.posts(CALLS_OF_TOOLS) == []


async def test_a_named_tool_shows_state():
    """Only that tool is called, with those arguments, and its answers are compared."""

    async def tools(request, message):
        return reply_to(message, {"tools": [{"name": "count"}]})

    async with HttpServer() as server:
        server.on["tools/list"] = tools
        report = await check(server.url, call=ToolCall(name="count", arguments=b'{"x": 1}'))
        calls = [message["params"] for _, message in server.posts(CALLS_OF_TOOLS)]
    assert all(call["name"] == "count" and call["arguments"] == {"x": 1} for call in calls)
    assert verdicts(report.direct)[Client.PER_CALL] is ClientVerdict.LOSES_STATE
    assert report.direct.seen.in_session[0] != report.direct.seen.in_session[1]


async def test_a_tool_that_is_not_there_is_not_called():
    """Said at once, and no session is left."""

    async def tools(request, message):
        return reply_to(message, {"tools": [{"name": "count"}]})

    async with HttpServer() as server:
        server.on["tools/list"] = tools
        report = await check(server.url, call=ToolCall(name="cuont"))
        assert server.posts(CALLS_OF_TOOLS) == []
        assert server.sessions == {}
    assert report.direct.problem is not None
    assert report.direct.problem.hint == "Do you mean count?"


async def test_headers_are_sent_and_never_shown():
    """With every request; what the server repeats of them is blotted out."""

    async def echo(request, message):
        return web.json_response(
            {
                "jsonrpc": "2.0",
                "id": message["id"],
                "error": {"code": -32000, "message": f"not for {request.headers['Authorization']}"},
            },
            status=400,
        )

    async with HttpServer() as server:
        server.on["tools/list"] = echo
        report = await check(server.url, headers=(("Authorization", "Bearer very-secret"),))
        assert all(request.headers["Authorization"] == "Bearer very-secret" for request, _ in server.seen)
    assert "very-secret" not in to_json(report).decode()
    assert "not for ***" in to_json(report).decode()


async def test_both_sides():
    """The second URL is asked the same."""
    async with HttpServer() as server, HttpServer() as other:
        report = await check(server.url, through=Target(url=other.url))
        assert len(server.posts("initialize")) == len(other.posts("initialize")) > 0
    assert report.through is not None
    assert "not-this-proxy" in {piece.key for piece in report.advice}


async def test_idleness_is_measured_on_request():
    """A session without a stream is left alone, and asked again."""
    async with HttpServer() as server:
        report = await check(server.url, idle_seconds=0.05)
    assert facts(report.direct)["idle_expiry"].startswith("alive after")


async def test_an_expired_session_is_told(monkeypatch):
    """With the server's own words."""
    idle, plain = 0.3, asyncio.sleep

    async with HttpServer() as server:

        async def sleep(seconds, *rest):
            if seconds == idle:  # forgotten while it is left alone, however long the handshake took
                server.sessions.clear()
            return await plain(seconds, *rest)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        report = await check(server.url, idle_seconds=idle)
    assert facts(report.direct)["idle_expiry"].startswith("gone within 300ms: 404")
    assert "--keepalive 1s" in [flag for piece in report.advice for flag in piece.flags]


async def test_streams(monkeypatch):
    """A second one that ends the first is told from one beside it."""
    open_streams: list[asyncio.Event] = []

    async def replace(request, message):
        while open_streams:
            open_streams.pop().set()
        ended = asyncio.Event()
        open_streams.append(ended)
        response = await begin_stream(request)
        await ended.wait()
        return response

    async def beside(request, message):
        response = await begin_stream(request)
        await asyncio.Event().wait()
        return response

    async with HttpServer() as server:
        server.on["GET"] = replace
        monkeypatch.setattr("mcp_session_proxy.check.wire._STREAM_LOOK_SECONDS", 30)
        replaced = await check(server.url)
        server.on["GET"] = beside
        monkeypatch.setattr("mcp_session_proxy.check.wire._STREAM_LOOK_SECONDS", 0.05)
        doubled = await check(server.url)
    assert facts(replaced.direct)["second_stream"] == "200, and ends the first"
    assert facts(doubled.direct)["second_stream"] == "200, beside the first"


@pytest.fixture
def impatient(monkeypatch):
    """Pings are waited for 0.3 s, and everything else for as long as it takes on a busy machine."""
    plain = Wire.request

    async def request(self, method, *rest):
        self._timeout_seconds = 0.3 if method == "ping" else 30.0
        return await plain(self, method, *rest)

    monkeypatch.setattr(Wire, "request", request)


@pytest.mark.usefixtures("impatient")
async def test_a_silent_request_is_waited_for_no_longer_than_allowed():
    """One method that is never answered does not stop the others."""

    async def never(request, message):
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with HttpServer() as server:
        server.on["ping"] = never
        async with asyncio.timeout(60):
            report = await check(server.url)
    assert facts(report.direct)["ping"] == "not answered: no answer in 0.3 s"
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.WORKS


@pytest.mark.usefixtures("impatient")
async def test_heartbeats_do_not_make_an_answer():
    """A stream that goes on for ever without a response is given up in time."""

    async def beat(request, message):
        response = await begin_stream(request)
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(0.02)

    async with HttpServer() as server:
        server.on["ping"] = beat
        async with asyncio.timeout(60):
            report = await check(server.url)
    assert facts(report.direct)["ping"] == "not answered: no answer in 0.3 s"


async def test_a_redirect_is_followed_and_told():
    """Within the server's own origin."""
    async with HttpServer() as server:

        async def handle(request):
            if request.path == "/mcp":
                raise web.HTTPTemporaryRedirect("/mcp/")
            return await server.answer(request)

        async with serving(handle) as origin:
            report = await check(f"{origin}/mcp")
    assert facts(report.direct)["redirect"] == "/mcp/"
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.WORKS


async def test_a_server_without_tools():
    """Its prompts or resources are listed instead."""

    async def prompts_only(request, message):
        return server.open_session(message, capabilities={"prompts": {}})

    async with HttpServer() as server:
        server.on["initialize"] = prompts_only
        report = await check(server.url)
        assert server.posts("prompts/list")
        assert server.posts("tools/list") == []
    assert verdicts(report.direct)[Client.KEEPS] is ClientVerdict.WORKS


async def test_a_modern_server():
    """Discovered and used without a session."""

    async def discover(request, message):
        assert request.headers["Mcp-Method"] == "server/discover"
        return reply_to(message, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})

    async def tools(request, message):
        if request.headers.get("MCP-Protocol-Version") == "2026-07-28":
            assert "io.modelcontextprotocol/clientCapabilities" in message["params"]["_meta"]
            return reply_to(message, {"tools": []})
        return reply_to(message, {"tools": []})

    async with HttpServer() as server:
        server.on |= {"server/discover": discover, "tools/list": tools}
        report = await check(server.url)
    assert verdicts(report.direct)[Client.MODERN] is ClientVerdict.WORKS


async def test_tls_with_an_authority_of_ones_own(tmp_path):
    """Trusted when named, and a problem with a hint otherwise."""
    authority = Authority(tmp_path)
    async with HttpServer(tls=authority.server_context()) as server:
        trusting = Target(url=server.url, context=authority.client_context())
        assert (await check(server.url, direct=trusting)).status is ExitStatus.SUFFERS
        report = await check(server.url)
    assert report.direct.problem is not None
    assert "--upstream-ca" in report.direct.problem.hint


class TestProblems:
    async def problem(self, url, **options):
        report = await check(url, **options)
        assert report.status is ExitStatus.UNCHECKED
        return report.direct.problem

    async def test_nobody_listens(self):
        """The system says so."""
        assert (await self.problem("http://127.0.0.1:9/mcp")).key == "unreachable"

    async def test_a_web_site(self):
        """Its page is not an MCP endpoint."""

        async def page(request):
            return web.Response(text="<html></html>", content_type="text/html")

        async with serving(page) as origin:
            problem = await self.problem(f"{origin}/docs")
        assert problem.text == (
            "There is no MCP endpoint at /docs: the answer to initialize is a web page (200)."
        )

    async def test_the_path_was_forgotten(self):
        """The endpoint at the usual place is found, and its session ended."""
        async with HttpServer() as server:

            async def handle(request):
                if request.path == "/mcp":
                    return await server.answer(request)
                raise web.HTTPNotFound

            async with serving(handle) as origin:
                problem = await self.problem(f"{origin}/")
            assert problem.hint == f"There is one at {origin}/mcp"
            assert server.sessions == {}

    async def test_the_right_path_wants_a_credential(self):
        """Then that is the right path all the same."""

        async def handle(request):
            if request.path == "/mcp":
                return web.json_response({"error": "invalid_token"}, status=401)
            raise web.HTTPNotFound

        async with serving(handle) as origin:
            assert (await self.problem(f"{origin}/")).hint == f"There is one at {origin}/mcp"

    async def test_the_old_transport(self):
        """Recognised by the first event of its stream."""

        async def old(request):
            if request.method != "GET":
                raise web.HTTPMethodNotAllowed(request.method, ["GET"])
            response = await begin_stream(request)
            await response.write(b"event: endpoint\ndata: /messages/?session_id=1\n\n")
            await asyncio.Event().wait()
            return response

        async with serving(old, "/sse") as origin:
            assert (await self.problem(f"{origin}/sse")).key == "http-sse"

    @pytest.mark.slow
    async def test_silence(self):
        """Bounded by --timeout."""

        async def never(request):
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async with serving(never) as origin:
            assert (await self.problem(f"{origin}/mcp", timeout_seconds=0.2)).key == "timeout"

    async def test_a_connection_that_ends(self):
        """Something that does not speak HTTP."""

        async def hang_up(reader, writer):
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            assert (await self.problem(f"http://127.0.0.1:{port}/mcp")).key == "broken"

    async def test_a_missing_credential(self):
        """401."""

        async def locked(request):
            return web.json_response({"error": "invalid_token"}, status=401)

        async with serving(locked) as origin:
            assert (await self.problem(f"{origin}/mcp")).key == "unauthorized"


@pytest.mark.parametrize("method", ["ping", "tools/list", "notifications/initialized"])
async def test_being_stopped_leaves_no_session(method):
    """Whatever is being asked when Ctrl-C comes, the session that was opened is ended."""
    asked = asyncio.Event()

    async def never(request, message):
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with HttpServer() as server:
        server.on[method] = never
        task = asyncio.create_task(check(server.url))
        async with asyncio.timeout(30):
            await asked.wait()
        assert server.sessions
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sessions == {}
