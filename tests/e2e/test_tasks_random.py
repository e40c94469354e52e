"""Tasks of three callers, asked for, answered and cancelled at random: each result once, to its caller.

The server counts what it runs, so that nothing is run twice; what one caller is told never names another's.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from selection import THOROUGH

from .conftest import Desk
from .launch import unused_port
from .modern_wire import EVERYTHING, TASKS_EXTENSION, ModernCaller
from .wire import Message, Reply

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TASKS = 1000 if THOROUGH else 45
PRINCIPALS = 3
AT_ONCE = 8  # of each
FINAL = {"completed", "failed", "cancelled"}
UNKNOWN = "It may or may not have been executed"
AWAY = "shutting down"


class Principal:
    """One caller, its tasks, and how each has ended."""

    def __init__(self, caller: ModernCaller, rng: random.Random, *, asked: bool) -> None:
        self.caller = caller
        self.rng = rng
        self.asked = asked
        self.word = f"of {caller.token}"
        self.handles: list[str] = []
        self.ended: Counter[str] = Counter()
        self.lost = 0

    async def ask(self, method: str, task: str, **more: object) -> Reply:
        """A request about a task; whoever is not there at the moment is asked again."""
        while True:
            try:
                reply = await self.caller.ask_modern(f"tasks/{method}", {"taskId": task, **more})
            except aiohttp.ClientConnectionError:
                pass
            else:
                if reply.status != 503:
                    return reply
            await asyncio.sleep(0.05)

    async def carry_out(self, number: int) -> None:
        """Have one task begun, look at it now and then, and check what it comes to."""
        label = f"{number} {self.word}"
        kinds: dict[str, tuple[str | None, str, Message]] = {
            "report": (f"Report on {label}", "report", {"topic": label}),
            "confirm_delete": (f"Deleted {label}", "confirm_delete", {"filename": label}),
            "slow_compute": (f"{label}: done", "slow_compute", {"seconds": 0.2, "label": label}),
            "cancelled": (None, "slow_compute", {"seconds": 3600, "label": label}),
            "multi_input": ("Ada and Ada", "multi_input", {}),
        }
        kind = self.rng.choice(list(kinds) if self.asked else ["report", "slow_compute", "cancelled"])
        expected, tool, arguments = kinds[kind]
        try:
            begun = (await self.caller.call_modern(tool, arguments)).response
        except aiohttp.ClientConnectionError:
            self.lost += 1  # nobody was there to say what became of it
            return
        if "result" not in begun:
            self.fail(begun["error"]["message"])
            return
        assert begun["result"]["resultType"] == "task", begun
        task = begun["result"]["taskId"]
        self.handles.append(task)
        if kind == "cancelled":
            await asyncio.sleep(self.rng.random() * 0.2)
            await self.ask("cancel", task)
        state = await self.follow(task)
        self.ended[state["status"]] += 1
        if state["status"] == "failed":
            self.fail(state["error"]["message"])
        elif kind == "cancelled":
            assert state["status"] == "cancelled", state
        else:
            assert state["status"] == "completed", (kind, state)
            assert [part["text"] for part in state["result"]["content"]] == [expected]
        # It stays so, whatever is said of it now.
        for method, more in (("cancel", {}), ("update", {"inputResponses": {"name": {"action": "decline"}}})):
            assert (await self.ask(method, task, **more)).result["resultType"] == "complete"
        again = (await self.ask("get", task)).result
        # A proxy that took over may have asked the server once more what it came to.
        told = ("taskId", "status", "result", "error")
        assert [again.get(name) for name in told] == [state.get(name) for name in told]

    def fail(self, message: str) -> None:
        """A task has not come to its end: its server or the proxy was away, which is the only reason."""
        assert UNKNOWN in message or AWAY in message, message
        self.lost += 1

    async def follow(self, task: str) -> Message:
        """Look at a task until it is over; each question is answered, in parts and more than once."""
        answered: set[str] = set()
        while True:
            state = (await self.ask("get", task)).result
            assert state["taskId"] == task
            if state["status"] in FINAL:
                return state
            for key, question in state.get("inputRequests", {}).items():
                assert key not in answered, "an answered question is asked no more"
                assert question["method"] == "elicitation/create"
                answered.add(key)
                answer = {"action": "accept", "content": {"name": "Ada", "confirm": True}}
                for _ in range(self.rng.choice([1, 2])):
                    await self.ask("update", task, inputResponses={key: answer, "nobody-asked": answer})
            await asyncio.sleep(self.rng.random() * 0.1)


async def pry(principals: list[Principal], rng: random.Random) -> int:
    """Ask for what is not one's own, and for what never was: nobody can tell which is which."""
    tries = 0
    while True:
        await asyncio.sleep(0.05)
        mine, other = rng.sample(principals, 2)
        if not other.handles:
            continue
        method = rng.choice(["get", "update", "cancel"])
        more: Message = {"inputResponses": {}} if method == "update" else {}
        foreign = rng.choice(other.handles)
        said = []
        for task in (foreign, secrets.token_urlsafe(18)):
            reply = await mine.ask(method, task, **more)
            said.append((reply.status, reply.error))
        assert said[0] == said[1]
        assert said[0][1]["code"] == -32602
        tries += 1


