"""Children that write what costs the proxy time, memory or processes: others have their turn."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from http_server import HttpServer
from messages import call
from proxy_bench import read_events
from stdio_bench import StdioBench

from mcp_session_proxy.bounds import STDERR_LINES_A_SECOND
from mcp_session_proxy.events import ChildNoise, Event, ServerSaid
from mcp_session_proxy.upstream.stdio.children import _Words

pytestmark = pytest.mark.slow

MESSAGES = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "servers" / "message_server.py")]


@pytest.fixture
async def bench() -> AsyncIterator[StdioBench]:
    """To be started by the test."""
    async with HttpServer() as nobody, StdioBench(nobody) as bench:
        yield bench


@pytest.fixture
async def turns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], int]]:
    """How many turns others have had, where each piece of long work is as short as it can be."""
    monkeypatch.setattr("mcp_session_proxy.aio._PIECE_SECONDS", 0.0)
    count = 0

    async def take_turns() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    yield lambda: count
    others.cancel()


async def test_a_flood_of_noise(bench: StdioBench, turns: Callable[[], int]) -> None:
    """Tens of thousands of lines that are no messages hold up nobody, and the session goes on."""
    await bench.start(command=MESSAGES)
    noise: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, ChildNoise):
            noise.append(turns())

    bench.watch(note)
    assert (await bench.use("write", pieces=["x\n" * 20_000], times=1, end="")).json["result"]
    assert len(noise) == 20_000
    assert len(set(noise)) > 10_000


async def test_large_lines_come_in_order(bench: StdioBench, turns: Callable[[], int]) -> None:
    """What is small does not overtake what is large, and the answer comes last."""
    await bench.start(command=MESSAGES)
    notes = [
        f'{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{data}"}}}}\n'
        for data in ("a" * 100_000, "b", "c" * 100_000, "d")
    ]
    given = {"pieces": ["".join(notes)], "times": 1, "end": ""}
    body = call(1, name="write", arguments=given)
    async with bench.request("POST", body, accept="text/event-stream") as response:
        said = [message for _, message in await read_events(response.content, 5)]
    assert [message["params"]["data"][0] for message in said[:-1]] == ["a", "b", "c", "d"]
    assert said[-1]["id"] == 1


async def test_who_leaves_over_a_large_answer_has_answered(
    bench: StdioBench, turns: Callable[[], int]
) -> None:
    """An answer that was written whole counts, however long it takes to read, although its child has gone."""
    await bench.start()
    assert len(await bench.read("parting", bytes=8_000_000)) == 8_000_000
    assert turns() > 100  # most of them while the answer was read
    await bench.all_gone()
    assert bench.proxy.core.memory.answers.used_bytes == 0
    assert await bench.read("count") == 1


def test_words_that_are_passed_over() -> None:
    """What a second has no room for is counted; lines that were begun unheard are not told by halves."""
    told: list[Event] = []
    time = 0.0
    words = _Words(told.append, lambda: time)
    words.secrets = ("sesame-1234",)
    words.take(b"line\n" * STDERR_LINES_A_SECOND + b"begun ")
    for piece in (b"x\n" * 1000, b"y\n" * 1000 + b"the token is sesa"):
        words.take(piece)
    assert len(told) == STDERR_LINES_A_SECOND
    assert words.last == ["y"] * 9 + ["the token is sesa"]
    time = 1.0
    words.take(b"me-12")
    words.take(b"34\nand sesame-1234\nz\n")
    said = [(event.text, event.untold) for event in told if isinstance(event, ServerSaid)]
    assert said[STDERR_LINES_A_SECOND:] == [("and ***", 2000), ("z", None)]
    assert words.last[-2:] == ["and ***", "z"]


async def test_a_flood_of_stderr_costs_little(bench: StdioBench) -> None:
    """What is not logged is counted, and not looked at."""
    await bench.start()
    assert await bench.read("say", lines=200_000, size=0) == "done"
    assert await bench.read("words", text="the end") == "done"
    told = bench.told("server.said")
    assert 0 < len(told) < 1000
