"""Bodies that a server compresses although nobody asks for it, read a piece at a time. Pure.

A few bytes can stand for gigabytes, so no piece is larger than ``PIECE_BYTES``, and nobody makes the next one
before this one is taken. What stands for nothing, over and over, is taken for damaged.

A body may be compressed more than once, say by a server and by what stands before it: codings are named in
the order in which they were applied (RFC 9110, section 8.4).
"""

import zlib
from typing import Any, Final

PIECE_BYTES: Final = 256 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_MEMBER: Final = b"\x1f\x8b"
_KNOWN: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
_NONE: Final = frozenset({b"", b"identity"})
_MAX_CODINGS: Final = 3
# A member costs work whatever is in it; an empty one marks the end of some files.
_MAX_EMPTY_MEMBERS: Final = 16


class Decompressor:
    """Reads gzip or deflate. ``has_more`` says that there may be something to take without more input."""

    __slots__ = ("_coding", "_decoder", "_empty", "_raw", "has_more")

    def __init__(self, coding: bytes) -> None:
        self._coding = coding
        self._decoder: Any = None  # zlib does not name its class
        self._raw = b""
        self._empty = 0  # members, one after the other
        self.has_more = False

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
                self._empty = 0
                return piece
            if decoder.eof:
                self._empty += 1
                if self._empty > _MAX_EMPTY_MEMBERS:
                    raise zlib.error("nothing but empty members")
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


class Nested:
    """Reads what is compressed more than once: ``outer`` first, and ``inner`` what that gives."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, outer: "Decompressor | Nested", inner: Decompressor) -> None:
        self._outer = outer
        self._inner = inner

    @property
    def has_more(self) -> bool:
        """As ``Decompressor.has_more``."""
        return self._inner.has_more or self._outer.has_more

    def inflate(self, data: bytes) -> bytes:
        """As ``Decompressor.inflate``."""
        piece = self._inner.inflate(b"") if self._inner.has_more else b""
        while not piece and (data or self._outer.has_more):
            given, data = self._outer.inflate(data), b""
            piece = self._inner.inflate(given)
            if not piece and len(given) >= PIECE_BYTES:
                raise zlib.error("so much that stands for nothing")
        return piece

    def check_end(self) -> None:
        """As ``Decompressor.check_end``."""
        self._outer.check_end()
        self._inner.check_end()


def decompressor_of(codings: bytes) -> tuple[Decompressor | Nested | None, str]:
    """What reads a body with this ``Content-Encoding``, None for nothing; and the codings that it leaves.

    Those are names that nobody here knows, or more than a few.
    """
    names = [name for name in (each.strip().lower() for each in codings.split(b",")) if name not in _NONE]
    decompressor: Decompressor | Nested | None = None
    for _ in range(_MAX_CODINGS):
        if not names or names[-1] not in _KNOWN:
            break
        one = Decompressor(names.pop())
        decompressor = one if decompressor is None else Nested(decompressor, one)
    return decompressor, b", ".join(names).decode("ascii", "replace")
