"""A large response that is passed on as it comes: the envelope before its result, and the text of that. Pure.

Nobody waits for the end of a text that is passed on, so nobody can read it. What can be told of it without
that is seen to on the way: that it is no deeper than allowed, that every reader can decode it, and that it
ends. Nothing of that changes its length, which may have been announced.
"""

import codecs
import re
from collections.abc import Generator
from typing import Final, NamedTuple

from . import jsonrpc
from .large import before_escape, end_of_piece
from .outline import Outline

_VERSION: Final = rb'"jsonrpc"[ \t\r\n]*:[ \t\r\n]*"2\.0"'
_ID: Final = rb'"id"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,18}|"[0-9]{1,18}")'
_COMMA: Final = rb"[ \t\r\n]*,[ \t\r\n]*"
# Of servers that write the id behind the result, nobody knows before the end whose response it is.
_OPENING: Final = re.compile(
    rb"[ \t\r\n]*\{[ \t\r\n]*"
    rb"(?:" + _VERSION + _COMMA + _ID + rb"|" + _ID + _COMMA + _VERSION + rb")"
    + _COMMA + rb'"result"[ \t\r\n]*:[ \t\r\n]*(?=\{)'
)  # fmt: skip


class Opening(NamedTuple):
    """The envelope before a result: the raw id that it names, and where the result begins."""

    id: bytes
    end: int


def read_opening(beginning: bytes) -> Opening | None:
    """What a text begins with, if it is a response that says whose it is before its result."""
    found = _OPENING.match(beginning)
    return None if found is None else Opening(found[1] or found[2], found.end())


def write_opening(identifier: bytes) -> bytes:
    """The same under another id, as ``jsonrpc.write_response`` writes it."""
    return b"".join((b'{"jsonrpc":"2.0","id":', identifier, b',"result":'))


class ResultText:
    """The text from a result to the end of its envelope, piece by piece, and as long as it came.

    Bytes that are no UTF-8 become question marks, and surrogates that have no partner U+FFFD.
    """

    __slots__ = ("_held", "_outline")

    def __init__(self, max_depth: int) -> None:
        self._outline = Outline(max_depth, depth=1)
        self._held = b""  # the beginning of a character, or of an escape, whose end has not come

    @property
    def too_deep(self) -> bool:
        """Whether it is nested deeper than allowed."""
        return self._outline.too_deep

    @property
    def is_whole(self) -> bool:
        """Whether it ends with the envelope; after ``end``."""
        return self._outline.is_whole

    def take(self, piece: bytes) -> Generator[None, None, bytes]:
        """What can be passed on with the next piece. Stops now and then, so that others have their turn."""
        text = self._held + piece if self._held else piece
        end = len(text)
        if not text.isascii():
            text, end = _decodable(text)
        # One byte is found many times faster than three, and most large texts have no escape at all.
        has_escapes = b"\\" in text
        if has_escapes:
            end = before_escape(text, 0, _end_of_escapes(text, end))
        self._held = text[end:]
        text = text[:end]
        if has_escapes and (b"\\ud" in text or b"\\uD" in text):
            text = jsonrpc.replace_lone_surrogates(text)
        start = 0
        while (start := self._outline.next_change(text, start)) < len(text):
            end = end_of_piece(text, start)
            self._outline.take(text[start:end])
            start = end
            yield
        return text

    def end(self) -> bytes:
        """Nothing follows: what is left of it."""
        text, self._held = self._held, b""
        self._outline.take(text)
        return text


def _end_of_escapes(text: bytes, end: int) -> int:
    """The same end, or before a backslash whose escaped character has not come."""
    before = text[:end]
    return end - (len(before) - len(before.rstrip(b"\\"))) % 2


def _decodable(text: bytes) -> tuple[bytes, int]:
    """The same text in UTF-8, and where a character begins that has not come whole."""
    try:
        return text, codecs.utf_8_decode(text, "strict", False)[1]
    except UnicodeDecodeError:
        # Each bad byte becomes a surrogate, and each surrogate a question mark.
        decoded, end = codecs.utf_8_decode(text, "surrogateescape", False)
        return decoded.encode("utf-8", "replace") + text[end:], end
