"""What users of bridges to stdio servers suffer from, and must not happen here: each a test by its name.

THOROUGH=1 does it as often as the reports speak of.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from http_server import HttpServer
from messages import call
from proxy_bench import PATIENCE_SECONDS, until
from selection import THOROUGH
from stdio_bench import TOY, StdioBench, is_there

pytestmark = pytest.mark.slow

OPENINGS = 200 if THOROUGH else 30
VANISHING = 200 if THOROUGH else 40
SESSIONS = 1000 if THOROUGH else 4
STDERR_LINES = 2100 if THOROUGH else 1000
CHURN = 600 if THOROUGH else 12
STEPS = ["start", "initialize", "notifications/initialized", "logging/setLevel", "tools/call"]


@pytest.fixture
async def bench() -> AsyncIterator[StdioBench]:
    """To be started by the test."""
    async with HttpServer() as nobody, StdioBench(nobody) as bench:
        yield bench


async def many_groups(bench: StdioBench, count: int) -> list[int]:
    """The groups of the children of so many callers."""
    answers = [bench.read("where", {"Authorization": f"caller {number}"}) for number in range(count)]
    return [answer["group"] for answer in await asyncio.gather(*answers)]


@pytest.mark.parametrize(
    "command",
    [
        TOY,
        ["sh", "-c", f"{' '.join(TOY)}"],
        ["sh", "-c", f"{' '.join(TOY)} --helper; true"],
        ["sh", "-c", f"(sleep 600 &) ; sh -c '{' '.join(TOY)} --double; true'; true"],
    ],
    ids=["alone", "exec", "shell", "shells and a double fork"],
)
async def test_children_survive_their_session(bench: StdioBench, command: list[str]) -> None:
    """Only the shell was ended, and the server went on (supergateway#141, PR #124, PR #137)."""
    await bench.start(command=command)
    groups = await many_groups(bench, 4)
    assert all(map(is_there, groups))
    await bench.stop()
    assert not any(map(is_there, groups))


async def test_processes_pile_up(bench: StdioBench) -> None:
    """A session for each call: 2,018 processes after a while (metamcp#162), 308 (supergateway#141)."""
    await bench.start("--helper", sharing="fresh", max_sessions=40)
    groups = []
    for _ in range(SESSIONS):
        groups.append((await bench.read("where"))["group"])
        # As many may be leaving as there may be.
        assert bench.children <= 80
    await bench.all_gone()
    assert len(set(groups)) == SESSIONS
    assert not any(map(is_there, groups))
    assert len(bench.told("child.started")) == len(bench.told("child.ended")) == SESSIONS


@pytest.mark.share(3)
@pytest.mark.parametrize("what", ["die", "hang", "garbage", "close"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_child_leaks_when_set_up_fails(bench: StdioBench, step: str, what: str) -> None:
    """Whatever went wrong after the spawn, the process stayed (supergateway PR #103, metamcp PR #273)."""
    await bench.start(
        *("--at", step, what), stdio_start_timeout="500ms", handshake_timeout="500ms", request_timeout="500ms"
    )
    session = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        await bench.use("count")
        answer = await bench.post(
            {
                "jsonrpc": "2.0",
                "id": 0,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                },
            },
            headers={"Authorization": "other"},
        )
        session = answer.headers.get("Mcp-Session-Id")
        if session is not None:
            await bench.post(call(1, "logging/setLevel", level="info"), session=session)
    groups = [event.pid for event in bench.told("child.started")]
    await bench.stop()
    assert not any(map(is_there, groups))


async def test_one_of_two_openings_is_not_tracked(bench: StdioBench) -> None:
    """Two at the same time, and one of them was lost (metamcp PR #273)."""
    await bench.start(max_sessions=OPENINGS + 20, stdio_spawns=8, acquire_timeout="2m")
    groups = await many_groups(bench, OPENINGS)
    assert len(set(groups)) == bench.children == len(bench.told("child.started")) == OPENINGS
    await bench.stop()
    assert len(bench.told("child.ended")) == OPENINGS
    assert not any(map(is_there, groups))


async def test_a_client_vanishes_in_mid_call(bench: StdioBench) -> None:
    """The child stayed for ever, or the late answer ended the bridge (supergateway PR #148, #122, #158)."""
    await bench.start()
    asking = [asyncio.create_task(bench.use("sleep", seconds=0.2)) for _ in range(VANISHING)]
    await until(lambda: bench.told("session.opened"))
    await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert await bench.read("count") == 1
    await until(lambda: not bench.endpoint.exchanges())
    assert bench.proxy.core.pool.books.count_states()["leased"] == 0
    assert bench.children == 1


async def test_a_child_that_dies_in_its_handshake_hangs_the_caller(bench: StdioBench) -> None:
    """For a minute (supergateway#139). Here the time is that of a start, and a second at most."""
    await bench.start("--at", "initialize", "die", drain_timeout="0s")
    began = time.monotonic()
    answer = await bench.use("count")
    assert answer.error == (1, -32603, "server-not-started")
    [started], [ended] = bench.told("child.started"), bench.told("child.ended")
    assert started.pid == ended.pid
    assert time.monotonic() - began - ended.seconds < 10  # a busy machine's second


async def test_a_stubborn_child_hangs_the_caller(bench: StdioBench) -> None:
    """One that ignores end of input and SIGTERM (MCPJungle#207, Proxyman#2727): nobody waits for its end."""
    await bench.start("--stubborn", sharing="fresh")
    assert [await bench.read("count") for _ in range(3)] == [1, 1, 1]
    assert bench.told("child.ended") == []  # all three are still leaving
    await bench.all_gone()
    assert [event.how for event in bench.told("child.ended")] == ["killed"] * 3


async def test_a_full_stderr_pipe_stops_the_child(bench: StdioBench) -> None:
    """What is written there has to be read, whether anybody wants it."""
    await bench.start()
    assert await bench.read("say", lines=STDERR_LINES, size=50_000) == "done"
    assert await bench.read("count") == 1


@pytest.mark.parametrize("stderr", ["inherit", "discard"])
async def test_stderr_that_is_not_read(bench: StdioBench, stderr: str) -> None:
    """The same where the proxy does not read it itself."""
    await bench.start(stdio_stderr=stderr)
    assert await bench.read("say", lines=10, size=10) == "done"
    assert bench.told("server.said") == []


async def test_a_child_that_reads_nothing_stops_all(bench: StdioBench) -> None:
    """One of four is stopped amid a call: the others answer as before, and it goes on afterwards."""
    await bench.start()
    callers = [{"Authorization": f"caller {number}"} for number in range(4)]
    pids = [(await bench.read("where", caller))["pid"] for caller in callers]
    os.kill(pids[0], signal.SIGSTOP)
    try:
        async with bench.asking(call(1, name="count"), headers=callers[0]) as waiting:
            for number in range(1, 31):
                assert [await bench.read("count", caller) for caller in callers[1:]] == [number] * 3
            assert not waiting.done()
            os.kill(pids[0], signal.SIGCONT)
            assert (await waiting).json["result"]["content"][0]["text"] == "1"
    finally:
        os.kill(pids[0], signal.SIGCONT)


async def test_prewarmed_sessions_multiply(bench: StdioBench) -> None:
    """627 copies after a day (metamcp PR #260): there are never more than were asked for."""
    await bench.start(sharing="fresh", min_idle=2, max_sessions=100)
    for _ in range(CHURN):
        assert await bench.read("count") == 1
        states = bench.proxy.core.pool.books.count_states()
        assert states["idle"] + states["opening"] <= 2
    await until(lambda: bench.children == 2)


async def test_prewarming_in_every_mode(bench: StdioBench) -> None:
    """A second client at the same time finds a child that was started in advance."""
    await bench.start(min_idle=1)
    first = await bench.initialize()
    await until(lambda: len(bench.told("session.opened")) == 2)
    second = await bench.initialize()
    assert first != second
    assert [event.why for event in bench.told("session.opened")][:2] == ["demand", "prewarm"]
    await until(lambda: bench.children == 3)
