"""A newcomer's path, from an empty folder: install, run, use, watch, drain, upgrade."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from docs.markdown import blocks

from .launch import TESTS, Fleet, Program, Server, environment, get, program_environment, unused_port
from .modern_wire import ModernCaller
from .run import Run
from .wire import Caller, eventually

pytestmark = pytest.mark.e2e

ROOT = TESTS.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
INSTALL_SECONDS = 300.0


class Newcomer:
    """Somebody with an empty folder, in which everything happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listen, self.admin, self.prometheus = unused_port(), unused_port(), unused_port()
        self.variables = program_environment(folder / "home")
        self.programs: list[Program] = []

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self.listen}/mcp"

    @property
    def admin_url(self) -> str:
        """What operators are given."""
        return f"http://127.0.0.1:{self.admin}"

    def install(self) -> None:
        """As the README says: a new environment, and the project into it."""
        (block,) = [each for each in blocks(ROOT / "README.md") if Path(__file__).name in each.remark]
        assert "/path/to/mcp-session-proxy" in block.text
        done = subprocess.run(
            ["sh", "-e", "-c", block.text.replace("/path/to/mcp-session-proxy", str(ROOT))],
            cwd=self.folder,
            env=self.variables | {"PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, done.stderr

    def serve(self, upstream: str) -> Program:
        """The program, by a configuration file; ready when it says so."""
        config = self.folder / "proxy.toml"
        config.write_text(
            f"""\
upstream = "{upstream}"
listen = "127.0.0.1:{self.listen}"
admin-listen = "127.0.0.1:{self.admin}"
acquire-timeout = "1s"
idle-timeout = "2s"
state-dir = "{self.folder / "state"}"
"""
        )
        command = [str(self.folder / "venv/bin/mcp-session-proxy"), "serve", "--config", str(config)]
        return self.start("proxy", command, self.is_ready)

    def is_ready(self) -> bool:
        """Whether the proxy says that it can take work."""
        return get(f"{self.admin_url}/readyz")[0] == 200

    def watch(self) -> None:
        """Debian's Prometheus with the configuration in deploy/, which only has to hurry more here."""
        environment("prometheus")
        program = shutil.which("prometheus")
        assert program is not None
        copied = self.folder / "prometheus"
        shutil.copytree(ROOT / "deploy" / "prometheus", copied)
        text = (copied / "prometheus.yml").read_text()
        text = text.replace("127.0.0.1:9090", f"127.0.0.1:{self.admin}")
        (copied / "prometheus.yml").write_text(re.sub(r"(_interval): 15s", r"\1: 250ms", text))
        command = [program, f"--config.file={copied}/prometheus.yml", f"--storage.tsdb.path={copied}/data"]
        command += [f"--web.listen-address=127.0.0.1:{self.prometheus}"]
        ready = f"http://127.0.0.1:{self.prometheus}/-/ready"
        self.start("prometheus", command, lambda: get(ready)[0] == 200)

    def start(self, name: str, command: list[str], ready: Callable[[], bool]) -> Program:
        """Start a program of the newcomer's."""
        log = self.folder / f"{name}.log"
        program = Program(name=name, command=command, log=log, environment=self.variables)
        self.programs.append(program)
        program.start(ready)
        return program

    def ask_prometheus(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query finds now."""
        parameters = urllib.parse.urlencode({"query": query})
        _, body = get(f"http://127.0.0.1:{self.prometheus}/api/v1/query?{parameters}")
        answer = json.loads(body)
        assert answer["status"] == "success", f"{query}: {answer}"
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    """The newcomer, whose programs end with the test."""
    somebody = Newcomer(tmp_path)
    yield somebody
    for program in somebody.programs:
        program.kill()


# One proxy sends nothing on to another: these times are there, and are no numbers.
ONLY_OF_SEVERAL = "mcp_session_proxy_forward_seconds"


def queries() -> list[str]:
    """What the dashboard asks, with all jobs and instances, over the last minute."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    replaced = {"$job": ".+", "$instance": ".+", "$__rate_interval": "1m"}
    for name, value in replaced.items():
        found = [query.replace(name, value) for query in found]
    return found


async def test_the_whole_path(
    newcomer: Newcomer, owned: Fleet, http: aiohttp.ClientSession, run: Run
) -> None:
    """Install, run in front of a real server, use it, see every panel's data, drain, upgrade."""
    server = owned.new_server("everything")
    await asyncio.to_thread(newcomer.install)
    proxy = newcomer.serve(server.url)
    newcomer.watch()

    # A real client works, and one like OpenAI's does.
    (seen,) = await run.client("mcp-1.30", newcomer.url, "alice", [("echo", {"message": "hello"})])
    assert seen["answers"] == ["Echo: hello"]
    caller = Caller(http, newcomer.url, token="openai")
    session = await caller.open()
    assert (await caller.delete(session)).status == 405
    assert (await caller.call("echo", {"message": "after DELETE"}, session=session)).text == (
        "Echo: after DELETE"
    )

    # Everything that the dashboard shows happens, and is seen.
    await _make_trouble(newcomer, proxy, server, http)
    await _see_all_panels(newcomer, http)

    # The alert rules are evaluated, and none of them stumbles.
    _, body = await asyncio.to_thread(get, f"http://127.0.0.1:{newcomer.prometheus}/api/v1/rules")
    rules = [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert len(rules) > 10

    # It drains, and the one after it knows the old id.
    assert await asyncio.to_thread(proxy.terminate) == 0
    await asyncio.to_thread(newcomer.serve, server.url)
    answer = await caller.call("echo", {"message": "after the upgrade"}, session=session)
    assert answer.text == "Echo: after the upgrade"


async def _churn(caller: Caller) -> str:
    """What stateless clients do all day; gives the id that they forget."""
    session = await caller.open()
    await caller.call("echo", {"message": "x"}, session=session)
    await caller.delete(session)
    await caller.call("echo", {"message": "x"})
    return session


async def _make_trouble(
    newcomer: Newcomer, proxy: Program, server: Server, http: aiohttp.ClientSession
) -> None:
    """An error, a server's question, a lost session, a server that is away, a configuration read again."""
    caller = Caller(http, newcomer.url)
    session = await _churn(caller)
    await caller.call("no such tool", {}, session=session)
    modern = ModernCaller(http, newcomer.url)
    asked = await modern.call_modern("trigger-elicitation-request")
    assert asked.result["resultType"] == "input_required"
    server.kill()
    assert (await caller.call("echo", {"message": "x"})).status in (502, 503)
    assert (await Caller(http, newcomer.url).initialize()).status in (502, 503)
    server.start()
    await eventually(lambda: asyncio.to_thread(newcomer.is_ready))
    await caller.call("echo", {"message": "x"}, session=session)
    assert proxy.process is not None
    proxy.process.send_signal(signal.SIGHUP)


async def _see_all_panels(newcomer: Newcomer, http: aiohttp.ClientSession) -> None:
    """Go on calling until every query of the dashboard finds numbers."""
    missing: list[str] = []

    async def look() -> bool:
        await _churn(Caller(http, newcomer.url))
        found = await asyncio.gather(
            *(asyncio.to_thread(newcomer.ask_prometheus, query) for query in queries())
        )
        missing[:] = [
            query
            for query, samples in zip(queries(), found, strict=True)
            if not _has_numbers(samples) and not (ONLY_OF_SEVERAL in query and samples)
        ]
        return not missing

    try:
        await eventually(look, timeout_seconds=60.0, interval_seconds=0.25)
    except AssertionError:
        raise AssertionError("no data for\n" + "\n".join(missing)) from None


def _has_numbers(samples: list[dict[str, Any]]) -> bool:
    return any(sample["value"][1] != "NaN" for sample in samples)
