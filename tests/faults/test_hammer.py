"""One caller harms the proxy by every means that there is; others that the server has accepted go on.

HAMMER_SECONDS says for how long, by each means; from 30 on, or with FULL_FAULTS=1, half a minute is waited
after each of them. What was measured is printed as a table at the end.
"""

import asyncio
import contextlib
import dataclasses
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
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
OPEN_FILES = 1024
BETWEEN_CALLS_SECONDS = 0.1
# Not what is promised, but what a machine with other work may need; a hang is longer.
HANG_SECONDS = 15.0
# Connections to the server that are kept for a while after their calls, and GET streams of sessions that the
# attacker may come back to; both have limits.
FILES_LEFT = 250
MEMORY_LEFT_BYTES = 256 * attacks.MIB
SERIES_LEFT = 100
HERE = Path(__file__).parent

KINDS["obedient"] = Kind(
    name="obedient",
    command=lambda port: [sys.executable, str(HERE / "obedient_server.py"), "--port", str(port)],
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What the proxy has, at one moment."""

    files: int
    memory_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one attack did: how long others waited, and what the proxy had before, meanwhile and later."""

    name: str
    slowest_seconds: float
    direct_seconds: float
    ready_seconds: float
    before: Level
    peak: Level
    after: Level

    def __str__(self) -> str:
        levels = (self.before.memory_bytes, self.peak.peak_bytes, self.after.memory_bytes)
        memory = " | ".join(f"{size / attacks.MIB:.0f}" for size in levels)
        means = (attacks.BY_NAME[self.name].__doc__ or self.name).removesuffix(".")
        return (
            f"| `{self.name}`: {means} | {self.slowest_seconds:.2f} s | {self.direct_seconds:.2f} s "
            f"| {self.ready_seconds:.2f} s "
            f"| {memory} | {self.before.files} | {self.peak.files} | {self.after.files} |"
        )


LATER = f"{REST_SECONDS:g} s later"
HEADING = (
    f"| {SECONDS:g} s of | others waited at most | directly at the server | `/readyz` took at most "
    f"| MiB before | at the peak | {LATER} | descriptors before | at the peak | {LATER} |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(kw_only=True)
class Victim:
    """Somebody who calls all the time and counts along; ``wrong`` is the first thing that should not be."""

    client: Client
    count: int = 0
    slowest_seconds: float = 0.0
    wrong: object = None

    async def call(self) -> None:
        """One call: the count of its session is one more than before."""
        begun = time.monotonic()
        self.count += 1
        try:
            told = await asyncio.wait_for(self.client.call("increment", self.count), 30)
            if told.outcome != "result" or int(told.reply.text) != self.count:
                self.wrong = self.wrong or (self.count, told)
                self.count = int(told.reply.text) if told.outcome == "result" else self.count - 1
        except Exception as error:  # whatever it is, it should not be
            self.wrong = self.wrong or (self.count, repr(error))
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)


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


@dataclass(kw_only=True)
class Scene:
    """The proxy with few descriptors and its victims."""

    proxy: Proxy
    victims: Victims

    def level(self) -> Level:
        """What the proxy has now."""
        process = self.proxy.program.process
        assert process is not None
        assert process.poll() is None, f"the proxy died\n{self.proxy.program.tail()}"
        status = Path(f"/proc/{process.pid}/status").read_text()
        sizes = {name: int(size) * 1024 for name, size in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
        files = len(os.listdir(f"/proc/{process.pid}/fd"))
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

    def forget_peak(self) -> None:
        """The peak is measured from here on."""
        process = self.proxy.program.process
        assert process is not None
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def play(fleet: Fleet, *options: str) -> Iterator[Scene]:
    """A server, a proxy with these options, and its victims."""
    server = fleet.new_server("obedient")
    proxy = fleet.new_proxy(
        server.url,
        *("--memory-budget", "256MiB", "--park-timeout", "2s", "--detach-after", "1s", *options),
        start=False,
    )
    proxy.program.command = ["prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}", *proxy.program.command]
    proxy.start()
    victims = Victims(proxy.url, server.url)
    victims.begin()
    yield Scene(proxy=proxy, victims=victims)
    victims.leave()


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """One row for each attack, printed at the end past pytest, which keeps what tests print."""
    rows: list[Row] = []
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", HEADING, *rows, sep="\n", flush=True)


@pytest.fixture(scope="module")
def scene(module_fleet: Fleet) -> Iterator[Scene]:
    """One proxy for all attacks: what one of them breaks, the victims of the next would meet."""
    with play(module_fleet) as scene:
        yield scene


@pytest.fixture(scope="module")
def tls_scene(module_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same with a listener that speaks TLS."""
    cert, key = Authority(tmp_path_factory.mktemp("authority")).issue("127.0.0.1")
    with play(module_fleet, "--tls-cert", str(cert), "--tls-key", str(key)) as scene:
        yield scene


@pytest.mark.parametrize("name", [attack.__name__ for attack in attacks.ATTACKS])
def test_others_go_on(name: str, scene: Scene, table: list[Row], figures: Callable[[str], None]) -> None:
    """Counts never restart, every call succeeds, the proxy stays ready and has its level again afterwards."""
    hammer(name, scene, table, figures)


@pytest.mark.parametrize("name", [attack.__name__ for attack in attacks.TLS_ATTACKS])
def test_others_go_on_over_tls(
    name: str, tls_scene: Scene, table: list[Row], figures: Callable[[str], None]
) -> None:
    """The same, of what strangers can do to a listener with TLS."""
    hammer(name, tls_scene, table, figures)


def hammer(name: str, scene: Scene, table: list[Row], figures: Callable[[str], None]) -> None:
    """One attack, and what is left when it is over."""
    scene.forget_peak()
    scene.victims.forget()
    before, series = scene.level(), len(scene.proxy.metrics())
    with under_attack(name, scene.proxy, HERE):
        peak_files, ready_seconds = 0, 0.0
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.2)
            peak_files = max(peak_files, scene.level().files)
            ready_seconds = max(ready_seconds, scene.readiness_took())
    slowest = max(victim.slowest_seconds for victim in scene.victims.all)
    peak = dataclasses.replace(scene.level(), files=peak_files)
    for _ in eventually_within(30):
        # The system may hold connections of an attacker that is gone already, which are accepted only now.
        time.sleep(REST_SECONDS)
        after = scene.level()
        if after.files <= before.files + FILES_LEFT and scene.requests_under_way() <= len(ERAS):
            break
    row = Row(
        name=name,
        slowest_seconds=slowest,
        direct_seconds=scene.victims.direct.slowest_seconds,
        ready_seconds=ready_seconds,
        before=before,
        peak=peak,
        after=after,
    )
    table.append(row)
    figures(str(row))
    assert [victim.wrong for victim in scene.victims.all] == [None] * len(ERAS)
    assert slowest < HANG_SECONDS
    assert ready_seconds < HANG_SECONDS
    assert after.files <= before.files + FILES_LEFT
    assert after.memory_bytes <= before.memory_bytes + MEMORY_LEFT_BYTES
    assert len(scene.proxy.metrics()) <= series + SERIES_LEFT
    assert scene.proxy.metrics()["bugs_total"] == 0


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
        yield
        assert attacker.poll() is None, log.read_text()
    finally:
        attacker.kill()
        attacker.wait()


def eventually_within(seconds: float) -> Iterator[None]:
    """Again and again, until the time is up."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.1)
