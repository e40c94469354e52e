"""The program itself under tests that are about processes: started, given sockets, stopped again."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from proxy_bench import PATIENCE_SECONDS

# As systemd does it: the sockets become the file descriptors from 3 on, and the variables name the process
# that the program will be.
_ACTIVATE = """
import fcntl, os, sys
names, numbers, command = sys.argv[1], [int(each) for each in sys.argv[2].split(",") if each], sys.argv[3:]
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for place, number in enumerate(high, 3):
    os.dup2(number, place)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(len(numbers)))
if names != "none":
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""


class Program:
    """One process of the program, and what it has said until now."""

    def __init__(self, process: Process, announcement: Path) -> None:
        self.process = process
        self._announcement = announcement
        self.said: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said.append(line.decode())

    async def ready(self, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """What it announces, once it serves."""
        await self.hears("proxy.started", patience_seconds)
        announced: dict[str, Any] = json.loads(self._announcement.read_text())
        return announced

    async def hears(self, event: str, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The first log event of this name."""
        async with asyncio.timeout(patience_seconds):
            while True:
                for line in self.said:
                    if line.startswith("{") and (entry := json.loads(line))["event"] == event:
                        return dict(entry)
                assert self.process.returncode is None, "".join(self.said)
                await asyncio.sleep(0.01)

    async def ends(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._reading
            return await self.process.wait()

    @property
    def complaint(self) -> str:
        """What it said of itself, without log events."""
        return "".join(line for line in self.said if not line.startswith("{"))


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    upstream: str,
    *options: str,
    sockets: Sequence[socket.socket | int] | None = None,
    names: str = "none",
    prefix: Sequence[str] = (),
    **environment: str,
) -> AsyncIterator[Program]:
    """The program before a server, in a folder of its own; with ``sockets``, as systemd gives them.

    ``prefix`` is a command that becomes the program.
    """
    announcement = folder / f"{len(list(folder.iterdir()))}.json"
    command = [
        *prefix,
        *(sys.executable, "-m", "mcp_session_proxy", "serve", upstream),
        *("--announce", str(announcement), "--log-format", "json", "--drain-timeout", "20s", *options),
    ]
    numbers = [each if isinstance(each, int) else each.fileno() for each in sockets or ()]
    if sockets is not None:
        command = [sys.executable, "-c", _ACTIVATE, names, ",".join(map(str, numbers)), *command]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    process = await asyncio.create_subprocess_exec(
        *command, env={**inherited, **environment}, stderr=PIPE, pass_fds=numbers
    )
    program = Program(process, announcement)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await program.ends()
