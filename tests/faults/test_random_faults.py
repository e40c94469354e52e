"""Thousands of calls of every era, each of which meets a fault drawn from a seed.

1,500 calls by default; FAULTED_CALLS and FAULT_SEED choose otherwise (`make faults` runs 12,000).
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from e2e.launch import Fleet
from e2e.wire import eventually

from .catalogue import ALL, CASES
from .clients import ERAS, UNEXECUTED, Client, Told
from .conftest import Rig, rig_at
from .fault_proxy import Fault, Request

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CALLS = int(os.environ.get("FAULTED_CALLS", "1500"))
SEED = int(os.environ.get("FAULT_SEED", "20260728"))
CONCURRENCY = 32
CALLS_PER_CLIENT = 25
# Each of these keeps a caller waiting for the whole of --request-timeout, so they are drawn less often.
RARE = {name: 0.2 for name in ALL if name.startswith("stalled")}
# These end a session that others may be using, whose calls in flight then end with an unknown outcome.
RARE |= {name: 0.3 for name in ALL if name.startswith("gone")}
# A session that answers 503 for ever says that it is overloaded, not lost: it would be of no use to the rest.
RARE |= {name: 0.0 for name in ALL if name.startswith("gone 503")}
SECOND_FAULT = 0.25
OTHER_FAULT = 0.03


class Dice:
    """Draws a fault for a request. The same seed draws the same fault for the same request."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._attempts: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self._names = list(ALL)
        self._weights = [RARE.get(name, 1.0) for name in self._names]
        self._brief = [name for name in CASES if not name.startswith("stalled")]
        self.drawn: Counter[str] = Counter()
        self.faulted: set[str] = set()

    def __call__(self, request: Request) -> Fault | None:
        """The plan for the fault proxy."""
        if request.key is not None:
            self._attempts[request.key] += 1
            draw = random.Random(f"{self._seed} {request.key} {self._attempts[request.key]}")
            if self._attempts[request.key] > 1 and draw.random() > SECOND_FAULT:
                return None
            (name,) = draw.choices(self._names, self._weights)
            self.faulted.add(request.key)
        else:
            # Everything else the proxy says: handshakes, pings, lists, streams. Never its goodbyes, because a
            # goodbye that is lost leaves a session that nobody can end.
            kind = request.method or request.verb
            self._others[kind] += 1
            draw = random.Random(f"{self._seed} {kind} {self._others[kind]}")
            if request.verb == "DELETE" or draw.random() > OTHER_FAULT:
                return None
            name = draw.choice(self._brief)
            if request.verb == "GET" and CASES[name].forwards:
                return None
        self.drawn[name] += 1
        return ALL[name].fault


@dataclass
class Log:
    """What all clients were told."""

    outcomes: Counter[str] = field(default_factory=Counter)
    calls: dict[str, str] = field(default_factory=dict)
    slowest_seconds: float = 0.0

    def note(self, key: str | None, told: Told, seconds: float) -> None:
        """One answer."""
        self.outcomes[told.outcome] += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if key is not None:
            assert key not in self.calls
            self.calls[key] = told.outcome


async def worker(
    rig: Rig, http: aiohttp.ClientSession, number: int, keys: "itertools.count[int]", log: Log
) -> None:
    """One client after the other, of every era in turn; some share a principal with another worker's."""
    for life in itertools.count(number):
        client = Client(http, rig.proxy.url, ERAS[life % 3], token=f"principal-{number % 24}", name="random")
        for _ in range(CALLS_PER_CLIENT):
            count = next(keys)
            if count > CALLS:
                return
            key = f"k{count}"
            while client.era == "session" and client.session is None:
                started = time.monotonic()
                if (told := await client.open()) is not None:
                    log.note(None, told, time.monotonic() - started)
            started = time.monotonic()
            told = await client.call("execute", key, key=key)
            log.note(key, told, time.monotonic() - started)
        if client.session is not None:
            assert (await client.caller.delete(client.session)).status == 405


async def test_random_faults(
    fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """However the server's answers break: one answer to each call, none executed twice, no session leaked."""
    options = ("--request-timeout", "1s", "--acquire-timeout", "5s", "--detach-after", "1s")
    with rig_at(fleet, *options) as rig:
        dice, log = Dice(SEED), Log()
        rig.faults.plan = dice
        started = time.monotonic()
        keys = itertools.count(1)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CONCURRENCY):
                tasks.create_task(worker(rig, http, number, keys, log))
        seconds = time.monotonic() - started
        rig.faults.plan = lambda request: None

        assert len(log.calls) == CALLS
        executions = rig.stats()["executions"]
        wrong = {
            key: (outcome, executions.get(key, 0))
            for key, outcome in log.calls.items()
            if not may_be(outcome, executions.get(key, 0))
        }
        assert not wrong
        leaked = await sessions_leaked(rig)
        metrics = rig.proxy.metrics()
        figures(
            f"{len(log.calls)} calls in {seconds:.0f} s, {len(dice.faulted)} of them faulted, "
            f"{sum(dice.drawn.values())} faults of {len(dice.drawn)} kinds; "
            f"{sum(executions.values())} executed, {sum(1 for n in executions.values() if n > 1)} twice; "
            f"slowest answer {log.slowest_seconds:.1f} s; sessions opened {len(rig.faults.issued)}, "
            f"leaked {len(leaked)}; outcomes {dict(log.outcomes)}"
        )
        assert leaked == {}
        assert len(dice.faulted) >= 0.9 * CALLS
        assert metrics["bugs_total"] == 0
        assert await asyncio.to_thread(rig.proxy.stop) == 0
        assert not live(rig)


def may_be(outcome: str, executed: int) -> bool:
    """Whether what a client was told is true of what the server counted."""
    if outcome == "result":
        return executed == 1
    if outcome in UNEXECUTED:
        return executed == 0
    return executed <= 1


async def sessions_leaked(rig: Rig) -> dict[str, list[str]]:
    """Sessions that live at the server without the proxy holding them, once all is quiet, if there are any.

    All that live are given, with what was sent under each. Those whose id never reached the proxy do not
    count: only the server can end them, by expiry.
    """

    async def all_is_quiet() -> bool:
        metrics = rig.proxy.metrics()
        transient = sum(metrics[f'upstream_sessions{{state="{state}"}}'] for state in ("opening", "closing"))
        return transient == 0 and metrics["waiters"] == 0 and len(live(rig)) == held(rig)

    try:
        await eventually(all_is_quiet, 30)
    except AssertionError:
        return {one: rig.faults.told.get(one, []) for one in live(rig)}
    return {}


def held(rig: Rig) -> int:
    """Sessions that the proxy knows of."""
    count: int = rig.proxy.json("/sessions")["totals"]["upstream_sessions"]
    return count


def live(rig: Rig) -> set[str]:
    """Sessions at the server, without those that the proxy cannot know of."""
    ids: list[str] = rig.stats()["live_sessions"]
    return {one for one in ids if rig.faults.issued.get(one, False)}
