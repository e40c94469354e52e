"""What is compared: servers, and what stands before them, each started when first asked for."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from e2e.launch import (
    SERVERS,
    Program,
    StartError,
    accepts_connections,
    environment,
    get,
    install,
    node,
    node_module,
    program_environment,
    unused_port,
)

PROGRAMS = Path(__file__).resolve().parent / "programs"
ENVIRONMENT = "bench"
# The proxy of this tree, and that of another one to compare with.
PROXIES = ("proxy", "other")
# The proxy before a command, whose CPU is not the proxy's though it is its child.
COMMAND = "command"
# In options, where files may be.
FOLDER = "{folder}"
_FLAGS = ("--admin-listen", "off", "--log-level", "warning")
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something that answers MCP at a URL. `pid` is what its CPU and memory are read of."""

    name: str
    url: str
    pid: int


def _bench_python() -> str:
    return str(environment(ENVIRONMENT) / "bin" / "python")


def _npm(port: int) -> list[str]:
    return [node(), str(SERVERS / "fastmcp_server.mjs"), str(port)]


def _stub(*options: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, str(PROGRAMS / "stub.py"), "--port", str(port), *options]


def _fastmcp(*options: str) -> Callable[[int], list[str]]:
    script = str(PROGRAMS / "fastmcp_server.py")
    return lambda port: [_bench_python(), script, "--port", str(port), *options]


SERVER_KINDS: dict[str, Callable[[int], list[str]]] = {
    "stub": _stub(),
    "stub-sse": _stub("--sse"),
    "fastmcp": _fastmcp(),
    "fastmcp-stateless": _fastmcp("--stateless"),
    "npm": _npm,
}

_NGINX = """
daemon off; worker_processes auto; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    upstream server {{ server {server}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000000;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host {server};
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def nginx_binary() -> str:
    """Debian's nginx. Fails when it is not there."""
    found: str | None = install.find_program("nginx")
    if found is None:
        raise StartError("nginx is not installed")
    return found


def _proxy(url: str, port: int, options: tuple[str, ...]) -> list[str]:
    listen = ("--listen", f"127.0.0.1:{port}")
    return [sys.executable, "-m", "mcp_session_proxy", "serve", url, *listen, *_FLAGS, *options]


def _before_command(port: int, options: tuple[str, ...]) -> list[str]:
    """The proxy before a command, which is the stub."""
    stub = (sys.executable, str(PROGRAMS / "stub.py"), "--stdio")
    listen = ("--listen", f"127.0.0.1:{port}")
    return [
        *(sys.executable, "-m", "mcp_session_proxy", "serve", "--stdio"),
        *(*listen, *_FLAGS, *options, "--", *stub),
    ]


def _nginx(origin: str, port: int, home: Path) -> list[str]:
    home.mkdir()
    file = home / "nginx.conf"
    file.write_text(_NGINX.format(home=home, server=origin.removeprefix("http://"), port=port))
    return [nginx_binary(), "-c", str(file), "-p", str(home), "-e", str(home / "error.log")]


class Stage:
    """Everything that runs for one benchmark; `other` is a second tree of the package to compare with."""

    def __init__(self, folder: Path, other: Path | None = None) -> None:
        self._folder = folder
        self._other = other
        self._number = 0
        self._programs: dict[int, Program] = {}
        self._servers: dict[str, Place] = {}
        self._contenders: dict[tuple[str, str, tuple[str, ...], str], Place] = {}

    def server(self, kind: str) -> Place:
        """The server of this kind; stays until the end."""
        if kind not in self._servers:
            self._servers[kind] = self._start(kind, SERVER_KINDS[kind])
        return self._servers[kind]

    def contender(self, name: str, server: str, *options: str, own: str = "") -> Place:
        """A contender before the server of a kind; `own` names one that is not used by anybody else."""
        known = (name, server, options, own)
        if known not in self._contenders:
            self._contenders[known] = self._start_contender(name, server, options)
        return self._contenders[known]

    def start_ready(self, name: str, server: str) -> Place:
        """One more of a contender; the proxy must say at `/readyz` that it is ready. Raises StartError."""
        if name not in PROXIES:
            return self._start_contender(name, server, ())
        admin = f"127.0.0.1:{unused_port()}"
        options = ("--admin-listen", admin)
        return self._start_contender(name, server, options, lambda: get(f"http://{admin}/readyz")[0] == 200)

    def _start_contender(
        self, name: str, server: str, options: tuple[str, ...], ready: Callable[[], bool] | None = None
    ) -> Place:
        if name == "direct":
            return self.server(server)
        options = tuple(option.replace(FOLDER, str(self._folder)) for option in options)
        if name == COMMAND:
            return self._start(name, lambda port: _before_command(port, options), ready)
        url = self.server(server).url
        origin = url.removesuffix("/mcp")
        if name in PROXIES:
            return self._start(name, lambda port: _proxy(url, port, options), ready)
        if name == "bare":
            script = str(PROGRAMS / "bare.py")
            return self._start(name, lambda port: [sys.executable, script, "--port", str(port), origin])
        if name == "create_proxy":
            peer = str(PROGRAMS / "create_proxy.py")
            return self._start(name, lambda port: [_bench_python(), peer, "--port", str(port), url])
        assert name == "nginx", name
        return self._start(name, lambda port: _nginx(origin, port, self._folder / f"nginx-{port}"))

    def stop(self, place: Place) -> None:
        """Stop one of them."""
        self._programs.pop(place.pid).kill()
        self._contenders = {key: kept for key, kept in self._contenders.items() if kept is not place}

    def stop_all(self) -> None:
        """End everything."""
        for program in reversed(self._programs.values()):
            program.kill()

    def _start(
        self, name: str, command: Callable[[int], list[str]], ready: Callable[[], bool] | None = None
    ) -> Place:
        for attempt in range(_ATTEMPTS):
            self._number += 1
            home = self._folder / f"{self._number:03}-{name}"
            home.mkdir()
            port = unused_port()
            # Packages are compiled when they are installed, whatever is wished where the bench runs.
            variables = {
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPYCACHEPREFIX": str(self._folder / "bytecode"),
            }
            if name == "npm":
                variables["E2E_NODE_MODULES"] = node_module("")
            if name == "other":
                variables["PYTHONPATH"] = str(self._other)
            program = Program(
                name=name,
                command=command(port),
                log=home / "output.log",
                environment=program_environment(home, variables),
            )
            try:
                program.start(ready or partial(accepts_connections, port))
            except StartError:
                # Somebody else may have taken the port since it was found unused.
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            assert program.process is not None
            self._programs[program.process.pid] = program
            return Place(name=name, url=f"http://127.0.0.1:{port}/mcp", pid=program.process.pid)
        raise AssertionError("unreachable")
