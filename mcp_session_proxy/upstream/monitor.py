"""Whether the server behind us takes connections: probed while that is unknown, and now and then.

How that is found out depends on what leads to the server. For one with a URL it is a connection, with its TLS
handshake where there is one, and nothing more: it needs no credential, opens no session, and a server that
answers 401 to everything is up.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from yarl import URL

from .. import events
from ..events import Observer

_WHILE_DOWN_SECONDS: Final = 0.5
_WHILE_UP_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0


class NoConnection(NamedTuple):
    """Why a server takes none. ``hangs``: it does not even refuse."""

    why: str
    hangs: bool = False


Probe: TypeAlias = Callable[[], Awaitable[NoConnection | None]]


def probe_of(url: URL, tls: ssl.SSLContext | None = None) -> Probe:
    """The probe of a server with a URL."""
    return partial(_connect, url, tls or (url.scheme == "https" or None))


async def _connect(url: URL, tls: ssl.SSLContext | bool | None) -> NoConnection | None:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=tls)
    except TimeoutError:
        return NoConnection("connecting took too long", hangs=True)
    # Before OSError, of which it is one.
    except ssl.SSLError as error:
        return NoConnection(f"no TLS connection: {getattr(error, 'verify_message', '') or error.reason}")
    except (OSError, ValueError) as error:  # a name that cannot be looked up is a ValueError
        return NoConnection(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    writer.close()
    return None


async def always_there() -> None:
    """The probe of a server that is started when it is needed. Whether that works, its handshakes show."""


class Monitor:
    """Watches one server. ``name`` is the server's in events; ``probe`` gives why it takes no connection.

    ``up`` is None until the first probe has ended; ``down_since`` is by the loop's clock; ``hangs`` says that
    the server does not even refuse connections. ``on_down`` is told when it goes away.
    """

    def __init__(self, name: str, probe: Probe, on_down: Callable[[], None], observe: Observer) -> None:
        self.up: bool | None = None
        self.down_since: float | None = None
        self.hangs = False
        self._name = name
        self._probe = probe
        self._look = asyncio.Event()
        self._on_down = on_down
        self._observe = observe

    async def watch(self) -> None:
        """Probe every 5 s while the server is up, every 0.5 s while it is not, until cancelled."""
        while True:
            # For as long as this looks there is hope: a server that has just come back is tried.
            self.hangs = False
            refusal = await self._probe()
            self._record(refusal)
            self._look.clear()
            try:
                async with asyncio.timeout(_WHILE_UP_SECONDS if refusal is None else _WHILE_DOWN_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                continue

    def look_now(self) -> None:
        """Somebody's connection was refused: probe without waiting, if the server is thought to be up."""
        # What is down is looked at twice a second anyway.
        if self.up:
            self._look.set()

    def _record(self, refusal: NoConnection | None) -> None:
        was_up, self.up = self.up, refusal is None
        self.hangs = refusal is not None and refusal.hangs
        if was_up == self.up:
            return
        self.down_since = None if self.up else asyncio.get_running_loop().time()
        if refusal is None:
            self._observe(events.UpstreamUp(upstream=self._name))
        else:
            self._on_down()
            self._observe(events.UpstreamDown(upstream=self._name, error=refusal.why))
