"""What the options mean to each component: settings as the rules that it goes by.

All of these may be made anew and replaced while the proxy runs; what follows from that (who waits gets
room, who is over a limit goes) happens with the next round of maintenance.
"""

from collections.abc import Sequence

from ..cluster.rules import ClusterRules
from ..downstream.app import HttpServerRules
from ..downstream.guard import Guard
from ..downstream.heartbeats import HeartbeatRules
from ..downstream.in_flight import ExchangeLimits
from ..downstream.modern import ModernRules
from ..downstream.passthrough import PassingRules
from ..downstream.rules import EndpointRules
from ..events import Level
from ..exchange.parking import ParkingLimits
from ..exchange.tasks import TaskRules
from ..memory import Budget, default_budget_bytes
from ..protocol.revisions import UpstreamEra
from ..sessions.accepting import AcceptanceRules
from ..sessions.binding import Rules
from ..sessions.books import Usage
from ..sessions.directory import DirectoryRules
from ..sessions.event_ledger import EventRules
from ..sessions.modes import Anonymous, TokenIdentity
from ..sessions.policy import Limits
from ..settings.config import Settings
from ..upstream.breaker import BreakerRules
from ..upstream.fleet import FleetRules
from ..upstream.http.streamable_http import HttpRules
from ..upstream.record import SessionRules
from ..upstream.stdio.transport import StdioRules


def log_level(settings: Settings) -> Level:
    """The least important lines to log."""
    return settings.log_level


def memory_budget(settings: Settings) -> Budget:
    """What there is for what callers and servers send."""
    total_bytes = settings.memory_budget
    return Budget(
        total_bytes=default_budget_bytes() if total_bytes is None else total_bytes,
        bodies_bytes=settings.max_inflight_bytes,
    )


def http_rules(settings: Settings) -> HttpRules:
    """How long things may take on the way to a server, and what may come back."""
    return HttpRules(
        connect_timeout_seconds=settings.connect_timeout,
        request_timeout_seconds=settings.request_timeout,
        max_json_depth=settings.max_json_depth,
    )


def stdio_rules(settings: Settings) -> StdioRules:
    """How long things may take with children, and how many are started at once."""
    return StdioRules(
        first_start_seconds=settings.stdio_start_timeout,
        start_seconds=settings.handshake_timeout,
        spawns=settings.stdio_spawns,
        request_timeout_seconds=settings.request_timeout,
        max_children=settings.max_sessions,
        max_json_depth=settings.max_json_depth,
    )


def opening_seconds(settings: Settings) -> float:
    """How long it may take until a session is open. A child has a time of its own, and may have to wait."""
    if settings.command is None:
        return settings.handshake_timeout
    return settings.stdio_start_timeout + settings.handshake_timeout


def upstream_era(settings: Settings) -> UpstreamEra:
    """Whether a server needs help with modern requests, where the operator knows."""
    return settings.upstream_era


def fleet_rules(settings: Settings) -> FleetRules:
    """For how long servers that are down are waited for."""
    return FleetRules(patience_seconds=settings.acquire_timeout)


def breaker_rules(settings: Settings) -> BreakerRules:
    """When a server that keeps failing handshakes is left alone, and for how long."""
    return BreakerRules(threshold=settings.breaker_threshold, reset_seconds=settings.breaker_reset)


def passing_rules(settings: Settings) -> PassingRules:
    """What goes past the MCP endpoint."""
    return PassingRules(
        connect_timeout_seconds=settings.connect_timeout,
        idle_timeout_seconds=settings.request_timeout,
        passing=settings.passthrough,
        trusted_proxies=settings.trusted_proxy,
    )


def session_rules(settings: Settings) -> SessionRules:
    """How long things may take with one upstream session."""
    return SessionRules(
        keepalive_seconds=settings.keepalive,
        check_after_seconds=settings.check_after,
        handshake_timeout_seconds=opening_seconds(settings),
        patience_seconds=settings.acquire_timeout,
    )


def pool_limits(settings: Settings) -> Limits:
    """How many upstream sessions there may be, and for how long."""
    return Limits(
        max_sessions=settings.max_sessions,
        max_sessions_per_principal=settings.max_sessions_per_principal,
        max_waiters=settings.max_waiters,
        open_concurrency=settings.open_concurrency,
        min_idle=settings.min_idle,
        # To start a child costs so much that also a second client at the same time should find one.
        prewarmed=frozenset({Usage.ONCE} if settings.command is None else Usage),
        idle_timeout_seconds=settings.idle_timeout,
        linger_seconds=settings.linger,
        max_lifetime_seconds=settings.max_lifetime,
        max_requests=settings.max_requests_per_session,
        handshake_timeout_seconds=opening_seconds(settings),
    )


def shown_limits(settings: Settings) -> dict[str, int]:
    """The limits that metrics tell of, each by the gauge that it bounds."""
    return {
        "upstream_sessions": settings.max_sessions,
        "client_sessions": settings.max_client_sessions,
        "waiters": settings.max_waiters,
        "exchanges_parked": settings.max_parked,
        "tasks": settings.max_tasks,
    }


