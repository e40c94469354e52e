"""An event store of the Python SDK's (``mcp.server.streamable_http.EventStore``) as one of ours.

Not imported by anything here: it needs the package ``mcp``, which whoever names such a store has.
"""

import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from mcp.server.streamable_http import EventMessage
from mcp.server.streamable_http import EventStore as SdkEventStore
from mcp.types import JSONRPCMessage, JSONRPCNotification

from .clock import since_boot
from .events import Numbered
from .sqlite import SqliteEngine

_METHOD: Final = "notifications/mcp-session-proxy/event"
_SWEEP_SECONDS: Final = 60.0


class SdkEvents:
    """Implements ``events.EventStore`` by what an SDK's store has: it is a context manager.

    Each event becomes a notification, and a place the id of a stream; so stores that tell events apart by
    the stream alone are safe. Such a store finds nothing by the name of a stream, only by the ids that it
    gives to events: those are kept in a file at ``path``, which one process uses at a time.

    What a store keeps, and for how long, is its own business: it is never told to forget.
    """

    def __init__(
        self, store: SdkEventStore, path: str | Path, *, now: Callable[[], float] | None = None
    ) -> None:
        self._store = store
        self._engine = SqliteEngine(Path(path), now=now, wall=now or time.time)
        self._ids = self._engine.events
        self._now = now or since_boot
        self._swept = self._now()

    async def __aenter__(self) -> Self:
        """Open the file. Raises StoreFailure."""
        await self._engine.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._engine.close()

    async def append(self, place: str, events: Sequence[Numbered], keep: int, ttl_seconds: float) -> None:
        """See ``EventStore.append``."""
        ids: list[Numbered] = []
        if not await self._ids.after(place, -1):
            # The one that the first stands behind.
            ids.append((0, await self._put(place, -1, b"")))
        for number, data in events:
            ids.append((number + 1, await self._put(place, number, data)))
        await self._ids.append(place, ids, keep + 1, ttl_seconds)
        if self._now() - self._swept >= _SWEEP_SECONDS:
            self._swept = self._now()
            await self._engine.beat("sdk", b"", _SWEEP_SECONDS, 0)  # which forgets what has had its time

    async def _put(self, place: str, number: int, data: bytes) -> bytes:
        return (await self._store.store_event(place, _wrap(number, data))).encode()

    async def after(self, place: str, number: int) -> Sequence[Numbered]:
        """See ``EventStore.after``."""
        ids = await self._ids.after(place, -1)
        if not ids:
            return []
        before = [event_id for shifted, event_id in ids if shifted - 1 <= number]
        found: dict[int, bytes] = {}

        async def take(event: EventMessage) -> None:
            found.update(_unwrap(event.message))

        await self._store.replay_events_after((before or [ids[0][1]])[-1].decode(), take)
        known = {shifted - 1 for shifted, _ in ids[1:]}
        return [event for event in sorted(found.items()) if event[0] > number and event[0] in known]

    async def drop(self, place: str) -> None:
        """See ``EventStore.drop``."""
        await self._ids.drop(place)


def _wrap(number: int, data: bytes) -> Any:
    params = {"number": number, "data": base64.b64encode(data).decode()}
    notification = JSONRPCNotification(jsonrpc="2.0", method=_METHOD, params=params)
    # From mcp 2 on, this is no class that holds one but a name for all that a message can be.
    form: Any = JSONRPCMessage
    return form(notification) if hasattr(form, "model_fields") else notification


def _unwrap(message: Any) -> dict[int, bytes]:
    held = getattr(message, "root", message)
    if getattr(held, "method", None) != _METHOD:
        return {}
    return {int(held.params["number"]): base64.b64decode(held.params["data"])}
