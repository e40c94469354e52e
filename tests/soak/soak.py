"""Clients of every kind for a long time, and what the proxy uses meanwhile.

    python tests/soak/soak.py --seconds 600 --plot docs/soak.svg --table docs/soak.md

Everything that the proxy remembers is given a short life here, so that minutes show what days would: that it
forgets as fast as it learns.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from e2e.launch import Fleet, Proxy
from e2e.modern_wire import ModernCaller, accept
from e2e.wire import Caller, eventually

from soak.plot import Panel, draw

WORKERS = 8
# A steady pace, which a slower moment of the machine does not change: growth would be the proxy's own.
SECONDS_PER_LIFE = 0.6
WARM_UP_SHARE = 0.4
OPTIONS = (
    *("--detach-after", "1s", "--idle-timeout", "3s", "--client-session-timeout", "6s", "--linger", "1s"),
    *("--park-timeout", "3s", "--keepalive", "2s", "--log-level", "warning"),
)
# What "flat" means: the median of the last quarter after the warm-up against that of the first quarter.
MEMORY_TOLERANCE_MIB = 3.0
# In its first minutes the allocator still takes from the system what it then keeps.
SHORT_SECONDS = 300.0
SHORT_MEMORY_TOLERANCE_MIB = 8.0
DESCRIPTOR_TOLERANCE_SHARE = 0.25
DESCRIPTOR_TOLERANCE = 12.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the proxy used at one moment."""

    seconds: float
    pss_mib: float
    descriptors: int
    client_sessions: float
    upstream_sessions: float
    parked: float
    streams: float
    answered: float


