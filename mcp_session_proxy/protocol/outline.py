"""The brackets and strings of a JSON text, looked at in pieces. Pure.

``bytes`` methods do nearly all of it, each over a whole piece, so it costs a fraction of reading the text.
What is no JSON may be called too deep, or whole, or not; a parser does not get deeper into it than this says.
"""

from itertools import accumulate, compress
from typing import Final

# Pairs of brackets with nothing in them are taken off so often before a piece is looked at more closely.
_ROUNDS: Final = 16
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'{}[],"'))
_STEPS: Final = [0] * 256
_STEPS[ord("[")], _STEPS[ord("]")] = 1, -1
_ARE_COMMAS: Final = [number == ord(",") for number in range(256)]


class Outline:
    """What is known of a text after some of its pieces.

    ``depth`` is how many arrays and objects are open, ``too_deep`` whether there were ever more than allowed,
    and ``commas`` how many stand between the items or members of the outermost of them.
    """

    __slots__ = ("_in_string", "_max_depth", "commas", "depth", "too_deep")

    def __init__(self, max_depth: int, depth: int = 0) -> None:
        self._max_depth = max_depth
        self._in_string = False
        self.depth = depth
        self.too_deep = False
        self.commas = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything that was opened is closed."""
        return self.depth == 0 and not self._in_string

    def next_change(self, text: bytes, start: int) -> int:
        """Where in a text that goes on at ``start`` anything may change: most of most large texts is one long
        string.
        """
        if not self._in_string:
            return start
        quote = text.find(b'"', start)
        # With the backslashes before it, of which the last may escape it.
        return len(text) if quote < 0 else start + len(text[start:quote].rstrip(b"\\"))

    def take(self, piece: bytes) -> None:
        """Look at the next piece, which does not end between a backslash and what it escapes."""
        marks = piece
        if b"\\" in marks:
            # Backslashes in pairs first, so that what is left before a quote escapes it.
            marks = marks.replace(b"\\\\", b"").replace(b'\\"', b"")
        # Two quotes in a row change nothing about what is within a string.
        parts = marks.translate(_ALIKE, _NO_MARKS).replace(b'""', b"").split(b'"')
        outside = b"".join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        self._nest(outside, outside.replace(b",", b""))

    def _nest(self, outside: bytes, brackets: bytes) -> None:
        depth = self.depth
        left, rounds = brackets, 0
        while rounds < _ROUNDS and len(less := left.replace(b"[]", b"")) < len(left):
            left, rounds = less, rounds + 1
        # At most so deep; and if it is not less than that, exactly.
        if (
            depth + rounds + left.count(b"[") > self._max_depth
            and max(accumulate(map(_STEPS.__getitem__, brackets), initial=depth)) > self._max_depth
        ):
            self.too_deep = True
        if not brackets:
            self.commas += len(outside) if depth == 1 else 0
        elif depth - left.count(b"]") <= 1:
            levels = accumulate(map(_STEPS.__getitem__, outside), initial=depth)
            self.commas += list(compress(levels, map(_ARE_COMMAS.__getitem__, outside))).count(1)
        self.depth = depth + brackets.count(b"[") - brackets.count(b"]")
