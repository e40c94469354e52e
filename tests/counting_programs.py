"""Real clients, each a process in an environment of its own, that call without pause; what they were told."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from e2e.launch import node, node_module, program_environment, python
from e2e.run import CLIENTS
from proxy_bench import PATIENCE_SECONDS

# What a library says of a connection that was refused.
_REFUSED = ("ECONNREFUSED", "All connection attempts failed", "ConnectError", "Connection refused")


@dataclass(frozen=True)
class Kind:
    """A client: the environment that it is in, or Node's, and what its script calls it."""

    environment: str
    kind: str
    mode: str = ""

    @property
    def command(self) -> list[str]:
        if self.environment == "node":
            return [node(), str(CLIENTS / "counting.mjs")]
        return [python(self.environment), str(CLIENTS / "counting.py")]


# None finds out by itself which era there is: one whose question about that is cut off goes on as a legacy
# client, which to a server is another one, with a session of its own.
KINDS = {
    "mcp-1.30": Kind("mcp-1.30", "v1"),
    "mcp-2-legacy": Kind("mcp-2", "v2", "legacy"),
    "mcp-2-modern": Kind("mcp-2", "v2", "2026-07-28"),
    "fastmcp-legacy": Kind("mcp-2", "fastmcp", "legacy"),
    "fastmcp-modern": Kind("mcp-2", "fastmcp", "2026-07-28"),
    "langchain": Kind("langchain", "langchain"),
    "sdk-ts-1": Kind("node", "v1"),
    "sdk-ts-2": Kind("node", "v2"),
}


class CountingProgram:
    """One of them. ``seconds`` is how long it waits for an answer."""

    def __init__(self, kind: str, home: Path, seconds: float) -> None:
        self.kind = kind
        self.name = f"sdk-{kind}"
        self.answered = 0
        self.refused: Counter[str] = Counter()  # connections
        self.unknown: list[str] = []  # the tags of calls that it got no answer to
        self.trouble: list[str] = []
        self.said: list[str] = []  # what it was told in place of an answer
        self.seen = 0  # the count that was told last
        self._since = 0  # calls that may have counted since
        self._home = home / self.name
        self._home.mkdir()
        self._seconds = seconds

    async def run(self, url: str, stop: asyncio.Event) -> None:
        """Count until it is told to stop."""
        known = KINDS[self.kind]
        plan = {"kind": known.kind, "mode": known.mode, "seconds": self._seconds}
        with (self._home / "errors.log").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(*known.command, url, self.name, json.dumps(plan)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                env=program_environment(self._home, {"E2E_NODE_MODULES": node_module("")}),
            )
        assert process.stdin is not None
        assert process.stdout is not None
        reading = asyncio.create_task(self._read(process.stdout))
        try:
            await asyncio.wait(
                [reading, stopping := asyncio.create_task(stop.wait())], return_when="FIRST_COMPLETED"
            )
            stopping.cancel()
            process.stdin.close()
            async with asyncio.timeout(PATIENCE_SECONDS + self._seconds):
                await reading
                await process.wait()
        finally:
            reading.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, (self._home / "errors.log").read_text()[-3000:]

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            self._take(json.loads(line))

    def _take(self, line: dict[str, str | None]) -> None:
        tag, count, error = line["tag"], line.get("count"), line.get("error")
        if count is not None:
            now = int(count)
            if not self.seen + 1 <= now <= self.seen + 1 + self._since:
                self.trouble.append(f"{self.name}: {now} after {self.seen} and {self._since} unknown")
            self.seen, self._since = now, 0
            self.answered += 1
            return
        self.said.append(f"{tag}: {error}")
        if any(word in str(error) for word in _REFUSED):
            self.refused[str(error)] += 1
        if tag is not None:
            self.unknown.append(tag)
            self._since += 1
