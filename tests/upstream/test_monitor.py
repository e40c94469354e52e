"""The watch over the server: up, down, and when it is looked at again."""

import asyncio
from collections import deque

import pytest
from fakes import Recorder
from yarl import URL

from mcp_session_proxy.upstream.monitor import Monitor, always_there, probe_of

pytestmark = pytest.mark.looptime

SECRET_URL = URL("http://127.0.0.1:8000/mcp?key=secret")


class Writer:
    """A connection that is only there to be closed."""

    closed = 0

    def close(self) -> None:
        Writer.closed += 1


class Network:
    """What connecting comes to, attempt by attempt; the last outcome stays."""

    def __init__(self, *outcomes: BaseException | float | None) -> None:
        self.outcomes = deque(outcomes)
        self.attempts: list[tuple[float, object, object]] = []

    async def open_connection(self, host: object, port: object, *, ssl: object) -> tuple[None, Writer]:
        assert not ssl
        self.attempts.append((asyncio.get_running_loop().time(), host, port))
        outcome = self.outcomes.popleft() if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        await asyncio.sleep(outcome or 0)
        return None, Writer()


async def watch(
    monkeypatch: pytest.MonkeyPatch, network: Network, seconds: float
) -> tuple[Monitor, Recorder]:
    monkeypatch.setattr(asyncio, "open_connection", network.open_connection)
    observe, downs = Recorder(), []
    monitor = Monitor("http://h", probe_of(SECRET_URL), lambda: downs.append(monitor.up), observe)
    assert monitor.up is None
    task = asyncio.create_task(monitor.watch())
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert downs == [False] * observe.names.count("upstream.down")
    return monitor, observe


async def test_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections is up; each probe closes its own, and the news is told once."""
    network, before = Network(None), Writer.closed
    monitor, observe = await watch(monkeypatch, network, 12)
    assert monitor.up is True
    assert [event.upstream for event in observe.events] == ["http://h"]
    assert observe.names == ["upstream.up"]
    assert network.attempts == [(0, "127.0.0.1", 8000), (5, "127.0.0.1", 8000), (10, "127.0.0.1", 8000)]
    assert Writer.closed - before == 3


async def test_comes_up_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server is down it is looked at twice a second, so that readiness follows soon."""
    refused = ConnectionRefusedError(111, "Connection refused")
    network = Network(refused, refused, refused, None)
    monitor, observe = await watch(monkeypatch, network, 2)
    assert monitor.up is True
    assert observe.names == ["upstream.down", "upstream.up"]
    assert observe.events[0].error == "Connection refused"
    assert [time for time, _, _ in network.attempts] == [0, 0.5, 1.0, 1.5]


async def test_goes_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes away is noticed at the next look."""
    monitor, observe = await watch(monkeypatch, Network(None, ConnectionResetError()), 6)
    assert monitor.up is False
    assert observe.names == ["upstream.up", "upstream.down"]
    assert observe.events[1].error == "ConnectionResetError"


async def test_silence_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that does not come about within five seconds counts as none."""
    monitor, observe = await watch(monkeypatch, Network(60.0), 6)
    assert monitor.up is False
    assert observe.events[0].error == "connecting took too long"


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (UnicodeError("label too long"), "label too long"),
        (OSError("Multiple exceptions: refused, refused"), "Multiple exceptions: refused, refused"),
    ],
)
async def test_odd_problems_do_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, problem: BaseException, told: str
) -> None:
    """Whatever goes wrong, the watch goes on and says what it was."""
    monitor, observe = await watch(monkeypatch, Network(problem, None), 1)
    assert monitor.up is True
    assert observe.events[0].error == told


async def test_a_server_that_is_started_when_it_is_needed() -> None:
    """There is nothing to connect to: it counts as up, and its handshakes tell."""
    observe = Recorder()
    monitor = Monitor("stdio server", always_there, lambda: None, observe)
    watching = asyncio.create_task(monitor.watch())
    await asyncio.sleep(60)
    assert (monitor.up, monitor.hangs) == (True, False)
    assert [(event.name, event.upstream) for event in observe.events] == [("upstream.up", "stdio server")]
    watching.cancel()
