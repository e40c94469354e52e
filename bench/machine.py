"""On what and with what was measured."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from e2e.launch import environment, install, node, node_module

from .contenders import ENVIRONMENT

_OURS = ("aiohttp", "uvloop", "msgspec")
_THEIRS = ("mcp", "fastmcp", "uvicorn")


def _say(command: Sequence[str], pattern: str) -> str:
    """The first group of a pattern in what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def describe_machine() -> str:
    """Processor, cores, memory, kernel."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    name = model[1].strip() if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {gibibytes:.0f} GiB, Linux {platform.release()}"


def describe_versions() -> Mapping[str, str]:
    """Versions by name. What is not installed has a question mark."""
    found = {"mcp-session-proxy": version("mcp-session-proxy"), "Python": platform.python_version()}
    found |= {name: version(name) for name in _OURS}
    code = (
        f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {_THEIRS!r}}}))"
    )
    try:
        python = str(environment(ENVIRONMENT) / "bin" / "python")
        found |= json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)
        found["Node"] = _say([node(), "--version"], r"v(\S+)")
        package = json.loads(Path(node_module("fastmcp/package.json")).read_text())
        found["npm fastmcp"] = package["version"]
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        print(f"versions: {error}", file=sys.stderr)
    for name, argument in (("nginx", "-v"), ("wrk", "-v")):
        program = install.find_program(name)
        found[name] = _say([program, argument], r"(?:nginx/|wrk (?:debian/)?)(\S+)") if program else "?"
    return found
