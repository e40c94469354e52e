"""Whether the server behind us takes connections: probed while that is unknown, and now and then.

A probe is a TCP connection and nothing more: it needs no credential, opens no session, and a server
that answers 401 to everything is up.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from yarl import URL

from .. import events
from ..events import Observer

_WHILE_DOWN_SECONDS: Final = 0.5
_WHILE_UP_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 5.0


class Monitor:
    """Watches one server. ``up`` is None until the first probe has ended; ``on_down`` is told of its end."""

    def __init__(self, url: URL, on_down: Callable[[], None], observe: Observer) -> None:
        self.up: bool | None = None
        self._url = url
        self._on_down = on_down
        self._observe = observe

    async def watch(self) -> None:
        """Probe until cancelled."""
        while True:
            error = await self._probe()
            self._record(error)
            await asyncio.sleep(_WHILE_UP_SECONDS if error is None else _WHILE_DOWN_SECONDS)

    def _record(self, error: str | None) -> None:
        was_up, self.up = self.up, error is None
        if was_up == self.up:
            return
        shown = str(self._url.origin())
        if error is None:
            self._observe(events.UpstreamUp(upstream=shown))
        else:
            self._on_down()
            self._observe(events.UpstreamDown(upstream=shown, error=error))

    async def _probe(self) -> str | None:
        """None if a connection could be made, else why not."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port)
        except TimeoutError:
            return "connecting took too long"
        except (OSError, ValueError) as error:  # a name that cannot be looked up is a ValueError
            return getattr(error, "strerror", None) or str(error) or type(error).__name__
        writer.close()
        return None
