"""Fixtures of the fault tests: a server, the fault proxy before it, the proxy before that."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.launch import KINDS, Fleet, Kind, Proxy, Server, get, unused_port

from .fault_proxy import FaultProxy

HERE = Path(__file__).parent
FLEETS = pytest.StashKey[list[Fleet]]()

KINDS["recording"] = Kind(
    name="recording",
    command=lambda port: [
        *(sys.executable, str(HERE / "recording_server.py")),
        *("--port", str(port), "--record", "executions.txt"),
    ],
)
# Checks tokens that are signed with this.
SECRET = "of the issuer of the fault tests' tokens"
KINDS["recording-tokens"] = Kind(
    name="recording-tokens",
    command=lambda port: [*KINDS["recording"].command(port), "--signed-with", SECRET],
)


@dataclass(kw_only=True)
class Rig:
    """What stands in a row: client, proxy, faults, server."""

    server: Server
    faults: FaultProxy
    proxy: Proxy

    def stats(self) -> dict[str, Any]:
        """What the server counted."""
        status, body = get(f"{self.server.origin}/stats")
        assert status == 200
        counted: dict[str, Any] = json.loads(body)
        return counted

    def in_its_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the fault proxy do something."""
        assert self.faults.loop is not None
        asyncio.run_coroutine_threadsafe(work, self.faults.loop).result(10)


@contextlib.contextmanager
def rig_at(fleet: Fleet, *options: str, kind: str = "mcp-1.30") -> Iterator[Rig]:
    """Start the row; the programs end with the fleet."""
    server = fleet.new_server(kind)
    faults = FaultProxy(server.port, unused_port())
    with faults.in_thread():
        upstream = f"http://127.0.0.1:{faults.port}{server.kind.path}"
        yield Rig(server=server, faults=faults, proxy=fleet.new_proxy(upstream, *options))


@pytest.fixture(scope="module")
def module_fleet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The programs of one test module."""
    yield from _fleet(tmp_path_factory.mktemp("fleet"), request)


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The programs of one test."""
    yield from _fleet(tmp_path, request)


def _fleet(folder: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    fleets = request.config.stash.setdefault(FLEETS, [])
    running = Fleet(folder)
    fleets.append(running)
    yield running
    running.stop()
    fleets.remove(running)


@pytest.fixture
def figures(
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    """Prints a line of figures past pytest, which keeps what tests print, and puts it in the report."""

    def tell(text: str) -> None:
        record_property("figures", text)
        with capsys.disabled():
            print(f"\n  {text}", flush=True)

    return tell


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the end of what the programs printed when a test has failed."""
    report = yield
    if report.failed:
        for fleet in item.config.stash.get(FLEETS, []):
            for name, log in fleet.logs().items():
                if log.exists() and (said := log.read_bytes()[-3000:]):
                    report.sections.append((f"output of {name}", said.decode(errors="replace")))
    return report
