"""Runs the tests, but the end-to-end ones, on another Python: this one, or that of another Debian.

    python3.13 tests/envs/pythons.py here [PYTEST OPTIONS]
    python3 tests/envs/pythons.py debian SUITE [PYTEST OPTIONS]

Each has an environment of its own under `.envs/`. The other Debian is a root made by debootstrap, in which
this project is mounted; nothing is changed on this machine. Only the standard library may be used here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
ENVS = PROJECT / ".envs"
# Where the project is inside of a root.
INSIDE = "/project"
PACKAGES = "python3,python3-venv,ca-certificates,make,git,netbase"
# How the machine reaches what pip installs from, and whom it trusts there.
SHARED = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs", "/usr/local/share/ca-certificates")


def here(name: str, options: Sequence[str]) -> int:
    """Run the tests on the interpreter that runs this; gives pytest's status."""
    folder = ENVS / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--editable", ".[dev]"], cwd=PROJECT, check=True)
    tests = [str(python), "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "-m", "not e2e"]
    return subprocess.run([*tests, *options], cwd=PROJECT).returncode


def debian(suite: str, options: Sequence[str]) -> int:
    """Run the tests in a root of another suite, which is made if there is none; gives pytest's status."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("this needs root, and debootstrap (`apt-get install debootstrap`)", file=sys.stderr)
        return 2
    root = ENVS / f"debian-{suite}"
    made = root / ".made"
    if not made.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root)],
            check=True,
        )
        made.touch()
    mounts = [("--rbind", PROJECT, INSIDE), ("--rbind", "/dev", "/dev")]
    # The environments of this machine would be another's in there: programs of another libc.
    mounts.append(("--bind", _folder(f"of-{suite}"), f"{INSIDE}/.envs"))
    script = ["set -e"]
    for kind, source, target in mounts:
        script.append(f"mkdir -p {root}{target}; mount {kind} {source} {root}{target}")
    script.append(f"mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/tmp")
    for shared in map(Path, SHARED):
        if shared.is_dir():
            script.append(f"mkdir -p {root}{shared}; mount --bind {shared} {root}{shared}")
        elif shared.exists():
            script.append(
                f"mkdir -p {root}{shared.parent}; rm -f {root}{shared}; cp -L {shared} {root}{shared}"
            )
    script.append(f'exec chroot {root} env -C {INSIDE} HOME=/root python3 tests/envs/pythons.py here "$@"')
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "; ".join(script), "root"]
    return subprocess.run([*command, "--name", "python", *options]).returncode


def _folder(name: str) -> Path:
    folder = ENVS / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the tests on another Python.")
    where = parser.add_subparsers(dest="where", required=True)
    mine = where.add_parser("here", help="on the Python that runs this")
    mine.add_argument("--name", default=f"python-{sys.version_info[0]}.{sys.version_info[1]}")
    where.add_parser("debian", help="in the root of a Debian").add_argument("suite")
    arguments, options = parser.parse_known_args()
    if arguments.where == "here":
        return here(arguments.name, options)
    return debian(arguments.suite, options)


if __name__ == "__main__":
    sys.exit(main())