def directory_rules(settings: Settings) -> DirectoryRules:
    """Which client sessions are remembered."""
    return DirectoryRules(
        max_sessions=settings.max_client_sessions,
        max_sessions_per_principal=settings.max_client_sessions_per_principal,
        timeout_seconds=settings.client_session_timeout,
    )


def event_rules(settings: Settings) -> EventRules:
    """What is kept for clients whose streams break."""
    return EventRules(
        max_events=settings.max_buffered_events,
        linger_seconds=settings.event_linger,
        ttl_seconds=settings.event_ttl,
        store_bytes=settings.event_store_bytes,
    )


def parking_limits(settings: Settings) -> ParkingLimits:
    """How many calls may be parked, and for how long."""
    return ParkingLimits(
        timeout_seconds=settings.park_timeout,
        max_parked=settings.max_parked,
        max_parked_per_principal=settings.max_parked_per_principal,
        max_rounds=settings.max_rounds,
    )


def task_rules(settings: Settings) -> TaskRules:
    """How many tasks there may be, for how long, and which calls become one."""
    return TaskRules(
        max_tasks=settings.max_tasks,
        max_tasks_per_principal=settings.max_tasks_per_principal,
        ttl_seconds=settings.task_ttl,
        after_seconds=settings.task_after or None,
    )


def binding_rules(settings: Settings) -> Rules:
    """Who gets which upstream session."""
    return Rules(
        sharing=settings.sharing,
        anonymous=settings.anonymous,
        unknown_session=settings.unknown_session,
        acquire_timeout_seconds=settings.acquire_timeout,
        reconnect_grace_seconds=settings.reconnect_grace,
        detach_after_seconds=settings.detach_after,
    )


def cluster_rules(settings: Settings) -> ClusterRules:
    """What is done where another proxy on the same store, or the store itself, is away."""
    return ClusterRules(
        patience_seconds=settings.acquire_timeout,
        max_waiters=settings.max_waiters,
        outage=settings.store_outage,
        # None is of use for longer.
        ttl_seconds=2 * max(settings.client_session_timeout, settings.idle_timeout),
    )


def acceptance_rules(settings: Settings) -> AcceptanceRules:
    """How long may be taken to find out whether the server accepts a token."""
    return AcceptanceRules(
        handshake_timeout_seconds=opening_seconds(settings), patience_seconds=settings.acquire_timeout
    )


def identity_claims(settings: Settings) -> Sequence[str]:
    """The claims that identify; none where tokens count by their bytes."""
    return () if settings.token_identity is TokenIdentity.BYTES else settings.identity_claims


def credential_headers(settings: Settings) -> Sequence[str]:
    """The headers that say who is calling. What becomes a variable of a caller's children always does."""
    return (*settings.credential_header, *(each.header for each in settings.stdio_env_from_header))


def modern_rules(settings: Settings) -> ModernRules:
    """What modern clients may keep, and what they are told of."""
    return ModernRules(
        ttl_milliseconds={ttl.method: ttl.milliseconds for ttl in settings.cache_ttl},
        scope=settings.cache_scope,
        versions=settings.serve_eras.versions,
    )


def exchange_limits(settings: Settings) -> ExchangeLimits:
    """How many requests may be under way."""
    return ExchangeLimits(
        max_exchanges=settings.max_exchanges,
        max_exchanges_per_principal=settings.max_exchanges_per_principal,
    )


def listener_rules(settings: Settings) -> HttpServerRules:
    """How much may come in from clients."""
    return HttpServerRules(
        max_body_bytes=settings.max_body_bytes,
        max_header_bytes=settings.max_header_bytes,
        max_connections=settings.max_connections,
    )


def heartbeat_rules(settings: Settings) -> HeartbeatRules:
    """What keeps silent streams to clients from being cut."""
    return HeartbeatRules(
        interval_seconds=settings.heartbeat,
        json_patience_seconds=settings.json_patience,
        heartbeat_format=settings.heartbeat_format,
    )


def endpoint_rules(settings: Settings) -> EndpointRules:
    """How the MCP endpoint answers."""
    return EndpointRules(
        max_body_bytes=settings.max_body_bytes,
        max_json_depth=settings.max_json_depth,
        delete_status=settings.delete_status,
        trusted_proxies=settings.trusted_proxy,
        eras=settings.serve_eras,
        warn_of_anonymous=not settings.listen.is_loopback and settings.anonymous is Anonymous.POOL,
    )


def guard(settings: Settings) -> Guard:
    """Who may call."""
    return Guard(
        listens_on_loopback=settings.listen.is_loopback,
        allowed_origins=frozenset(settings.allowed_origin),
        allowed_hosts=frozenset(settings.allowed_host),
        public_url=settings.public_url,
    )
