"""The newest version of what is tried, each in an environment of its own."""

import json
import re
import shutil
import subprocess
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from e2e.launch import environment, install

INSTALL_SECONDS: Final = 900.0


class NotInstalledError(Exception):
    """Something cannot be installed here, or does not run at all; the message is its last word."""


class Product(Protocol):
    """A client or a server: the name of its environment, and what to install into it."""

    @property
    def key(self) -> str:
        """Its name, as a file or a flag would have it."""

    @property
    def packages(self) -> Sequence[str]:
        """Python's packages or npm's; the version of the first is shown."""

    @property
    def is_javascript(self) -> bool:
        """Whether they are npm's."""


def key(name: str) -> str:
    """A name, as a file or a flag would have it."""
    return "-".join(re.sub(r"[@.,]", "", re.sub(r"[/+]", " ", name.lower())).split())


def prepare(product: Product, folder_name: str) -> Path:
    """Install it, unless that was done this week; gives its folder. Raises NotInstalledError."""
    folder: Path = install.ROOT / folder_name
    stamp = folder / ".stamp"
    wanted = json.dumps(list(product.packages))
    fresh = stamp.is_file() and time.time() - stamp.stat().st_mtime < install.NEWEST_SECONDS
    if fresh and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    if product.is_javascript:
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n')
        npm = [str(environment("node") / "bin" / "npm"), "install", "--ignore-scripts", "--no-package-lock"]
        command = [*npm, "--no-audit", "--no-fund", "--loglevel=error", *product.packages]
    else:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        command = [*pip, *product.packages]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"takes longer than {INSTALL_SECONDS:.0f} s to install") from None
    if done.returncode:
        raise NotInstalledError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    stamp.write_text(wanted)
    return folder


def version(product: Product, folder: Path) -> str:
    """The version of what was installed."""
    name = product.packages[0]
    if product.is_javascript:
        described: str = json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]
        return described
    name = name.partition("[")[0].partition("<")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    command = [str(folder / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
