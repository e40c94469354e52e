"""What systemd hears, on a socket like its own."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_session_proxy.assembly.supervisor import Supervisor


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that systemd listens on, and the name that it gives to services."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@test-{os.getpid()}-{id(request)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(5)
        yield listener, name


@pytest.fixture
def start() -> Iterator[Callable[..., Supervisor]]:
    started = []

    def start(**environment: str) -> Supervisor:
        started.append(Supervisor(environment))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.close()


def test_tells_of_a_whole_life(systemd, start):
    """Ready, reloading and ready again, stopping: one datagram each, as sd_notify(3) wants it."""
    listener, name = systemd
    supervisor = start(NOTIFY_SOCKET=name)
    supervisor.ready("Serving")
    assert listener.recv(1000) == b"READY=1\nSTATUS=Serving"
    before = time.monotonic_ns() // 1000
    supervisor.reloading()
    first, second = listener.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    key, _, microseconds = second.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    supervisor.stopping()
    assert listener.recv(1000).startswith(b"STOPPING=1\n")


def test_watchdog(systemd, start):
    """It is fed when it watches this process."""
    listener, name = systemd
    supervisor = start(NOTIFY_SOCKET=name, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    assert supervisor.alive_within_seconds == 30
    supervisor.alive()
    assert listener.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}],
)
def test_no_watchdog(systemd, start, environment):
    """Nobody watches, or another process is watched: nothing is sent."""
    listener, name = systemd
    supervisor = start(NOTIFY_SOCKET=name, **environment)
    assert supervisor.alive_within_seconds is None
    supervisor.alive()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_systemd(start, environment):
    """Started by hand, nothing happens."""
    supervisor = start(WATCHDOG_USEC="30000000", **environment)
    assert supervisor.alive_within_seconds is None
    supervisor.ready("Serving")
    supervisor.stopping()


def test_nobody_listens(start, tmp_path):
    """A socket that is gone is no reason to fail."""
    start(NOTIFY_SOCKET=str(tmp_path / "gone")).ready("Serving")


def test_nobody_reads(systemd, start):
    """A socket that is full does not hold up the event loop."""
    _, name = systemd
    supervisor = start(NOTIFY_SOCKET=name)
    for _ in range(5000):  # a send that blocks would never return
        supervisor.ready("x" * 100)
