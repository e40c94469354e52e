"""The packages of a release: built from the commit, looked at, and tried as a user would. ``make dist``.

What is built is what is committed, exported to a folder of its own, so that nothing else that lies about gets
in. Built twice, the same commit gives the same bytes: the tools are pinned (``tests/envs/release``), and the
time of all files is that of the commit (``SOURCE_DATE_EPOCH``). The bill of materials is of the day: it names
the versions of what the package needs that are installed with it today.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASE: Final = ROOT / ".envs" / "release" / "bin"
_START_SECONDS: Final = 30.0
_CALL: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "increment", "arguments": {}},
}


class DistributionError(Exception):
    """A package is not as it should be; the message says how."""


def main() -> int:
    """Build into dist/, check, and try; exits 1 when anything is wrong."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    try:
        wheel, sdist = build(dist)
        look_at(wheel, sdist)
        with tempfile.TemporaryDirectory() as folder:
            write_bill(wheel, Path(folder), dist / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json")
            try_out(wheel, Path(folder))
    except DistributionError as error:
        print(f"make dist: {error}", file=sys.stderr)
        return 1
    for path in sorted(dist.iterdir()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}")
    return 0


# -- building --------------------------------------------------------------------------------------


def build(dist: Path, *, root: Path = ROOT) -> tuple[Path, Path]:
    """Build the commit that is checked out: the source distribution, and the wheel from that."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        archive = source.with_suffix(".tar")
        _run("git", "archive", "--output", str(archive), "HEAD", cwd=root)
        shutil.unpack_archive(archive, source, filter="tar")
        epoch = _run("git", "log", "-1", "--format=%ct", cwd=root).strip()
        _run(
            *(_tool("python"), "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)),
            variables={"SOURCE_DATE_EPOCH": epoch},
        )
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    return wheel, sdist


def look_at(*packages: Path) -> None:
    """What an index would refuse, and what a wheel should not contain."""
    names = [str(path) for path in packages]
    _run(_tool("twine"), "check", "--strict", *names)
    _run(_tool("check-wheel-contents"), *(name for name in names if name.endswith(".whl")))


def write_bill(wheel: Path, folder: Path, target: Path) -> None:
    """Write the software bill of materials (CycloneDX) of the wheel and all that it needs."""
    python = _install(folder / "bill", str(wheel))
    _run(
        *(_tool("cyclonedx-py"), "environment", "--output-reproducible", "--spec-version", "1.6"),
        *("--output-format", "JSON", "--output-file", str(target), str(python)),
    )
    named = {component["name"] for component in json.loads(target.read_text())["components"]}
    if not {"mcp-session-proxy", "aiohttp"} <= named:
        raise DistributionError(f"the bill of materials names {', '.join(sorted(named))} only")


# -- trying ----------------------------------------------------------------------------------------


def try_out(wheel: Path, folder: Path) -> None:
    """Install the wheel where nothing else is, and let it ``demo``, ``serve`` and ``check``."""
    python = _install(folder / "trial", f"{wheel}[demo]")
    program = str(python.parent / "mcp-session-proxy")
    _run(program, "--version", cwd=folder)
    _run(program, "demo", cwd=folder)
    with _server(python, folder) as upstream:
        listen, admin = _unused_port(), _unused_port()
        command = [program, "serve", upstream, "--listen", f"127.0.0.1:{listen}"]
        command += ["--admin-listen", f"127.0.0.1:{admin}"]
        proxy = subprocess.Popen(command, cwd=folder, env=_clean_variables())
        try:
            _wait_until_ready(proxy, admin)
            url = f"http://127.0.0.1:{listen}/mcp"
            counts = [_count(url) for _ in range(3)]
            if counts != ["1", "2", "3"]:
                raise DistributionError(f"three calls without a session count {counts}")
            # Its 0 says that through the proxy no client suffers.
            _run(program, "check", upstream, "--through", url, cwd=folder)
            proxy.send_signal(signal.SIGTERM)
            if (status := proxy.wait(_START_SECONDS)) != 0:
                raise DistributionError(f"serve ended with {status}")
        finally:
            proxy.kill()
            proxy.wait()


@contextlib.contextmanager
def _server(python: Path, folder: Path) -> Iterator[str]:
    """The demonstration's server; gives its URL."""
    command = [str(python), "-m", "mcp_session_proxy.demo.server"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_clean_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Its SDK has much to say of clients that leave as `check` has them leave.
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def _wait_until_ready(proxy: subprocess.Popen[bytes], admin: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        if proxy.poll() is not None or time.monotonic() > deadline:
            raise DistributionError("serve does not become ready")
        time.sleep(0.1)


def _count(url: str) -> str:
    request = urllib.request.Request(
        url,
        data=json.dumps(_CALL).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_START_SECONDS) as response:
        text: str = json.load(response)["result"]["content"][0]["text"]
        return text


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# -- running things --------------------------------------------------------------------------------


def _install(folder: Path, what: str) -> Path:
    """A new environment with this and nothing else; gives its interpreter."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = folder / "bin" / "python"
    _run(*(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"), what)
    return python


def _tool(name: str) -> str:
    return str(RELEASE / name)


def _clean_variables() -> dict[str, str]:
    """Without what would let a program find the source, or configure it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "MCP_SESSION_PROXY_", "VIRTUAL_ENV"))
    }


def _run(
    *command: str,
    cwd: Path = ROOT,
    variables: dict[str, str] | None = None,
) -> str:
    print("+", " ".join(command), flush=True)
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env={**_clean_variables(), **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        said = done.stdout + done.stderr
        raise DistributionError(f"{' '.join(command)} ended with {done.returncode}\n{said[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
