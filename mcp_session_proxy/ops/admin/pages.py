"""The pages for machines that watch: metrics, health, readiness, and the sessions."""

from typing import Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from ...bounds import ADMIN_ROWS
from ...sessions.modes import Sharing
from ..introspection import Phase
from ..metrics import Metrics
from ..snapshot import Snapshot
from .answers import DEFAULT_LIMIT, answer, read_number
from .model import Health, ReadinessAnswer, Sessions, SessionTotals

RETRY_AFTER_SECONDS: Final = 2


class Pages:
    """The pages by their paths."""

    def __init__(self, view: Snapshot, metrics: Metrics, sharing: Sharing) -> None:
        self._view = view
        self._metrics = metrics
        self._sharing = sharing

    def routes(self) -> list[web.RouteDef]:
        """Which page is where."""
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/sessions", self.sessions),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        """``/metrics`` in the format that the scraper's ``Accept`` prefers."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # The content type carries parameters (version, escaping) that only a raw header can hold.
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": content_type})

    async def health(self, _request: web.Request) -> web.Response:
        """``/healthz``: the process lives and its event loop turns."""
        return answer(Health(status="ok"))

    async def readiness(self, _request: web.Request) -> web.Response:
        """``/readyz``: whether to send requests here. Clients see no sessions, hence the mode."""
        now = self._view.readiness()
        body = ReadinessAnswer(status=now.phase, mode="stateless", ready=now.ready, total=now.total)
        if now.phase is Phase.READY:
            return answer(body)
        return answer(body, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def sessions(self, request: web.Request) -> web.Response:
        """``/sessions``: both kinds, the newest first, at most ``?limit=`` of each."""
        limit = min(read_number(request, "limit", DEFAULT_LIMIT), ADMIN_ROWS)
        now = self._view.gauges()
        return answer(
            Sessions(
                sharing=self._sharing,
                totals=SessionTotals(
                    upstream_sessions=sum(now.upstream_sessions.values()),
                    client_sessions=now.client_sessions,
                ),
                upstream_sessions=self._view.upstream_sessions(limit),
                client_sessions=self._view.client_sessions(limit),
            )
        )
