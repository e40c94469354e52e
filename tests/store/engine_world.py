"""Engines of each kind on clocks that a test turns by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp_session_proxy.store.engine import Engine
from mcp_session_proxy.store.memory import MemoryEngine
from mcp_session_proxy.store.sqlite import SqliteEngine

KINDS = ["memory", "sqlite"]


class HandClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def open_engine(kind: str, folder: Path, clock: HandClock) -> AsyncIterator[Engine]:
    """An engine of this kind, empty."""
    if kind == "memory":
        yield MemoryEngine(clock)
        return
    engine = SqliteEngine(folder / "state.db", now=clock, wall=clock, boot="this one")
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()
