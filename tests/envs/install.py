"""Builds the environments the end-to-end tests need: clients and servers that do not fit together in one.

    python tests/envs/install.py [NAME ...]

Each folder next to this file describes one environment by its pinned packages: `requirements.txt` for a
virtual environment, `package.json` for npm packages installed into it. They are built under `.envs/` in the
project root, two at a time, and stamped with a hash of their description, so that a second run has nothing to
do. Only the standard library may be used here.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

SPECS = Path(__file__).resolve().parent
ROOT = SPECS.parent.parent / ".envs"
STAMP = ".stamp"
# Packages of Debian's, each with the program that it is wanted for.
DEBIAN = {
    "chromium": "chromium",
    "prometheus": "prometheus",
    "systemd": "systemd-analyze",
    "wrk": "wrk",
    "zsh": "zsh",
    "fish": "fish",
    "nginx": "nginx",
    "haproxy": "haproxy",
    "redis-server": "redis-server",
    "faketime": "faketime",
    "postgresql": "pg_lsclusters",
}
# Longest first: with two workers this is the shortest schedule.
NAMES = (
    "node",
    "chromium",
    "mcp-2",
    "deploy",
    "prometheus",
    "systemd",
    "release",
    "wrk",
    "zsh",
    "fish",
    "haproxy",
    "nginx",
    "redis-server",
    "faketime",
    "langchain",
    "newest-langchain",
    "newest-mcp",
    "site",
    "stdio",
    "fastmcp-3",
    "mcp-1.23",
)
# Not built unless named: they are for `make fuzz`, `make bench` and `make thorough` alone.
ON_DEMAND = ("fuzz", "bench", "postgresql")
# Not pinned: what somebody gets who installs it today. Built anew when it is older than this.
NEWEST = "newest-"
NEWEST_SECONDS = 7 * 24 * 3600
COMMAND_TIMEOUT_SECONDS = 600


class InstallError(Exception):
    """An environment could not be built; the message says why."""


def directory(name: str) -> Path:
    """Where the environment `name` lives, built or not."""
    return ROOT / name


def find_program(name: str) -> str | None:
    """The program that one of Debian's packages is wanted for; servers are where few users look."""
    return shutil.which(DEBIAN[name], path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def is_installed(name: str) -> bool:
    """Whether `name` was built from the description as it is now."""
    if name in DEBIAN:
        return find_program(name) is not None
    stamp = directory(name) / STAMP
    if not stamp.is_file() or stamp.read_text() != _spec_hash(name):
        return False
    return not name.startswith(NEWEST) or time.time() - stamp.stat().st_mtime < NEWEST_SECONDS


def install(name: str) -> str:
    """Build `name` unless it is there already; returns what was done. Raises InstallError."""
    with _lock(name):
        if is_installed(name):
            return "up to date"
        if name in DEBIAN:
            _install_package(name)
        else:
            _build(name)
        return "installed"


def _spec_hash(name: str) -> str:
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for path in sorted((SPECS / name).iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _build(name: str) -> None:
    spec, target = SPECS / name, directory(name)
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, with_pip=True)
    python = target / "bin" / "python"
    _run(
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--requirement", str(spec / "requirements.txt")),
        ],
        cwd=target,
    )
    if (spec / "package.json").is_file():
        shutil.copy(spec / "package.json", target / "package.json")
        # Install scripts would download browsers and other binaries; no package here needs its own.
        _run(
            [
                *(str(target / "bin" / "npm"), "install", "--ignore-scripts", "--no-package-lock"),
                *("--no-audit", "--no-fund", "--loglevel=error"),
            ],
            cwd=target,
            path=target / "bin",
        )
    (target / STAMP).write_text(_spec_hash(name))


def _install_package(name: str) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise InstallError(f"{DEBIAN[name]} is not on the PATH: `apt-get install {name}`, as root")
    # One at a time: the package manager allows no second one beside it.
    with _lock("apt"):
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", name])


def _run(command: list[str], *, cwd: Path | None = None, path: Path | None = None) -> None:
    # In run level 1 Debian starts no service that it has just installed.
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment.get('PATH', '')}"
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"`{' '.join(command)}` took over {COMMAND_TIMEOUT_SECONDS} s") from None
    if done.returncode:
        output = (done.stdout + done.stderr).strip()[-4000:]
        raise InstallError(f"`{' '.join(command)}` exited with {done.returncode}:\n{output}")


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Two installers at once (say, two terminals) build each environment once."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _report(name: str) -> bool:
    started = time.monotonic()
    try:
        outcome, good = install(name), True
    except InstallError as error:
        outcome, good = f"FAILED: {error}", False
    print(f"{name}: {outcome} ({time.monotonic() - started:.1f} s)", flush=True)
    return good


def main() -> int:
    """The command line; exits 1 when an environment could not be built."""
    parser = argparse.ArgumentParser(description="Build the environments of the end-to-end tests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)} (default: all)")
    names = parser.parse_args().names or list(NAMES)
    unknown = [name for name in names if name not in (*NAMES, *ON_DEMAND)]
    if unknown:
        parser.error(f"unknown environment {', '.join(unknown)}; there are {', '.join((*NAMES, *ON_DEMAND))}")
    with ThreadPoolExecutor(max_workers=2) as workers:
        return 0 if all(list(workers.map(_report, names))) else 1


if __name__ == "__main__":
    sys.exit(main())
