"""The program before a command: what becomes of processes when it is killed, and when it is the first one."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from stdio_bench import TOY

from .launch import Fleet, Proxy
from .wire import Caller

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


def state_of(pid: int) -> str:
    """The state of a process, as a letter; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """The processes that a process is the parent of."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def links_of(pid: int) -> list[str]:
    """What a process has open."""
    return [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]


def pid_of(proxy: Proxy) -> int:
    """The process of a proxy."""
    assert proxy.program.process is not None
    return proxy.program.process.pid


async def test_stubborn_children_of_a_killed_proxy(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """The next proxy ends them, and says so."""
    proxy = owned.new_stdio_proxy([*TOY, "--stubborn"])
    for _ in range(3):
        await Caller(http, proxy.url).call("count")
    left = children_of(pid_of(proxy))
    assert len(left) == 3
    os.kill(pid_of(proxy), signal.SIGKILL)
    await asyncio.to_thread(proxy.program.process.wait)  # type: ignore[union-attr]
    assert all(state_of(pid) for pid in left)
    proxy.start()
    await until(lambda: all(state_of(pid) in ("", "Z") for pid in left))
    assert '"children.swept"' in proxy.program.log.read_text()
    proxy.stop()


async def test_orphans_of_the_first_process(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """As process 1 of a container, the proxy takes note of the end of strangers, too: no zombie stays."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-pf", "true"]).returncode:
        pytest.skip("this user cannot make a namespace of processes")
    proxy = owned.new_stdio_proxy(TOY)
    proxy.stop()
    words = [*("unshare", "-pf", "--mount-proc", "--kill-child"), *proxy.program.command]
    proxy.program.command = words
    proxy.start()
    [first] = children_of(pid_of(proxy))
    caller = Caller(http, proxy.url)
    await caller.call("orphans", {"count": 200})
    await until(lambda: [state_of(pid) for pid in children_of(first)].count("Z") == 0)
    assert (await caller.call("count")).text == "1"
    assert len(children_of(first)) == 1
    os.kill(first, signal.SIGTERM)
    await asyncio.to_thread(proxy.program.process.wait)  # type: ignore[union-attr]


async def test_what_the_program_was_started_with(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """Its descriptors are no child's: one that holds a socket would keep it open for ever."""
    proxy = owned.new_stdio_proxy(TOY)
    proxy.stop()
    proxy.program.command = ["sh", "-c", 'exec 9>held "$@"', "sh", *proxy.program.command]
    proxy.start()
    await Caller(http, proxy.url).call("count")
    [child] = children_of(pid_of(proxy))
    assert any(link.endswith("/held") for link in links_of(pid_of(proxy)))
    assert not any(link.endswith("/held") for link in links_of(child))
