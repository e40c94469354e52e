"""One client: installed, run at a server and through the proxy, and what was seen of it."""

import json
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any, Final

from e2e.launch import TESTS, Fleet, Server, environment, get, install, node, program_environment

from .clients import Client
from .table import Row, Side

INSTALL_SECONDS: Final = 900.0
RUN_SECONDS: Final = 120.0
CALLS: Final = [["increment", {}], ["increment", {}]]
CONNECTIONS: Final = 2
MODERN: Final = "2026-07-28"
# None of them can reach anybody here; this keeps them from trying.
_QUIET: Final = {
    "AGNO_TELEMETRY": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "MASTRA_TELEMETRY_DISABLED": "1",
    "MCP_USE_ANONYMIZED_TELEMETRY": "false",
    "OTEL_SDK_DISABLED": "true",
}


class NotInstalledError(Exception):
    """A client cannot be installed here, or does not run at all; the message is its last word."""


def prepare(client: Client) -> Path:
    """Install a client, unless that was done this week; gives its folder."""
    folder: Path = install.ROOT / f"matrix-{client.key}"
    stamp = folder / ".stamp"
    wanted = json.dumps(list(client.packages))
    fresh = stamp.is_file() and time.time() - stamp.stat().st_mtime < install.NEWEST_SECONDS
    if fresh and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    if client.is_javascript:
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n')
        npm = [str(environment("node") / "bin" / "npm"), "install", "--ignore-scripts", "--no-package-lock"]
        command = [*npm, "--no-audit", "--no-fund", "--loglevel=error", *client.packages]
    else:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        command = [*pip, *client.packages]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"takes longer than {INSTALL_SECONDS:.0f} s to install") from None
    if done.returncode:
        raise NotInstalledError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    stamp.write_text(wanted)
    return folder


def version(client: Client, folder: Path) -> str:
    """The version of a client that was installed."""
    name = client.packages[0]
    if client.is_javascript:
        described: str = json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
        return described
    name = name.partition("[")[0].partition("<")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return _output([str(folder / "bin" / "python"), "-c", code], {}).strip()


def try_out(client: Client, fleet: Fleet, home: Path) -> Row:
    """Install and run a client both ways."""
    folder = prepare(client)
    direct = _play(client, folder, fleet.new_server("mcp-1.30"), None, home)
    server = fleet.new_server("mcp-1.30")
    # A client that leaves without a word has left when its next connection comes.
    proxy = fleet.new_proxy(server.url, "--reconnect-grace", "0s")
    proxied = _play(client, folder, server, proxy.url, home)
    if direct.trouble and proxied.trouble:
        raise NotInstalledError(direct.trouble)
    counted = proxy.metrics()
    modern = any(name.startswith("requests_total{") and 'era="modern"' in name for name in counted)
    if modern and not proxied.trouble:
        proxied = Side(answers=proxied.answers, protocol=MODERN, opened=proxied.opened, left=proxied.left)
    proxy.stop()
    return Row(
        name=client.name, version=version(client, folder), direct=direct, proxied=proxied, note=client.note
    )


def _play(client: Client, folder: Path, server: Server, url: str | None, home: Path) -> Side:
    trouble, answers = "", []
    try:
        seen = _run(client, folder, url or server.url, home)
        answers = [connection["answers"] for connection in seen]
    except AssertionError as error:
        trouble = str(error)
    stats = json.loads(get(f"{server.origin}/stats")[1])["sessions"]
    requests = json.loads(get(f"{server.origin}/requests")[1])
    spoken = [each["headers"].get("mcp-protocol-version") for each in requests]
    server.stop()
    return Side(
        answers=answers,
        trouble=trouble,
        protocol=next((version for version in reversed(spoken) if version and url is None), ""),
        opened=stats["opened"],
        left=stats["live"],
    )


def _run(client: Client, folder: Path, url: str, home: Path) -> list[Any]:
    scripts = [TESTS / "matrix" / "scripts" / client.script, TESTS / "e2e" / "clients" / client.script]
    (script,) = [path for path in scripts if path.exists()]
    interpreter = node() if client.is_javascript else str(folder / "bin" / "python")
    plan = {"calls": CALLS, "connections": CONNECTIONS, "mode": client.mode}
    variables = program_environment(home / client.key, _QUIET) | {
        "E2E_NODE_MODULES": str(folder / "node_modules"),
        "PYTHONPATH": str(TESTS / "e2e" / "clients"),
    }
    said = _output([interpreter, str(script), url, f"token-of-{client.key}", json.dumps(plan)], variables)
    for line in reversed(said.strip().splitlines()):
        if line.startswith("[{"):
            seen: list[Any] = json.loads(line)
            return seen
    raise AssertionError("it printed nothing")


def _output(command: list[str], variables: dict[str, str]) -> str:
    """What a program prints; an AssertionError with its last words when it fails."""
    try:
        done = subprocess.run(
            command,
            env=variables or None,
            cwd=variables.get("HOME"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"hangs for {RUN_SECONDS:.0f} s") from None
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], file=sys.stderr)
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise AssertionError(words[-1][:120] if words else f"exit status {done.returncode}")
    return done.stdout
