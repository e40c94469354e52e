"""What connections hold of heads that have not ended: they count before anybody knows whose they are.

aiohttp's parser keeps each field until the last one has come, and a client may take half a minute to send
them. Over their share of the memory, the head that began first is given up: those of ordinary requests arrive
at once, or within one turn of a slow line.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage

from ..memory import Share

S = TypeVar("S")
PUNCTUATION_BYTES: Final = 4  # of a field: a colon, a space and the end of the line


class UnfinishedHeads(Generic[S]):
    """All of them, by who sends them, in the order in which they began."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._sizes: dict[S, int] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def hold(self, sender: S, size_bytes: int) -> int:
        """So much more has come of a head; gives how much of it there is."""
        self._share.hold(size_bytes)
        total_bytes = self._sizes[sender] = self._sizes.get(sender, 0) + size_bytes
        return total_bytes

    def end(self, sender: S) -> None:
        """A head has arrived whole, or is given up."""
        self._share.give_back(self._sizes.pop(sender, 0))

    def excess(self) -> Iterator[S]:
        """Who has to be refused, because all together hold too much."""
        while self._share.is_over and self._sizes:
            first = next(iter(self._sizes))
            self.end(first)
            yield first


def left_over(size_bytes: int, messages: Sequence[tuple[object, StreamReader]]) -> int:
    """How much of what has arrived is neither heads nor bodies of these messages, which were found in it."""
    # What follows a head whose body has not ended is body.
    if not messages[-1][1].is_eof():
        return 0
    for message, body in messages:
        if not isinstance(message, RawRequestMessage):
            return 0  # it was no HTTP, and nothing after it will be looked at
        fields = sum(len(name) + len(value) + PUNCTUATION_BYTES for name, value in message.raw_headers)
        size_bytes -= len(message.path) + fields + body.total_bytes
    return max(0, size_bytes)
