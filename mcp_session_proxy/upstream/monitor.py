"""Whether the server behind us takes connections: probed while that is unknown, and now and then.

A probe is a connection, with its TLS handshake where there is one, and nothing more: it needs no
credential, opens no session, and a server that answers 401 to everything is up.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from yarl import URL

from .. import events
from ..events import Observer

_WHILE_DOWN_SECONDS: Final = 0.5
_WHILE_UP_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0


class Monitor:
    """Watches one server.

    ``up`` is None until the first probe has ended; ``down_since`` is by the loop's clock; ``hangs`` says that
    the server does not even refuse connections. ``on_down`` is told when it goes away.
    """

    def __init__(
        self,
        url: URL,
        on_down: Callable[[], None],
        observe: Observer,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.up: bool | None = None
        self.down_since: float | None = None
        self.hangs = False
        self._url = url
        self._look = asyncio.Event()
        self._on_down = on_down
        self._observe = observe
        self._tls = tls or (url.scheme == "https" or None)

    async def watch(self) -> None:
        """Probe until cancelled."""
        while True:
            error = await self._probe()
            self._record(error)
            self._look.clear()
            try:
                async with asyncio.timeout(_WHILE_UP_SECONDS if error is None else _WHILE_DOWN_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                continue

    def look_now(self) -> None:
        """Somebody's connection was refused: probe without waiting, if the server is thought to be up."""
        if self.up:
            self._look.set()

    def _record(self, error: str | None) -> None:
        was_up, self.up = self.up, error is None
        if was_up == self.up:
            return
        self.down_since = None if self.up else asyncio.get_running_loop().time()
        shown = str(self._url.origin())
        if error is None:
            self._observe(events.UpstreamUp(upstream=shown))
        else:
            self._on_down()
            self._observe(events.UpstreamDown(upstream=shown, error=error))

    async def _probe(self) -> str | None:
        """None if a connection could be made, else why not."""
        self.hangs = False
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port, ssl=self._tls)
        except TimeoutError:
            self.hangs = True
            return "connecting took too long"
        except ssl.SSLError as error:
            return f"no TLS connection: {getattr(error, 'verify_message', '') or error.reason}"
        except (OSError, ValueError) as error:  # a name that cannot be looked up is a ValueError
            return getattr(error, "strerror", None) or str(error) or type(error).__name__
        writer.close()
        return None
