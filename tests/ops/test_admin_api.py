"""The admin API over a whole proxy, and its description against what it really answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from messages import call
from openapi_spec_validator import OpenAPIV31SpecValidator
from proxy_bench import PATIENCE_SECONDS, Answer, Bench, until
from token_server import bearer, token

from mcp_session_proxy import __version__

ASKING = {"X-Requested-With": "mcp-session-proxy"}
TOKEN = "correct-horse"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
CHANGES = [
    ("POST", "/api/v1/pause"),
    ("POST", "/api/v1/resume"),
    ("POST", "/api/v1/reconnect"),
    ("POST", "/api/v1/drain"),
    ("DELETE", "/api/v1/sessions/u1"),
]


class AdminBench(Bench):
    """A client and an operator, the proxy, and the server behind it."""

    async def start(self, **options: Any) -> None:
        await super().start(**{"admin_listen": "127.0.0.1:0", **options})

    @property
    def admin(self) -> str:
        """The admin listener as this machine reaches it."""
        assert self.proxy.admin_url is not None
        return self.proxy.admin_url.replace("0.0.0.0", "127.0.0.1")

    async def ask(self, verb: str, path: str, **options: Any) -> Answer:
        """One request of the operator's."""
        async with self.http.request(verb, self.admin + path, **options) as response:
            return await Answer.read(response)

    async def do(self, verb: str, path: str) -> Answer:
        """One change by the operator, who may."""
        return await self.ask(verb, path, headers=ASKING)

    async def read(self, path: str) -> Any:
        """One document for the operator."""
        answer = await self.ask("GET", path)
        assert answer.status == 200
        return answer.json


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[AdminBench]:
    """A server, and who calls; the proxy between them is started by the test."""
    async with AdminBench(server) as bench:
        yield bench


# -- reading ---------------------------------------------------------------------------------------


async def test_status(bench: AdminBench) -> None:
    """Everything that an operator asks first."""
    await bench.start(max_sessions=7)
    await until(lambda: bench.proxy.snapshot.readiness().ready)
    session = await bench.initialize()
    await bench.post(call(), session=session)
    await bench.request("DELETE", session=session).__aenter__()
    status = await bench.read("/api/v1/status")
    assert (status["version"], status["phase"], status["paused"]) == (__version__, "ready", False)
    assert (status["changes"], status["sharing"]) == ("open", "handover")
    assert status["uptime_seconds"] >= 0
    (replica,) = status["replicas"]
    assert (replica["condition"], replica["breaker"], replica["sessions"]) == ("up", "closed", 1)
    assert replica["upstream"] == bench.server.url.removesuffix("/mcp")
    totals = status["totals"]
    assert totals["client_sessions"] == 1
    assert sum(totals["upstream_sessions"].values()) == 1
    assert totals["limits"]["upstream_sessions"] == 7
    churn = {name: sum(counts) for name, counts in status["churn"].items()}
    assert churn == {
        "clients_began": 1,
        "clients_ended": 1,
        "upstream_opened": 1,
        "upstream_closed": 0,
        "upstream_lost": 0,
        "failures": 0,
    }


async def test_status_of_the_last_minute(bench: AdminBench) -> None:
    """How many calls, how fast, by era; and where each session lives."""
    await bench.start()
    session = await bench.initialize()
    for _ in range(3):
        await bench.post(call(), session=session)
    traffic = (await bench.read("/api/v1/status"))["traffic"]
    assert [(each["era"], each["requests"]) for each in traffic["eras"]] == [("legacy", 4)]
    assert traffic["total"]["per_second"] > 0
    assert 0 < traffic["total"]["p50_seconds"] <= traffic["total"]["p95_seconds"]
    held = await bench.read("/sessions")
    for kind in ("upstream_sessions", "client_sessions"):
        (shown,) = held[kind]
        assert shown["server"] == bench.server.url.removesuffix("/mcp")


