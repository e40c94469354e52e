"""Engines of each kind on clocks that a test turns by hand."""

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from key_value_server import PROGRAMS, KeyValueServer, running

from mcp_session_proxy.store.address import StoreAddress
from mcp_session_proxy.store.engine import Engine
from mcp_session_proxy.store.memory import MemoryEngine
from mcp_session_proxy.store.sqlite import SqliteEngine
from mcp_session_proxy.store.valkey import ValkeyEngine

KINDS = ["memory", "sqlite", *PROGRAMS]
# What runs for all tests of this process.
SERVERS = ExitStack()


class HandClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@cache
def key_value_server(program: str) -> KeyValueServer:
    """The server that all tests of this process share; each has a namespace of its own there."""
    folder = SERVERS.enter_context(tempfile.TemporaryDirectory())
    return SERVERS.enter_context(running(Path(folder), program))


def valkey_engine(server: KeyValueServer, clock: HandClock | None = None, **options: float) -> ValkeyEngine:
    """An engine for a cluster that nobody else is in."""
    # On a machine that is busy, a second is soon over.
    given = {"timeout_seconds": 20.0, **options}
    return ValkeyEngine(StoreAddress.parse(server.url), f"test.{secrets.token_hex(4)}", now=clock, **given)


@asynccontextmanager
async def open_engine(kind: str, folder: Path, clock: HandClock) -> AsyncIterator[Engine]:
    """An engine of this kind, empty."""
    if kind == "memory":
        yield MemoryEngine(clock)
        return
    engine: SqliteEngine | ValkeyEngine
    if kind == "sqlite":
        engine = SqliteEngine(folder / "state.db", now=clock, wall=clock, boot="this one")
        await engine.open()
    else:
        engine = valkey_engine(key_value_server(kind), clock)
    try:
        yield engine
    finally:
        await engine.close()
