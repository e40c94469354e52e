"""The admin listener: what operators and their machines read.

Nothing secret is shown, and nothing can be changed.
"""

import heapq
import logging
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client.exposition import choose_encoder

from .. import __version__
from ..downstream.guard import Guard
from ..errors import ProxyError
from ..introspection import ClientSessionView, Introspection, Phase, UpstreamSessionView
from ..sessions.modes import Sharing
from ..values import Address
from .metrics import Metrics

DEFAULT_LIMIT: Final = 1000
RETRY_AFTER_SECONDS: Final = 2
_MAX_LIMIT_DIGITS: Final = 9

_INDEX: Final = f"""\
mcp-session-proxy {__version__}

/metrics    for Prometheus
/healthz    200 while the process lives
/readyz     200 while requests can be served, else 503
/sessions   the sessions held now, newest first (?limit={DEFAULT_LIMIT})
"""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode

ViewT = TypeVar("ViewT", UpstreamSessionView, ClientSessionView)


def build_admin_app(
    view: Introspection, metrics: Metrics, *, sharing: Sharing, listen: Address
) -> web.Application:
    """The admin application over a running proxy, to be served on ``listen``."""
    # On loopback, a page in the operator's browser might reach us under a name of its own.
    guard = Guard(listens_on_loopback=listen.is_loopback)
    app = web.Application(middlewares=[_answer_errors_in_json, _guarded(guard)])
    pages = Pages(view, metrics, sharing)
    app.router.add_get("/", pages.index)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/healthz", pages.health)
    app.router.add_get("/readyz", pages.readiness)
    app.router.add_get("/sessions", pages.sessions)
    return app


class Pages:
    """The pages by their paths."""

    def __init__(self, view: Introspection, metrics: Metrics, sharing: Sharing) -> None:
        self._view = view
        self._metrics = metrics
        self._sharing = sharing

    async def index(self, _request: web.Request) -> web.Response:
        """``/``: what there is."""
        return web.Response(text=_INDEX)

    async def metrics(self, request: web.Request) -> web.Response:
        """``/metrics`` in the format that the scraper's ``Accept`` prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # The content type carries parameters (version, escaping) that only a raw header can hold.
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": content_type})

    async def health(self, _request: web.Request) -> web.Response:
        """``/healthz``: the process lives and its event loop turns."""
        return _json({"status": "ok"})

    async def readiness(self, _request: web.Request) -> web.Response:
        """``/readyz``: whether to send requests here. Clients see no sessions, hence the mode."""
        now = self._view.readiness()
        body = {"status": now.phase, "mode": "stateless", "ready": now.ready, "total": now.total}
        if now.phase is Phase.READY:
            return _json(body)
        return _json(body, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def sessions(self, request: web.Request) -> web.Response:
        """``/sessions``: both kinds, the newest first, at most ``?limit=`` of each."""
        limit = request.query.get("limit", str(DEFAULT_LIMIT))
        if not (limit.isdecimal() and len(limit) <= _MAX_LIMIT_DIGITS):
            return _json({"error": "limit must be a whole number"}, status=400)
        upstream, clients = self._view.upstream_sessions(), self._view.client_sessions()
        return _json(
            {
                "sharing": self._sharing,
                "totals": {"upstream_sessions": len(upstream), "client_sessions": len(clients)},
                "upstream_sessions": _newest(upstream, int(limit)),
                "client_sessions": _newest(clients, int(limit)),
            }
        )


def _newest(views: Sequence[ViewT], limit: int) -> list[ViewT]:
    return heapq.nsmallest(limit, views, key=lambda view: view.age_seconds)


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=_encode(body) + b"\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _guarded(guard: Guard) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        guard.check(host=headers.get("Host"), origin=headers.get("Origin"), scheme=request.scheme)
        return await handler(request)

    return check


@web.middleware
async def _answer_errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProxyError as refusal:
        return _json({"error": refusal.reason}, status=refusal.http_status)
    except web.HTTPException as refusal:
        headers = {name: value for name, value in refusal.headers.items() if name == "Allow"}
        return _json({"error": refusal.reason.lower()}, status=refusal.status, headers=headers)
    except Exception:
        _log.exception("the admin page %s failed", request.path)
        return _json({"error": "internal error; the log has the details"}, status=500)