async def test_what_became_of_tokens(bench: AdminBench, server: HttpServer) -> None:
    """How many count by whom they speak for, and whose the server does not check."""
    await bench.start()
    assert (await bench.read("/api/v1/status"))["tokens"] == {
        "identity": "server",
        **dict.fromkeys(("accepted", "refused", "not_believed", "believed", "callers", "asking"), 0),
        "unchecked_issuers": [],
    }
    for _ in range(3):  # this server takes any
        assert (await bench.post(call(), headers=bearer(token(iss="x" * 1000)))).status == 200
        await until(lambda: not bench.proxy.core.acceptances.asking)
    tokens = (await bench.read("/api/v1/status"))["tokens"]
    assert (tokens["accepted"], tokens["refused"], tokens["not_believed"]) == (0, 0, 2)
    assert tokens["unchecked_issuers"] == ["x" * 200]


async def test_troubles_of_the_last_hour(bench: AdminBench) -> None:
    """By what and why, with the way to what to do, whoever is to blame."""

    async def refuse(request: web.Request, message: Any) -> web.Response:
        return web.Response(status=401)

    bench.server.on["initialize"] = refuse
    await bench.start()
    for _ in range(2):
        assert (await bench.post(call())).status == 401
    (trouble,) = (await bench.read("/api/v1/status"))["troubles"]
    assert (trouble["event"], trouble["reason"], trouble["count"]) == (
        "request.failed",
        "upstream-rejected",
        2,
    )
    assert (trouble["level"], trouble["runbook"]) == ("info", "/runbook#upstream-rejected")
    page = await bench.ask("GET", "/runbook")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'id="upstream-rejected"' in page.body


async def test_status_of_a_server_that_is_away(bench: AdminBench) -> None:
    """Which server is down, and for how long."""
    await bench.start(upstream="http://127.0.0.1:1/mcp")
    await until(lambda: bench.proxy.snapshot.readiness().phase == "upstream-down")
    status = await bench.read("/api/v1/status")
    (replica,) = status["replicas"]
    assert (status["phase"], replica["condition"]) == ("upstream-down", "down")
    assert replica["down_seconds"] >= 0


async def test_events(bench: AdminBench) -> None:
    """What happened, by its own name, and what came after the last look."""
    await bench.start()
    await bench.initialize()
    seen = await bench.read("/api/v1/events")
    names = [event["event"] for event in seen["events"]]
    assert names.count("session.opened") == names.count("client.created") == 1
    assert [event["id"] for event in seen["events"]] == sorted(event["id"] for event in seen["events"])
    later = await bench.read(f"/api/v1/events?after={seen['newest']}")
    assert later == {"newest": seen["newest"], "events": []}
    assert len((await bench.read("/api/v1/events?limit=1"))["events"]) == 1


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=", "limit=1e3", "after=²"])
async def test_wrong_numbers(bench: AdminBench, query: str) -> None:
    """What is no whole number is the caller's mistake."""
    await bench.start()
    answer = await bench.ask("GET", f"/api/v1/events?{query}")
    assert answer.status == 400
    assert "whole number" in answer.json["error"]


async def test_no_secrets(bench: AdminBench) -> None:
    """Neither credentials nor session ids nor the token are shown."""
    await bench.start(admin_token=TOKEN, upstream=f"{bench.server.url}?key=sesame")
    session = await bench.initialize(headers={"Authorization": "Bearer sesame"})
    await bench.ask("POST", "/api/v1/pause", headers={"Authorization": "Bearer sesame"})
    shown = ""
    for path in ("/", "/sessions", "/api/v1/status", "/api/v1/events", "/api/v1/openapi.json", "/metrics"):
        shown += (await bench.ask("GET", path)).body.decode()
    for hidden in ("sesame", TOKEN, session, *bench.server.sessions):
        assert hidden not in shown


# -- changing --------------------------------------------------------------------------------------


