"""What clients connect to: the front door, the MCP endpoint, and the server's other paths."""

import asyncio
import contextlib
import ssl
from functools import partial
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from ..downstream.app import FrontDoor, HttpServer
from ..downstream.dispatch import Dispatcher
from ..downstream.endpoint import Endpoint
from ..downstream.forwarding import Forwarding
from ..downstream.heartbeats import Heartbeats
from ..downstream.legacy import LegacyRequests
from ..downstream.legacy_endpoint import LegacyEndpoint
from ..downstream.modern import ModernRequests
from ..downstream.passthrough import NoOtherPaths, Passthrough
from ..downstream.ping import Pings
from ..downstream.routed import RoutedEndpoint
from ..downstream.senders import Senders
from ..downstream.tls_site import TlsSite
from ..errors import Draining
from ..events import Observer
from ..sessions.identity import Identifier
from ..tracing import Tracer
from . import rules
from .cluster import Cluster
from .core import Core
from .in_force import InForce
from .sites import open_sites
from .sockets import Bound

_FAREWELL_SECONDS: Final = 1.0
# A connection that was idle for two seconds is closed. On a busy machine, a client that calls without a pause
# may take a second between two calls.
_LOOK_SECONDS: Final = 0.05
_QUIET_LOOKS: Final = 40
# If no other process takes over, only clients that are about to call are waited for, a fifth of a second.
_LAST_LOOKS: Final = 4
_CLOSE_SECONDS: Final = 5.0


