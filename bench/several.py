"""Several proxies on one store: what a call costs that is sent on, what two of them serve, and how soon one
goes on with what another one had.

The load, the server, the store and the proxies share the machine's cores, so on a small one a rate tells of
all of them. CPU tells of the proxies alone: where two cores serve two of them, they can serve twice what one
core serves one of them, divided by how much more a call costs.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from key_value_server import ANY, running

from . import procfs, wrk
from .contenders import Place, Stage
from .measure import TROUBLE, in_rounds
from .messages import ECHO, Client, Request, WrongAnswer, legacy
from .result import (
    AT_EITHER,
    AT_OWNER,
    ELSEWHERE,
    IN_MEMORY,
    ON_STORE,
    ONE_PROXY,
    TAKEN_OVER,
    Progress,
    Result,
)

_KEY = "be" * 32
_MANY = ("--max-sessions", "20000", "--acquire-timeout", "60s", "--max-waiters", "20000")


@contextlib.contextmanager
def _members(stage: Stage, count: int, *options: str) -> Iterator[list[Place]]:
    """So many proxies on a store of their own."""
    if ANY is None:
        raise OSError("no redis-server and no valkey-server: run `make bench-envs`")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), ANY, maxclients=1000) as store:
        key = Path(folder) / "cluster.key"
        key.write_text(f"{_KEY}\n")
        together = (
            *("--store", store.url, "--cluster", "bench", "--cluster-key-file", str(key)),
            *("--peer-listen", "127.0.0.1:0", *options),
        )
        places = [
            stage.contender("proxy", "stub", *together, own=f"member {number}") for number in range(count)
        ]
        try:
            yield places
        finally:
            for place in places:
                with contextlib.suppress(KeyError):  # it was killed
                    stage.stop(place)


def _calls_of(callers: Sequence[int]) -> list[Request]:
    """A call without a session of each of these callers."""
    call = legacy(ECHO)
    return [
        replace(call, headers={**call.headers, "Authorization": f"Bearer caller-{number}"})
        for number in callers
    ]


def _introduce(place: Place, calls: Sequence[Request]) -> None:
    """Have callers served there from now on. Raises WrongAnswer."""
    with Client(place.url) as client:
        for call in calls:
            status, _, body = client.send(call)
            if status != 200 or ECHO.expect not in body:
                raise WrongAnswer(f"{status} {body[:500]!r}")


@dataclass(frozen=True, kw_only=True)
class ForwardingCase:
    """Many callers, half of them served by each of two proxies; and all of them by one."""

    name: str
    title: str
    callers: int = 200
    connections: int = 16
    seconds: int = 3

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure; what goes wrong is noted in the result."""
        result = Result(name=self.name, title=self.title)
        calls = _calls_of(range(self.callers))
        halves = [calls[::2], calls[1::2]]
        try:
            with _members(stage, 1, *_MANY) as alone, _members(stage, 2, *_MANY) as two:
                _introduce(alone[0], calls)
                for place, half in zip(two, halves, strict=True):
                    _introduce(place, half)
                loads = {
                    ONE_PROXY: [(alone[0], calls)],
                    AT_OWNER: list(zip(two, halves, strict=True)),
                    AT_EITHER: [(place, calls) for place in two],
                    ELSEWHERE: list(zip(two, reversed(halves), strict=True)),
                }
                for number in range(rounds + 1):
                    for name, load in loads.items():
                        say(f"{self.name}: {name}, round {number} of {rounds}")
                        sample = self._measure(load)
                        if number:  # the first one warms up
                            result.add(name, sample)
        except TROUBLE as error:
            result.fail(ONE_PROXY, str(error))
        return result

    def _measure(self, load: Sequence[tuple[Place, Sequence[Request]]]) -> dict[str, float]:
        before = sum(procfs.cpu_seconds(place.pid) for place, _ in load)
        with ThreadPoolExecutor(len(load)) as workers:
            done = list(workers.map(lambda each: self._load(*each, among=len(load)), load))
        used = sum(procfs.cpu_seconds(place.pid) for place, _ in load) - before
        failed = next((each.failed for each in done if each.failed), "")
        if failed:
            raise WrongAnswer(failed)
        return {
            "rate": sum(each.per_second for each in done),
            "p50": max(each.p50_ms for each in done),
            "p99": max(each.p99_ms for each in done),
            "cpu": used / sum(each.requests for each in done) * 1e6,
        }

    def _load(self, place: Place, calls: Sequence[Request], *, among: int) -> wrk.Load:
        connections = self.connections // among
        return wrk.run(place.url, calls, connections=connections, seconds=self.seconds)


@dataclass(frozen=True, kw_only=True)
class TakeoverCase:
    """A proxy is killed, and all of its callers call at another one at once.

    They wait for the end of its lease. Told is how long it takes from the first answer then to the last.
    """

    name: str
    title: str
    callers: int = 1000
    most_rounds: int = 3

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure; what goes wrong is noted in the result."""
        result = Result(name=self.name, title=self.title)
        calls = _calls_of(range(self.callers))

        def take_over() -> None:
            with _members(stage, 2, *_MANY) as (one, other):
                _introduce(one, calls)
                time.sleep(1.0)  # all of it is written
                stage.stop(one)
                took = asyncio.run(_call_at_once(other, calls))
            result.add(TAKEN_OVER, {"takeover": took})

        return in_rounds(result, min(rounds, self.most_rounds), say, take_over, subject=TAKEN_OVER)


async def _call_at_once(place: Place, calls: Sequence[Request]) -> float:
    """Make all of these calls together; gives the time from the first answer to the last."""
    connector = aiohttp.TCPConnector(limit=0)
    answered: list[float] = []

    async def make(http: aiohttp.ClientSession, call: Request) -> None:
        async with http.post(place.url, data=call.body.encode(), headers=call.headers) as response:
            body = await response.read()
        answered.append(time.monotonic())
        if response.status != 200 or ECHO.expect not in body:
            raise WrongAnswer(f"{response.status} {body[:500]!r}")

    async with aiohttp.ClientSession(connector=connector) as http:
        await asyncio.gather(*(make(http, call) for call in calls))
    return max(answered) - min(answered)


@dataclass(frozen=True, kw_only=True)
class IdleCase:
    """Many callers that say nothing: what the proxy is busy with, beside the same without a store."""

    name: str
    title: str
    callers: int = 10_000
    seconds: float = 20.0
    most_rounds: int = 1

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure; what goes wrong is noted in the result."""
        result = Result(name=self.name, title=self.title)
        calls = _calls_of(range(self.callers))

        def keep_quiet() -> None:
            place = stage.contender("proxy", "stub", *_MANY, own="idle")
            result.add(IN_MEMORY, self._measure(place, calls))
            stage.stop(place)
            with _members(stage, 1, *_MANY) as (place,):
                result.add(ON_STORE, self._measure(place, calls))

        return in_rounds(result, min(rounds, self.most_rounds), say, keep_quiet, subject=ON_STORE)

    def _measure(self, place: Place, calls: Sequence[Request]) -> dict[str, float]:
        _introduce(place, calls)
        time.sleep(2.0)
        before = procfs.cpu_seconds(place.pid)
        time.sleep(self.seconds)
        return {"idle": (procfs.cpu_seconds(place.pid) - before) / self.seconds * 100}


FORWARDING = ForwardingCase(
    name="several",
    title="tools/call of 200 callers without a session, stub, JSON, 16 connections; proxies on a store",
)
TAKING_OVER = TakeoverCase(name="takeover", title="1,000 callers of a proxy that was killed, at another one")
IDLE = IdleCase(name="idle-callers", title="10,000 callers that say nothing")
