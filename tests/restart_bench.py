"""A proxy that is stopped or killed, and another one that goes on in its directory, before one server."""

import contextlib
import shutil
import socket
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from aiohttp import web
from http_server import HttpServer
from programs import Program, running
from proxy_bench import Bench, until

from mcp_session_proxy import events

ME = {"Authorization": "Bearer me"}
YOU = {"Authorization": "Bearer you"}
AnyBench = TypeVar("AnyBench", bound=Bench)


class Successors(Generic[AnyBench]):
    """One bench after another, each with a proxy of its own before the same server.

    ``options`` are those of all; ``bench`` is the newest one, and ``told`` what any has told.
    """

    bench: AnyBench

    def __init__(self, make: Callable[[], AnyBench], **options: str) -> None:
        self.told: list[events.Event] = []
        self.options = options
        self._make = make

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, **options: Any) -> AnyBench:
        """The next one; the one before is stopped, as by SIGTERM."""
        await self.stop()
        self.bench = await self._make().__aenter__()
        await self.bench.start(**{**self.options, **options})
        self.bench.watch(self.told.append)
        return self.bench

    async def stop(self) -> None:
        """None is left."""
        if hasattr(self, "bench"):
            await self.bench.stop()

    def told_of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


class Restarts(Successors[Bench]):
    """Those that go on in the same directory."""

    def __init__(self, server: HttpServer, path: Path) -> None:
        super().__init__(partial(Bench, server), state_dir=str(path), drain_timeout="1s")
        self.server = server
        self.path = path

    async def restart(self, **options: Any) -> Bench:
        """SIGTERM, and another one."""
        return await self.start(**options)

    async def crash(self, **options: Any) -> Bench:
        """Go on with what lies on the disk now, as after kill -9: no goodbye of the former one is heard."""
        ledger = self.bench.proxy._state.ledger  # type: ignore[union-attr]
        await until(lambda: not ledger.pending and not ledger._turn.locked())
        kept = self.bench.proxy.core.delivery.ledger
        await until(lambda: kept is None or (not kept.pending and not kept._turn.locked()))
        copy = self.path.with_name(self.path.name + "'")
        shutil.copytree(self.path, copy, ignore=shutil.ignore_patterns("*.sock"))
        self.server.on["DELETE"] = _unheard
        await self.bench.stop()
        del self.server.on["DELETE"]
        self.path = copy
        self.options["state_dir"] = str(copy)
        return await self.start(**options)


def rows(path: Path, table: str) -> int:
    """How many there are in a table of the file."""
    with contextlib.closing(sqlite3.connect(path / "state.db")) as db:
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


async def _unheard(*_: Any) -> web.Response:
    return web.Response()


class Succession:
    """One process after another, on one socket or with --replace, in one directory.

    ``how`` is SIGTERM, kill -9 or replace.
    """

    def __init__(
        self, folder: Path, upstream: str, how: str, stack: contextlib.AsyncExitStack, *options: str
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._upstream = upstream
        self._options = options
        self._how = how
        self._stack = stack
        self._socket = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._socket.setblocking(False)
        (folder / "run").mkdir()
        self.program: Program

    async def start(self) -> str:
        """The next process; the URL that all have."""
        options = ["--state-dir", str(self.state), "--admin-listen", "off", *self._options]
        listen: dict[str, Any] = {"sockets": [self._socket]}
        if self._how == "replace":
            # The first one binds; the others are given what it has.
            options += ["--listen", "127.0.0.1:0", "--replace"]
            listen = {"RUNTIME_DIRECTORY": str(self.folder / "run")}
        self.program = await self._stack.enter_async_context(
            running(self.folder, self._upstream, *options, **listen)
        )
        return str((await self.program.ready())["endpoint"])

    async def succeed(self) -> None:
        """Another process takes the place of this one."""
        before = self.program
        if self._how == "replace":
            await self.start()
            assert await before.ends() == 0
            return
        if self._how == "SIGTERM":
            before.process.terminate()
            assert await before.ends() == 0
        else:
            before.process.kill()
            await before.ends()
        await self.start()
