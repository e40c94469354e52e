"""The admin listener, built and opened."""

import contextlib
from functools import partial
from typing import Final

from aiohttp import web

from ..bounds import ADMIN_HEAD_FIELDS
from ..downstream.app import SILENT
from ..ops.admin import build_admin_app
from ..ops.admin.admission import Admission, AdmittingSite
from ..ops.going_round import GoingRound
from ..ops.operator import Operator
from ..ops.snapshot import Snapshot
from .in_force import InForce
from .sites import open_sites
from .sockets import Bound
from .watchers import Watchers

_FAREWELL_SECONDS: Final = 1.0


async def open_admin(
    stack: contextlib.AsyncExitStack,
    bound: Bound,
    in_force: InForce,
    *,
    watchers: Watchers,
    snapshot: Snapshot,
    operator: Operator,
    going_round: GoingRound,
) -> web.AppRunner:
    """Serve operators on these sockets, until ``stack`` is closed."""

    def token() -> str | None:
        secret = in_force.settings.admin_token
        return None if secret is None else secret.get_secret_value()

    settings = in_force.settings
    app = build_admin_app(
        view=snapshot,
        operations=operator,
        going_round=going_round,
        metrics=watchers.metrics,
        churn=watchers.churn,
        recent=watchers.recent,
        observe=watchers.observe,
        sharing=settings.sharing,
        listen=bound.address,
        token=token,
    )
    admission = Admission()
    admission.watch(app)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=SILENT,
        keepalive_timeout=settings.connection_idle_timeout,
        max_headers=ADMIN_HEAD_FIELDS,
        shutdown_timeout=_FAREWELL_SECONDS,
    )
    make_site = partial(AdmittingSite, admission=admission)
    await open_sites(stack, runner, bound, make_site=make_site)
    return runner
