"""The front door: every request of a client comes in here, is checked, and goes to its handler.

The MCP endpoint answers at the server's path, with and without a trailing slash and never with a
redirect; everything else is passed through. This is aiohttp's low-level server: with two targets and
one check for all there is nothing to route.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage

from .. import events
from ..errors import InternalError, ProxyError
from ..events import Observer
from ..protocol import jsonrpc
from .endpoint import Endpoint, refuse
from .guard import Guard
from .passthrough import Passthrough

# aiohttp logs requests that are no HTTP as errors of ours, with a traceback; its 400 is answer enough.
_silent: Final = logging.getLogger(f"{__name__}.http")
_silent.setLevel(logging.CRITICAL)
_ALLOW: Final = "GET, POST, DELETE, OPTIONS"


class FrontDoor:
    """The handler for aiohttp's server."""

    def __init__(
        self, *, guard: Guard, endpoint: Endpoint, passthrough: Passthrough, path: str, observe: Observer
    ) -> None:
        bare = path.rstrip("/")
        self._paths: Final = frozenset({bare, bare + "/"} - {""})
        self._guard = guard
        self._endpoint = endpoint
        self._passthrough = passthrough
        self._observe = observe

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        origin = request.headers.get("Origin")
        cors: Mapping[str, str] = {}
        try:
            self._guard.check(host=request.headers.get("Host"), origin=origin, scheme=request.scheme)
            if origin is not None:
                cors = self._guard.cors_headers(origin)
            if "Expect" in request.headers:
                await _continue(request)
            if request.rel_url.raw_path not in self._paths:
                return await self._passthrough.handle(request, cors)
            if request.method == "OPTIONS":
                return self._preflight(request, origin)
            return await self._endpoint.handle(request, cors)
        except ProxyError as error:
            return refuse(error, jsonrpc.NULL, cors)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            self._observe(events.Crashed(where="front door", error=repr(error)))
            return refuse(InternalError("The proxy failed. Its log has the details."), jsonrpc.NULL, cors)

    def _preflight(self, request: web.BaseRequest, origin: str | None) -> web.Response:
        wanted = request.headers.get("Access-Control-Request-Headers")
        granted = self._guard.preflight_headers(origin, wanted)
        return web.Response(status=204, headers={"Allow": _ALLOW, **granted})


async def _continue(request: web.BaseRequest) -> None:
    """Let a client send its body that asks first (RFC 9110, section 10.1.1)."""
    if request.version == HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def serve(door: FrontDoor, *, max_body_bytes: int) -> web.Server:
    """aiohttp's server around the front door. A client that leaves cancels its handler at once."""

    def make_request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=max_body_bytes)

    loop = asyncio.get_running_loop()
    return web.Server(
        door, request_factory=make_request, handler_cancellation=True, access_log=None, logger=_silent
    )
