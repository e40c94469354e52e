"""The admin API: how the proxy does, what happened, and an operator's hand on it, in JSON.

Every changing call passes ``_changing``, which checks who calls and tells the observer.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ... import __version__, events
from ...bounds import ADMIN_BODY_BYTES, ADMIN_BODY_SECONDS
from ...events import Observer
from ...sessions.modes import Sharing
from ..acting import Action
from ..churn import Churn
from ..going_round import GoingRound
from ..metrics import Metrics
from ..operator import Operator
from ..recent import Recent
from ..snapshot import Snapshot
from .access import Access, NotAllowed
from .answers import DEFAULT_LIMIT, answer, read_number
from .model import (
    ChildrenNow,
    ChurnSeries,
    Draining,
    Events,
    Killed,
    Paused,
    Reconnected,
    Status,
    Totals,
    WentRound,
)
from .openapi import describe

PREFIX: Final = "/api/v1"
DEFAULT_EVENTS: Final = 500
# Of others there is no answer, or another one.
_PARTLY: Final = 502
_NO_SESSION: Final = "No upstream session has this tag; it may be closed by now."

Act = Callable[[web.Request], web.Response]


class Api:
    """The API by its paths."""

    def __init__(
        self,
        *,
        view: Snapshot,
        operations: Operator,
        going_round: GoingRound,
        metrics: Metrics,
        churn: Churn,
        recent: Recent,
        sharing: Sharing,
        access: Access,
        observe: Observer,
    ) -> None:
        self._view = view
        self._operations = operations
        self._going_round = going_round
        self._metrics = metrics
        self._churn = churn
        self._recent = recent
        self._sharing = sharing
        self._access = access
        self._observe = observe
        self._started = datetime.now(UTC)
        self._started_at = asyncio.get_running_loop().time()

    def routes(self) -> list[web.RouteDef]:
        """Which call is where."""
        return [
            web.get(f"{PREFIX}/status", self.status),
            web.get(f"{PREFIX}/cluster", self.cluster),
            web.get(f"{PREFIX}/children", self.children),
            web.get(f"{PREFIX}/events", self.events),
            web.get(f"{PREFIX}/openapi.json", self.openapi),
            web.post(f"{PREFIX}/pause", self._changing("pause", self.pause, Action.PAUSE)),
            web.post(f"{PREFIX}/resume", self._changing("resume", self.resume, Action.RESUME)),
            web.post(f"{PREFIX}/reconnect", self._changing("reconnect", self.reconnect, Action.RECONNECT)),
            web.post(f"{PREFIX}/drain", self._changing("drain", self.drain)),
            web.delete(f"{PREFIX}/sessions/{{session}}", self._changing("kill", self.kill, Action.KILL)),
        ]

    # -- reading -----------------------------------------------------------------------------------

    async def status(self, _request: web.Request) -> web.Response:
        """``GET /api/v1/status``: how the proxy does."""
        gauges = self._view.gauges()
        return answer(
            Status(
                version=__version__,
                started=self._started,
                uptime_seconds=asyncio.get_running_loop().time() - self._started_at,
                phase=gauges.phase,
                paused=self._view.paused,
                changes=self._access.changes,
                sharing=self._sharing,
                state=gauges.state,
                replicas=self._view.replicas(),
                totals=Totals(
                    client_sessions=gauges.client_sessions,
                    upstream_sessions=gauges.upstream_sessions,
                    in_flight=self._view.in_flight,
                    waiters=gauges.waiters,
                    exchanges_parked=gauges.exchanges_parked,
                    tasks=gauges.tasks,
                    streams=gauges.streams,
                    limits=gauges.limits,
                ),
                churn=ChurnSeries(**self._churn.series()),
                traffic=self._metrics.traffic.read(),
                troubles=self._recent.troubles(),
                tokens=self._view.tokens(),
            )
        )

    async def cluster(self, _request: web.Request) -> web.Response:
        """``GET /api/v1/cluster``: this proxy among those on the same store."""
        return answer(self._view.cluster())

    async def children(self, request: web.Request) -> web.Response:
        """``GET /api/v1/children``: the processes of a server that is a command, the newest ``?limit=``."""
        limit = read_number(request, "limit", DEFAULT_LIMIT)
        return answer(ChildrenNow(total=self._view.child_count, children=self._view.children(limit)))

    async def events(self, request: web.Request) -> web.Response:
        """``GET /api/v1/events``: those with an id over ``?after=``, the newest ``?limit=`` of them."""
        after = read_number(request, "after", 0)
        limit = read_number(request, "limit", DEFAULT_EVENTS)
        return answer(Events(newest=self._recent.newest, events=self._recent.after(after, limit)))

    async def openapi(self, _request: web.Request) -> web.Response:
        """``GET /api/v1/openapi.json``: what this is, for programs."""
        return answer(describe())

    # -- changing ----------------------------------------------------------------------------------

    def _changing(self, action: str, act: Act, everywhere: Action | None = None) -> Handler:
        """The handler of a call that changes something, and ``everywhere`` if it is asked to."""

        async def handle(request: web.Request) -> web.StreamResponse:
            peer = request.remote or "unknown"
            try:
                self._access.check(request.headers)
            except NotAllowed as refusal:
                if refusal.reason == "wrong-token":
                    self._observe(events.OperatorRefused(peer=peer))
                raise
            goes_round = everywhere is not None and _says_cluster(await _read_body(request))
            session = request.match_info.get("session")
            if everywhere is not None and goes_round:
                response = await self._go_round(everywhere, session)
            else:
                response = act(request)
            self._observe(events.OperatorActed(action=action, session=session, peer=peer))
            return response

        return handle

    async def _go_round(self, action: Action, session: str | None) -> web.Response:
        """``{"cluster": true}``: at all proxies on the store."""
        members = await self._going_round.act(action, session)
        done = everybody = all(each.acted is not None for each in members)
        if action is Action.KILL:
            done = any(each.acted is not None and each.acted.closed for each in members)
            if everybody and not done:
                raise NotAllowed(404, "no-such-session", _NO_SESSION)
        return answer(WentRound(action=action, done=done, members=members), status=200 if done else _PARTLY)

    def pause(self, _request: web.Request) -> web.Response:
        """``POST /api/v1/pause``: requests wait until ``resume``."""
        self._operations.pause()
        return answer(Paused(paused=self._view.paused))

    def resume(self, _request: web.Request) -> web.Response:
        """``POST /api/v1/resume``: the end of a pause."""
        self._operations.resume()
        return answer(Paused(paused=self._view.paused))

    def reconnect(self, _request: web.Request) -> web.Response:
        """``POST /api/v1/reconnect``: every upstream session is replaced when nobody holds it."""
        return answer(Reconnected(sessions=self._operations.reconnect()))

    def drain(self, _request: web.Request) -> web.Response:
        """``POST /api/v1/drain``: finish what is in flight, and end."""
        return answer(Draining(exchanges=self._operations.drain()), status=202)

    def kill(self, request: web.Request) -> web.Response:
        """``DELETE /api/v1/sessions/{session}``: close one upstream session at once."""
        session = request.match_info["session"]
        if not self._operations.kill(session):
            raise NotAllowed(404, "no-such-session", _NO_SESSION)
        return answer(Killed(session=session))


async def _read_body(request: web.Request) -> bytes:
    """A body, of which hardly anything is needed. A connection is good for another request only without a
    rest of one.

    Raises:
        Refusal: 413 for one that is large, 408 for one that does not arrive.
    """
    try:
        async with asyncio.timeout(ADMIN_BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise NotAllowed(413, "body-too-large", f"At most {ADMIN_BODY_BYTES} bytes.") from None
    except TimeoutError:
        raise NotAllowed(
            408, "body-too-slow", "The body did not arrive in time.", {"Connection": "close"}
        ) from None


def _says_cluster(body: bytes) -> bool:
    """Whether a body wants something done at all proxies. Whatever else it says means nothing.

    Raises:
        NotAllowed: 400 where it is neither wanted nor not.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    wanted = said.get("cluster", False) if isinstance(said, dict) else False
    if not isinstance(wanted, bool):
        raise NotAllowed(400, "cluster must be true or false", 'As in {"cluster": true}.')
    return wanted
