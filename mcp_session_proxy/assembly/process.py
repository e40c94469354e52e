"""The process around a proxy: its signals, the service manager that started it, its exit status.

SIGTERM and SIGINT end it, a second one at once. SIGHUP reads the configuration again.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

import uvloop

from ..ops.banner import startup_lines
from ..settings.config import Settings
from ..settings.descriptors import explain, fit
from .activation import Inherited, inherit
from .heap import Heap, tune
from .proxy import Proxy
from .sockets import CannotStart
from .supervisor import Supervisor

_STDERR: Final = 2
# Almost everything that a request makes goes away by itself; looking for cycles every 700 objects, Python's
# default, costs a tenth of the time.
_OBJECTS_BETWEEN_COLLECTIONS: Final = 20_000


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Serve until a signal ends it; gives the exit status. ``load`` reads the configuration again."""
    try:
        return _run(settings, load)
    except CannotStart as error:
        sys.stderr.write(f"mcp-session-proxy: {error}\n")
        return 1


def _run(settings: Settings, load: Callable[[], Settings]) -> int:
    # First of all: files that are opened from now on may get the numbers of those that were promised.
    inherited = inherit(os.environ)
    heap = Heap(tune())
    open_files = _raise_file_limit()
    wanted, settings = settings, fit(settings, open_files)
    if settings is not wanted:
        sys.stderr.write(f"mcp-session-proxy: {explain(wanted, settings, open_files)}\n")

    def reload() -> Settings:
        return inherited.fit(fit(load(), open_files))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(inherited.fit(settings), reload, inherited, heap))


def _raise_file_limit() -> int:
    """Every connection is an open file: take as many as the system lets us have; gives how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


async def _serve(settings: Settings, load: Callable[[], Settings], inherited: Inherited, heap: Heap) -> int:
    supervisor = Supervisor()

    def alive() -> None:
        supervisor.alive()
        heap.look()

    proxy = Proxy(settings, alive=alive, inherited=inherited)
    _heed_signals(proxy, supervisor, load)
    with contextlib.closing(supervisor):
        async with proxy:
            _collect_less_garbage()
            lines = startup_lines(settings, proxy.listen_url, proxy.endpoint_url, proxy.admin_url)
            sys.stderr.write("\n".join(lines) + "\n")
            supervisor.ready(_status(proxy))
            await proxy.stop.wait()
            supervisor.stopping()
    return 0


def _collect_less_garbage() -> None:
    """What stands now stays for good, and need not be looked through again and again.

    Not even once: the garbage of the start is some hundred KiB, and to find it takes a tenth of the start.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def _heed_signals(proxy: Proxy, supervisor: Supervisor, load: Callable[[], Settings]) -> None:
    had_terminal = os.isatty(_STDERR)
    was_told = False

    def on_stop() -> None:
        nonlocal was_told
        # The first signal is in no hurry, also when an operator drains the proxy already.
        if was_told:
            os._exit(1)
        was_told = True
        proxy.stop.set()

    def on_hangup() -> None:
        if had_terminal and not os.isatty(_STDERR):
            proxy.stop.set()  # its window was closed
            return
        if proxy.listen_url and not proxy.stop.is_set():
            supervisor.reloading()
            try:
                proxy.reload(load)
            finally:
                supervisor.ready(_status(proxy))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)


def _status(proxy: Proxy) -> str:
    return f"Serving {proxy.endpoint_url} in front of {proxy.settings.upstream_shown}"
