"""The application of the admin listener: who may call, and what every answer tells browsers."""

from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ...bounds import ADMIN_BODY_BYTES
from ...downstream.connection import require_http_1
from ...downstream.guard import Guard
from ...events import Observer
from ...sessions.modes import Sharing
from ...settings.values import Address
from ..churn import Churn
from ..going_round import GoingRound
from ..metrics import Metrics
from ..operator import Operator
from ..recent import Recent
from ..snapshot import Snapshot
from .access import Access
from .answers import answer_errors
from .api import Api
from .pages import Pages
from .status_page import StatusPage

# The page's own files and nothing else; no markup made of texts, not even by mistake of the page's own.
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def build_admin_app(
    *,
    view: Snapshot,
    operations: Operator,
    going_round: GoingRound,
    metrics: Metrics,
    churn: Churn,
    recent: Recent,
    observe: Observer,
    sharing: Sharing,
    listen: Address,
    token: Callable[[], str | None],
) -> web.Application:
    """The admin application over a running proxy, to be served on ``listen``.

    ``token`` gives what operators have to show, at this time, before they may change something.
    """
    # On loopback, a page in the operator's browser might reach us under a name of its own.
    guard = Guard(listens_on_loopback=listen.is_loopback)
    app = web.Application(middlewares=[answer_errors, _guarded(guard)], client_max_size=ADMIN_BODY_BYTES)
    app.on_response_prepare.append(_reassure)
    app.add_routes(StatusPage().routes())
    app.add_routes(Pages(view, metrics, sharing).routes())
    api = Api(
        view=view,
        operations=operations,
        going_round=going_round,
        metrics=metrics,
        churn=churn,
        recent=recent,
        sharing=sharing,
        access=Access(token, listens_on_loopback=listen.is_loopback),
        observe=observe,
    )
    app.add_routes(api.routes())
    return app


async def _reassure(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _guarded(guard: Guard) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        require_http_1(request)
        headers = request.headers
        # Behind something that speaks TLS we cannot tell our own page's origin; its browser can.
        is_own = headers.get("Sec-Fetch-Site") == "same-origin"
        origin = None if is_own else headers.get("Origin")
        guard.check(host=headers.get("Host"), origin=origin, scheme=request.scheme)
        return await handler(request)

    return check