@dataclass(kw_only=True)
class Soak:
    """What came of it. ``rest`` is the moment after every client has left."""

    samples: list[Sample] = field(default_factory=list)
    lives: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    rest: Sample | None = None
    bugs: float = 0.0
    exit_status: int = -1

    @property
    def warm_up_seconds(self) -> float:
        """Until here everything may grow."""
        return self.seconds * WARM_UP_SHARE

    def quarters(self, name: str) -> tuple[float, float]:
        """The medians of the first and of the last quarter after the warm-up."""
        values = [getattr(one, name) for one in self.samples if one.seconds >= self.warm_up_seconds]
        size = max(1, len(values) // 4)
        return statistics.median(values[:size]), statistics.median(values[-size:])

    def growth(self) -> list[str]:
        """What was not flat."""
        first, last = self.quarters("pss_mib")
        found = []
        if last - first > (
            MEMORY_TOLERANCE_MIB if self.seconds >= SHORT_SECONDS else SHORT_MEMORY_TOLERANCE_MIB
        ):
            found.append(f"memory grew from {first:.1f} to {last:.1f} MiB")
        first, last = self.quarters("descriptors")
        # In a short run on a busy machine the clients' pace shows here; what stays open shows at rest.
        steady = self.seconds >= SHORT_SECONDS
        if steady and last - first > max(DESCRIPTOR_TOLERANCE, DESCRIPTOR_TOLERANCE_SHARE * first):
            found.append(f"descriptors grew from {first:.0f} to {last:.0f}")
        return found

    def table(self) -> str:
        """The figures as a Markdown table."""
        rows = [
            "| | first quarter after warm-up | last quarter | at rest |",
            "|---|---|---|---|",
        ]
        rest = self.rest or self.samples[-1]
        for title, name, places in (
            ("memory (PSS, MiB)", "pss_mib", 1),
            ("descriptors", "descriptors", 0),
            ("client sessions", "client_sessions", 0),
            ("upstream sessions", "upstream_sessions", 0),
            ("parked calls", "parked", 0),
            ("streams", "streams", 0),
        ):
            first, last = self.quarters(name)
            at_rest = getattr(rest, name)
            rows.append(f"| {title} | {first:.{places}f} | {last:.{places}f} | {at_rest:.{places}f} |")
        rows.append("")
        rows.append(
            f"{sum(self.lives.values())} client lives in {self.seconds:.0f} s, "
            f"{self.samples[-1].answered:.0f} requests answered: "
            + ", ".join(f"{name} {count}" for name, count in sorted(self.lives.items()))
            + "."
        )
        return "\n".join([*rows, ""])

    def plot(self) -> str:
        """The samples as an SVG."""

        def values(name: str) -> Sequence[float]:
            return [getattr(one, name) for one in self.samples]

        panels = [
            Panel(title="memory", lines=[("PSS, MiB", "#1b6ca8", values("pss_mib"))]),
            Panel(
                title="descriptors and streams",
                lines=[
                    ("descriptors", "#b03a2e", values("descriptors")),
                    ("streams", "#7d8c1f", values("streams")),
                ],
            ),
            Panel(
                title="sessions",
                lines=[
                    ("client sessions", "#6c3483", values("client_sessions")),
                    ("upstream sessions", "#117a65", values("upstream_sessions")),
                    ("parked calls", "#d68910", values("parked")),
                ],
            ),
        ]
        title = f"mcp-session-proxy under mixed clients for {self.seconds:.0f} s (grey: warm-up)"
        return draw(title, [one.seconds for one in self.samples], self.warm_up_seconds, panels)


# The clients ------------------------------------------------------------------------------------------


async def keeps_its_session(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Handshake, stream, calls, a question, DELETE."""
    caller = Caller(http, url, token=token)
    session = await caller.open(client="soak", capabilities={"elicitation": {}})
    async with caller.listen(session) as stream:
        for _ in range(3):
            assert (await caller.call("increment", session=session)).text
        await caller.call("tools_changed", session=session)
        await stream.next()
        await caller.call("big", {"size": random.randrange(200_000)}, session=session)
    await caller.delete(session)


async def goes_without_a_word(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Handshake, one call, and nothing more: no DELETE."""
    caller = Caller(http, url, token=token)
    session = await caller.open(client="soak")
    await caller.ask("tools/list", session=session)
    await caller.call("progress", {"n": 5}, session=session, meta={"progressToken": 1})


async def has_no_session(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Calls without any session id, one of which fails."""
    caller = Caller(http, url, token=token)
    assert (await caller.call("echo", {"message": "x" * 1000})).text
    await caller.call("fail", {"message": "as asked"})
    await caller.ask("no/such/method")


async def brings_an_id(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Calls under a session id that the proxy did not mint."""
    caller = Caller(http, url, token=token)
    session = uuid.uuid4().hex
    await caller.call("increment", session=session)
    await caller.call("increment", session=session)


async def vanishes(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Leaves in the middle of a call."""
    caller = Caller(http, url, token=token)
    session = await caller.open(client="soak")
    call = asyncio.create_task(caller.call("slow", {"seconds": 1}, session=session))
    await asyncio.wait({call}, timeout=0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def is_modern(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Discovers, lists, calls, answers what the server asks."""
    caller = ModernCaller(http, url, token=token)
    await caller.ask_modern("server/discover")
    await caller.ask_modern("tools/list")
    await caller.call_modern("log", {"message": "hello"}, log_level="info")
    asked = (await caller.call_modern("elicit_name")).result
    answers = {key: accept(name="Ada") for key in asked["inputRequests"]}
    assert (await caller.resume_call(asked, answers, "elicit_name")).text == "accept:Ada"


async def never_answers(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Is asked something and never comes back."""
    caller = ModernCaller(http, url, token=token)
    assert "inputRequests" in (await caller.call_modern("elicit_name")).result


async def listens(http: aiohttp.ClientSession, url: str, token: str) -> None:
    """Subscribes, hears of a change, leaves; a call of its own is cut off, too."""
    caller = ModernCaller(http, url, token=token)
    async with caller.listen_modern(resourceSubscriptions=["counter://shared"]) as stream:
        await stream.next()
        await caller.call_modern("touch")
        await stream.next()
    call = asyncio.create_task(caller.call_modern("slow", {"seconds": 1}))
    await asyncio.wait({call}, timeout=0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


LIVES = (
    keeps_its_session,
    goes_without_a_word,
    has_no_session,
    brings_an_id,
    vanishes,
    is_modern,
    never_answers,
    listens,
)


# The soak ---------------------------------------------------------------------------------------------


def look(proxy: Proxy, started: float) -> Sample:
    """One sample."""
    process = proxy.program.process
    assert process is not None
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    metrics = proxy.metrics()

    def total(name: str) -> float:
        return sum(value for sample, value in metrics.items() if sample.partition("{")[0] == name)

    return Sample(
        seconds=time.monotonic() - started,
        pss_mib=int(pss.split()[1]) / 1024,
        descriptors=len(os.listdir(f"/proc/{process.pid}/fd")),
        client_sessions=total("client_sessions"),
        upstream_sessions=total("upstream_sessions"),
        parked=total("exchanges_parked"),
        streams=total("streams"),
        answered=total("requests_total"),
    )


async def soak(fleet: Fleet, seconds: float) -> Soak:
    """Run it. Raises whatever a client finds wrong."""
    server = fleet.new_server("mcp-1.30")
    proxy = fleet.new_proxy(server.url, *OPTIONS)
    result = Soak(seconds=seconds)
    started = time.monotonic()
    before = look(proxy, started).descriptors
    until = started + seconds

    async def work(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < until:
            # Connections, too, come and go; and two in three lives are somebody's who was never seen before.
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            ) as http:
                for _ in range(8):
                    due = time.monotonic() + SECONDS_PER_LIFE
                    life = dice.choice(LIVES)
                    known = dice.random() < 0.33
                    token = f"known-{dice.randrange(20)}" if known else uuid.uuid4().hex
                    await life(http, proxy.url, token)
                    result.lives[life.__name__] += 1
                    await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def watch() -> None:
        while time.monotonic() < until:
            result.samples.append(await asyncio.to_thread(look, proxy, started))
            await asyncio.sleep(max(0.5, seconds / 300))

    async with asyncio.TaskGroup() as tasks:
        for number in range(WORKERS):
            tasks.create_task(work(number))
        tasks.create_task(watch())

    async def all_forgotten() -> bool:
        now = await asyncio.to_thread(look, proxy, started)
        result.rest = now
        held = (now.client_sessions, now.upstream_sessions, now.parked, now.streams)
        return not any(held) and now.descriptors <= before + 2

    await eventually(all_forgotten, 30, 0.25)
    result.bugs = proxy.metrics()["bugs_total"]
    result.exit_status = await asyncio.to_thread(proxy.stop)
    return result


def main() -> int:
    """The command line; gives 1 where something was not flat."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        fleet = Fleet(Path(folder))
        try:
            result = asyncio.run(soak(fleet, arguments.seconds))
        finally:
            fleet.stop()
    print(result.table())
    if arguments.plot is not None:
        arguments.plot.write_text(result.plot())
    if arguments.table is not None:
        arguments.table.write_text(f"# The last soak\n\n![The samples](soak.svg)\n\n{result.table()}")
    trouble = [*result.growth(), *(["the proxy reported bugs of its own"] if result.bugs else [])]
    print("\n".join(trouble) or "flat")
    return 1 if trouble or result.exit_status != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