async def test_pause_and_resume(bench: AdminBench) -> None:
    """Requests wait while the proxy is paused, and go on afterwards; both can be said twice."""
    await bench.start()
    for _ in range(2):
        assert (await bench.do("POST", "/api/v1/pause")).json == {"paused": True}
    async with bench.asking(call()) as asking:
        await until(lambda: bench.proxy.snapshot.gauges().waiters)
        assert (await bench.read("/api/v1/status"))["paused"] is True
        for _ in range(2):
            assert (await bench.do("POST", "/api/v1/resume")).json == {"paused": False}
        assert (await asking).status == 200


async def test_reconnect(bench: AdminBench) -> None:
    """Every session is replaced: the next request gets a new one."""
    await bench.start()
    await bench.post(call())
    assert (await bench.do("POST", "/api/v1/reconnect")).json == {"sessions": 1}
    await bench.post(call())
    await until(lambda: bench.server.deleted)
    assert (bench.server.deleted, list(bench.server.sessions)) == (["upstream-1"], ["upstream-2"])


async def test_kill(bench: AdminBench) -> None:
    """One session is closed, whoever uses it, and the rest stays."""
    started = asyncio.Event()

    async def work(_: web.Request, __: Any) -> web.StreamResponse:
        started.set()
        await asyncio.Event().wait()
        return web.Response()

    await bench.start()
    await bench.post(call(), headers={"X-Tenant": "other"})
    bench.server.on["tools/call"] = work
    async with bench.asking(call()) as asking:
        await started.wait()
        (busy,) = [each for each in bench.proxy.snapshot.upstream_sessions() if each.in_flight]
        killed = await bench.do("DELETE", f"/api/v1/sessions/{busy.session}")
        assert (killed.status, killed.json) == (200, {"session": busy.session})
        assert (await asking).error == (1, -32603, "outcome-unknown")
    await until(lambda: len(bench.proxy.snapshot.upstream_sessions()) == 1)
    again = await bench.do("DELETE", f"/api/v1/sessions/{busy.session}")
    assert (again.status, again.json["error"]) == (404, "no-such-session")


