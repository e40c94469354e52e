"""Events in a Valkey or Redis, beside the engine's records: a sorted set for each stream."""

from collections.abc import Sequence
from typing import Final

from . import valkey_scripts as scripts
from .events import Numbered
from .valkey_line import Line

# Numbers are so many bytes, the most significant first, so that their order is that of the bytes.
_NUMBER_BYTES: Final = 8


class ValkeyEvents:
    """Implements ``events.EventStore``, on a ``line`` of its own."""

    def __init__(self, line: Line, prefix: str) -> None:
        self._line = line
        self._prefix = prefix

    async def append(self, place: str, events: Sequence[Numbered], keep: int, ttl_seconds: float) -> None:
        """See ``EventStore.append``."""
        parts = [part for number, data in events for part in (_written(number), _written(number + 1), data)]
        await self._line.run(scripts.APPEND, [self._key(place)], [keep, round(ttl_seconds * 1000), *parts])

    async def after(self, place: str, number: int) -> Sequence[Numbered]:
        """See ``EventStore.after``."""
        (found,) = await self._line.ask(("ZRANGEBYLEX", self._key(place), b"[" + _written(number + 1), "+"))
        return [(int.from_bytes(each[:_NUMBER_BYTES], "big"), each[_NUMBER_BYTES:]) for each in found]

    async def drop(self, place: str) -> None:
        """See ``EventStore.drop``."""
        await self._line.ask(("UNLINK", self._key(place)))

    async def close(self) -> None:
        """Let go of the connection."""
        await self._line.close()

    def _key(self, place: str) -> str:
        return f"{self._prefix}e:{place}"


def _written(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big")
