"""Tasks of three callers, asked for, answered and cancelled at random: each result once, to its caller.

The server counts what it runs, so that nothing is run twice; what one caller is told never names another's.
Meanwhile the server is killed, or the proxy: killed, stopped, replaced, or one of two that share a store.
THOROUGH=1 or FULL_FAULTS=1 runs 1,000 tasks each time; without them it is a share.
"""

import asyncio
import itertools
import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from selection import FULL_FAULTS

from mcp_session_proxy.exchange.upstream_task import QUESTION_LOST

from .conftest import Desk
from .launch import Fleet, Proxy, Server, get, unused_port
from .modern_wire import EVERYTHING, TASKS_EXTENSION, ModernCaller
from .wire import Message, Reply

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TASKS = 1000 if FULL_FAULTS else 30
PRINCIPALS = 3
AT_ONCE = 8  # of each
FINAL = {"completed", "failed", "cancelled"}
NOT_CARRIED_OUT = {"draining", "peer-unreachable"}
KNOWN_BY_NOBODY = -32602
LIMITS = ("--max-tasks-per-principal", str(TASKS), "--max-tasks", str(TASKS))


def reason_of(error: Message) -> str | None:
    """The word for an error of the proxy's own."""
    reason: str | None = (error.get("data") or {}).get("reason")
    return reason


class Principal:
    """One caller, its tasks, and how each has ended. It asks at each of ``doors`` in turn."""

    def __init__(self, http: aiohttp.ClientSession, doors: Sequence[str], rng: random.Random) -> None:
        self.caller = ModernCaller(http, doors[0], capabilities=EVERYTHING | TASKS_EXTENSION)
        self.rng = rng
        self.word = f"of {self.caller.token}"
        self.handles: list[str] = []
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.not_begun = 0  # as far as anybody was there to say so
        self.asked_again = 0  # questions that were answered before
        self._doors: Iterator[str] = itertools.cycle(doors)

    def next_door(self) -> ModernCaller:
        self.caller.url = next(self._doors)
        return self.caller

    async def ask(self, method: str, task: str, **more: object) -> Reply:
        """A request about a task; whoever is not there at the moment is asked again."""
        while True:
            try:
                reply = await self.next_door().ask_modern(f"tasks/{method}", {"taskId": task, **more})
                answer = reply.response
            except aiohttp.ClientError:
                pass
            else:
                if "result" in answer or answer["error"]["code"] == KNOWN_BY_NOBODY:
                    return reply
            await asyncio.sleep(0.05)

    async def begin(self, tool: str, arguments: Message) -> Message:
        """The answer to a call, made again only as long as it was certainly not carried out."""
        while True:
            try:
                answer = (await self.next_door().call_modern(tool, arguments)).response
                if "result" in answer or reason_of(answer["error"]) not in NOT_CARRIED_OUT:
                    return answer
            except aiohttp.ClientConnectorError:
                pass
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
        kind = self.rng.choice(list(kinds))
        expected, tool, arguments = kinds[kind]
        self.begun[tool] += 1
        try:
            answer = await self.begin(tool, arguments)
        except aiohttp.ClientError:
            self.not_begun += 1
            return
        if "result" not in answer:
            self.check_reason(answer["error"])
            self.not_begun += 1
            return
        assert answer["result"]["resultType"] == "task", answer
        task = answer["result"]["taskId"]
        self.handles.append(task)
        if kind == "cancelled":
            await asyncio.sleep(self.rng.random() * 0.2)
            await self.ask("cancel", task)
        state = await self.follow(task)
        self.ended[state["status"]] += 1
        if state["status"] == "failed":
            self.failures[state["error"]["message"]] += 1
            self.check_reason(state["error"])
        elif kind == "cancelled":
            assert state["status"] == "cancelled", state
        else:
            assert state["status"] == "completed", (kind, state)
            assert [part["text"] for part in state["result"]["content"]] == [expected]
        # It stays so, whatever is said of it now, and whoever is there by now.
        for method, more in (("cancel", {}), ("update", {"inputResponses": {"name": {"action": "decline"}}})):
            assert (await self.ask(method, task, **more)).result["resultType"] == "complete"
        assert (await self.ask("get", task)).result == state

    @staticmethod
    def check_reason(error: Message) -> None:
        """A task has not come to its end: its server or the proxy was away, which is the only reason."""
        assert reason_of(error) == "outcome-unknown", error

    async def follow(self, task: str) -> Message:
        """Look at a task until it is over; each question is answered, in parts and more than once."""
        answered: set[str] = set()
        while True:
            state = (await self.ask("get", task)).result
            assert state["taskId"] == task
            if state["status"] in FINAL:
                return state
            for key, question in state.get("inputRequests", {}).items():
                self.asked_again += key in answered
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
        assert said[0][1]["code"] == KNOWN_BY_NOBODY
        tries += 1