async def test_drain(bench: AdminBench) -> None:
    """Whoever runs the proxy is told to end it, and how much is in flight."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: web.Request, message: Any) -> web.StreamResponse:
        started.set()
        await go_on.wait()
        return reply_to(message, {})

    bench.server.on["tools/call"] = work
    await bench.start()
    async with bench.asking(call()) as asking:
        await started.wait()
        answer = await bench.do("POST", "/api/v1/drain")
        assert (answer.status, answer.json) == (202, {"exchanges": 1})
        assert bench.proxy.stop.is_set()
        go_on.set()
        await asking


async def test_changes_are_told(bench: AdminBench) -> None:
    """Whoever looks later sees what was done, and from where; attempts with a wrong token, too."""
    await bench.start(admin_token=TOKEN)
    await bench.ask("POST", "/api/v1/pause", headers=SHOWN)
    await bench.ask("DELETE", "/api/v1/sessions/unone", headers=SHOWN)
    await bench.ask("POST", "/api/v1/resume", headers={"Authorization": "Bearer guess"})
    await bench.ask("POST", "/api/v1/resume", headers=ASKING)
    told = [
        (event["event"], event["fields"])
        for event in (await bench.read("/api/v1/events"))["events"]
        if event["event"].startswith("operator.")
    ]
    assert told == [
        ("operator.acted", {"action": "pause", "peer": "127.0.0.1"}),
        ("operator.refused", {"peer": "127.0.0.1"}),
    ]


# -- who may ---------------------------------------------------------------------------------------


@pytest.fixture
def untouched(bench: AdminBench) -> Any:
    """Afterwards, nothing has happened to the proxy."""

    def check() -> None:
        assert not bench.proxy.snapshot.paused
        assert not bench.proxy.stop.is_set()
        assert [each.state for each in bench.proxy.snapshot.upstream_sessions()] == ["idle"]

    return check


async def _tag(bench: AdminBench) -> str:
    await bench.post(call())
    (session,) = bench.proxy.snapshot.upstream_sessions()
    return session.session


@pytest.mark.parametrize(("verb", "path"), CHANGES)
async def test_every_change_needs_the_token(bench: AdminBench, untouched: Any, verb: str, path: str) -> None:
    """Without it, with a wrong one, from loopback and elsewhere: 401, and nothing happens."""
    await bench.start(admin_token=TOKEN)
    path = path.replace("u1", await _tag(bench))
    for headers in ({}, ASKING, {"Authorization": "Bearer guess"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = await bench.ask(verb, path, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    untouched()
    assert (await bench.ask(verb, path, headers=SHOWN)).status in (200, 202)


@pytest.mark.parametrize(("verb", "path"), CHANGES)
async def test_without_a_token_nothing_changes_from_elsewhere(
    bench: AdminBench, untouched: Any, verb: str, path: str
) -> None:
    """On a listener beyond loopback: 403, with what to set; reading goes on."""
    await bench.start(admin_listen="0.0.0.0:0")
    path = path.replace("u1", await _tag(bench))
    for headers in (ASKING, SHOWN, {"Content-Type": "application/json"}):
        answer = await bench.ask(verb, path, headers=headers)
        assert (answer.status, answer.json["error"]) == (403, "changes-refused")
        assert "MCP_SESSION_PROXY_ADMIN_TOKEN" in answer.json["message"]
    untouched()
    assert (await bench.read("/api/v1/status"))["changes"] == "refused"
    assert (await bench.ask("GET", "/sessions")).status == 200


@pytest.mark.parametrize(("verb", "path"), CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {**ASKING, "Origin": "https://evil.example"},
        {**ASKING, "Origin": "null"},
        {**ASKING, "Sec-Fetch-Site": "cross-site"},
        {**ASKING, "Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {**ASKING, "Host": "rebound.example"},
    ],
)
async def test_no_web_page_can_change_anything(
    bench: AdminBench, untouched: Any, verb: str, path: str, headers: dict[str, str]
) -> None:
    """What a browser sends for a page of another origin, or for a rebound name, is refused."""
    await bench.start()
    path = path.replace("u1", await _tag(bench))
    answer = await bench.ask(verb, path, headers=headers)
    assert answer.status == 403
    untouched()


async def test_the_own_page_behind_tls(bench: AdminBench) -> None:
    """Its origin is https where ours is http, but its browser knows better; the name must be ours."""
    await bench.start()
    own = {**ASKING, "Sec-Fetch-Site": "same-origin", "Host": "localhost", "Origin": "https://localhost"}
    assert (await bench.ask("POST", "/api/v1/pause", headers=own)).status == 200
    rebound = {**own, "Host": "rebound.example", "Origin": "https://rebound.example"}
    assert (await bench.ask("POST", "/api/v1/resume", headers=rebound)).status == 403


@pytest.mark.parametrize(("verb", "path"), CHANGES)
async def test_browsers_are_not_encouraged(bench: AdminBench, verb: str, path: str) -> None:
    """A preflight is answered 405 without CORS headers, as is every other verb."""
    await bench.start()
    for other in {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"} - {verb}:
        answer = await bench.ask(other, path, headers={"Origin": bench.admin})
        assert (answer.status, answer.headers["Allow"]) == (405, verb)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/api/v1/status", "/api/v1/events", "/api/v1/openapi.json"])
async def test_reading_is_reading(bench: AdminBench, path: str) -> None:
    """GET and HEAD, and nothing else."""
    await bench.start()
    assert (await bench.ask("HEAD", path)).status == 200
    answer = await bench.ask("POST", path, headers=ASKING)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_large_bodies_are_refused(bench: AdminBench, untouched: Any) -> None:
    """With a length and without one; a small body does no harm."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    await bench.start()
    await _tag(bench)
    for body in (b" " * 100_000, pieces()):
        answer = await bench.ask("POST", "/api/v1/pause", headers=ASKING, data=body)
        assert (answer.status, answer.json["error"]) == (413, "body-too-large")
    untouched()
    assert (await bench.ask("POST", "/api/v1/pause", json={})).status == 200


