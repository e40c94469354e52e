"""Start, ready, drain, stop: puts the rooms of the house together and takes them apart in order.

The order of a stop: no new connections and not ready; exchanges in flight are finished, up to
``--drain-timeout``; the rest is told so; streams end; upstream sessions are DELETEd; listeners close.
"""

import asyncio
import contextlib
import json
import os
import random
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import web
from yarl import URL

from .. import __version__, events
from ..aio import Tasks
from ..downstream.app import SILENT, FrontDoor, serve
from ..downstream.endpoint import Endpoint
from ..downstream.in_flight import InFlight
from ..downstream.legacy import LegacyEndpoint
from ..downstream.modern import ModernEndpoint
from ..downstream.passthrough import Passthrough, open_client_session
from ..downstream.ping import Pings
from ..errors import Draining
from ..events import Observer
from ..exchange.attribution import Attribution
from ..exchange.catalog import Catalog
from ..exchange.early import EarlyStreams
from ..exchange.fanout import Fanout
from ..exchange.listening import Listening
from ..exchange.parking import Parking
from ..exchange.routing import Router
from ..exchange.wishes import Wishes
from ..memory import Memory, default_budget_bytes
from ..ops.admin import build_admin_app
from ..ops.admin.admission import Admission, AdmittingSite
from ..ops.churn import Churn
from ..ops.logs import EventLog, hush_libraries
from ..ops.metrics import Metrics
from ..ops.observers import Tee
from ..ops.operator import Operator
from ..ops.recent import Recent
from ..ops.snapshot import Snapshot
from ..sessions import upkeep
from ..sessions.binding import Binder
from ..sessions.directory import Directory
from ..sessions.identity import Identifier, Profile, SessionKey, sessionless_profile
from ..sessions.pool import Pool
from ..sessions.profiles import Profiles
from ..settings.config import Settings
from ..settings.reloading import Change, compare
from ..settings.sources import ConfigError
from ..settings.tls import RenewableContext, listener_context, renew_upstream, upstream_context
from ..settings.values import Address
from ..tracing import Tracer
from ..upstream.breaker import Breakers
from ..upstream.fleet import Fleet, Replica
from ..upstream.session import UpstreamSession
from ..upstream.streamable_http import StreamableHttp, http_session
from . import rules

_MAINTENANCE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 5.0
_FAREWELL_SECONDS: Final = 1.0


class CannotStart(Exception):
    """Something outside is in the way. The text says which option to change."""


class CannotListen(CannotStart):
    """A listener's address is taken or not ours."""


