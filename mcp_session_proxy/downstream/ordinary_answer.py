"""An ordinary answer in JSON, written with its head in one piece.

Nearly all answers are such: 200, small, without a header of their own. aiohttp makes a map of headers for
each response, asks it a dozen questions, and writes it out again; what comes of that is always the same but
for two numbers.
"""

from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11
from multidict import CIMultiDict

from ..protocol import revisions

_BEGINNING: Final = f"HTTP/1.1 200 OK\r\nContent-Type: {revisions.JSON}\r\nContent-Length: ".encode()


def fits(http: web.BaseRequest) -> bool:
    """Whether this request's answer needs no word about its connection."""
    return http.version == HttpVersion11 and http.keep_alive


class OrdinaryAnswer(web.StreamResponse):
    """The answer with this body, to a request that ``fits``. Written when aiohttp ends it."""

    def __init__(self, body: bytes) -> None:
        # Not the other's constructor, which prepares for all that is not needed here.
        self.body = body
        self._keep_alive = True
        self._http: web.BaseRequest | None = None

    @property
    def status(self) -> int:
        """Always the same."""
        return 200

    @property
    def headers(self) -> CIMultiDict[str]:
        """What is written of it in the head."""
        return CIMultiDict({"Content-Type": revisions.JSON, "Content-Length": str(len(self.body))})

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is written before the whole is."""
        self._http = request

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        """Write it, and wait until the client has taken what it was sent before.

        Raises:
            ConnectionError: the client has left.
        """
        http, self._http = self._http, None
        if http is None:
            return
        transport = http.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        body = self.body
        end = _end_of_head(rfc822_formatted_time())
        transport.write(b"".join((_BEGINNING, b"%d" % len(body), end, body)))
        if http.protocol.writing_paused:
            await http.writer.drain()


@lru_cache(maxsize=1)
def _end_of_head(date: str) -> bytes:
    """Behind the length; the same for all that is written within a second."""
    return f"\r\nDate: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n".encode()