class Front:
    """All that stands between the clients' connections and the core.

    ``secret`` is the key of the hash that makes principals. It is kept if they are to be the same after a
    restart. Requests of clients and of other members go to the ``entrance``: the endpoint, or with a
    ``cluster`` the ``RoutedEndpoint`` in front of it.
    """

    def __init__(
        self,
        in_force: InForce,
        core: Core,
        *,
        plain: aiohttp.ClientSession,
        observe: Observer,
        tracer: Tracer,
        secret: bytes | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        settings = in_force.settings
        self._core = core
        self._heartbeats = in_force.build(rules.heartbeat_rules, Heartbeats)
        self._passing = {
            replica: NoOtherPaths()
            if replica.url is None
            else self._build_passthrough(in_force, plain, replica.url)
            for replica in core.fleet.replicas
        }
        self.endpoint = self._build_endpoint(in_force, observe, tracer, secret)
        self.entrance = self.endpoint if cluster is None else self._route(cluster)
        door = in_force.build(
            rules.guard,
            lambda guard: FrontDoor(
                rules=guard,
                endpoint=self.entrance,
                passthrough=self.passthrough,
                in_flight=core.in_flight,
                path=settings.endpoint_path,
                observe=observe,
            ),
        )
        self.listener = in_force.build(
            rules.listener_rules,
            lambda limits: HttpServer(
                door,
                rules=limits,
                idle_timeout_seconds=settings.connection_idle_timeout,
                is_accepted=core.pool.books.has_open,
                heads=core.memory.heads,
                bodies=core.memory.bodies,
            ),
        )
        self.runner = web.ServerRunner(self.listener, shutdown_timeout=_CLOSE_SECONDS)

    def _build_endpoint(
        self, in_force: InForce, observe: Observer, tracer: Tracer, secret: bytes | None
    ) -> Endpoint:
        settings, core = in_force.settings, self._core
        identifier = Identifier(
            credential_headers=rules.credential_headers(settings),
            credential_query=settings.credential_query,
            affinity_headers=settings.affinity_header,
            affinity_meta=settings.affinity_meta,
            identity_claims=rules.identity_claims(settings),
            secret=secret,
        )
        legacy = LegacyRequests(
            binder=core.binder,
            profiles=core.profiles,
            catalog=core.catalog,
            delivery=core.delivery,
            wishes=core.wishes,
            tasks=core.tasks,
            pings=Pings(binder=core.binder, check_up=core.fleet.check_up),
            observe=observe,
        )
        modern = in_force.build(
            rules.modern_rules,
            lambda modern_rules: ModernRequests(
                binder=core.binder,
                profiles=core.profiles,
                attribution=core.attribution,
                catalog=core.catalog,
                listening=core.listening,
                parking=core.parking,
                tasks=core.tasks,
                rules=modern_rules,
                observe=observe,
                questions=core.memory.questions,
            ),
        )
        dispatcher = in_force.build(
            rules.endpoint_rules,
            lambda endpoint_rules: Dispatcher(
                legacy=legacy,
                modern=modern,
                identifier=identifier,
                in_flight=core.in_flight,
                rewrite_challenge=self._rewrite,
                rules=endpoint_rules,
                observe=observe,
                tracer=tracer,
            ),
        )
        senders = self._senders = in_force.build(
            rules.endpoint_rules,
            lambda endpoint_rules: Senders(
                identifier=identifier,
                acceptances=core.acceptances,
                rules=endpoint_rules,
                observe=observe,
                traces=settings.tracing,
            ),
        )
        legacy_endpoint = in_force.build(
            rules.endpoint_rules,
            lambda endpoint_rules: LegacyEndpoint(
                requests=legacy,
                dispatcher=dispatcher,
                binder=core.binder,
                delivery=core.delivery,
                early=core.early,
                in_flight=core.in_flight,
                heartbeats=self._heartbeats,
                answers=core.memory.answers,
                rules=endpoint_rules,
            ),
        )
        return in_force.build(
            rules.endpoint_rules,
            lambda endpoint_rules: Endpoint(
                legacy=legacy_endpoint,
                dispatcher=dispatcher,
                senders=senders,
                era=lambda: core.fleet.best().era,
                passthrough=self.passthrough,
                memory=core.memory,
                heartbeats=self._heartbeats,
                rules=endpoint_rules,
            ),
        )

    def _route(self, cluster: Cluster) -> RoutedEndpoint:
        """The endpoint that sends requests to the member whose they are."""
        core = self._core
        self._senders.on_claimed.append(cluster.principals.note)
        forwarding = Forwarding(cluster.peers, heartbeats=self._heartbeats, answers=core.memory.answers)
        return RoutedEndpoint(
            self.endpoint, self._senders, cluster.routing, forwarding.forward, bodies=core.memory.bodies
        )

    def _build_passthrough(self, in_force: InForce, plain: aiohttp.ClientSession, url: URL) -> Passthrough:
        replicas = [replica.url for replica in self._core.fleet.replicas if replica.url is not None]
        public_url = in_force.settings.public_url
        return in_force.build(
            rules.passing_rules,
            lambda passing: Passthrough(
                plain,
                url.origin(),
                url.raw_path,
                public_url,
                rules=passing,
                heartbeats=self._heartbeats,
                answers=self._core.memory.answers,
                replicas=replicas,
            ),
        )

    def passthrough(self) -> Passthrough | NoOtherPaths:
        """What passes requests on that belong to no session, to the server that is best at the moment."""
        return self._passing[self._core.fleet.best()]

    def _rewrite(self, challenge: str) -> str:
        return self.passthrough().challenge(challenge)

    async def open(self, stack: contextlib.AsyncExitStack, bound: Bound, tls: ssl.SSLContext | None) -> None:
        """Serve clients, until ``stack`` is closed."""
        if tls is None:
            await open_sites(stack, self.runner, bound)
        else:
            make_site = partial(TlsSite, listener=self.listener)
            await open_sites(stack, self.runner, bound, make_site=make_site, tls=tls)

    async def part(self, patience_seconds: float) -> None:
        """Have clients connect anew, to another process that has the sockets. They notice nothing else.

        Requests are answered, the last on each connection with ``Connection: close``, and idle connections
        are closed after a moment. This ends when no request is under way, or after ``patience_seconds``.
        """
        self.listener.part()
        now = asyncio.get_running_loop().time
        deadline = now() + patience_seconds
        looks = 0
        if isinstance(self.entrance, RoutedEndpoint):
            self.entrance.end_streams()
        while now() < deadline:
            self._core.listening.close()  # each time, because clients go on opening them
            left = self.listener.close_quiet(_QUIET_LOOKS) + len(self.endpoint.posts)
            # TLS handshakes are waited for as long as idle connections are.
            if looks <= _QUIET_LOOKS:
                left += self.listener.places.waiting
            if not left:
                return
            looks += 1
            await asyncio.sleep(_LOOK_SECONDS)

    async def shut(self) -> None:
        """Accept no further connections and requests. The next answer on each connection is the last."""
        self.endpoint.drain()
        self.listener.part()
        for site in list(self.runner.sites):
            await site.stop()

    async def finish(self, patience_seconds: float) -> int:
        """Wait for the requests in flight; gives how many were given up after ``patience_seconds``."""
        now = asyncio.get_running_loop().time
        deadline = now() + patience_seconds
        posts = self.endpoint.posts
        await posts.finished(patience_seconds)
        exchanges = self.endpoint.exchanges()
        for exchange in exchanges:
            exchange.give_up(
                Draining("The proxy was shut down while the MCP server was working on this request.")
            )
        await posts.finished(_FAREWELL_SECONDS)
        await self._see_off(min(deadline, now() + _FAREWELL_SECONDS))
        return len(exchanges)

    async def _see_off(self, deadline: float) -> None:
        """Wait until no connection is in use, or until ``deadline``, before all are closed.

        An answer that had begun before the shutdown did not say that it was the last one, so its client may
        just be sending another request.
        """
        now = asyncio.get_running_loop().time
        while now() < deadline:
            if not self.listener.close_quiet(_LAST_LOOKS):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Stop the heartbeats."""
        self._heartbeats.close()
