"""Members as processes of their own, on one store or in one directory, behind a balancer."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import balancer
import pytest
from counting import OPTIONS
from key_value_server import ANY, KeyValueServer, unused_port
from programs import Program, running
from proxy_bench import PATIENCE_SECONDS

KEY = "c1" * 32
# Several processes that start at the same time on a machine that is busy.
START_SECONDS = 120.0
_COUNT = """
local n = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do n = n + redis.call('HLEN', key) end
return n
"""
needs_nginx = pytest.mark.skipif(balancer.nginx() is None, reason="nginx is not installed: run `make envs`")


class Processes:
    """So many members before one server. Each has an address that it keeps when it is started again."""

    def __init__(self, folder: Path, upstream: str, stack: contextlib.AsyncExitStack, *options: str) -> None:
        self.folder = folder
        self.addresses: list[str] = []
        self.programs: list[Program] = []
        self._upstream = upstream
        self._stack = stack
        self._options = options
        self._all: list[Program] = []

    async def start(self, count: int = 3) -> None:
        """Start them."""
        for place in range(count):
            self.addresses.append(f"127.0.0.1:{unused_port()}")
            self.programs.append(await self._run(place))
        for program in self.programs:
            await program.ready(START_SECONDS)

    async def _run(self, place: int) -> Program:
        folder = self.folder / f"member-{place}"
        folder.mkdir(exist_ok=True)
        options = ["--listen", self.addresses[place], "--admin-listen", "off", *OPTIONS, *self._options]
        program = await self._stack.enter_async_context(running(folder, self._upstream, *options))
        self._all.append(program)
        return program

    async def again(self, place: int) -> None:
        """Another process, where one was that has ended."""
        self.programs[place] = await self._run(place)
        await self.programs[place].ready(START_SECONDS)

    async def kill(self, place: int) -> None:
        """``kill -9``."""
        program = self.programs[place]
        program.process.kill()
        await program.ends()

    def pause(self, place: int) -> None:
        """It stands still."""
        self.programs[place].process.send_signal(signal.SIGSTOP)

    def resume(self, place: int) -> None:
        """It goes on."""
        self.programs[place].process.send_signal(signal.SIGCONT)

    async def url(self) -> str:
        """The endpoint at a balancer in front of all of them."""
        folder = self.folder / "nginx"
        return f"{await self._stack.enter_async_context(balancer.running(folder, self.addresses))}/mcp"

    def urls(self) -> list[str]:
        """The endpoint at each of them."""
        return [f"http://{address}/mcp" for address in self.addresses]

    def told(self, event: str) -> int:
        """How often those that run now, and those that have ended, have told of this."""
        heard = (json.loads(line) for each in self._all for line in each.said if line.startswith("{"))
        return sum(entry["event"] == event for entry in heard)


def on_store(folder: Path, url: str, lease: str) -> Sequence[str]:
    """The options of members that share a store."""
    key = folder / "cluster.key"
    key.write_text(f"{KEY}\n")
    return [
        *("--store", url, "--cluster", "test", "--cluster-key-file", str(key)),
        *("--peer-listen", "127.0.0.1:0", "--lease", lease),
    ]


def records(store: KeyValueServer) -> int:
    """How many there are in the store."""
    return int(store.ask("EVAL", _COUNT, 0, "msp:*:s:*"))


async def until_written(written: Callable[[], int], wanted: int) -> None:
    """Wait until there are so many; who is asked is not asked all the time."""
    async with asyncio.timeout(4 * PATIENCE_SECONDS):
        while written() < wanted:
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[KeyValueServer]:
    """A store of a test's own."""
    folder.mkdir()
    server = KeyValueServer(folder, ANY, maxclients=1000)
    server.start()
    try:
        yield server
    finally:
        server.close()
