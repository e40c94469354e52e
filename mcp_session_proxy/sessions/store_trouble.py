"""Whether a store fails: told once when that begins, and once when it is over."""

import asyncio
from typing import Final

from .. import events
from ..events import Observer
from ..store.engine import StoreFailure

# Long enough that what belongs together (a session, its client, that it was taken) is one write.
_BATCH_SECONDS: Final = 0.01
_RETRY_SECONDS: Final = 1.0


class StoreTrouble:
    """What became of the last write."""

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._since: float | None = None

    @property
    def lasts(self) -> bool:
        """Whether it failed."""
        return self._since is not None

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next write."""
        return _RETRY_SECONDS if self.lasts else _BATCH_SECONDS

    def begin(self, failure: StoreFailure) -> None:
        """Something could not be done."""
        if self._since is None:
            self._since = self._now()
            self._observe(events.StoreFailed(problem=str(failure)))

    def end(self) -> None:
        """Something was done."""
        if self._since is not None:
            seconds = self._now() - self._since
            self._since = None
            self._observe(events.StoreRecovered(seconds=seconds))
