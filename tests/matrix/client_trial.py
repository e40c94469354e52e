"""One client: installed, run at a server and through the proxy, and what was seen of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from e2e.launch import TESTS, Fleet, Server, get, node, program_environment

from .client_page import Row, Side
from .clients import Client
from .installing import NotInstalledError, prepare, version

RUN_SECONDS: Final = 300.0
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


def try_out(client: Client, fleet: Fleet, home: Path) -> Row:
    """Install and run a client both ways."""
    folder = prepare(client, f"matrix-{client.key}")
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
    return Row(name=client.name, version=version(client, folder), direct=direct, proxied=proxied)


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
            env=variables,
            cwd=variables["HOME"],
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
