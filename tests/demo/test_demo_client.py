import pytest
from aiohttp import web

from mcp_session_proxy.demo.bundled import DemoError, run_server
from mcp_session_proxy.demo.client import play_rounds

pytestmark = pytest.mark.slow


async def test_fails_on_the_bundled_server():
    """A real stateful server ends the session with the DELETE, so the call afterwards has none."""
    async with run_server() as url:
        (first, second) = await play_rounds(url, 2)
    assert [(step.name, step.status) for step in first.steps] == [
        ("initialize", 200),
        ("notifications/initialized", 202),
        ("tools/list", 200),
        ("DELETE", 200),
        ("tools/call, same id", 404),
    ]
    assert first.steps[-1].text == "Session not found"
    assert first.count is None
    assert second.count is None


async def test_reads_the_count_when_the_session_lives_on(aiohttp_server):
    """A server that does not mind the DELETE is what the proxy looks like."""
    asked = []

    async def answer(request):
        if request.method == "DELETE":
            return web.Response(status=405)
        message = await request.json()
        asked.append((message["method"], request.headers.get("Mcp-Session-Id")))
        if "id" not in message:
            return web.Response(status=202)
        results = {
            "initialize": {"protocolVersion": "2025-03-26"},
            "tools/list": {"tools": [{}, {}]},
            "tools/call": {"content": [{"type": "text", "text": "7"}]},
        }
        body = {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}
        return web.json_response(body, headers={"Mcp-Session-Id": "abc"})

    app = web.Application()
    app.router.add_route("*", "/mcp", answer)
    server = await aiohttp_server(app)
    (only,) = await play_rounds(str(server.make_url("/mcp")), 1)
    assert only.count == 7
    assert asked == [
        ("initialize", None),
        ("notifications/initialized", "abc"),
        ("tools/list", "abc"),
        ("tools/call", "abc"),
    ]


async def test_takes_any_answer(aiohttp_server):
    """HTML, plain text and JSON of other shapes are shown, not stumbled over."""
    bodies = iter(["<html>", "[]", '{"result": {"tools": 5}}', "", '{"error": "Session not found"}'])

    async def answer(request):
        return web.Response(status=500, text=next(bodies))

    app = web.Application()
    app.router.add_route("*", "/mcp", answer)
    server = await aiohttp_server(app)
    (only,) = await play_rounds(str(server.make_url("/mcp")), 1)
    assert only.count is None
    assert {step.status for step in only.steps} == {500}


class TestBundledServer:
    async def test_missing_packages_are_named(self, monkeypatch):
        """Without the extra, the command to install it is the message."""
        monkeypatch.setattr("mcp_session_proxy.demo.bundled.find_spec", lambda name: None)
        with pytest.raises(DemoError, match=r'pip install "mcp-session-proxy\[demo\]"'):
            async with run_server():
                pass

    async def test_a_server_that_cannot_start_says_why(self, monkeypatch):
        """Its last words become the message."""
        monkeypatch.setattr("sys.executable", "/bin/false")
        with pytest.raises(DemoError, match="did not start"):
            async with run_server():
                pass
