"""The body of a client's POST: read within its limit, its time and its share of the memory.

Compressed bodies are decompressed here, in steps that the limit ends, because a megabyte of zeros
compresses to a kilobyte (RFC 9110, section 8.4).
"""

import asyncio
import zlib
from typing import Final

from aiohttp import StreamReader, hdrs, web

from ..aio import break_circle
from ..bounds import BODY_SECONDS, SMALL_BYTES
from ..errors import BadRequest, BodyTooLarge, UnsupportedCoding
from ..memory import Share
from .forwarded import ForwardedRequest

_STEP_BYTES: Final = 64 * 1024
# What a deflate stream starts with, with its wrapper (RFC 1950) or, as some clients send it, without.
_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(http: web.BaseRequest, max_bytes: int, share: Share) -> bytes:
    """The whole body, decompressed. Its length is taken from ``share``: give that back when it is answered.

    Raises:
        BodyTooLarge: it is over ``max_bytes``.
        OverBudget: there is no memory for it.
        UnsupportedCoding: it is compressed in a way that is not known here.
        BadRequest: it did not arrive whole, or is not what it says.
        PeerNotBelieved: it is not the one that another member has signed.
    """
    content = http.content
    if content.is_eof() and content.exception() is None and hdrs.CONTENT_ENCODING not in http.headers:
        # Most bodies are not compressed, and have arrived with their head.
        data = _take(content)
        size_bytes = len(data)
        if size_bytes > max_bytes:
            raise _too_large(max_bytes)
        if isinstance(http, ForwardedRequest):
            http.check_body(data)
        share.take(size_bytes, large=size_bytes > SMALL_BYTES)
        return data
    if (http.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    inflater = _make_inflater(http, max_bytes)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _gather(http, inflater, max_bytes, share)
    except (TimeoutError, web.RequestPayloadError) as error:
        break_circle(error)
        raise BadRequest("The body did not arrive whole.") from error
    except zlib.error as error:
        raise BadRequest("The body is not compressed in the way that Content-Encoding says.") from error


def _take(content: StreamReader) -> bytes:
    """All of a body that has arrived. To read it by pieces, as aiohttp does, costs as much as to parse it."""
    if not content.total_bytes:
        return b""
    pieces = content._buffer
    data = b"".join(pieces)
    pieces.clear()
    return data


async def _gather(http: web.BaseRequest, inflater: "_Inflater | None", max_bytes: int, share: Share) -> bytes:
    """What arrives, piece by piece, and is accounted for piece by piece; if it fails, for nothing."""
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await http.content.readany():
            if inflater is not None:
                piece = inflater.feed(piece)
            if size + len(piece) > max_bytes:
                raise _too_large(max_bytes)
            # As it comes, so that who announces much and sends nothing takes nothing.
            share.take(len(piece), large=size + len(piece) > SMALL_BYTES)
            size += len(piece)
            pieces.append(piece)
        if inflater is not None and not inflater.finished:
            raise BadRequest("The compressed body is incomplete.")
        body = b"".join(pieces)
        if isinstance(http, ForwardedRequest):
            http.check_body(body)
    except BaseException:
        share.give_back(size)
        # The error leads here by its traceback, and aiohttp keeps it where this leads to: a circle.
        pieces.clear()
        raise
    return body


def _make_inflater(http: web.BaseRequest, max_bytes: int) -> "_Inflater | None":
    coding = http.headers.get(hdrs.CONTENT_ENCODING)
    if coding is None or (coding := coding.strip().lower()) == "identity":
        return None
    if coding not in _WINDOW_BITS:
        raise UnsupportedCoding("The body's Content-Encoding is not known here. Send gzip, deflate or none.")
    return _Inflater(coding, max_bytes)


class _Inflater:
    """Decompresses piece by piece, and never more than the limit and a step."""

    def __init__(self, coding: str, max_bytes: int) -> None:
        self._coding = coding
        self._max_bytes = max_bytes
        self._decoder = zlib.decompressobj(_WINDOW_BITS[coding])
        self._size = 0
        self._started = False

    @property
    def finished(self) -> bool:
        """Whether the end has come."""
        return self._decoder.eof

    def feed(self, piece: bytes) -> bytes:
        """What a piece decompresses to. Raises BodyTooLarge, zlib.error."""
        if not self._started and piece:
            self._started = True
            # RFC 1950, section 2.2: the method of compression is in the lower four bits.
            if self._coding == "deflate" and piece[0] & 0x0F != zlib.DEFLATED:
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        steps: list[bytes] = []
        step = b""
        # A full step may have left something inside the decoder, also when it has taken all of the piece.
        while piece or len(step) == _STEP_BYTES:
            step = self._decoder.decompress(piece, _STEP_BYTES)
            steps.append(step)
            self._size += len(step)
            if self._size > self._max_bytes:
                raise _too_large(self._max_bytes)
            if self._decoder.eof:
                # What follows the end is another member or rubbish; neither is part of one JSON text.
                if self._decoder.unused_data:
                    raise zlib.error("trailing data")
                break
            piece = self._decoder.unconsumed_tail
        return b"".join(steps)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is over {max_bytes} bytes, which --max-body-bytes allows.")
