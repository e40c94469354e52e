"""Everything worth telling that happens in the proxy, as data.

The core reports each event to an :class:`Observer`; ``ops`` turns the same event into a log line
and into metrics. An event never holds a secret: principals and sessions appear as short opaque tags.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol


class Level(StrEnum):
    """How loud an event is in the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``name`` is the log line's event, ``level`` its loudness."""

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO


# -- upstream sessions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(Event):
    """An upstream session finished its handshake. ``why``: demand, prewarm or reopen."""

    name = "session.opened"
    session: str
    principal: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpenFailed(Event):
    """A handshake failed. ``error`` is a reason word, ``detail`` a sentence."""

    name = "session.open_failed"
    level = Level.WARNING
    principal: str
    why: str
    error: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Event):
    """An upstream session left the pool. ``reason``: idle, linger, evicted, once, lost, shutdown ..."""

    name = "session.closed"
    session: str
    principal: str
    reason: str
    age_seconds: float
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost(Event):
    """The server no longer knows an upstream session. ``how`` is the dialect or the place it showed."""

    name = "session.lost"
    level = Level.WARNING
    session: str
    principal: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReused(Event):
    """A living upstream session was given to a client that asked for a new one."""

    name = "session.reused"
    level = Level.DEBUG
    session: str
    principal: str


# -- client sessions -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSessionCreated(Event):
    """A client got, or brought, a session id. ``origin``: minted or adopted."""

    name = "client.created"
    client: str
    session: str
    principal: str
    origin: str
    client_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSessionExpired(Event):
    """A client session was forgotten. ``reason``: age, room, or replaced."""

    name = "client.expired"
    level = Level.DEBUG
    client: str
    principal: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteAbsorbed(Event):
    """A client's DELETE was answered and not forwarded."""

    name = "client.delete_absorbed"
    level = Level.DEBUG
    client: str
    principal: str


# -- requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFinished(Event):
    """One JSON-RPC request of a client was answered.

    ``outcome``: ok, error (the server's JSON-RPC error), or the reason word of an error of ours.
    ``upstream_seconds`` is the time the server took, None when it was not asked.
    """

    name = "request.finished"
    level = Level.DEBUG
    era: str
    method: str
    outcome: str
    seconds: float
    upstream_seconds: float | None
    request_id: str
    principal: str
    session: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(Event):
    """A request got an error of the proxy's own making, or was refused by the server."""

    name = "request.failed"
    level = Level.WARNING
    method: str
    reason: str
    detail: str
    request_id: str
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionlessRequest(Event):
    """A request came without a session."""

    name = "request.sessionless"
    level = Level.DEBUG
    era: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A request was sent again, safely. ``reason``: session-lost, refused, stream-resumed, read-repeated."""

    name = "request.retried"
    method: str
    reason: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRefused(Event):
    """A request may have been executed, so it was not sent again; the client was told."""

    name = "request.replay_refused"
    level = Level.WARNING
    method: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(Event):
    """A call began or ceased to wait for its client's answer.

    ``outcome``: parked, resumed, expired, refused, too-many-parked, too-many-rounds.
    """

    name = "call.parked"
    level = Level.DEBUG
    outcome: str


# -- leases --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGranted(Event):
    """Somebody got an upstream session after waiting ``waited_seconds`` (0 when one was at hand)."""

    name = "lease.granted"
    level = Level.DEBUG
    session: str
    principal: str
    waited_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFailed(Event):
    """Nobody could be given a session. ``reason`` is the error's reason word."""

    name = "lease.failed"
    level = Level.WARNING
    principal: str
    reason: str
    waited_seconds: float


# -- the process ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The listeners are open."""

    name = "proxy.started"
    listen: str
    admin: str
    upstream: str
    sharing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamUp(Event):
    """The server behind us answers."""

    name = "upstream.up"
    upstream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamDown(Event):
    """The server behind us does not answer; the proxy is not ready meanwhile."""

    name = "upstream.down"
    level = Level.WARNING
    upstream: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousCaller(Event):
    """The first caller without credentials on a listener beyond loopback. Told once, loudly."""

    name = "identity.anonymous_callers_share"
    level = Level.WARNING
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStarted(Event):
    """No longer ready; exchanges in flight are finished."""

    name = "proxy.draining"
    exchanges: int
    deadline_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """Everything is closed. ``cut_off`` exchanges did not finish in time."""

    name = "proxy.stopped"
    cut_off: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed(Event):
    """A bug: an exception nobody expected. The client got a clean error."""

    name = "proxy.bug"
    level = Level.ERROR
    where: str
    error: str
    request_id: str | None = None


class Observer(Protocol):
    """Whoever wants to know."""

    def __call__(self, event: Event, /) -> None:
        """Take one event. Must not block, must not raise."""


def ignore(event: Event, /) -> None:
    """An observer that is not interested (the default in tests)."""
