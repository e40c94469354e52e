"""Fixtures of the end-to-end tests: what runs, and somebody to call it."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from .checking import Command
from .cluster import Clusters
from .launch import Fleet, Proxy, Server, get
from .run import Run
from .wire import Caller

PAGE = """<!doctype html><title>Page</title><h1>Start</h1>
<button onclick="document.querySelector('h1').textContent = 'Clicked'">Press me</button>"""

ONE = "one"
THREE = "three"
# What gives a test its proxy: whoever asks none of them is no matter of how many there are.
DESKS = {"desk", "own_desk", "option_desk"}

FLEET = pytest.StashKey[Fleet]()
PRINTED_BEFORE = pytest.StashKey[dict[str, int]]()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """All programs of this worker; they end with it."""
    running = Fleet(tmp_path_factory.mktemp("fleet"))
    request.config.stash[FLEET] = running
    yield running
    running.stop()


@pytest.fixture(scope="session")
def clusters(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """All clusters of this worker; they end with it."""
    running = Clusters(fleet, tmp_path_factory.mktemp("store"))
    yield running
    running.close()


@pytest.fixture
def owned(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, for tests that start programs of their own; these end with the test."""
    before = set(fleet.logs())
    yield fleet
    fleet.forget_since(before)


class Desk:
    """A caller with a name of its own at the proxy before one server, and what the server says about it."""

    def __init__(self, http: aiohttp.ClientSession, server: Server, proxy: Proxy) -> None:
        self.http = http
        self.server = server
        self.proxy = proxy
        self.caller = self.another()

    def another(self, **options: Any) -> Caller:
        """One more caller, another principal unless told otherwise."""
        return Caller(self.http, self.proxy.url, **options)

    def direct(self, **options: Any) -> Caller:
        """A caller of the server itself, past the proxy."""
        return Caller(self.http, self.server.url, **options)

    async def stats(self, caller: Caller | None = None) -> dict[str, Any]:
        """What the server counted, of one caller's sessions (this desk's by default)."""
        who = (caller or self.caller).authorization or ""
        async with self.http.get(f"{self.server.origin}/stats", params={"authorization": who}) as response:
            counted: dict[str, Any] = await response.json()
            return counted

    async def all_stats(self) -> dict[str, Any]:
        """What the server counted of everybody."""
        async with self.http.get(f"{self.server.origin}/stats") as response:
            counted: dict[str, Any] = await response.json()
            return counted

    async def seen(self, caller: Caller | None = None) -> list[dict[str, Any]]:
        """The requests of a caller as they reached the server."""
        who = (caller or self.caller).authorization or ""
        async with self.http.get(f"{self.server.origin}/requests", params={"authorization": who}) as response:
            requests: list[dict[str, Any]] = await response.json()
            return requests


async def seen_by(
    run: Run, client: str, at: Desk, calls: Sequence[tuple[str, Any]], **more: object
) -> list[Any]:
    """Run a client as the desk's caller; what each of its connections saw."""
    return await run.client(client, at.proxy.url, at.caller.token, calls, **more)


@pytest.fixture
def three(request: pytest.FixtureRequest) -> Clusters | None:
    """Where this test runs at three proxies and not at one, what makes them."""
    if getattr(request, "param", ONE) == ONE:
        return None
    clusters: Clusters = request.getfixturevalue("clusters")
    return clusters


@pytest.fixture
def desk(fleet: Fleet, http: aiohttp.ClientSession, three: Clusters | None) -> Callable[[str], Desk]:
    """Makes a desk at the worker's shared server and shared proxy of a kind."""
    shared = fleet.proxy if three is None else three.shared
    return lambda kind: Desk(http, fleet.server(kind), shared(kind))


@pytest.fixture
def own_desk(owned: Fleet, http: aiohttp.ClientSession, three: Clusters | None) -> Callable[..., Desk]:
    """Makes a desk at a server and a proxy of the test's own, with further proxy options."""
    new_proxy = owned.new_proxy if three is None else three.new

    def make(kind: str, *options: str) -> Desk:
        server = owned.new_server(kind)
        return Desk(http, server, new_proxy(server.url, *options))

    return make


@pytest.fixture
def option_desk(
    fleet: Fleet, owned: Fleet, http: aiohttp.ClientSession, three: Clusters | None
) -> Callable[..., Desk]:
    """Makes a desk at the shared server with a proxy of the test's own, with further proxy options."""
    new_proxy = owned.new_proxy if three is None else three.new
    return lambda kind, *options: Desk(http, fleet.server(kind), new_proxy(fleet.server(kind).url, *options))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs client programs, with a home of the test's own."""
    return Run(tmp_path)


@pytest.fixture
def check(tmp_path: Path) -> Command:
    """The command."""
    return Command(tmp_path)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that are marked ``at_three`` run once more, at three proxies behind a balancer."""
    mark = metafunc.definition.get_closest_marker("at_three")
    alone = metafunc.definition.get_closest_marker("at_one")
    if mark is None or alone is not None or DESKS.isdisjoint(metafunc.fixturenames):
        return
    metafunc.parametrize(
        "three",
        [pytest.param(ONE, id=pytest.HIDDEN_PARAM), pytest.param(THREE, id=THREE, marks=pytest.mark.cluster)],
        indirect=True,
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember how much each program had printed before this test."""
    fleet = item.config.stash.get(FLEET, None)
    item.stash[PRINTED_BEFORE] = _printed(fleet) if fleet is not None else {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show what the programs printed during a test that failed."""
    report = yield
    fleet = item.config.stash.get(FLEET, None)
    if report.failed and fleet is not None:
        before = item.stash.get(PRINTED_BEFORE, {})
        for name, log in fleet.logs().items():
            said = log.read_bytes()[before.get(name, 0) :] if log.exists() else b""
            if said:
                report.sections.append((f"output of {name}", said[-3000:].decode(errors="replace")))
    return report


def _printed(fleet: Fleet) -> dict[str, int]:
    return {name: log.stat().st_size for name, log in fleet.logs().items() if log.exists()}


def admin_json(proxy: Proxy, path: str) -> Any:
    """A JSON document of the admin listener, whatever its status."""
    return json.loads(get(f"{proxy.admin}{path}")[1])


@pytest.fixture
async def page() -> AsyncIterator[str]:
    """A page on loopback whose heading a button changes; its URL."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/"))
