"""Start, ready, drain, stop: puts the rooms of the house together and takes them apart in order.

The order of a stop: no new connections and not ready; exchanges in flight are finished, up to
``--drain-timeout``; the rest is told so; streams end; upstream sessions are DELETEd; listeners close.
"""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import ssl
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

from . import __version__, events
from .config import Settings
from .downstream.app import SILENT, FrontDoor, serve
from .downstream.endpoint import Endpoint, EndpointRules
from .downstream.guard import Guard
from .downstream.legacy import LegacyEndpoint
from .downstream.modern import CacheRules, ModernEndpoint
from .downstream.passthrough import Passthrough, open_client_session
from .errors import Draining
from .exchange.attribution import Attribution
from .exchange.catalog import Catalog
from .exchange.fanout import Fanout
from .exchange.listening import Listening
from .exchange.parking import Parking, ParkingLimits
from .exchange.routing import Router
from .ops.admin import build_admin_app
from .ops.banner import startup_lines
from .ops.logs import EventLog
from .ops.metrics import Metrics
from .ops.observers import tee
from .sessions.binding import Binder, Rules
from .sessions.directory import Directory
from .sessions.identity import Identifier, Profile, SessionKey, sessionless_profile
from .sessions.modes import Anonymous
from .sessions.policy import Limits
from .sessions.pool import Pool
from .snapshot import Snapshot
from .tls import listener_context, upstream_context
from .upstream.breaker import Breaker
from .upstream.fleet import Fleet, Replica
from .upstream.session import UpstreamSession
from .upstream.streamable_http import StreamableHttp, http_session
from .values import Address

_MAINTENANCE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 5.0
_FAREWELL_SECONDS: Final = 1.0


class CannotStart(Exception):
    """Something outside is in the way. The text says which option to change."""


class CannotListen(CannotStart):
    """A listener's address is taken or not ours."""


