"""Where clients come in: the front door, the MCP endpoint behind it, and the paths that pass it by."""

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
# A client that has said nothing for two seconds on a connection is not about to, or no more than at any time.
# On a busy machine, one that calls without pause may well take one second from one call to the next.
_LOOK_SECONDS: Final = 0.05
_QUIET_LOOKS: Final = 40
# Where nobody takes over, clients find out soon enough: only those are waited for who are calling right now.
_LAST_LOOKS: Final = 4
_CLOSE_SECONDS: Final = 5.0


class Front:
    """All that stands between the clients' connections and the core.

    ``secret`` is what principals are hashed with: who is to know them again after a restart keeps it.
    Clients and other members come in by the ``entrance``, which is the endpoint itself without a ``cluster``.
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
        """The endpoint behind which several proxies are one."""
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
        """The way past the endpoint, to the server for what belongs to no session."""
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
        """Send everybody to a successor that has the sockets, so that none of them notices.

        Whoever is connected gets its answers, the last one with ``Connection: close``; whoever says nothing
        is disconnected after a moment. Ends when nothing is under way any more, or with the patience.
        """
        self.listener.part()
        now = asyncio.get_running_loop().time
        deadline = now() + patience_seconds
        looks = 0
        if isinstance(self.entrance, RoutedEndpoint):
            self.entrance.end_streams()
        while now() < deadline:
            self._core.listening.close()  # also those that have only just begun
            left = self.listener.close_quiet(_QUIET_LOOKS) + len(self.endpoint.posts)
            # Whoever has connected may shake hands as long as others may be silent.
            if looks <= _QUIET_LOOKS:
                left += self.listener.places.waiting
            if not left:
                return
            looks += 1
            await asyncio.sleep(_LOOK_SECONDS)

    async def shut(self) -> None:
        """Let nobody connect any more, and begin nothing new: the next answer is everybody's last."""
        self.endpoint.drain()
        self.listener.part()
        for site in list(self.runner.sites):
            await site.stop()

    async def finish(self, patience_seconds: float) -> int:
        """Wait for the requests in flight; gives how many had to be cut off."""
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
        """Answer those who are just asking again on a connection of theirs, before all of them are closed.

        Whose answer had begun when the shutdown did was not told that it would be the last one.
        """
        now = asyncio.get_running_loop().time
        while now() < deadline:
            if not self.listener.close_quiet(_LAST_LOOKS):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Stop what beats."""
        self._heartbeats.close()