async def play(
    http: aiohttp.ClientSession,
    url: str,
    seed: int,
    *,
    meanwhile: Callable[[], object] | None = None,
    asked: bool = True,
) -> list[Principal]:
    """All tasks, from the first to the last; something happens when a third of them have begun. Some of
    them ask, if they may.
    """
    rng = random.Random(seed)
    principals = [
        Principal(
            ModernCaller(http, url, capabilities=EVERYTHING | TASKS_EXTENSION),
            random.Random(rng.random()),
            asked=asked,
        )
        for _ in range(PRINCIPALS)
    ]
    prying = asyncio.create_task(pry(principals, rng))
    places = {principal: asyncio.Semaphore(AT_ONCE) for principal in principals}

    async def one(number: int) -> None:
        principal = principals[number % PRINCIPALS]
        async with places[principal]:
            await principal.carry_out(number)

    async def interfere(happens: Callable[[], object]) -> None:
        while sum(len(principal.handles) for principal in principals) < TASKS // 3:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(happens)

    try:
        async with asyncio.TaskGroup() as group:
            if meanwhile is not None:
                group.create_task(interfere(meanwhile))
            for number in range(TASKS):
                group.create_task(one(number))
    finally:
        prying.cancel()
        await asyncio.gather(prying, return_exceptions=True)
    assert prying.cancelled(), prying.exception()
    return principals


async def test_each_result_once_to_its_caller(
    own_desk: Callable[..., Desk], http: aiohttp.ClientSession
) -> None:
    """All of them end as they should; no tool is run twice."""
    at = own_desk("tasks-ts", "--max-tasks-per-principal", str(TASKS), "--max-tasks", str(TASKS))
    principals = await play(http, at.proxy.url, seed=1)
    assert sum(sum(principal.ended.values()) for principal in principals) == TASKS
    assert [principal.lost for principal in principals] == [0] * PRINCIPALS
    runs: dict[str, Any] = (await at.all_stats())["runs"]
    assert [run for run, count in runs.items() if count > 1 and not run.startswith("multi_input")] == []
    assert sum(runs.values()) == TASKS


async def test_a_server_that_dies(own_desk: Callable[..., Desk], http: aiohttp.ClientSession) -> None:
    """What it worked on has failed, and is not run again; what was over stays so; the rest is done."""
    at = own_desk("tasks-ts", "--max-tasks-per-principal", str(TASKS), "--max-tasks", str(TASKS))

    def die() -> None:
        at.server.kill()
        at.server.start()

    principals = await play(http, at.proxy.url, seed=2, meanwhile=die)
    lost = sum(principal.lost for principal in principals)
    ended = sum(principal.ended[status] for principal in principals for status in ("completed", "cancelled"))
    assert 0 < lost <= PRINCIPALS * AT_ONCE
    assert lost + ended == TASKS
    runs: dict[str, Any] = (await at.all_stats())["runs"]
    assert [run for run, count in runs.items() if count > 1 and not run.startswith("multi_input")] == []


async def test_a_proxy_that_is_killed(
    own_desk: Callable[..., Desk], http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """With a state directory, the next one knows all tasks that it has given handles of, and how they end."""
    options = ("--max-tasks-per-principal", str(TASKS), "--max-tasks", str(TASKS))
    listen = f"127.0.0.1:{unused_port()}"
    at = own_desk("tasks-ts", *options, "--state-dir", str(tmp_path / "state"), "--listen", listen)

    def die() -> None:
        at.proxy.program.kill()
        at.proxy.start()

    principals = await play(http, at.proxy.url, seed=3, meanwhile=die, asked=False)
    lost = sum(principal.lost for principal in principals)
    ended = sum(sum(principal.ended.values()) for principal in principals)
    assert ended == sum(len(principal.handles) for principal in principals)
    assert lost + ended == TASKS
    runs: dict[str, Any] = (await at.all_stats())["runs"]
    assert max(runs.values()) == 1
