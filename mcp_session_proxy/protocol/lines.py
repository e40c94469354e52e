"""Lines out of a stream of bytes (MCP 2025-11-25, basic/transports, "stdio"): a message has one to itself.

Cut by nothing but ``\\n``, wherever the pieces end. Whether a line is a message, whoever takes it finds out.
"""

from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line does not end within its bound."""


class LineSplitter:
    """Takes pieces, gives lines. It keeps what has come of one that has not ended: ``pending_bytes``, which
    are ``max_bytes`` at most.
    """

    __slots__ = ("_max_bytes", "_pieces", "pending_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self.pending_bytes = 0

    def take_pending(self) -> bytes:
        """What there is of it, which is a line of its own then."""
        pending = b"".join(self._pieces)
        self._pieces.clear()
        self.pending_bytes = 0
        return pending

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece, without their ends; none that is empty.

        Raises:
            LineTooLong: there is too much of one that has not ended. Those that end in this piece are lost.
        """
        lines = piece.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            lines[0] = self.take_pending() + lines[0]
        if rest:
            self._pieces.append(rest)
            self.pending_bytes += len(rest)
            if self.pending_bytes > self._max_bytes:
                raise LineTooLong
        # Nearly all lines are nothing but a message.
        return [
            line
            for each in lines
            if (line := each if each[:1] == b"{" and each[-1:] == b"}" else _stripped(each))
        ]


def _stripped(line: bytes) -> bytes:
    """Without what means nothing in JSON: blanks, a BOM, and the CR that some runtimes write."""
    return line.removeprefix(_BOM).strip()
