"""Bodies that a server compresses although nobody asks for it, read a piece at a time. Pure.

A few bytes can stand for gigabytes, so no piece is larger than ``PIECE_BYTES``, and nobody makes the next one
before this one is taken.
"""

import zlib
from typing import Any, Final

PIECE_BYTES: Final = 256 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_MEMBER: Final = b"\x1f\x8b"


class Decompressor:
    """Reads gzip or deflate. ``has_more`` says that there may be something to take without more input."""

    __slots__ = ("_coding", "_decoder", "_raw", "has_more")

    def __init__(self, coding: bytes) -> None:
        self._coding = coding
        self._decoder: Any = None  # zlib does not name its class
        self._raw = b""
        self.has_more = False

    @classmethod
    def of(cls, coding: bytes) -> "Decompressor | None":
        """What reads this ``Content-Encoding``; None for those that are none, or nobody's here."""
        coding = coding.strip().lower()
        return cls(coding) if coding in (b"gzip", b"x-gzip", b"deflate") else None

    def inflate(self, data: bytes) -> bytes:
        """The next piece of what these bytes, and those before them, stand for; empty if more have to come.

        Raises:
            zlib.error: they are not what they were said to be.
        """
        self._raw += data
        while self._raw or self.has_more:
            decoder = self._decoder = self._decoder or self._begin(self._raw)
            piece: bytes = decoder.decompress(self._raw, PIECE_BYTES)
            self._raw = decoder.unconsumed_tail
            if decoder.eof:
                # Another member may follow (RFC 1952, section 2.2); what is none is padding.
                self._raw = decoder.unused_data if decoder.unused_data[:2] == _MEMBER else b""
                self._decoder = None
            is_full = self._decoder is not None and len(piece) == PIECE_BYTES
            self.has_more = is_full or bool(self._raw)
            if piece:
                return piece
        return b""

    def _begin(self, raw: bytes) -> Any:
        if self._coding != b"deflate":
            return zlib.decompressobj(_GZIP)
        # Some servers leave out the wrapping of zlib (RFC 9110, section 8.4.1.2).
        return zlib.decompressobj(zlib.MAX_WBITS if raw[0] & 0xF == 8 else -zlib.MAX_WBITS)

    def check_end(self) -> None:
        """Nothing more comes.

        Raises:
            zlib.error: something is missing.
        """
        if self._decoder is not None:
            raise zlib.error("incomplete")
