"""How many POSTs are being answered, for whoever waits until there are none (a shutdown)."""

import asyncio
import contextlib


class Posts:
    """A count of what is under way. ``with posts:`` around each."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left: asyncio.Event | None = None

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> None:
        """One more."""
        self._count += 1

    def __exit__(self, *_: object) -> None:
        """One less."""
        self._count -= 1
        if self._none_left is not None and not self._count:
            self._none_left.set()

    async def finished(self, timeout_seconds: float) -> None:
        """Wait until none is under way, but no longer than this."""
        if not self._count:
            return
        self._none_left = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._none_left.wait()
