"""What comes of a body that is not in it: sizes of chunks, their extensions, trailers.

aiohttp's parser drops extensions, but keeps trailers until the next request begins.
"""

from typing import Final

from aiohttp import StreamReader

# What comes around the bytes of a body, at most so many times as much, is no trailers: chunks of a byte have
# five bytes around them.
_CHUNK_TIMES: Final = 8


class Framing:
    """What has come of one ``body``, and how much of that may be trailers."""

    __slots__ = ("_body_bytes", "_framing_bytes", "_unparsed_bytes", "body")

    def __init__(self, body: StreamReader) -> None:
        self.body = body
        self._body_bytes = self._framing_bytes = self._unparsed_bytes = 0

    def weigh(self, size_bytes: int, *, stands_still: bool) -> int:
        """So much more has come; gives how much may be trailers.

        The parser stands still while nobody takes what it has read of the body; what has come since is
        weighed when it goes on.
        """
        size_bytes += self._unparsed_bytes
        self._unparsed_bytes = size_bytes if stands_still else 0
        if stands_still:
            return 0
        total_bytes = self.body.total_bytes
        grown, self._body_bytes = total_bytes - self._body_bytes, total_bytes
        # Trailers are what comes last, so it starts anew where the body has grown.
        if grown:
            self._framing_bytes = max(0, size_bytes - _CHUNK_TIMES * grown)
        else:
            self._framing_bytes += size_bytes
        return self._framing_bytes
