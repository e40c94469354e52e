"""One caller harms the proxy by every means that there is; others that the server has accepted go on.

HAMMER_SECONDS says for how long, by each means; from 30 on, or with FULL_FAULTS=1, a proxy then has half a
minute's rest, and what it has left is looked at. Meanwhile another one is attacked. What was measured is
printed as a table at the end, and written to the file HAMMER_TABLE, each row as soon as it is whole.
"""

import asyncio
import contextlib
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from certificates import Authority
from e2e.launch import KINDS, Fleet, Kind, Proxy, get, program_environment

from . import attacks
from .clients import ERAS, Client

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SECONDS = float(os.environ.get("HAMMER_SECONDS", "1"))
REST_SECONDS = 30.0 if SECONDS >= 30 or os.environ.get("FULL_FAULTS") else 0.0
TABLE = os.environ.get("HAMMER_TABLE")
# What the proxy may have. Its budget of memory follows from that.
OPEN_FILES = 1024
MEMORY_BYTES = 256 * attacks.MIB
BETWEEN_CALLS_SECONDS = 0.1
# For an attacker to begin.
START_SECONDS = 30.0
# Not what is promised, but what a machine with other work may need; a hang is longer.
HANG_SECONDS = 15.0
PROMISED_SECONDS = 1.0
# Connections to the server that are kept for a while after their calls, and GET streams of sessions that the
# attacker may come back to; both have limits.
FILES_LEFT = 250
# What sessions, profiles and events take that are kept for the attacker's return.
MEMORY_LEFT_BYTES = 64 * attacks.MIB
SERIES_LEFT = 100
HERE = Path(__file__).parent

KINDS["obedient"] = Kind(
    name="obedient",
    command=lambda port: [sys.executable, str(HERE / "obedient_server.py"), "--port", str(port)],
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What the proxy has, at one moment."""

    files: int = 0
    memory_bytes: int = 0
    peak_bytes: int = 0


@dataclass(kw_only=True)
class Row:
    """What one attack did: how long others waited, what the proxy had before, meanwhile and later, and what
    went wrong."""

    name: str
    slowest_seconds: float = math.inf
    direct_seconds: float = math.inf
    ready_seconds: float = 0.0
    before: Level = Level()
    peak_bytes: int = 0
    peak_files: int = 0
    after: Level = Level()
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        levels = (self.before.memory_bytes, self.peak_bytes, self.after.memory_bytes)
        memory = " | ".join(f"{size / attacks.MIB:.0f}" for size in levels)
        means = (attacks.BY_NAME[self.name].__doc__ or self.name).removesuffix(".")
        return (
            f"| `{self.name}`: {means} | {self.slowest_seconds:.2f} | {self.direct_seconds:.2f} "
            f"| {self.ready_seconds:.2f} | {memory} | {self.before.files} | {self.peak_files} "
            f"| {self.after.files} | {self.verdict} |"
        )

    def left(self) -> list[str]:
        """What it has too much of afterwards."""
        files = self.after.files > self.before.files + FILES_LEFT
        memory = self.after.memory_bytes > self.before.memory_bytes + MEMORY_LEFT_BYTES
        return ["descriptors are left"] * files + ["memory is left"] * memory

    @property
    def verdict(self) -> str:
        """Whether all is as promised; a machine with other work may be too slow for that."""
        late = self.slowest_seconds > self.direct_seconds + PROMISED_SECONDS
        told = [*self.problems, *(["others waited"] if late else [])]
        told += ["/readyz waited"] if self.ready_seconds > PROMISED_SECONDS else []
        return "; ".join(told).replace("\n", " ").replace("|", "/")[:300] or "kept"


LATER = f"{REST_SECONDS:g} s later"
HEADING = (
    f"| {SECONDS:g} s of | others waited at most, s | directly at the server, s | `/readyz` within, s "
    f"| MiB before | at the peak | {LATER} | descriptors before | at the peak | {LATER} | the promise |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


class Table:
    """One row for each attack."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._write(HEADING)

    def add(self, row: Row) -> None:
        """It is whole."""
        self.rows.append(row)
        self._write(str(row))

    def _write(self, line: str) -> None:
        if TABLE is not None:
            with Path(TABLE).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


@dataclass(kw_only=True)
class Victim:
    """Somebody who calls all the time and counts along; ``wrong`` is the first thing that should not be."""

    client: Client
    count: int = 0
    slowest_seconds: float = 0.0
    calling_since: float | None = None
    wrong: object = None

    async def call(self) -> None:
        """One call: the count of its session is one more than before."""
        begun = self.calling_since = time.monotonic()
        self.count += 1
        try:
            told = await asyncio.wait_for(self.client.call("increment", self.count), 30)
            if told.outcome != "result" or int(told.reply.text) != self.count:
                self.wrong = self.wrong or (self.count, told)
                self.count = int(told.reply.text) if told.outcome == "result" else self.count - 1
        except Exception as error:  # whatever it is, it should not be
            self.wrong = self.wrong or (self.count, repr(error))
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)
        self.calling_since = None

    @property
    def waited_seconds(self) -> float:
        """For how long it has waited at most, in the call that is under way, too."""
        since = self.calling_since
        return max(self.slowest_seconds, 0.0 if since is None else time.monotonic() - since)


