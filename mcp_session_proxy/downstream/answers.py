"""What goes back to a client: a response with what belongs to it over HTTP, and errors as such."""

from collections.abc import Mapping

import msgspec
from aiohttp import web

from ..errors import ProxyError, UpstreamRejected
from ..protocol import inbound, jsonrpc, revisions
from ..protocol.headers import writable


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One final response. ``status`` and ``headers`` count only while nothing has been written.

    ``plain`` goes in place of the JSON-RPC ``body`` where this answer is the whole HTTP response.
    """

    body: bytes
    plain: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    content_type: str = revisions.JSON
    failed: bool = False  # the server answered with an error of its own


def answer_error(error: ProxyError, identifier: bytes) -> Answer:
    """An error as an answer. A refusal of the server's without JSON-RPC keeps its body (OAuth)."""
    body = jsonrpc.write_error(identifier, error)
    headers = {name: writable(value) for name, value in error.headers().items()}
    if isinstance(error, UpstreamRejected) and error.raw_error is None and error.http_status in (401, 403):
        return Answer(
            body=body,
            plain=error.body,
            status=error.http_status,
            headers=headers,
            content_type=writable(error.content_type or "text/plain"),
        )
    return Answer(body=body, status=error.http_status, headers=headers)


def refuse(error: ProxyError, identifier: bytes, cors: Mapping[str, str]) -> web.Response:
    """An error as the whole HTTP response to what is no request, or cannot be read as one."""
    body = jsonrpc.write_error(identifier, error)
    headers = {**cors, **error.headers(), "Content-Type": revisions.JSON}
    return web.Response(body=body, status=error.http_status, headers=headers)


def no_id(http: web.BaseRequest) -> bytes:
    """What stands for the id in an answer to a request whose body was not read."""
    return inbound.no_id(http.headers.get(revisions.VERSION_HEADER))
