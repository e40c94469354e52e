"""The file on the disk: who can read it, what becomes of it, and what is said of one that is no use."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from engine_world import HandClock

from mcp_session_proxy.store.engine import ClaimOutcome, RecordPlace, StoreFailure
from mcp_session_proxy.store.sqlite import SCHEMA, SqliteEngine
from mcp_session_proxy.store.sqlite_file import DamagedStore, NewerStore

ONE = RecordPlace("session", "u1")


@asynccontextmanager
async def opened(path: Path, **options: object) -> AsyncIterator[SqliteEngine]:
    engine = SqliteEngine(path, **options)  # type: ignore[arg-type]
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def write_one(engine: SqliteEngine) -> None:
    await engine.beat("m", b"card", 5.0, 0)
    claimed = await engine.claim("m", "s", 60.0)
    assert (await engine.write("m", "s", claimed.fence, {ONE: b"1"}, 60.0)).done


async def test_records_outlive_the_process(path: Path) -> None:
    """What was written is there when the file is opened again."""
    async with opened(path) as engine:
        await write_one(engine)
    async with opened(path) as engine:
        assert await engine.load("s") == {ONE: b"1"}


async def test_values_of_another_type(path: Path) -> None:
    """Whoever has changed the file may have left a text or a number: bytes, that nobody has sealed."""
    for value in ("text", 7, 1.5):
        async with opened(path) as engine:
            await write_one(engine)
        with sqlite3.connect(path) as database:
            database.execute("UPDATE records SET value=?", (value,))
        database.close()
        async with opened(path) as engine:
            assert await engine.load("s") == {ONE: str(value).encode()}


async def test_a_value_without_measure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than any record that is written is not read into memory."""
    monkeypatch.setattr("mcp_session_proxy.store.sqlite.RECORD_BYTES", 1000)
    for size, left in ((1000, 1000), (1001, 0)):
        async with opened(path) as engine:
            await write_one(engine)
        with sqlite3.connect(path) as database:
            database.execute("UPDATE records SET value=zeroblob(?)", (size,))
        database.close()
        async with opened(path) as engine:
            assert await engine.load("s") == {ONE: bytes(left)}


async def test_nobody_else_can_read_it(path: Path) -> None:
    """Neither the file nor what SQLite lays beside it, whatever the umask."""
    former = os.umask(0)
    try:
        async with opened(path) as engine:
            await write_one(engine)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(former)
    assert set(modes.values()) == {0o600}
    assert "state.db-wal" in modes


async def test_another_start_of_the_machine(path: Path) -> None:
    """Then nobody who beat before is alive, however long its lease: the clock of leases has begun anew."""
    clock = HandClock()
    async with opened(path, now=clock, boot="first") as engine:
        await engine.beat("m", b"", 5.0, 0)
        await engine.claim("m", "s", 60.0)
    clock.seconds = 1.0
    async with opened(path, now=clock, boot="second") as engine:
        assert await engine.members() == []
        await engine.beat("n", b"", 5.0, 0)
        assert (await engine.claim("n", "s", 60.0)).outcome is ClaimOutcome.TAKEN


async def test_a_newer_format(path: Path) -> None:
    """A file of a newer version is left as it is."""
    async with opened(path) as engine:
        await write_one(engine)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    db.close()
    with pytest.raises(NewerStore, match="newer version"):
        async with opened(path):
            pass


@pytest.mark.parametrize("content", [b"garbage " * 1000, None])
async def test_a_damaged_file(path: Path, content: bytes | None) -> None:
    """No database, or one with damage in the middle, is told as such."""
    if content is None:
        async with opened(path) as engine:
            await write_one(engine)
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        content = bytes(data)
    path.write_bytes(content)
    with pytest.raises(DamagedStore):
        async with opened(path):
            pass


async def test_a_file_that_was_cut_off(path: Path) -> None:
    """It counts as damaged, however often it is checked, until it is opened anew."""
    async with opened(path) as engine:
        await write_one(engine)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert engine.file.check()
        os.truncate(path, 0)
        assert not engine.file.check()
        assert not engine.file.check()
        await engine.open()
        assert engine.file.check()
        await write_one(engine)