class Proxy:
    """A whole proxy, started by ``async with``. URLs are known from then on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listen_url = ""
        self.endpoint_url = ""
        self.admin_url: str | None = None
        self.metrics = Metrics()
        self._observe = tee(EventLog(settings.log_level), self.metrics)
        self._urls = [URL(url) for url in (settings.upstream, *settings.replica)]
        self._url = self._urls[0]
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._drained = False

    async def __aenter__(self) -> Self:
        """Open the listeners. Raises CannotStart, and ConfigError for a file of TLS that is no use."""
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
        http = await self._stack.enter_async_context(http_session(tls=tls))
        plain = await self._stack.enter_async_context(open_client_session(tls=tls))
        self._build_core(http, tls)
        door = self._build_door(plain)
        self._stack.callback(self._endpoint.heart.close)
        server = serve(
            door,
            max_body_bytes=settings.max_body_bytes,
            max_connections=settings.max_connections,
            idle_timeout_seconds=settings.connection_idle_timeout,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS)
        self.listen_url = await self._listen(self._runner, settings.listen, "--listen", listener_tls)
        public = settings.public_url or self.listen_url
        self.endpoint_url = public.rstrip("/") + self._url.raw_path
        if settings.admin_listen is not None:
            app = build_admin_app(
                self.snapshot, self.metrics, sharing=settings.sharing, listen=settings.admin_listen
            )
            runner = web.AppRunner(
                app,
                access_log=None,
                logger=SILENT,
                keepalive_timeout=settings.connection_idle_timeout,
                shutdown_timeout=_FAREWELL_SECONDS,
            )
            self.admin_url = await self._listen(runner, settings.admin_listen, "--admin-listen")
        if settings.announce is not None:
            self._announce(settings.announce)
        for replica in self._fleet.replicas:
            self._run(replica.monitor.watch(), f"monitor {replica.url.origin()}")
        self._run(self._maintain(), "maintenance")
        self._observe(
            events.Started(
                listen=self.listen_url,
                admin=self.admin_url or "off",
                upstream=settings.upstream_shown,
                sharing=settings.sharing,
            )
        )

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
                client_name=profile.client_name,
                principal=key.principal,
                principal_tag=key.principal_tag,
                router=self._router,
                observe=self._observe,
                # Sessions that began together need not be pinged together.
                keepalive_seconds=settings.keepalive * random.uniform(0.85, 1.0),
                check_after_seconds=settings.check_after,
            )

        self._pool = Pool(connect=connect, limits=_limits(settings), observe=self._observe)
        self._binder = Binder(
            pool=self._pool,
            rules=_rules(settings),
            sessionless=sessionless_profile(__version__),
            directory=lambda on_forget: Directory(
                max_sessions=settings.max_client_sessions,
                max_sessions_per_principal=settings.max_client_sessions_per_principal,
                timeout_seconds=settings.client_session_timeout,
                on_forget=on_forget,
            ),
            observe=self._observe,
        )
        self._fanout = Fanout(binder=self._binder, max_events=settings.max_buffered_events)
        self._attribution = Attribution()
        self._catalog = Catalog(self._observe)
        self._listening = Listening(self._observe)
        self._parking = Parking(_parking_limits(settings), self._observe)
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
        )
        self._stack.callback(transport.close)
        breaker = Breaker(threshold=settings.breaker_threshold, reset_seconds=settings.breaker_reset)
        return Replica(url, transport, breaker, self._observe, tls=tls)

    def _build_passthrough(self, plain: aiohttp.ClientSession, url: URL) -> Passthrough:
        return Passthrough(
            plain,
            url.origin(),
            url.raw_path,
            self.settings.public_url,
            connect_timeout_seconds=self.settings.connect_timeout,
            idle_timeout_seconds=self.settings.request_timeout,
        )

    def _build_door(self, plain: aiohttp.ClientSession) -> FrontDoor:
        settings = self.settings
        passing = {replica: self._build_passthrough(plain, replica.url) for replica in self._fleet.replicas}

        def choose() -> Passthrough:
            return passing[self._fleet.best()]

        def rewrite(challenge: str) -> str:
            return choose().rewriter.challenge(challenge)

        legacy = LegacyEndpoint(binder=self._binder, fanout=self._fanout, observe=self._observe)
        modern = ModernEndpoint(
            binder=self._binder,
            attribution=self._attribution,
            catalog=self._catalog,
            listening=self._listening,
            parking=self._parking,
            cache=CacheRules(
                ttl_milliseconds={ttl.method: ttl.milliseconds for ttl in settings.cache_ttl},
                scope=settings.cache_scope,
            ),
            observe=self._observe,
        )
        self._endpoint = Endpoint(
            legacy=legacy,
            modern=modern,
            speaks_modern=self._fleet.speaks_modern,
            passthrough=choose,
            binder=self._binder,
            fanout=self._fanout,
            identifier=Identifier(
                credential_headers=settings.credential_header,
                credential_query=settings.credential_query,
                affinity_headers=settings.affinity_header,
                affinity_meta=settings.affinity_meta,
            ),
            rules=EndpointRules(
                max_body_bytes=settings.max_body_bytes,
                delete_status=settings.delete_status,
                heartbeat_seconds=settings.heartbeat,
                rewrite_challenge=rewrite,
                warn_of_anonymous=(not settings.listen.is_loopback and settings.anonymous is Anonymous.POOL),
            ),
            observe=self._observe,
        )
        self.snapshot = Snapshot(
            binder=self._binder,
            endpoint=self._endpoint,
            parking=self._parking,
            listening=self._listening,
            fleet=self._fleet,
        )
        self.metrics.watch(self.snapshot)
        guard = Guard(
            listens_on_loopback=settings.listen.is_loopback,
            allowed_origins=frozenset(settings.allowed_origin),
            allowed_hosts=frozenset(settings.allowed_host),
            public_url=settings.public_url,
        )
        return FrontDoor(
            guard=guard,
            endpoint=self._endpoint,
            passthrough=choose,
            path=self._url.raw_path,
            observe=self._observe,
        )

    async def _listen(
        self, runner: web.BaseRunner, address: Address, option: str, tls: ssl.SSLContext | None = None
    ) -> str:
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, address.host or None, address.port, ssl_context=tls)
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
                self._pool.maintain()
                self._binder.maintain()
            except Exception as error:
                self._observe(events.Crashed(where="maintenance", error=repr(error)))

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

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
        await self._pool.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._observe(events.Stopped(cut_off=cut_off))

    async def _finish_posts(self) -> int:
        """Wait for the requests in flight; give how many had to be cut off."""
        posts = self._endpoint.posts
        if posts:
            await asyncio.wait(posts, timeout=self.settings.drain_timeout)
        exchanges = self._endpoint.exchanges()
        for exchange in exchanges:
            exchange.give_up(
                Draining("The proxy was shut down while the MCP server was working on this request.")
            )
        if posts:
            await asyncio.wait(posts, timeout=_FAREWELL_SECONDS)
        return len(exchanges)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_sessions=settings.max_sessions,
        max_sessions_per_principal=settings.max_sessions_per_principal,
        max_waiters=settings.max_waiters,
        open_concurrency=settings.open_concurrency,
        min_idle=settings.min_idle,
        idle_timeout_seconds=settings.idle_timeout,
        linger_seconds=settings.linger,
        max_lifetime_seconds=settings.max_lifetime,
        max_requests=settings.max_requests_per_session,
    )


def _parking_limits(settings: Settings) -> ParkingLimits:
    return ParkingLimits(
        timeout_seconds=settings.park_timeout,
        max_parked=settings.max_parked,
        max_parked_per_principal=settings.max_parked_per_principal,
        max_rounds=settings.max_rounds,
    )


def _rules(settings: Settings) -> Rules:
    return Rules(
        sharing=settings.sharing,
        anonymous=settings.anonymous,
        unknown_session=settings.unknown_session,
        acquire_timeout_seconds=settings.acquire_timeout,
        detach_after_seconds=settings.detach_after,
    )


# -- the process -----------------------------------------------------------------------------------


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit status. A second signal ends the process at once."""
    _raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_serve(settings))
        except CannotStart as error:
            sys.stderr.write(f"mcp-session-proxy: {error}\n")
            return 1


def _raise_file_limit() -> None:
    """Every connection is an open file: take as many as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with Proxy(settings) as proxy:
        lines = startup_lines(settings, proxy.listen_url, proxy.endpoint_url, proxy.admin_url)
        sys.stderr.write("\n".join(lines) + "\n")
        await stop.wait()
    return 0