async def test_slow_bodies_are_refused(
    bench: AdminBench, untouched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a connection by not sending what was announced."""
    monkeypatch.setattr("mcp_session_proxy.ops.admin.api.ADMIN_BODY_SECONDS", 0.05)
    await bench.start()
    await _tag(bench)
    host, port = bench.admin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/pause HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: x\r\nContent-Length: 9\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    untouched()


# -- the description -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_openapi_is_valid(bench: AdminBench) -> None:
    """By the specification's own schema, references included."""
    await bench.start()
    OpenAPIV31SpecValidator(await bench.read("/api/v1/openapi.json")).validate()


async def test_openapi_names_every_path(bench: AdminBench) -> None:
    """Every route is described, but for the page's files; every operation that is described exists."""
    await bench.start()
    document = await bench.read("/api/v1/openapi.json")
    described = {
        (verb.upper(), path) for path, operations in document["paths"].items() for verb in operations
    }
    for verb, path in described:
        answer = await bench.ask(verb, path.replace("{session}", "unone"))
        assert answer.status not in (404, 405, 500), (verb, path)
    changing = {(verb, path.replace("u1", "{session}")) for verb, path in CHANGES}
    assert {entry for entry in described if entry[0] != "GET"} == changing
    secured = {
        (verb.upper(), path)
        for path, operations in document["paths"].items()
        for verb, operation in operations.items()
        if "security" in operation
    }
    assert secured == changing


async def test_answers_are_as_described(bench: AdminBench) -> None:
    """What is really answered, with sessions, events and errors, fits its schema, and has nothing else."""
    await bench.start()
    document = await bench.read("/api/v1/openapi.json")
    await bench.post(call(), session=await bench.initialize())
    tag = bench.proxy.snapshot.upstream_sessions()[0].session
    answers = [
        ("get", "/healthz", await bench.ask("GET", "/healthz")),
        ("get", "/readyz", await bench.ask("GET", "/readyz")),
        ("get", "/sessions", await bench.ask("GET", "/sessions")),
        ("get", "/sessions", await bench.ask("GET", "/sessions?limit=x")),
        ("get", "/api/v1/status", await bench.ask("GET", "/api/v1/status")),
        ("get", "/api/v1/events", await bench.ask("GET", "/api/v1/events")),
        ("get", "/api/v1/events", await bench.ask("GET", "/api/v1/events?after=x")),
        ("post", "/api/v1/pause", await bench.ask("POST", "/api/v1/pause")),
        ("post", "/api/v1/pause", await bench.do("POST", "/api/v1/pause")),
        ("post", "/api/v1/pause", await bench.ask("POST", "/api/v1/pause", headers=ASKING, data=b"x" * 9999)),
        ("post", "/api/v1/resume", await bench.do("POST", "/api/v1/resume")),
        ("delete", "/api/v1/sessions/{session}", await bench.do("DELETE", f"/api/v1/sessions/{tag}")),
        ("delete", "/api/v1/sessions/{session}", await bench.do("DELETE", "/api/v1/sessions/unone")),
        ("post", "/api/v1/reconnect", await bench.do("POST", "/api/v1/reconnect")),
        ("post", "/api/v1/drain", await bench.do("POST", "/api/v1/drain")),
    ]
    for verb, path, answer in answers:
        described = document["paths"][path][verb]["responses"][str(answer.status)]
        schema = described["content"]["application/json"]["schema"]
        _validate(answer.json, {**schema, "components": _closed(document["components"])})


def _validate(value: Any, schema: Any) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(value)


def _closed(components: Any) -> Any:
    """The same schemas, allowing nothing that they do not name."""
    text = json.dumps(components).replace('"properties":', '"additionalProperties": false, "properties":')
    return json.loads(text)


async def test_a_description_that_is_wrong_would_be_found(bench: AdminBench) -> None:
    """The check above is no rubber stamp."""
    await bench.start()
    document = await bench.read("/api/v1/openapi.json")
    schema = {"$ref": "#/components/schemas/Paused", "components": _closed(document["components"])}
    _validate({"paused": True}, schema)
    for wrong in ({}, {"paused": 1}, {"paused": True, "more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            _validate(wrong, schema)