async def test_another_programs_database(path: Path) -> None:
    """It is not touched."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()
    with pytest.raises(DamagedStore, match="another program"):
        async with opened(path):
            pass


async def test_what_cannot_be_written_is_told(path: Path) -> None:
    """A folder that is not there, and a disk that is full: an error for the operator, and nothing changed."""
    with pytest.raises(StoreFailure, match="No such file"):
        async with opened(path.parent / "missing" / "state.db"):
            pass
    async with opened(path) as engine:
        await write_one(engine)
        # As a full disk does: SQLite may not have another page.
        await engine.file.run(lambda: engine._db.execute("PRAGMA max_page_count=1").fetchone())
        with pytest.raises(StoreFailure, match="full"):
            await engine.write(
                "m", "s", 1, {RecordPlace("session", str(n)): b"x" * 4000 for n in range(9)}, 60.0
            )
        await engine.file.run(lambda: engine._db.execute("PRAGMA max_page_count=100000").fetchone())
        assert await engine.load("s") == {ONE: b"1"}
        await write_one(engine)


async def test_what_comes_together_is_one_transaction(path: Path) -> None:
    """Each has its own result, and what fails is undone alone; who gives up changes nothing for others."""
    async with opened(path) as engine:
        await write_one(engine)
        begun: list[str] = []
        engine._db.set_trace_callback(begun.append)

        def fail() -> None:
            engine._db.execute("DELETE FROM records")
            engine._db.execute("SELECT nothing FROM nowhere")

        writes = [engine.write("m", "s", 1, {RecordPlace("n", str(n)): b"x"}, 60.0) for n in range(3)]
        given_up = asyncio.create_task(engine.write("m", "s", 1, {RecordPlace("n", "3"): b"x"}, 60.0))
        asyncio.get_running_loop().call_soon(given_up.cancel)
        outcomes = await asyncio.gather(*writes, engine.file.change(fail), given_up, return_exceptions=True)
        assert outcomes[:3] == [(True, "m", 1)] * 3
        assert isinstance(outcomes[3], StoreFailure)
        assert isinstance(outcomes[4], asyncio.CancelledError)
        assert set(await engine.load("s")) >= {ONE, *(RecordPlace("n", str(n)) for n in range(3))}
        assert begun.count("BEGIN IMMEDIATE") == 1


async def test_reading_events_waits_for_no_write(path: Path) -> None:
    """Who comes back for them gets them while a write waits for the disk, or for another process."""
    async with opened(path) as engine:
        await engine.events.append("p", [(1, b"x")], 9, 60.0)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(engine.events.append("p", [(2, b"y")], 9, 60.0))
            assert await engine.events.after("p", 0) == [(1, b"x")]
            assert not writing.done()
            other.execute("ROLLBACK")
        await writing
        assert await engine.events.after("p", 0) == [(1, b"x"), (2, b"y")]


_WRITER = """
import asyncio, os, sys
from pathlib import Path
from mcp_session_proxy.store.engine import RecordPlace
from mcp_session_proxy.store.sqlite import SqliteEngine
async def main():
    engine = SqliteEngine(Path(sys.argv[1]))
    await engine.open()
    await engine.beat("m", b"", 60.0, 0)
    fence = (await engine.claim("m", "s", 60.0)).fence
    for n in range(1, 10**6):
        await engine.write("m", "s", fence, {RecordPlace("n", "n"): b"%d" % n}, 60.0)
        os.write(1, b"%d\\n" % n)
asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing_that_was_written(path: Path) -> None:
    """kill -9 in the middle of it: what a write has confirmed is there, and the file is whole."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        last = [int(writer.stdout.readline()) for _ in range(20)][-1]
        writer.kill()
        last = max([last, *(int(line) for line in writer.stdout if line.endswith(b"\n"))])
    async with opened(path) as engine:
        found = int((await engine.load("s"))[RecordPlace("n", "n")])
        assert found in (last, last + 1)
