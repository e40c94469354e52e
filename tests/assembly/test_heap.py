"""Memory goes back to the system."""

import platform
import subprocess
import sys

import pytest

from mcp_session_proxy.assembly.heap import Heap

MIB = 1024 * 1024
# Blocks of which every second one stays: what is free lies between them.
PROGRAM = """
from mcp_session_proxy.assembly.heap import Heap, resident_bytes, tune
heap = Heap(tune())
heap.look()
before = resident_bytes()
blocks = [bytes(200_000) for _ in range(1000)]
kept = [bytes(block[:1000]) for block in blocks]
peak = resident_bytes()
del blocks
heap.look()
print((peak - before) >> 20, (resident_bytes() - before) >> 20)
"""


class Machine:
    """A process of a size, and a clock."""

    def __init__(self) -> None:
        self.size_bytes = 100 * MIB
        self.time = 1000.0
        self.trims: list[float] = []
        self.takes_seconds = 0.001
        self.heap = Heap(self.trim, resident=lambda: self.size_bytes, now=lambda: self.time)

    def trim(self, _: int) -> None:
        self.trims.append(self.time)
        self.time += self.takes_seconds

    def live(self, seconds: int) -> None:
        """Look once in a second."""
        for _ in range(seconds):
            self.time += 1
            self.heap.look()


def test_nothing_is_done_where_nothing_has_grown() -> None:
    """Some megabytes more or less are no growth."""
    machine = Machine()
    machine.live(10)
    machine.size_bytes += 7 * MIB
    machine.live(100)
    assert machine.trims == []


def test_growth_is_given_back() -> None:
    """Again and again, because nobody knows when something was let go of; but not each time."""
    machine = Machine()
    machine.live(1)
    machine.size_bytes += 100 * MIB
    machine.live(60)
    assert 5 <= len(machine.trims) <= 7
    machine.size_bytes -= 95 * MIB
    machine.live(60)
    assert len(machine.trims) <= 7


def test_the_least_counts() -> None:
    """What a process needs is the least that it ever had, and not what it began with."""
    machine = Machine()
    machine.live(1)
    machine.size_bytes -= 10 * MIB
    machine.live(1)
    machine.size_bytes += 9 * MIB
    machine.live(1)
    assert len(machine.trims) == 1


def test_others_have_their_time() -> None:
    """What takes long is done seldom: in half a hundredth of the time at most."""
    machine = Machine()
    machine.live(1)
    machine.size_bytes += 100 * MIB
    machine.takes_seconds = 0.5
    machine.live(1000)
    assert 9 <= len(machine.trims) <= 11


def test_without_the_function_nothing_happens() -> None:
    """Other C libraries have none."""
    heap = Heap(None, resident=lambda: 1 // 0)
    heap.look()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
def test_a_process_has_its_size_again() -> None:
    """What lies free between blocks in use goes back to the system."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    peak, after = map(int, ran.stdout.split())
    assert peak > 100
    assert after < 30