class Victims(threading.Thread):
    """One victim of each era, at work in a thread until ``leave``. The session-less one connects anew.

    ``direct`` calls the server itself, which the attacker keeps busy, too, and the machine is another's.
    """

    direct: Victim

    def __init__(self, url: str, server_url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._server_url = server_url
        self._over = threading.Event()
        self._ready: Future[None] = Future()
        self.all: list[Victim] = []

    def begin(self) -> None:
        """Start; returns when each has called for the first time."""
        self.start()
        self._ready.result(30)

    def leave(self) -> None:
        """Stop calling."""
        self._over.set()
        self.join(60)

    def forget(self) -> None:
        """Measure anew; the counts go on."""
        for victim in (*self.all, self.direct):
            victim.slowest_seconds, victim.wrong = 0.0, None

    def complaints(self) -> list[str]:
        """What should not be, told once."""
        told = [f"{victim.client.era}: {victim.wrong}" for victim in self.all if victim.wrong is not None]
        for victim in self.all:
            victim.wrong = None
        return told

    def run(self) -> None:
        """What the thread does."""
        asyncio.run(self._work())

    async def _work(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for era in ERAS:
                connector = aiohttp.TCPConnector(force_close=era == "sessionless", ssl=False)
                http = await stack.enter_async_context(
                    aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
                )
                self.all.append(Victim(client=Client(http, self._url, era, token=f"victim-{era}")))
            self.direct = Victim(client=Client(http, self._server_url, "session", token="direct"))
            async with asyncio.TaskGroup() as tasks:
                for victim in (*self.all, self.direct):
                    assert await victim.client.open() is None
                    await victim.call()
                    tasks.create_task(self._go_on(victim))
                self._ready.set_result(None)

    async def _go_on(self, victim: Victim) -> None:
        while not self._over.is_set():
            await asyncio.sleep(BETWEEN_CALLS_SECONDS)
            await victim.call()


class Scene:
    """The proxy with few descriptors and little memory, and its victims."""

    def __init__(self, proxy: Proxy, victims: Victims) -> None:
        self.proxy = proxy
        self.victims = victims
        self._resting: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the proxy lives."""
        process = self.proxy.program.process
        return process is not None and process.poll() is None

    def level(self) -> Level:
        """What the proxy has now."""
        assert self.is_alive, f"the proxy died: {self.proxy.program.tail(500)}"
        pid = self._pid
        status = Path(f"/proc/{pid}/status").read_text()
        sizes = {name: int(size) * 1024 for name, size in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return Level(files=files, memory_bytes=sizes["VmRSS"], peak_bytes=sizes["VmHWM"])

    def readiness_took(self) -> float:
        """How long ``/readyz`` needs to say that all is well, in seconds; for ever, if it does not."""
        begun = time.monotonic()
        status, _ = get(f"{self.proxy.admin}/readyz", timeout_seconds=HANG_SECONDS)
        return time.monotonic() - begun if status == 200 else math.inf

    def requests_under_way(self) -> int:
        """At the server, the victims' included."""
        sessions = self.proxy.json("/sessions?limit=1000")["upstream_sessions"]
        return sum(session["in_flight"] for session in sessions)

    def forget(self) -> None:
        """The peak, and what others wait for, are measured from here on."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        self.victims.forget()

    @property
    def _pid(self) -> int:
        process = self.proxy.program.process
        assert process is not None
        return process.pid

    def suffer(self, row: Row) -> None:
        """One attack."""
        with noting(row):
            self.forget()
            row.before = self.level()
            before = self.proxy.metrics()
            with under_attack(row.name, self.proxy, HERE):
                until = time.monotonic() + SECONDS
                while time.monotonic() < until:
                    time.sleep(0.2)
                    level = self.level()
                    row.peak_bytes, row.peak_files = level.peak_bytes, max(row.peak_files, level.files)
                    row.ready_seconds = max(row.ready_seconds, self.readiness_took())
            row.peak_bytes = self.level().peak_bytes
            metrics = self.proxy.metrics()
            assert len(metrics) <= len(before) + SERIES_LEFT, "too many series"
            assert metrics["bugs_total"] == before["bugs_total"], "bugs"
        row.slowest_seconds = max(victim.waited_seconds for victim in self.victims.all)
        row.direct_seconds = self.victims.direct.waited_seconds
        row.problems += self.victims.complaints()
        for what, seconds in (("a victim", row.slowest_seconds), ("/readyz", row.ready_seconds)):
            if seconds >= HANG_SECONDS:
                row.problems.append(f"{what} waited {seconds:.1f} s")

    def rest(self, row: Row, table: Table) -> None:
        """Look at what it has when it has had its rest; that is seen to by a thread."""

        def look() -> None:
            time.sleep(REST_SECONDS)
            with noting(row):
                # The system may hold connections of an attacker that is gone, which are accepted only now.
                for _ in eventually_within(10 if REST_SECONDS else 30):
                    row.after = self.level()
                    left = row.left()
                    if not left and self.requests_under_way() <= len(ERAS):
                        break
                row.problems += left
            row.problems += self.victims.complaints()
            table.add(row)

        self._resting = threading.Thread(target=look, daemon=True)
        self._resting.start()

    def rested(self) -> None:
        """Wait until it has had its rest."""
        if self._resting is not None:
            self._resting.join(120)


@contextlib.contextmanager
def noting(row: Row) -> Iterator[None]:
    """What goes wrong is a problem of this attack's, and the next one has its turn."""
    try:
        yield
    except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        row.problems.append(str(error) or repr(error))


@contextlib.contextmanager
def play(fleet: Fleet, *options: str) -> Iterator[Scene]:
    """A server, a proxy with these options, and its victims."""
    server = fleet.new_server("obedient")
    proxy = fleet.new_proxy(server.url, "--park-timeout", "2s", "--detach-after", "1s", *options, start=False)
    limits = (f"--nofile={OPEN_FILES}:{OPEN_FILES}", f"--data={MEMORY_BYTES}")
    proxy.program.command = ["prlimit", *limits, *proxy.program.command]
    proxy.start()
    victims = Victims(proxy.url, server.url)
    victims.begin()
    try:
        yield Scene(proxy, victims)
    finally:
        victims.leave()


class Stage:
    """Where attacks are played, one after the other, each on the proxy that has rested for longest.

    What one of them breaks, the victims of the next would meet. A proxy that has died is replaced.
    """

    def __init__(self, fleet: Fleet, stack: contextlib.ExitStack, table: Table, *options: str) -> None:
        self._fleet = fleet
        self._stack = stack
        self._table = table
        self._options = options
        self._scenes: list[Scene] = []

    def attack(self, name: str) -> Row:
        """Play this attack. Where there is a rest, what it leaves is looked at later."""
        scene = self._next()
        row = Row(name=name)
        scene.suffer(row)
        scene.rest(row, self._table)
        if not REST_SECONDS:
            scene.rested()
        return row

    def _next(self) -> Scene:
        scene = self._scenes.pop(0) if len(self._scenes) > bool(REST_SECONDS) else None
        if scene is not None:
            scene.rested()
        if scene is None or not scene.is_alive:
            scene = self._stack.enter_context(play(self._fleet, *self._options))
        self._scenes.append(scene)
        return scene

    def end(self) -> None:
        """All have had their rest."""
        for scene in self._scenes:
            scene.rested()


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """All rows, printed at the end past pytest, which keeps what tests print; fails if one has a problem."""
    table = Table()
    yield table
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", HEADING, *table.rows, sep="\n", flush=True)
    assert [row.name for row in table.rows if row.problems] == []


@pytest.fixture(scope="module")
def stage(module_fleet: Fleet, table: Table) -> Iterator[Stage]:
    """For most attacks."""
    with contextlib.ExitStack() as stack:
        stage = Stage(module_fleet, stack, table)
        yield stage
        stage.end()


@pytest.fixture(scope="module")
def tls_stage(module_fleet: Fleet, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The same with listeners that speak TLS."""
    cert, key = Authority(tmp_path_factory.mktemp("authority")).issue("127.0.0.1")
    with contextlib.ExitStack() as stack:
        stage = Stage(module_fleet, stack, table, "--tls-cert", str(cert), "--tls-key", str(key))
        yield stage
        stage.end()


@pytest.mark.parametrize("name", [attack.__name__ for attack in attacks.ATTACKS])
def test_others_go_on(name: str, stage: Stage, figures: Callable[[str], None]) -> None:
    """Counts never restart, every call succeeds, the proxy stays ready and has its level again afterwards."""
    row = stage.attack(name)
    figures(str(row))
    assert row.problems == []


@pytest.mark.parametrize("name", [attack.__name__ for attack in attacks.TLS_ATTACKS])
def test_others_go_on_over_tls(name: str, tls_stage: Stage, figures: Callable[[str], None]) -> None:
    """The same, of what strangers can do to a listener with TLS."""
    row = tls_stage.attack(name)
    figures(str(row))
    assert row.problems == []


@contextlib.contextmanager
def under_attack(name: str, proxy: Proxy, folder: Path) -> Iterator[None]:
    """An attacker is at it, and leaves as rudely as it came."""
    log = proxy.program.log.with_name(f"{name}.log")
    command = [sys.executable, str(folder / "attacks.py"), name, "--url", proxy.url, "--admin", proxy.admin]
    with log.open("wb") as output:
        attacker = subprocess.Popen(
            command, stdout=output, stderr=output, env=program_environment(log.parent / "attacker")
        )
    try:
        # Where there is little time, it counts from the attack on.
        until = time.monotonic() + (0 if REST_SECONDS else START_SECONDS)
        while not log.stat().st_size and time.monotonic() < until:
            time.sleep(0.05)
        yield
        assert attacker.poll() is None, f"the attacker died: {log.read_text()[-500:]}"
    finally:
        attacker.kill()
        attacker.wait()


def eventually_within(seconds: float) -> Iterator[None]:
    """Once, and again and again until the time is up."""
    until = time.monotonic() + seconds
    yield
    while time.monotonic() < until:
        time.sleep(0.1)
        yield
