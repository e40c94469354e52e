"""How the admin listener answers: JSON, and errors in JSON."""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ...errors import ProxyError
from ...protocol import revisions
from .access import NotAllowed

DEFAULT_LIMIT: Final = 1000
_MAX_DIGITS: Final = 9

_log = logging.getLogger(__package__)
_encode = msgspec.json.Encoder().encode


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON that must not be cached: it is true for a moment only."""
    return web.Response(
        body=_encode(body) + b"\n",
        status=status,
        content_type=revisions.JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def refuse(
    status: int, reason: str, message: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer that says why not: a stable word and, where there is more to say, a sentence."""
    body: dict[str, Any] = {"error": reason} if message is None else {"error": reason, "message": message}
    return answer(body, status=status, headers=headers)


def read_number(request: web.Request, name: str, default: int) -> int:
    """A whole number of the query string.

    Raises:
        Refusal: 400, it is none.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise NotAllowed(
            400, f"{name} must be a whole number", f"At most {_MAX_DIGITS} digits, nothing else."
        )
    return int(text)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware: whatever goes wrong is answered in JSON."""
    try:
        return await handler(request)
    except NotAllowed as refusal:
        return refuse(refusal.status, refusal.reason, refusal.message, refusal.headers)
    except ProxyError as error:
        return refuse(error.http_status, error.reason)
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        return refuse(error.status, error.reason.lower(), headers=headers)
    except Exception:
        _log.exception("the admin page %s failed", request.path)
        return refuse(500, "internal error; the log has the details")