class Proxy:
    """A whole proxy, started by ``async with``. URLs are known from then on.

    ``stop`` is set when an operator wants it to end; whoever runs the proxy then leaves the block. ``alive``
    is called every now and then, from the event loop, as long as it turns.
    """

    def __init__(self, settings: Settings, *, alive: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self._alive = alive
        self.listen_url = ""
        self.endpoint_url = ""
        self.admin_url: str | None = None
        self.metrics = Metrics()
        self.stop = asyncio.Event()
        self._churn = Churn(time.monotonic)
        self._recent = Recent(lambda: datetime.now(UTC))
        self._log = EventLog(settings.log_level)
        self._tee = Tee(self._log, self.metrics, self._churn, self._recent)
        self._observe: Observer = self._tee
        self._urls = [URL(url) for url in (settings.upstream, *settings.replica)]
        self._url = self._urls[0]
        self._stack = contextlib.AsyncExitStack()
        self._tasks = Tasks()
        self._transports: list[StreamableHttp] = []
        self._drained = False
        self._memory = Memory(*self._budget(settings))
        self._in_flight = InFlight(
            max_exchanges=settings.max_exchanges,
            max_exchanges_per_principal=settings.max_exchanges_per_principal,
        )

    async def __aenter__(self) -> Self:
        """Open the listeners. Raises CannotStart, and ConfigError for a file or a variable that is no use."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain, then close everything."""
        await self.drain()
        await self._stack.aclose()

    # -- start -------------------------------------------------------------------------------------

    async def _start(self) -> None:
        settings = self.settings
        tls, listener_tls = upstream_context(settings), listener_context(settings)
        self._upstream_tls = tls
        self._listener_tls = None if listener_tls is None else RenewableContext(listener_tls)
        self._tracer = self._open_tracer()
        http = await self._stack.enter_async_context(http_session(tls=tls))
        plain = await self._stack.enter_async_context(open_client_session(tls=tls))
        self._build_core(http, tls)
        self._build_door(plain)
        self._stack.callback(self._endpoint.heart.close)
        self._listener = serve(
            self._door,
            max_body_bytes=settings.max_body_bytes,
            max_header_bytes=settings.max_header_bytes,
            max_connections=settings.max_connections,
            idle_timeout_seconds=settings.connection_idle_timeout,
        )
        self._runner = web.ServerRunner(self._listener, shutdown_timeout=_CLOSE_SECONDS)
        self.listen_url = await self._listen(self._runner, settings.listen, "--listen", tls=listener_tls)
        public = settings.public_url or self.listen_url
        self.endpoint_url = public.rstrip("/") + self._url.raw_path
        if settings.admin_listen is not None:
            app = build_admin_app(
                view=self.snapshot,
                operations=Operator(pool=self._pool, endpoint=self._endpoint, stop=self.stop.set),
                metrics=self.metrics,
                churn=self._churn,
                recent=self._recent,
                observe=self._observe,
                sharing=settings.sharing,
                listen=settings.admin_listen,
                token=self._admin_token,
            )
            admission = Admission()
            admission.watch(app)
            runner = web.AppRunner(
                app,
                access_log=None,
                logger=SILENT,
                keepalive_timeout=settings.connection_idle_timeout,
                shutdown_timeout=_FAREWELL_SECONDS,
            )
            self.admin_url = await self._listen(
                runner, settings.admin_listen, "--admin-listen", partial(AdmittingSite, admission=admission)
            )
        if settings.announce is not None:
            self._announce(settings.announce)
        for replica in self._fleet.replicas:
            self._tasks.spawn(replica.monitor.watch(), f"monitor {replica.url.origin()}")
        self._tasks.spawn(self._maintain(), "maintenance")
        self._observe(
            events.Started(
                listen=self.listen_url,
                admin=self.admin_url or "off",
                upstream=settings.upstream_shown,
                sharing=settings.sharing,
            )
        )

    def _open_tracer(self) -> Tracer | None:
        if not self.settings.tracing:
            return None
        try:
            from ..ops.tracing import open_tracer  # loads what only the extra otel installs

            tracer = open_tracer()
        except (ImportError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--tracing: OpenTelemetry does not start: {error}") from error
        self._stack.push_async_callback(tracer.close)
        return tracer

    def _budget(self, settings: Settings) -> tuple[int, int | None]:
        """What there is for what callers and servers send, and the bodies' share where it is named."""
        budget_bytes = settings.memory_budget
        return default_budget_bytes() if budget_bytes is None else budget_bytes, settings.max_inflight_bytes

    def _build_core(self, http: aiohttp.ClientSession, tls: ssl.SSLContext | None) -> None:
        settings = self.settings
        self._fleet = Fleet(
            [self._build_replica(http, url, tls) for url in self._urls],
            patience_seconds=settings.acquire_timeout,
        )

        def connect(key: SessionKey, profile: Profile) -> UpstreamSession:
            return UpstreamSession(
                placement=self._fleet,
                initialize_params=profile.params,
                version_is_free=profile.version_is_free,
                client_name=profile.client_name,
                principal=key.principal,
                principal_tag=key.principal_tag,
                router=self._router,
                observe=self._observe,
                keepalive_seconds=_spread(self.settings.keepalive),
                check_after_seconds=self.settings.check_after,
                handshake_timeout_seconds=self.settings.handshake_timeout,
                patience_seconds=self.settings.acquire_timeout,
                room_for_questions=self._memory.questions,
            )

        self._pool = Pool(connect=connect, limits=rules.pool_limits(settings), observe=self._observe)
        self._binder = Binder(
            pool=self._pool,
            rules=rules.binding_rules(settings),
            sessionless=sessionless_profile(__version__),
            directory=lambda on_forget: Directory(
                max_sessions=settings.max_client_sessions,
                max_sessions_per_principal=settings.max_client_sessions_per_principal,
                timeout_seconds=settings.client_session_timeout,
                on_forget=on_forget,
            ),
            observe=self._observe,
        )
        self._fanout = Fanout(
            binder=self._binder,
            max_events=settings.max_buffered_events,
            linger_seconds=settings.event_linger,
            events=self._memory.events,
            questions=self._memory.questions,
        )
        self._early = EarlyStreams(binder=self._binder, fanout=self._fanout)
        self._attribution = Attribution()
        self._catalog = Catalog(self._observe, self._memory.lists)
        self._listening = Listening(self._observe, self._memory.events)
        self._parking = Parking(rules.parking_limits(settings), self._observe, self._memory.questions)
        self._router = Router(
            fanout=self._fanout,
            attribution=self._attribution,
            catalog=self._catalog,
            listening=self._listening,
        )

    def _build_replica(self, http: aiohttp.ClientSession, url: URL, tls: ssl.SSLContext | None) -> Replica:
        settings = self.settings
        transport = StreamableHttp(
            http,
            url,
            connect_timeout_seconds=settings.connect_timeout,
            request_timeout_seconds=settings.request_timeout,
            max_json_depth=settings.max_json_depth,
            answers=self._memory.answers,
        )
        self._stack.callback(transport.close)
        self._transports.append(transport)
        breakers = Breakers(threshold=settings.breaker_threshold, reset_seconds=settings.breaker_reset)
        replica = Replica(url, transport, breakers, self._observe, tls=tls)
        replica.era.choice = settings.upstream_era
        return replica

    def _build_passthrough(self, plain: aiohttp.ClientSession, url: URL) -> Passthrough:
        return Passthrough(
            plain,
            url.origin(),
            url.raw_path,
            self.settings.public_url,
            connect_timeout_seconds=self.settings.connect_timeout,
            idle_timeout_seconds=self.settings.request_timeout,
            passing=self.settings.passthrough,
            trusted_proxies=self.settings.trusted_proxy,
            replicas=[replica.url for replica in self._fleet.replicas],
        )

    def _build_door(self, plain: aiohttp.ClientSession) -> None:
        settings = self.settings
        self._passing = {
            replica: self._build_passthrough(plain, replica.url) for replica in self._fleet.replicas
        }

        def choose() -> Passthrough:
            return self._passing[self._fleet.best()]

        def rewrite(challenge: str) -> str:
            return choose().rewriter.challenge(challenge)

        profiles = Profiles(self._memory.profiles)
        legacy = LegacyEndpoint(
            binder=self._binder,
            profiles=profiles,
            catalog=self._catalog,
            fanout=self._fanout,
            wishes=Wishes(binder=self._binder, listening=self._listening, observe=self._observe),
            pings=Pings(binder=self._binder, check_up=self._fleet.check_up),
            observe=self._observe,
        )
        self._modern = ModernEndpoint(
            binder=self._binder,
            profiles=profiles,
            attribution=self._attribution,
            catalog=self._catalog,
            listening=self._listening,
            parking=self._parking,
            cache=rules.cache_rules(settings),
            versions=settings.serve_eras.versions,
            observe=self._observe,
            questions=self._memory.questions,
        )
        self._endpoint = Endpoint(
            legacy=legacy,
            modern=self._modern,
            era=lambda: self._fleet.best().era,
            passthrough=choose,
            binder=self._binder,
            fanout=self._fanout,
            early=self._early,
            identifier=Identifier(
                credential_headers=settings.credential_header,
                credential_query=settings.credential_query,
                affinity_headers=settings.affinity_header,
                affinity_meta=settings.affinity_meta,
            ),
            memory=self._memory,
            in_flight=self._in_flight,
            rules=rules.endpoint_rules(settings, rewrite),
            observe=self._observe,
            tracer=self._tracer,
        )
        self.snapshot = Snapshot(
            binder=self._binder,
            endpoint=self._endpoint,
            fanout=self._fanout,
            parking=self._parking,
            listening=self._listening,
            fleet=self._fleet,
            memory=self._memory,
            limits=lambda: rules.shown_limits(self.settings) | {"memory_bytes": self._memory.max_bytes},
        )
        self.metrics.watch(self.snapshot.gauges)
        self._door = FrontDoor(
            guard=rules.guard(settings),
            endpoint=self._endpoint,
            passthrough=choose,
            in_flight=self._in_flight,
            path=self._url.raw_path,
            observe=self._observe,
        )

    def _admin_token(self) -> str | None:
        token = self.settings.admin_token
        return None if token is None else token.get_secret_value()

    async def _listen(
        self,
        runner: web.BaseRunner,
        address: Address,
        option: str,
        make_site: Callable[..., web.BaseSite] = web.TCPSite,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = make_site(runner, address.host or None, address.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {address} ({error.strerror or error}); "
                f"choose another address with {option}"
            ) from error
        port = runner.addresses[0][1]
        host = address.host or "0.0.0.0"
        return f"{'http' if tls is None else 'https'}://{Address(host, port)}"

    def _announce(self, path: Path) -> None:
        """Write the URLs to a file, whole or not at all, for whoever started us."""
        text = json.dumps({"listen": self.listen_url, "endpoint": self.endpoint_url, "admin": self.admin_url})
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            draft.write_text(text + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise CannotStart(f"cannot write {path} ({error.strerror}); see --announce") from error

    # -- while it runs -----------------------------------------------------------------------------

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(_MAINTENANCE_SECONDS)
            try:
                self._alive()
                self.metrics.traffic.sample()
                upkeep.maintain(self._pool)
                self._binder.maintain()
                self._fanout.maintain()
                self._catalog.keep_to_share()
            except Exception as error:
                self._observe(events.Crashed(where="maintenance", error=repr(error)))

    # -- reload ------------------------------------------------------------------------------------

    def reload(self, load: Callable[[], Settings]) -> Change | None:
        """Take over what can change of the configuration that ``load`` gives; read the TLS files again.

        Gives what has changed. If anything is wrong, nothing does, the observer is told, and None is given.
        """
        try:
            change = compare(self.settings, load())
            listener_tls = listener_context(change.settings)
            if self._upstream_tls is not None:
                upstream_context(change.settings)  # may fail; the one in use must not be half renewed
                renew_upstream(self._upstream_tls, change.settings)
        except ConfigError as error:
            self._observe(events.ReloadFailed(problem="; ".join(str(error).splitlines())))
            return None
        if self._listener_tls is not None and listener_tls is not None:
            self._listener_tls.renew(listener_tls)
        self._apply(change.settings)
        self._observe(
            events.Reloaded(
                changed=", ".join(change.changed) or None,
                needs_restart=", ".join(change.needs_restart) or None,
            )
        )
        return change

    def _apply(self, settings: Settings) -> None:
        """Give everyone new rules. What is not here is read from ``self.settings`` whenever it is needed."""
        self.settings = settings
        self._log.set_level(settings.log_level)
        self._tee.refresh()
        hush_libraries(settings.log_level)
        self._memory.resize(*self._budget(settings))
        self._in_flight.limit(
            max_exchanges=settings.max_exchanges,
            max_exchanges_per_principal=settings.max_exchanges_per_principal,
        )
        self._door.guard = rules.guard(settings)
        self._listener.max_body_bytes = settings.max_body_bytes
        self._listener.max_header_bytes = settings.max_header_bytes
        self._listener.max_connections = settings.max_connections
        self._endpoint.rules = rules.endpoint_rules(settings, self._endpoint.rules.rewrite_challenge)
        heart = self._endpoint.heart
        heart.set_interval(settings.heartbeat)
        heart.heartbeat_format = settings.heartbeat_format
        heart.json_patience_seconds = settings.json_patience
        self._modern.cache = rules.cache_rules(settings)
        self._modern.versions = settings.serve_eras.versions
        self._parking.limits = rules.parking_limits(settings)
        self._fanout.set_max_events(settings.max_buffered_events)
        self._fanout.linger_seconds = settings.event_linger
        self._binder.rules = rules.binding_rules(settings)
        directory = self._binder.directory
        directory.max_sessions = settings.max_client_sessions
        directory.max_sessions_per_principal = settings.max_client_sessions_per_principal
        directory.timeout_seconds = settings.client_session_timeout
        self._apply_upstream(settings)
        self._pool.limits = rules.pool_limits(settings)

    def _apply_upstream(self, settings: Settings) -> None:
        connect_seconds, request_seconds = settings.connect_timeout, settings.request_timeout
        self._fleet.patience_seconds = settings.acquire_timeout
        for replica in self._fleet.replicas:
            replica.breakers.configure(
                threshold=settings.breaker_threshold, reset_seconds=settings.breaker_reset
            )
            replica.era.choice = settings.upstream_era
        for transport in self._transports:
            transport.set_timeouts(connect_seconds=connect_seconds, request_seconds=request_seconds)
            transport.max_json_depth = settings.max_json_depth
        for passthrough in self._passing.values():
            passthrough.set_timeouts(connect_seconds=connect_seconds, idle_seconds=request_seconds)
            passthrough.passing = settings.passthrough
            passthrough.trusted_proxies = settings.trusted_proxy
        for slot in self._pool.books.slots():
            session = slot.session
            session.keepalive_seconds = _spread(settings.keepalive)
            session.check_after_seconds = settings.check_after
            session.handshake_timeout_seconds = settings.handshake_timeout
            session.patience_seconds = settings.acquire_timeout

    # -- stop --------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Finish what is in flight, then let go of every session. Idempotent."""
        if self._drained:
            return
        self._drained = True
        endpoint = self._endpoint
        endpoint.draining = True
        self._observe(
            events.DrainStarted(
                exchanges=len(endpoint.exchanges()), deadline_seconds=self.settings.drain_timeout
            )
        )
        for site in list(self._runner.sites):
            await site.stop()
        self._listening.close()
        cut_off = await self._finish_posts()
        self._parking.close()
        self._fanout.close()
        self._early.end()
        await self._pool.close()
        self._tasks.cancel()
        await self._tasks.ended()
        self._observe(events.Stopped(cut_off=cut_off))

    async def _finish_posts(self) -> int:
        """Wait for the requests in flight; give how many had to be cut off."""
        posts = self._endpoint.posts
        await posts.finished(self.settings.drain_timeout)
        exchanges = self._endpoint.exchanges()
        for exchange in exchanges:
            exchange.give_up(
                Draining("The proxy was shut down while the MCP server was working on this request.")
            )
        await posts.finished(_FAREWELL_SECONDS)
        return len(exchanges)


def _spread(keepalive_seconds: float) -> float:
    """About this long: sessions that began together need not be pinged together."""
    return keepalive_seconds * random.uniform(0.85, 1.0)
