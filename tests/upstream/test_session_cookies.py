"""A balancer that sticks by cookie stands before the server: the whole proxy must still find its sessions."""

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, write_event
from messages import INITIALIZE, call
from proxy_bench import Bench, until
from restart_bench import ME, Restarts


class Balancer:
    """Sets a cookie on what comes without one, and knows each session on one replica only."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.replicas: dict[str, str] = {}
        self._numbers = count(1)
        self.cookies: list[tuple[str, str]] = []  # what each request was, and the cookie it came with
        server.on["initialize"] = self.initialize

    async def initialize(self, request: web.Request, message: Any) -> web.StreamResponse:
        replica = request.cookies.get("LB") or f"r{next(self._numbers)}/+=="
        response = self.server.open_session(message)
        self.replicas[response.headers["Mcp-Session-Id"]] = replica
        response.headers.add("Set-Cookie", f"LB={replica}; Path=/; HttpOnly")
        response.headers.add("Set-Cookie", "seen=1; Max-Age=600")
        return response

    def misses(self) -> list[str]:
        """What came for a session and met another replica."""
        return [
            request.method
            for request, _ in self.server.seen
            if (session := request.headers.get("Mcp-Session-Id")) is not None
            and request.cookies.get("LB", "").strip('"') != self.replicas.get(session)
        ]


def cookie_headers(bench: Bench, what: str) -> list[str | None]:
    """The Cookie headers of the requests of this kind."""
    return [
        request.headers.get("Cookie")
        for request, message in bench.server.seen
        if (request.method if message is None else message.get("method", "response")) == what
    ]


async def test_everything_of_a_session_goes_where_its_cookie_says(bench: Bench) -> None:
    """Handshake, calls, GET stream, answers to pings, pings, DELETE; and no client sees a cookie."""
    balancer = Balancer(bench.server)

    async def get(request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        await write_event(response, {"jsonrpc": "2.0", "id": "p", "method": "ping"})
        await asyncio.Event().wait()
        return response

    bench.server.on["GET"] = get
    await bench.start(check_after="0.05s")
    answer = await bench.post(INITIALIZE)
    assert "Set-Cookie" not in answer.headers
    await until(lambda: bench.server.posts("response"))
    await asyncio.sleep(0.06)
    answer = await bench.post(call(), session=answer.headers["Mcp-Session-Id"])
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    await bench.proxy.drain()
    kinds = {request.method if m is None else m.get("method", "response") for request, m in bench.server.seen}
    assert kinds >= {"notifications/initialized", "GET", "response", "ping", "tools/call", "DELETE"}
    assert balancer.misses() == []


async def test_each_session_has_its_own(bench: Bench) -> None:
    """Sessions do not see one another's cookies, also when they are of one caller."""
    balancer = Balancer(bench.server)
    await bench.start(sharing="isolated")
    sessions = [await bench.initialize() for _ in range(3)]
    for session in sessions:
        assert (await bench.post(call(), session=session)).status == 200
    assert len(set(balancer.replicas.values())) == 3
    assert balancer.misses() == []


async def test_a_session_that_is_opened_anew_starts_without(bench: Bench) -> None:
    """The replica may be gone: the balancer chooses another one."""
    balancer = Balancer(bench.server)
    await bench.start()
    session = await bench.initialize()
    bench.server.sessions.clear()
    assert (await bench.post(call(), session=session)).status == 200
    assert cookie_headers(bench, "initialize") == [None, None]
    assert cookie_headers(bench, "tools/call") == ["LB=r1/+==; seen=1", "LB=r2/+==; seen=1"]
    assert len(balancer.replicas) == 2


async def test_cookies_change_with_every_answer(bench: Bench) -> None:
    """Also with one that refuses; what a server takes back is sent no more."""
    Balancer(bench.server)
    answers = iter(["LB=r9; Path=/", "LB=gone; Max-Age=0"])

    async def refuse(_: web.Request, message: Any) -> web.StreamResponse:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -1, "message": "no"}})
        return web.Response(
            status=400, text=body, content_type="application/json", headers={"Set-Cookie": next(answers)}
        )

    bench.server.on["tools/call"] = refuse
    await bench.start()
    session = await bench.initialize()
    for _ in range(2):
        answer = await bench.post(call(), session=session)
        assert answer.status == 400
        assert "Set-Cookie" not in answer.headers
    await bench.post(call(method="tools/list"), session=session)
    assert cookie_headers(bench, "tools/call") == ["LB=r1/+==; seen=1", "LB=r9; seen=1"]
    assert cookie_headers(bench, "tools/list") == ["seen=1"]


async def test_a_refusal_tells_no_cookie(bench: Bench) -> None:
    """A 401 keeps its challenge and loses its cookie."""

    async def refuse(_: web.Request, __: Any) -> web.StreamResponse:
        headers = {"WWW-Authenticate": "Bearer", "Set-Cookie": "LB=r1"}
        return web.Response(status=401, text="who?", headers=headers)

    bench.server.on["initialize"] = refuse
    await bench.start()
    answer = await bench.post(INITIALIZE)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Set-Cookie" not in answer.headers


async def test_a_clients_own_cookie(bench: Bench) -> None:
    """It travels beside the session's, but for one of the same name, and is never kept."""
    Balancer(bench.server)
    await bench.start(credential_header=["authorization"])
    session = await bench.initialize(headers={"Cookie": "user=ada"})
    await bench.post(call(), session=session, headers={"Cookie": "user=ada; LB=mine"})
    await bench.post(call(), session=session)
    assert cookie_headers(bench, "initialize") == ["user=ada"]
    assert cookie_headers(bench, "tools/call") == ["user=ada; LB=r1/+==; seen=1", "LB=r1/+==; seen=1"]


async def test_requests_without_a_session(bench: Bench) -> None:
    """They share an upstream session, and its cookies with it."""
    balancer = Balancer(bench.server)
    await bench.start()
    for _ in range(3):
        assert (await bench.post(call())).status == 200
    assert cookie_headers(bench, "tools/call") == ["LB=r1/+==; seen=1"] * 3
    assert balancer.misses() == []


async def test_a_redirect_that_sets_a_cookie(bench: Bench) -> None:
    """Balancers set theirs on whatever answer is first."""
    opened: list[str | None] = []

    async def initialize(request: web.Request, message: Any) -> web.StreamResponse:
        opened.append(request.headers.get("Cookie"))
        if request.path == "/mcp":
            return web.Response(status=307, headers={"Location": "/mcp/", "Set-Cookie": "LB=r1; Path=/"})
        return bench.server.open_session(message)

    bench.server.on["initialize"] = initialize
    await bench.start()
    await bench.initialize()
    assert opened == [None, "LB=r1"]
    assert cookie_headers(bench, "notifications/initialized") == ["LB=r1"]


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_the_next_process_finds_the_replica(server: HttpServer, tmp_path: Path, how: str) -> None:
    """No session behind a balancer is lost; cookies that it does not stick by are."""
    balancer = Balancer(server)
    async with Restarts(server, tmp_path / "state") as restarts:
        bench = await restarts.start()
        session = await bench.initialize(headers=ME)
        await bench.post(call(), session=session, headers=ME)
        bench = await getattr(restarts, how)()
        answer = await bench.post(call(), session=session, headers=ME)
        assert answer.json["result"]["count"] == 2
        assert cookie_headers(bench, "tools/call") == ["LB=r1/+==; seen=1", "LB=r1/+=="]
    assert balancer.misses() == []
