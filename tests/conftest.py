"""What every test needs."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from fakes import FakeServer
from figures import PATH, Table
from http_server import HttpServer
from hypothesis import HealthCheck, settings
from pipe_server import PipeServer
from proxy_bench import Bench
from selection import THOROUGH, left_out, marks_of_all

from mcp_session_proxy.settings.sources import ENV_PREFIX

# Hypothesis judges by the clock as well; on a busy machine an example may take as long as it likes.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# A run without the slow tests tries a quarter of the cases, other ones each time.
settings.register_profile("quick", settings.get_profile("patient"), max_examples=25)


TRANSPORTS = {"http": FakeServer, "pipe": PipeServer}


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch):
    """Tests see the defaults, whatever the environment of the person who runs them."""
    for name in list(os.environ):
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client without cookies, limits or proxies."""
    connector = aiohttp.TCPConnector(limit=0)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, trust_env=False) as session:
        yield session


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """A hand-made server that runs."""
    async with HttpServer() as server:
        yield server


@pytest.fixture
async def bench(server: HttpServer) -> AsyncIterator[Bench]:
    """A client and a server; the proxy between them is started by the test."""
    async with Bench(server) as bench:
        yield bench


@pytest.fixture(params=list(TRANSPORTS.values()), ids=list(TRANSPORTS))
def a_server(request: pytest.FixtureRequest) -> FakeServer:
    """A server behind each transport in turn; for what is about HTTP's own ways, behind that only."""
    server: FakeServer = request.param()
    return server


def pytest_configure(config: pytest.Config) -> None:
    """Without a loop to begin with, pytest-asyncio makes none that nobody would close."""
    asyncio.set_event_loop(None)
    if PATH is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(Path(PATH)))
    if "slow" in left_out(config.option.markexpr):
        settings.load_profile("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module stays closed if all of it is of a kind that this run leaves out (`-m "not e2e"`).

    That is a fifth of all, and each worker would read and compile it only to lay it aside.
    """
    marks = left_out(config.option.markexpr)
    if marks and collection_path.suffix == ".py" and marks & marks_of_all(collection_path.read_text()):
        return True
    return None


def pytest_collection_finish() -> None:
    """What was collected stays to the end, and the garbage collector need not look at it again.

    It is most of what there is: tests that have garbage collected would wait for that each time.
    """
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests run, and how often.

    What is about statuses, event ids or a connection for each message runs over HTTP: no other transport has
    them. Large matrices run in part, unless THOROUGH=1 wants them whole (`make thorough`). No test that fails
    runs again, in CI neither: one that fails now and then is a fault.
    """
    items[:] = [item for item in items if not (_is_http_only(item) and _runs_elsewhere(item))]
    if not THOROUGH:
        items[:] = _share_of(items)


def _share_of(items: list[pytest.Item]) -> list[pytest.Item]:
    """Of tests marked ``share(n)`` the first and every n-th after it, in the order of their parameters.

    Of what runs once more at three proxies (``at_three(n)``), the same of each module.
    """
    seen: Counter[str] = Counter()
    chosen = []
    for item in items:
        mark, name = item.get_closest_marker("share"), item.nodeid.partition("[")[0]
        if item.get_closest_marker("cluster") is not None and item.get_closest_marker("at_three") is not None:
            mark, name = item.get_closest_marker("at_three"), f"{item.path} at three"
        if mark is not None:
            (n,) = mark.args
            seen[name] += 1
            if n == 0 or (seen[name] - 1) % n:
                continue
        chosen.append(item)
    return chosen


def _is_http_only(item: pytest.Item) -> bool:
    return item.get_closest_marker("http_only") is not None


def _runs_elsewhere(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("a_server", FakeServer) is not FakeServer
