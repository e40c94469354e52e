"""Start, ready, drain, stop: puts the rooms of the house together and takes them apart in order.

The order of a stop: no new connections and not ready; exchanges in flight are finished, up to
``--drain-timeout``; the rest is told so; streams end; upstream sessions are DELETEd, or written down and left
where they are; listeners close.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from .. import events
from ..aio import Tasks
from ..downstream.passthrough import open_client_session
from ..exchange.parking import Parking
from ..memory import Memory
from ..ops.going_round import ACT_PATH, GoingRound
from ..ops.introspection import ALONE, IN_MEMORY
from ..ops.operator import Operator
from ..ops.snapshot import Snapshot
from ..sessions.books import Slot
from ..sessions.modes import TokenIdentity
from ..settings.config import Settings
from ..settings.reloading import Change, compare
from ..settings.sources import ConfigError
from ..settings.tls import Contexts
from ..tracing import UNTRACED, Tracer
from ..upstream.fleet import Server
from ..upstream.key_set import KeySet, fetch_json, open_key_session
from ..upstream.session import UpstreamSession
from . import rules
from .activation import Inherited
from .admin import open_admin
from .command import CommandServer
from .core import Core
from .event_store import open_event_store
from .front import Front
from .in_force import InForce
from .listeners import Listeners
from .servers import HttpServers
from .sites import announce, cease
from .state import KeptState
from .stores import open_store
from .watchers import Watchers

_MAINTENANCE_SECONDS: Final = 1.0
_NOTHING: Final = Inherited()
# Farewells, goodbyes to servers, and what is left to be written.
_LEAVING_SECONDS: Final = 30.0


class Proxy:
    """A whole proxy, started by ``async with``. URLs are known from then on.

    ``stop`` is set when an operator wants it to end; whoever runs the proxy then leaves the block. ``alive``
    is called every now and then, from the event loop, as long as it turns. ``servers`` stand in for those
    that the settings name. ``inherited`` are the listeners whose sockets were passed to this process; the
    settings have their addresses.
    """

    transports: HttpServers
    core: Core
    front: Front
    snapshot: Snapshot

    def __init__(
        self,
        settings: Settings,
        *,
        alive: Callable[[], None] = lambda: None,
        servers: Sequence[Server] | None = None,
        inherited: Inherited = _NOTHING,
    ) -> None:
        self.in_force = InForce(settings)
        self.watchers = self.in_force.build(rules.log_level, Watchers)
        self.stop = asyncio.Event()
        self._observe = self.watchers.observe
        self._alive = alive
        self._servers = servers
        self._stack = contextlib.AsyncExitStack()
        self._tasks = Tasks()
        self.listeners = Listeners(settings, self._stack, inherited=inherited, observe=self._observe)
        self.command: CommandServer | None = None  # where the server is one
        self._drained = False
        self._state: KeptState | None = None

    @property
    def listen_url(self) -> str:
        """The origin for clients; nothing before it serves."""
        return self.listeners.listen_url

    @property
    def endpoint_url(self) -> str:
        """The MCP endpoint as clients are told it; nothing before it serves."""
        return self.listeners.endpoint_url

    @property
    def admin_url(self) -> str | None:
        """The origin for operators; None if they cannot connect."""
        return self.listeners.admin_url

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.in_force.settings

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
        self._tls = Contexts(self.settings)
        # Last of all when this process ends: whoever waits for that finds the directory of state free.
        self._stack.callback(self.listeners.leave)
        # Another process that is replaced serves until as much as possible of what can fail here has not.
        await self._find_sockets()
        await self._build(self._open_tracer())
        await self._accept()
        for replica in self.core.fleet.replicas:
            self._tasks.spawn(replica.monitor.watch(), f"monitor {replica.name}")
        self._tasks.spawn(self._maintain(), "maintenance")
        self._observe(
            events.Started(
                listen=self.listen_url,
                admin=self.admin_url or "off",
                upstream=self.settings.upstream_shown,
                sharing=self.settings.sharing,
            )
        )

    def _open_tracer(self) -> Tracer:
        if not self.settings.tracing:
            return UNTRACED
        try:
            from ..ops.tracing import open_tracer  # loads what only the extra otel installs

            tracer = open_tracer()
        except (ImportError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--tracing: OpenTelemetry does not start: {error}") from error
        self._stack.push_async_callback(tracer.close)
        return tracer

    async def _build(self, tracer: Tracer) -> None:
        enter, tls, observe = self._stack.enter_async_context, self._tls.upstream, self._observe
        plain = await enter(open_client_session(tls=tls))
        memory = self.in_force.build(rules.memory_budget, Memory)
        servers = self._servers
        if servers is None:
            servers = self._open_servers(tls, memory)
        verify = await self._open_verifier()
        state = self._state = await self._open_state()
        self.core = Core(
            self.in_force,
            memory=memory,
            servers=servers,
            observe=observe,
            verify=verify,
            parking=Parking if state is None else state.parking,
        )
        self.front = Front(
            self.in_force,
            self.core,
            plain=plain,
            observe=observe,
            tracer=tracer,
            secret=None if state is None else state.keys.identity,
            cluster=None if state is None else state.build(self.in_force, self.core, self._tls),
        )
        self._stack.callback(self.front.close)
        self._operator = Operator(pool=self.core.pool, endpoint=self.front.endpoint, stop=self.stop.set)
        self._going_round = GoingRound(
            self._operator,
            own=None if state is None else state.membership.member,
            ask_all=None if state is None else state.cluster.ask_all,
            observe=observe,
        )
        if state is not None:
            await open_event_store(self._stack, self.settings.events, state, self.core.delivery, observe)
            questions = {ACT_PATH: self._going_round.answer}
            await state.begin(self.in_force, self.front.entrance.handle, questions)
        self.snapshot = self._open_snapshot()
        self.watchers.metrics.watch(self.snapshot.gauges)

    def _open_servers(self, tls: ssl.SSLContext | None, memory: Memory) -> Sequence[Server]:
        if self.settings.command is None:
            self.transports = HttpServers(
                self.in_force, tls=tls, answers=memory.answers, observe=self._observe
            )
            self._stack.callback(self.transports.close)
            return self.transports.servers
        command = self.command = CommandServer(self.in_force, self._observe, memory.answers)
        self._stack.push_async_callback(command.close)
        self._tasks.spawn(command.sweep(), "sweep")
        return command.servers

    async def _open_state(self) -> KeptState | None:
        store = await open_store(self.settings, self._observe)
        if store is None:
            await self.listeners.take_over()
            return None
        replace = self.listeners.take_over
        state = await KeptState.open(store, self.settings, self._observe, replace=replace)
        # After everything that is built later has been taken apart.
        self._stack.push_async_callback(state.close)
        return state

    async def _open_verifier(self) -> Callable[[str], Awaitable[bool]] | None:
        settings = self.settings
        if settings.token_identity is not TokenIdentity.JWKS:
            return None
        from ..sessions.verifying import Verifier  # loads what only the extra jwt installs

        http = await self._stack.enter_async_context(open_key_session())
        keys = KeySet(partial(fetch_json, http), url=settings.jwks_url, issuer=settings.token_issuer)
        return Verifier(
            keys, issuer=settings.token_issuer, audience=settings.token_audience, observe=self._observe
        ).accepts

    def _open_snapshot(self) -> Snapshot:
        core = self.core
        return Snapshot(
            binder=core.binder,
            endpoint=self.front.endpoint,
            parking=core.parking,
            tasks=core.tasks,
            listening=core.listening,
            fleet=core.fleet,
            memory=core.memory,
            command=None if self.command is None else self.command.transport,
            acceptances=core.acceptances,
            token_identity=self.settings.token_identity,
            state=lambda: IN_MEMORY if self._state is None else self._state.view(),
            cluster=lambda: ALONE if self._state is None else self._state.cluster.view(),
            limits=lambda: rules.shown_limits(self.settings) | {"memory_bytes": core.memory.max_bytes},
        )

    async def _find_sockets(self) -> None:
        """Have the sockets, which listen from then on, and tell whoever started us where that is."""
        await self.listeners.find()
        if self.settings.announce is not None:
            listen, endpoint, admin = self._urls()
            announce(self.settings.announce, listen=listen, endpoint=endpoint, admin=admin)

    def _urls(self) -> tuple[str, str, str | None]:
        """The origin for clients, the endpoint there as they are told it, and the origin for operators."""
        listeners, settings = self.listeners, self.settings
        listen = listeners.public.origin("http" if self._tls.listener is None else "https")
        endpoint = (settings.public_url or listen).rstrip("/") + settings.endpoint_path
        return listen, endpoint, None if listeners.admin is None else listeners.admin.origin("http")

    async def _accept(self) -> None:
        """Serve whoever connects."""
        listeners, front = self.listeners, self.front
        await front.open(self._stack, listeners.public, self._tls.listener)
        runners: list[web.BaseRunner] = [front.runner]
        if listeners.admin is not None:
            runner = await open_admin(
                self._stack,
                listeners.admin,
                self.in_force,
                watchers=self.watchers,
                snapshot=self.snapshot,
                operator=self._operator,
                going_round=self._going_round,
            )
            runners.append(runner)
        listeners.listen_url, listeners.endpoint_url, listeners.admin_url = self._urls()
        listeners.offer(
            cease=lambda: cease(*runners), replaced=self.stop.set, wait_seconds=self._seconds_to_leave
        )

    def _seconds_to_leave(self) -> float | None:
        """How long it may take at most until another process can have the state; None without any."""
        return None if self._state is None else self.settings.drain_timeout + _LEAVING_SECONDS

    # -- while it runs -----------------------------------------------------------------------------

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(_MAINTENANCE_SECONDS)
            try:
                self._alive()
                self.watchers.metrics.traffic.sample()
                self.core.maintain()
                if self.command is not None:
                    self.command.maintain()
            except Exception as error:
                self._observe(events.Crashed(where="maintenance", error=repr(error)))

    def reload(self, load: Callable[[], Settings]) -> Change | None:
        """Take over what can change of the configuration that ``load`` gives; read the TLS files again.

        Gives what has changed. If anything is wrong, nothing does, the observer is told, and None is given.
        """
        try:
            change = compare(self.settings, load())
            self._tls.renew(change.settings)
        except ConfigError as error:
            self._observe(events.ReloadFailed(problem="; ".join(str(error).splitlines())))
            return None
        self.in_force.replace(change.settings)
        self._observe(
            events.Reloaded(
                changed=", ".join(change.changed) or None,
                needs_restart=", ".join(change.needs_restart) or None,
            )
        )
        return change

    async def _part(self, patience_seconds: float) -> bool:
        """Let other proxies on the same store have what there is; gives whether there are any."""
        return self._state is not None and await self._state.part(patience_seconds, self.settings.on_stop)

    async def _spare(self) -> frozenset[Slot[UpstreamSession]]:
        """The sessions that are not ended with the proxy."""
        if self._state is None:
            return frozenset()
        return await self._state.spare(self.core, self.settings.on_stop)

    # -- stop --------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Finish what is in flight, then let go of every session. Idempotent."""
        if self._drained:
            return
        self._drained = True
        patience_seconds = self.settings.drain_timeout
        self._observe(
            events.DrainStarted(
                exchanges=len(self.front.endpoint.exchanges()), deadline_seconds=patience_seconds
            )
        )
        now = asyncio.get_running_loop().time
        deadline = now() + patience_seconds
        if self.listeners.outlive:
            await cease(self.front.runner)
        if await self._part(patience_seconds) or self.listeners.outlive:
            await self.front.part(max(0.0, deadline - now()))
        await self.front.shut()
        self.listeners.withdraw()
        self.core.listening.close()
        cut_off = await self.front.finish(max(0.0, deadline - now()))
        await self.core.end(self._spare)
        self._tasks.cancel()
        await self._tasks.ended()
        self._observe(events.Stopped(cut_off=cut_off))