class Outcome:
    """What became of all tasks, together."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self.begun = sum((each.begun for each in principals), Counter())
        self.ended = sum((each.ended for each in principals), Counter())
        self.failures = sum((each.failures for each in principals), Counter())
        self.handles = sum(len(each.handles) for each in principals)
        self.not_begun = sum(each.not_begun for each in principals)
        self.asked_again = sum(each.asked_again for each in principals)

    def __str__(self) -> str:
        return (
            f"{self.handles} handles, {dict(self.ended)}; {self.not_begun} not begun; "
            f"{self.asked_again} questions twice; {dict(self.failures)}"
        )

    def check(self, runs: dict[str, int]) -> None:
        """Each task has ended, and none was run twice."""
        assert self.handles + self.not_begun == TASKS
        assert sum(self.ended.values()) == self.handles
        for run, count in runs.items():
            tool = run.partition(" ")[0]
            # Those who are asked for two names cannot be told apart.
            assert count <= (self.begun[tool] if tool == "multi_input" else 1), run

    def check_lost_questions(self) -> None:
        """A task has failed only if its server had just asked something when a proxy was killed: between that
        and the next proxy there is nobody who hears a server without an event store.
        """
        assert self.failures.keys() <= {QUESTION_LOST}
        assert self.failures.total() <= PRINCIPALS * AT_ONCE


async def play(
    http: aiohttp.ClientSession, doors: Sequence[str], seed: int, *meanwhile: Callable[[], object]
) -> Outcome:
    """All tasks, from the first to the last; things happen meanwhile, evenly spread."""
    rng = random.Random(seed)
    principals = [Principal(http, doors, random.Random(rng.random())) for _ in range(PRINCIPALS)]
    prying = asyncio.create_task(pry(principals, rng))
    places = {principal: asyncio.Semaphore(AT_ONCE) for principal in principals}

    async def one(number: int) -> None:
        principal = principals[number % PRINCIPALS]
        async with places[principal]:
            await principal.carry_out(number)

    async def interfere() -> None:
        for turn, happens in enumerate(meanwhile, 1):
            due = TASKS * turn // (len(meanwhile) + 1)
            while sum(len(each.handles) + each.not_begun for each in principals) < due:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(happens)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(interfere())
            for number in range(TASKS):
                group.create_task(one(number))
    finally:
        prying.cancel()
        await asyncio.gather(prying, return_exceptions=True)
    assert prying.cancelled(), prying.exception()
    outcome = Outcome(principals)
    print(outcome)
    return outcome


async def test_each_result_once_to_its_caller(
    own_desk: Callable[..., Desk], http: aiohttp.ClientSession
) -> None:
    """All of them end as they should; no tool is run twice."""
    at = own_desk("tasks-ts", *LIMITS)
    outcome = await play(http, [at.proxy.url], 1)
    runs: dict[str, Any] = (await at.all_stats())["runs"]
    outcome.check(runs)
    assert outcome.ended["completed"] + outcome.ended["cancelled"] == TASKS
    assert outcome.asked_again == 0
    assert sum(runs.values()) == TASKS


async def test_a_server_that_dies(own_desk: Callable[..., Desk], http: aiohttp.ClientSession) -> None:
    """What it worked on has failed, and is not run again; what was over stays so; the rest is done."""
    at = own_desk("tasks-ts", *LIMITS)

    def die() -> None:
        at.server.kill()
        at.server.start()

    outcome = await play(http, [at.proxy.url], 2, die)
    outcome.check((await at.all_stats())["runs"])
    assert 0 < outcome.ended["failed"] + outcome.not_begun <= PRINCIPALS * AT_ONCE
    assert outcome.asked_again == 0


# -- the proxy goes, and another comes ---------------------------------------------------------------


class Proxies:
    """Proxies with the same state before one server."""

    def __init__(self, fleet: Fleet, server: Server, state: Path) -> None:
        self._fleet = fleet
        self._server = server
        self._options = (*LIMITS, "--state-dir", str(state), "--replace")
        self._listen: list[str] = []
        self._proxies: list[Proxy] = []
        self.statuses: list[int] = []

    def begin(self) -> str:
        """One more; where it listens."""
        self._listen.append(f"127.0.0.1:{unused_port()}")
        self._proxies.append(self._fleet.new_proxy(self._server.url, *self._options, listen=self._listen[-1]))
        return self._proxies[-1].url

    def kill(self, which: int = 0) -> None:
        """``kill -9``, and the next one is begun."""
        self._proxies[which].program.kill()
        self._proxies[which].start()

    def stop(self, which: int = 0) -> None:
        """SIGTERM, and the next one is begun."""
        self.statuses.append(self._proxies[which].stop())
        self._proxies[which].start()

    def replace(self, which: int = 0) -> None:
        """The next one is begun, and takes its place."""
        old, listen = self._proxies[which], self._listen[which]
        self._proxies[which] = self._fleet.new_proxy(self._server.url, *self._options, listen=listen)
        assert old.program.process is not None
        self.statuses.append(old.program.process.wait(60))


@pytest.fixture
def server(owned: Fleet) -> Server:
    """A server that outlives the proxies."""
    return owned.new_server("tasks-ts")


@pytest.fixture
def proxies(owned: Fleet, server: Server, tmp_path: Path) -> Proxies:
    """What begins them."""
    return Proxies(owned, server, tmp_path / "state")


@pytest.mark.share(2)
@pytest.mark.parametrize("how", ["kill", "stop", "replace"])
async def test_a_proxy_that_goes(
    how: str, proxies: Proxies, server: Server, http: aiohttp.ClientSession
) -> None:
    """The next one knows all tasks that there are handles of, what they ask, and how they end."""
    doors = [proxies.begin()]
    goes: Callable[[], None] = getattr(proxies, how)
    outcome = await play(http, doors, 3, *([goes] * (3 if FULL_FAULTS else 1)))
    outcome.check(await runs_at(server))
    assert set(proxies.statuses) <= {0}
    if how == "kill":
        outcome.check_lost_questions()
    else:
        assert (outcome.ended["failed"], outcome.asked_again) == (0, 0)
    if how == "replace":
        assert outcome.not_begun <= AT_ONCE  # whose requests have crossed the end of their connections


async def test_two_proxies_of_which_one_goes(
    proxies: Proxies, server: Server, http: aiohttp.ClientSession
) -> None:
    """Either of two knows all tasks, and goes on with those of one that is killed, or stopped."""
    doors = [proxies.begin(), proxies.begin()]
    happens = [lambda: proxies.kill(0), lambda: proxies.stop(1), lambda: proxies.kill(1)]
    outcome = await play(http, doors, 4, *happens[: 3 if FULL_FAULTS else 1])
    outcome.check(await runs_at(server))
    outcome.check_lost_questions()
    assert set(proxies.statuses) <= {0}


async def runs_at(server: Server) -> dict[str, int]:
    """How often the server has run each tool."""
    status, body = await asyncio.to_thread(get, f"{server.origin}/stats")
    assert status == 200
    runs: dict[str, int] = json.loads(body)["runs"]
    return runs
