"""The example of an event store of one's own, as it stands in the documents, with a PostgreSQL."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
from selection import THOROUGH

from mcp_session_proxy.store.events import EventStore, load

PAGE = Path(__file__).parents[2] / "docs" / "event-store.md"
PROGRAMS = Path("/usr/lib/postgresql")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not THOROUGH, reason="make thorough has a PostgreSQL"),
]


def as_postgres(*command: str) -> list[str]:
    """It refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of an empty database, over a unix socket."""
    [programs] = sorted(PROGRAMS.glob("*/bin"))[-1:]
    folder = tempfile.mkdtemp(prefix="pg-")
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = f"{folder}/data"
        run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
        subprocess.run(as_postgres(f"{programs}/initdb", "-A", "trust", "-U", "us", "-N", data), **run)  # type: ignore[call-overload]
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        start = as_postgres(f"{programs}/pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options)
        subprocess.run([*start, "start"], **run)  # type: ignore[call-overload]
        try:
            yield f"postgresql://us@/postgres?host={folder}"
        finally:
            subprocess.run([*start, "-m", "immediate", "stop"], **run)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EventStore]:
    """The example, loaded as ``--events`` does."""
    blocks = PAGE.read_text().split("```python\n")[1:]
    [example] = [text.partition("```")[0] for text in blocks if "asyncpg" in text]
    (tmp_path / "pg_events.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVENTS_URL", url)
    async with AsyncExitStack() as stack:
        yield await load("pg_events:PostgresEvents", stack)


async def test_it_keeps_what_it_promises(store: EventStore, url: str) -> None:
    """Each place its own, the newest, in order, twice is once, until it is forgotten or has had its time."""
    await store.append("a/b/1f-0", [(0, b"a"), (1, b"b")], 3, 60.0)
    await store.append("a/b/1f-1", [(1, b"x")], 3, 60.0)
    for _ in range(2):
        await store.append("a/b/1f-0", [(2**62, b"c"), (2**62 + 1, b"d")], 3, 60.0)
    assert list(await store.after("a/b/1f-0", -1)) == [(1, b"b"), (2**62, b"c"), (2**62 + 1, b"d")]
    assert list(await store.after("a/b/1f-0", 2**62)) == [(2**62 + 1, b"d")]
    assert list(await store.after("elsewhere", -1)) == []
    await store.drop("a/b/1f-0")
    assert list(await store.after("a/b/1f-0", -1)) == []
    assert list(await store.after("a/b/1f-1", 0)) == [(1, b"x")]
    await store.append("a/b/1f-1", [], 3, 0.01)
    await asyncio.sleep(0.02)
    assert list(await store.after("a/b/1f-1", 0)) == []
    await store.append("another", [], 3, 60.0)
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM mcp_events") == 0
    await connection.close()


async def test_many_at_once(store: EventStore) -> None:
    """As they come in a batch: different places at the same time."""
    await asyncio.gather(*(store.append(f"p{n}", [(1, b"%d" % n)], 3, 60.0) for n in range(50)))
    found = await asyncio.gather(*(store.after(f"p{n}", 0) for n in range(50)))
    assert [list(events) for events in found] == [[(1, b"%d" % n)] for n in range(50)]
