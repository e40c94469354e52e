"""A state directory that somebody changes, or a clock that somebody sets, while a proxy is at work there: its
clients notice nothing, the operator is told, and the next process goes on.
"""

import asyncio
import contextlib
import copy
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from http_server import HttpServer
from messages import INITIALIZE, call
from programs import running
from proxy_bench import BOTH, Bench, until
from restart_bench import ME, YOU, Restarts, rows

from mcp_session_proxy import events
from mcp_session_proxy.assembly.proxy import Proxy
from mcp_session_proxy.assembly.sockets import CannotStart
from mcp_session_proxy.assembly.stores import DirectoryStore
from mcp_session_proxy.sessions.ledger import place_of
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.store.engine import RecordPlace

pytestmark = pytest.mark.slow


async def count(bench: Bench, session: str | None = None, headers: dict[str, str] | None = None) -> int:
    """What the server's counter of this session says after one more call."""
    answer = await bench.post(call(), session=session, headers=headers)
    assert answer.status == 200, answer.body
    return int(answer.json["result"]["count"])


# -- what is changed while it is in use ------------------------------------------------------------------


def remove_file(path: Path) -> None:
    (path / "state.db").unlink()


def remove_journal(path: Path) -> None:
    (path / "state.db-wal").unlink()
    (path / "state.db-shm").unlink()


def remove_key(path: Path) -> None:
    (path / "key").unlink()


def remove_lock(path: Path) -> None:
    [lock] = path.glob("lock-*")
    lock.unlink()


def remove_all(path: Path) -> None:
    shutil.rmtree(path)


