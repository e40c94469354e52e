"""Real clients whose connections break: their answers find them, and their state stays theirs."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import aiohttp
import pytest

from .conftest import Desk
from .cutter import Cutter
from .run import Run
from .sdk import call, connected
from .wire import Caller, eventually

pytestmark = pytest.mark.e2e

CLIENTS = ["mcp-1.30", "mcp-2-legacy", "fastmcp-legacy", "sdk-ts-1"]


@pytest.fixture
def at(desk: Callable[[str], Desk]) -> Desk:
    """A caller of a server whose tools answer when a test lets them."""
    return desk("resumable")


@pytest.fixture
async def cutter(at: Desk) -> AsyncIterator[Cutter]:
    """The network before the proxy; ``at.caller`` comes through it."""
    port = urlsplit(at.proxy.url).port
    assert port is not None
    async with Cutter(port) as cutter:
        at.caller.url = f"http://127.0.0.1:{cutter.port}{urlsplit(at.proxy.url).path}"
        yield cutter


class Gate:
    """What a call waits at."""

    def __init__(self, at: Desk) -> None:
        self.name = uuid.uuid4().hex
        self._at = at

    async def open(self) -> None:
        """Let the call go on."""
        async with self._at.http.post(f"{self._at.server.origin}/gates/{self.name}") as response:
            assert response.status == 200

    async def is_waited_at(self) -> bool:
        """Whether the server works on the call."""
        async with self._at.http.get(f"{self._at.server.origin}/gates") as response:
            return self.name in await response.json()


@pytest.mark.share(2)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_that_is_cut_off_in_mid_call(client: str, at: Desk, cutter: Cutter, run: Run) -> None:
    """A client whose connections break during a call, at whatever moment, resumes and gets its result."""
    first, second, third = (Gate(at) for _ in range(3))

    async def waits(gate: Gate) -> None:
        async def has_begun() -> bool:
            return cutter.answering(gate.name, "\nid:") and await gate.is_waited_at()

        await eventually(has_begun)

    async def is_back() -> bool:
        return cutter.answering("last-event-id", "event-stream")

    async with asyncio.TaskGroup() as tasks:
        calls: list[tuple[str, object]] = [
            ("wait_at", {"gate": gate.name}) for gate in (first, second, third)
        ]
        calls.append(("increment", {}))
        running = tasks.create_task(run.client(client, at.caller.url, at.caller.token, calls))
        await waits(first)
        await cutter.cut()
        await eventually(is_back)
        await first.open()  # it is back before the answer
        await waits(second)
        await cutter.cut()
        await second.open()  # the answer is there before it is back
        await waits(third)
        cutter.deafen()
        await third.open()  # the answer is lost as it is sent
        await cutter.swallowed.wait()
        await cutter.cut()
    (seen,) = running.result()
    assert seen["answers"] == [f"{first.name} 1", f"{second.name} 2", f"{third.name} 3", "4"]


async def test_another_client_while_the_stream_is_cut(at: Desk, cutter: Cutter) -> None:
    """A cut GET stream is no goodbye: a second client of the same caller gets a session of its own."""
    async with connected(at.caller.url, at.caller.token) as first:
        assert await call(first, "increment") == "1"
        await cutter.cut("GET /mcp")
        async with connected(at.proxy.url, at.caller.token) as second:
            assert [await call(second, "increment") for _ in range(2)] == ["1", "2"]
            assert [await call(first, "increment") for _ in range(2)] == ["2", "3"]
            assert await call(second, "increment") == "3"


async def test_a_session_for_each_call_without_goodbye(at: Desk) -> None:
    """A client that closes its connections after each call, and says nothing, finds its state again."""
    counted = []
    for _ in range(3):
        async with aiohttp.ClientSession() as http:
            caller = Caller(http, at.proxy.url, token=at.caller.token)
            session = await caller.open()
            counted.append((await caller.call("increment", session=session)).text)
    assert counted == ["1", "2", "3"]
