"""Lines out of a stream of bytes (MCP 2025-11-25, basic/transports, "stdio"): a message has one to itself.

Cut by nothing but ``\\n``, wherever the pieces end. Whether a line is a message, whoever takes it finds out.
"""

from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line does not end within its bound."""


class LineSplitter:
    """Takes pieces, gives lines. It keeps what has come of one that has not ended, ``max_bytes`` at most."""

    __slots__ = ("_max_bytes", "_pieces", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def pending_bytes(self) -> int:
        """How much there is of a line that has not ended."""
        return self._size

    def take_pending(self) -> bytes:
        """What there is of it, which is a line of its own then."""
        pending = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return pending

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece, without their ends; none that is empty.

        Raises:
            LineTooLong: there is too much of one that has not ended. Those that end in this piece are lost.
        """
        *ended, rest = piece.split(b"\n")
        if ended and self._pieces:
            ended[0] = self.take_pending() + ended[0]
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._max_bytes:
                raise LineTooLong
        # Blanks and the BOM mean nothing in JSON; CRLF is what some runtimes write by themselves.
        return [line for line in (each.removeprefix(_BOM).strip() for each in ended) if line]
