"""``state check``: whether what lies in a state directory can be gone on with. Nothing in it is changed."""

import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..sessions.ledger import place_of
from ..sessions.record import UnreadableRecord
from ..sessions.stored import CLIENT, UPSTREAM, read_client, read_upstream
from ..store import state_dir
from ..store.engine import RecordPlace, StoreFailure
from ..store.sealing import Keys, Unsealed
from ..store.sqlite import SCHEMA


class Inspection(NamedTuple):
    """What was found: facts, and what is wrong. Without problems, a proxy would go on with it."""

    facts: list[str]
    problems: list[str]


def run(path: Path) -> int:
    """Look at a directory and say what is there; gives the exit status: 1 if anything is wrong."""
    facts, problems = inspect(path)
    sys.stdout.write("".join(f"{fact}\n" for fact in facts))
    sys.stderr.write("".join(f"mcp-session-proxy: {problem}\n" for problem in problems))
    return 1 if problems else 0


def inspect(path: Path) -> Inspection:
    """What is in a directory. A proxy may be at work there meanwhile."""
    file = path / state_dir.FILE
    if not file.exists():
        return Inspection([], [f"{file} does not exist: no proxy has kept its state there"])
    try:
        keys = Keys(state_dir.find_key(path))
        db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)
    except (StoreFailure, sqlite3.Error) as error:
        return Inspection([], [str(error)])
    try:
        return Inspection(*_inspect(db, path, keys))
    except sqlite3.Error as error:
        return Inspection([], [f"{file}: {error}"])
    finally:
        db.close()


def _inspect(db: sqlite3.Connection, path: Path, keys: Keys) -> tuple[list[str], list[str]]:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA:
        return [], [f"format {version}, and this version reads {SCHEMA}"]
    damage = [row for (row,) in db.execute("PRAGMA integrity_check(3)") if row != "ok"]
    if damage:
        return [], [f"damaged: {row}" for row in damage]
    counts: Counter[str] = Counter()
    servers: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    for shard, place, sealed in _records(db):
        try:
            data = keys.open(place_of(shard, place), sealed)
            if place.kind == UPSTREAM:
                servers[read_upstream(data, time.time(), 1).known.server] += 1
            elif place.kind == CLIENT:
                read_client(data, 0.0, time.time())
            counts[place.kind] += 1
        except Unsealed:
            problems["records that were sealed with another key"] += 1
        except UnreadableRecord as error:
            problems[f"records that cannot be read: {error}"] += 1
    (callers,) = db.execute("SELECT count(*) FROM shards").fetchone()
    facts = [
        f"{counts[UPSTREAM]} upstream sessions and {counts[CLIENT]} client sessions of {callers} callers",
        *(f"{number} sessions at {server}" for server, number in sorted(servers.items())),
        *(f"in use by process {pid}" for pid in _living(db, path)),
    ]
    return facts, [f"{number} {problem}" for problem, number in problems.items()]


def _records(db: sqlite3.Connection) -> Iterator[tuple[str, RecordPlace, bytes]]:
    for shard, kind, name, value in db.execute("SELECT shard, kind, name, value FROM records"):
        yield shard, RecordPlace(kind, name), value


def _living(db: sqlite3.Connection, path: Path) -> Iterator[object]:
    for member, card in db.execute("SELECT member, card FROM members"):
        if state_dir.is_held(path, member):
            yield json.loads(card).get("pid")
