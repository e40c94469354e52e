"""Runs the command `check`, and reads what it wrote."""

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .launch import program_environment


@dataclass
class Outcome:
    """What one run of the command ended with."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON that it wrote."""
        return json.loads(self.out)

    def verdicts(self, side: str = "direct") -> dict[str, str]:
        """Each client's verdict."""
        return {client: fate["verdict"] for client, fate in self.document[side]["clients"].items()}


class Command:
    """Runs `check`, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self._environment = program_environment(home)

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mcp_session_proxy", "check", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self._environment["HOME"],
            # Whoever starts the tests in the background of a shell has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    async def __call__(self, *arguments: str, typed: bytes = b"") -> Outcome:
        """Run it to its end."""
        process = await self.begin(*arguments)
        async with asyncio.timeout(60):
            out, err = await process.communicate(typed)
        assert b"Traceback" not in err, err.decode()
        return Outcome(process.returncode or 0, out.decode(), err.decode())
