"""Follows a document as a reader would: types its commands in order, in one folder, beside a server.

The documents speak of fixed ports; here they stand for free ones. A command that stays (`serve`) is left
running until the document ends or the next one takes its place.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from e2e.launch import (
    SERVERS,
    accepts_connections,
    environment,
    node,
    node_module,
    program_environment,
    python,
    unused_port,
)

from .markdown import ROOT

STAYS = re.compile(r"^(?:\w+=\S+ )*(mcp-session-proxy(?= (?:serve|demo --serve))|prometheus|npx)\b(?!.*&)")
# The port that a command listens on last, by its name in the documents.
LISTENS = {"mcp-session-proxy": "9090", "prometheus": "9091", "npx": "8000"}
COMMAND_SECONDS = 300.0
EVERYTHING = "@modelcontextprotocol/server-everything"


class Reader:
    """Somebody with a document, a terminal and an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(unused_port()) for port in ("8000", "8080", "9090", "9091")}
        self._staying: dict[str, subprocess.Popen[bytes]] = {}
        self._programs = self._write_programs()
        self.variables = program_environment(folder / "home") | {
            "PATH": f"{self._programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MCP_SESSION_PROXY_LISTEN": f"127.0.0.1:{self.ports['8080']}",
            "MCP_SESSION_PROXY_ADMIN_LISTEN": f"127.0.0.1:{self.ports['9090']}",
        }

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self._staying]:
            self._stop(name)

    def adapt(self, text: str) -> str:
        """The text with the ports of this reader."""
        return re.sub(
            r"(?<=:)(8000|8080|9090|9091)\b|(?<=PORT=)8000\b", lambda found: self.ports[found[0]], text
        )

    def have_a_server(self) -> None:
        """The document's own MCP server, which counts calls in each session."""
        if "npx" not in self._staying:
            self._stay(
                "npx", [python("mcp-1.30"), str(SERVERS / "counter_server.py"), "--port", self.ports["8000"]]
            )

    def have_a_proxy(self) -> None:
        """What the document told to start before."""
        if "mcp-session-proxy" not in self._staying:
            self._stay("mcp-session-proxy", shlex.split(f"mcp-session-proxy serve {self.endpoint}"))

    @property
    def endpoint(self) -> str:
        """The server's."""
        return f"http://127.0.0.1:{self.ports['8000']}/mcp"

    def type(self, text: str) -> str:
        """Run a block of shell commands; gives what those printed that ended."""
        printed, pending = "", ""
        for command in re.sub(r"\\\n\s*", " ", self.adapt(text)).splitlines():
            stays = STAYS.match(command.partition("#")[0].strip())
            if stays is None:
                pending += command + "\n"
                continue
            printed += self._run(pending)
            pending = ""
            # Variables may stand before the program.
            self._stay(stays[1], ["env", *shlex.split(command, comments=True)])
        return printed + self._run(pending)

    def write(self, name: str, text: str) -> None:
        """Save a file that the document shows, under the name that it gives."""
        (self.folder / name).write_text(self.adapt(text))

    def run_python(self, text: str, interpreter: str) -> str:
        """Run a Python program; gives what it printed."""
        program = self.folder / "program.py"
        program.write_text(self.adapt(text))
        return self._finish([interpreter, str(program)])

    def _run(self, script: str) -> str:
        if not re.sub(r"#.*", "", script).strip():
            return ""
        # 1 is its word for "some clients suffer", which is what the documents show.
        script = re.sub(r"^(mcp-session-proxy check .*)$", r"\1 || [ $? = 1 ]", script, flags=re.MULTILINE)
        if "mcp-session-proxy serve" in script:
            self._stop("mcp-session-proxy")
        return self._finish(["bash", "-euo", "pipefail", "-c", script])

    def _finish(self, command: list[str]) -> str:
        with (self.folder / "output.log").open("w+b") as output:
            process = self._start(command, output.fileno())
            try:
                status = process.wait(COMMAND_SECONDS)
            finally:
                _end(process, signal.SIGKILL)
            output.seek(0)
            printed = output.read().decode()
        assert status == 0, f"{command}\n{printed}"
        return printed

    def _stay(self, name: str, command: list[str]) -> None:
        self._stop(name)
        with (self.folder / f"{name}.log").open("ab") as output:
            process = self._start(command, output.fileno())
        self._staying[name] = process
        port, deadline = int(self.ports[LISTENS[name]]), time.monotonic() + 30
        while not accepts_connections(port):
            said = (self.folder / f"{name}.log").read_text()
            assert process.poll() is None, f"{command}\n{said}"
            assert time.monotonic() < deadline, f"{command} does not listen\n{said}"
            time.sleep(0.05)

    def _stop(self, name: str) -> None:
        process = self._staying.pop(name, None)
        if process is not None:
            _end(process, signal.SIGTERM)

    def _start(self, command: list[str], output: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _write_programs(self) -> Path:
        """`npx` starts what is installed already; `deploy` is there, as in the project's own folder."""
        environment("node")
        programs = self.folder / "bin"
        programs.mkdir()
        script = node_module(f"{EVERYTHING}/dist/index.js")
        npx = programs / "npx"
        npx.write_text(f'#!/bin/sh\n[ "$1" = {EVERYTHING} ] || exit 64\nshift\nexec {node()} {script} "$@"\n')
        npx.chmod(0o755)
        for source in (ROOT / "deploy" / "prometheus").iterdir():
            target = self.folder / "deploy" / "prometheus" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.adapt(source.read_text()))
        return programs


def _end(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Stop a program and whatever it started."""
    for each in (number, signal.SIGKILL):
        try:
            os.killpg(process.pid, each)
        except ProcessLookupError:
            break
        if each is not signal.SIGKILL:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
    process.wait(10)


def interpreters() -> Mapping[str, str]:
    """The Python that runs a block, by the remark above it."""
    return {"mcp-1": python("mcp-1.30")} | {name: python(name) for name in ("newest-mcp", "newest-langchain")}