def empty(path: Path) -> None:
    """All of it is there before, and not in the journal."""
    with contextlib.closing(sqlite3.connect(path / "state.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (path / "state.db").stat().st_size
    os.truncate(path / "state.db", 0)


def put_another(path: Path) -> None:
    """A file of another format, as a restored backup may be."""
    (path / "state.db").unlink()
    (path / "state.db").write_bytes(b"no database at all " * 500)


@pytest.mark.parametrize(
    "change", [remove_file, remove_journal, remove_key, remove_lock, remove_all, empty, put_another]
)
async def test_what_somebody_changes(
    restarts: Restarts, server: HttpServer, change: Callable[[Path], None]
) -> None:
    """All that was in memory is written anew, that is said, and the next process goes on with it."""
    bench = await restarts.start()
    sessions = {"me": await bench.initialize(headers=ME), "you": await bench.initialize(headers=YOU)}
    assert await count(bench, sessions["me"], ME) == 1
    assert await count(bench, sessions["you"], YOU) == 1
    assert await count(bench) == 1
    state = bench.proxy._state
    assert state is not None
    await until(lambda: not state.ledger.pending and not state.ledger._turn.locked())
    change(restarts.path)
    # What is written before anybody has looked is lost with the old file, and written again.
    assert await count(bench, await bench.initialize(headers=ME), ME) == 1
    await until(lambda: restarts.told_of(events.StoreRecovered))
    failed = restarts.told_of(events.StoreFailed)[0]
    assert str(restarts.path) in failed.problem
    assert await count(bench, sessions["me"], ME) == 2
    await until(lambda: state.membership.is_sure and state.membership.up)
    await until(lambda: rows(restarts.path, "records") >= 6)
    bench = await restarts.restart()
    assert await count(bench, sessions["me"], ME) == 3
    assert await count(bench, sessions["you"], YOU) == 2
    assert await count(bench) == 2
    assert server.deleted == []
    assert not restarts.told_of(events.Crashed)


async def test_a_file_that_was_removed_between(restarts: Restarts, server: HttpServer) -> None:
    """The proxy begins without sessions, and says that there were some."""
    bench = await restarts.start()
    assert await count(bench) == 1
    await bench.stop()
    told: list[events.Event] = []
    (restarts.path / "state.db").unlink()
    store = await DirectoryStore.open(restarts.path, told.append)
    await store.close()
    assert [type(event) for event in told] == [events.StateMissing]
    bench = await restarts.start()
    assert await count(bench) == 1


# -- other servers ---------------------------------------------------------------------------------------


async def test_two_with_different_servers_at_once(tmp_path: Path) -> None:
    """However the two starts fall together, one of them serves, and the other one says who does."""

    async def start(stack: contextlib.AsyncExitStack, server: HttpServer) -> str | None:
        flags = {
            "upstream": server.url,
            "listen": "127.0.0.1:0",
            "admin_listen": "off",
            "state_dir": str(tmp_path / "state"),
            "log_level": "error",
        }
        try:
            await stack.enter_async_context(Proxy(load(flags)))
        except CannotStart as error:
            return str(error)
        return None

    async with HttpServer() as one, HttpServer() as other:
        for _ in range(3):
            async with contextlib.AsyncExitStack() as stack:
                problems = await asyncio.gather(start(stack, one), start(stack, other))
                [problem] = filter(None, problems)
                assert "is in use by a proxy in front of" in problem
                assert await start(stack, one if problems[0] else other) == problem


# -- what a record may say -------------------------------------------------------------------------------

_STRANGE: list[Any] = [None, -1, 1e300, 10**30, "", "x" * 5000, "\r\n\0", [], [[]], {}, {"a": [1]}, True]


def changed(record: Any) -> Iterator[Any]:
    """The record with something strange in the place of each of its parts."""
    for key, value in record.items() if isinstance(record, dict) else enumerate(record):
        for strange in _STRANGE:
            other = copy.copy(record)
            other[key] = strange
            yield other
        if isinstance(value, dict | list):
            for part in changed(value):
                other = copy.copy(record)
                other[key] = part
                yield other


async def test_records_that_say_strange_things(restarts: Restarts, server: HttpServer) -> None:
    """Sealed with the right key, whoever had that: they are passed over or gone on with."""
    bench = await restarts.start()
    await bench.initialize(headers=ME)
    assert await count(bench, headers=ME) == 1
    state = bench.proxy._state
    assert state is not None
    await until(lambda: not state.ledger.pending and not state.ledger._turn.locked())
    contents = state.cluster.contents
    [stored] = await state.membership.shards()
    tried = 0
    for place, sealed in (await state.membership.load(stored.shard)).items():
        record = json.loads(state.keys.open(place_of(stored.shard, place), sealed))
        for other in changed(record):
            tried += 1
            shard = f"{stored.shard}{tried}"
            data = state.keys.seal(place_of(shard, place), json.dumps(other).encode())
            await contents.take(shard, 1, {place: data})
            contents.let_go(shard)
    for principal in (None, "p"):
        for outcome in (None, "completed", "strange"):
            tried += 1
            task = {**_TASK, "principal": principal or stored.shard, "outcome": outcome}
            for other in (task, *changed(task)):
                place = RecordPlace("task", "t")
                data = state.keys.seal(place_of(f"t{tried}", place), json.dumps(other).encode())
                await contents.take(f"t{tried}", 1, {place: data})
                contents.let_go(f"t{tried}")
    assert tried > 100
    assert await count(bench, headers=YOU) == 1


_TASK: dict[str, Any] = {
    "v": 1,
    "id": "t1",
    "session": "u00000001",
    "upstream": "theirs",
    "capabilities": {},
    "created_at": "2026-01-01T00:00:00Z",
    "began": 0.0,
    "ttl_milliseconds": None,
    "poll_milliseconds": 100,
    "message": None,
    "payload": {"content": []},
    "asked": {"k": {"id": 1, "method": "elicitation/create", "params": {}}},
    "keys": ["k"],
    "reading": 7,
    "reading_after": "e1",
}


# -- clocks ----------------------------------------------------------------------------------------------

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.e2e
@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: run `make envs`")
async def test_a_clock_that_is_set(server: HttpServer, tmp_path: Path) -> None:
    """Forward and back by hours, and to 1970, while a proxy runs and between two: nobody's time is over, and
    what was written before goes on.
    """
    shown = tmp_path / "shown"
    clock: dict[str, Any] = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(shown),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    options = ["--listen", "127.0.0.1:0", "--admin-listen", "off", "--state-dir", str(tmp_path / "state")]
    options += ["--idle-timeout", "10m", "--client-session-timeout", "20m"]
    counted = 0
    session = None
    for before, after in [("+0", "-5h"), ("-5h", "+5h"), ("@1970-01-01 00:00:10", "+0")]:
        shown.write_text(before)
        async with (
            running(tmp_path, server.url, *options, **clock) as program,
            aiohttp.ClientSession() as http,
        ):
            url = (await program.ready())["endpoint"]
            for now in (before, after):
                shown.write_text(now)
                headers = {"Accept": BOTH, **ME}
                if session is None:
                    async with http.post(url, json=INITIALIZE, headers=headers) as response:
                        session = response.headers["Mcp-Session-Id"]
                async with http.post(
                    url, json=call(), headers={**headers, "Mcp-Session-Id": session}
                ) as response:
                    counted += 1
                    assert (await response.json())["result"]["count"] == counted
            await until(lambda: rows(tmp_path / "state", "records") == 2)
            program.process.kill()
            await program.ends()
    assert len(server.posts("initialize")) == 1
