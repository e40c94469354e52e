"""The whole demonstration: start the server and the proxy, play the client, print what happened."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from ..assembly.proxy import Proxy
from ..assembly.sockets import CannotStart
from ..settings.config import Settings
from ..settings.values import Address
from . import report
from .bundled import DemoError, run_server
from .churn import read_churn
from .client import play_rounds

ROUNDS: Final = 5
# Stands for the server's URL in the checks before there is one.
PLACEHOLDER_URL: Final = "http://127.0.0.1:1/mcp"

_ANY_PORT: Final = Address("127.0.0.1", 0)


def run(settings: Settings, *, stay: bool) -> int:
    """Give the demonstration; with ``stay``, keep server and proxy up until Ctrl-C or SIGTERM."""
    try:
        return asyncio.run(_play(settings, stay=stay))
    except (DemoError, CannotStart) as error:
        print(f"mcp-session-proxy demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _play(settings: Settings, *, stay: bool) -> int:
    console = Console()
    async with run_server() as server_url:
        console.print(f"A stateful MCP server runs at {server_url}", soft_wrap=True)
        async with Proxy(adapt(settings, server_url, stay=stay)) as proxy:
            console.print(f"The proxy runs in front of it at {proxy.endpoint_url}\n", soft_wrap=True)
            console.print(
                "Now a client calls the way OpenAI's Responses API does: it begins a session, lists the "
                "tools, ends the session with DELETE, and only then calls a tool in it.\n"
            )
            direct = await play_rounds(server_url, ROUNDS)
            proxied = await play_rounds(proxy.endpoint_url, ROUNDS)
            report.compare_rounds(console, direct, proxied)
            if proxy.admin_url is not None:
                report.show_churn(console, await read_churn(proxy.admin_url))
            if stay:
                with _signals_set(proxy.stop):
                    report.show_commands(console, proxy.endpoint_url, proxy.admin_url)
                    await proxy.stop.wait()
    return 0 if all(round_.count is not None for round_ in proxied) else 1


def adapt(settings: Settings, server_url: str, *, stay: bool) -> Settings:
    """The settings for the server as it runs now. A demonstration that ends by itself needs no known port."""
    changes: dict[str, object] = {"upstream": server_url}
    if not stay:
        chosen = settings.model_fields_set
        changes |= {name: _ANY_PORT for name in ("listen", "admin_listen") if name not in chosen}
    return settings.model_copy(update=changes)


@contextmanager
def _signals_set(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event. After the block, another Ctrl-C ends the program at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
