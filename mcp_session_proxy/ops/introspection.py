"""What the proxy shows of itself, as plain data without secrets. ``snapshot`` takes it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

import msgspec

from ..sessions.modes import TokenIdentity


class Phase(StrEnum):
    """Whether the proxy can take work. Only ``ready`` answers 200 on ``/readyz``."""

    STARTING = "starting"
    READY = "ready"
    UPSTREAM_DOWN = "upstream-down"
    DRAINING = "draining"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """``ready`` of ``total`` upstream servers answer."""

    phase: Phase
    ready: int
    total: int


class UpstreamSessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream session. Tags are short and opaque; ages are in seconds.

    ``parked`` counts the calls whose server waits for the client's answers. ``server`` is the origin of the
    one that it lives on, ``server_condition`` how that one does, as in ``ReplicaView``; null for a session
    that has no server now.
    """

    session: str
    principal: str
    affinity: bool
    state: str
    protocol_version: str | None
    client_name: str
    age_seconds: float
    idle_seconds: float
    requests: int
    in_flight: int
    parked: int
    attached: int
    stream: bool
    server: str | None = None
    server_condition: str | None = None


class ClientSessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One client session. ``parked`` counts the server's questions that its client has not answered yet.

    ``server`` and ``server_condition`` are those of its upstream session.
    """

    client: str
    principal: str
    affinity: bool
    origin: str
    attached: bool
    upstream: str | None
    age_seconds: float
    idle_seconds: float
    requests: int
    in_flight: int
    parked: int
    server: str | None = None
    server_condition: str | None = None


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a server that is a command (``--stdio``), which serves one upstream session.

    ``state`` is starting, serving or leaving. ``session`` and ``principal`` are those of the session; null
    for a process whose session is over, or not there yet. ``attached`` is how many hold that session now.
    ``strays`` counts what it has said that nobody heard: answers that nobody waited for (any more), and
    messages that were dropped because too many waited to be read. ``said`` are its last lines on standard
    error, shortened, without secrets; none where those are not read (``--stdio-stderr``).
    """

    pid: int
    state: Literal["starting", "serving", "leaving"]
    session: str | None
    principal: str | None
    age_seconds: float
    requests: int
    attached: int
    strays: int
    said: Sequence[str]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the servers.

    ``condition`` is up, down, breaker-open or unknown; ``down_seconds`` says for how long it has taken no
    connections, ``breaker`` whether handshakes are tried (closed, half-open) or not (open),
    ``last_error`` why they failed last, and ``retry_after_seconds`` when the next is tried, if none is now.
    ``modern`` says whether the server speaks 2026-07-28 itself; null means that it was not asked yet.
    ``modern_requests``, those of that revision, are translated onto its sessions or passed to it as they
    are; unknown as long as nobody has made one.
    """

    upstream: str
    condition: str
    down_seconds: float | None
    breaker: str
    last_error: str | None
    modern: bool | None
    modern_requests: str
    sessions: int
    retry_after_seconds: float | None = None


class TokensView(msgspec.Struct, frozen=True, kw_only=True):
    """How callers' tokens count that say whom they speak for (JWTs). ``identity`` is --token-identity.

    ``accepted``, ``refused`` and ``not_believed`` count new tokens since the start: those that count by what
    they claim, those that count as nobody but themselves, and those that count by their bytes because their
    issuer's are not checked. ``believed`` is how many count by what they claim now, ``callers`` how many
    callers are known by it, and ``asking`` how many tokens the server is being asked about.
    ``unchecked_issuers`` are the newest whose tokens the server takes with any signature.
    """

    identity: TokenIdentity
    accepted: int
    refused: int
    not_believed: int
    believed: int
    callers: int
    asking: int
    unchecked_issuers: Sequence[str]


class StateView(msgspec.Struct, frozen=True, kw_only=True):
    """Where sessions are kept: in ``memory``, on a ``disk`` as well (``--state-dir``), or in a ``store`` that
    several proxies may share (``--store``).

    ``up``: nothing keeps it from being written. ``pending_records`` wait for that, and events of
    ``pending_streams`` (``--events``); a moment is usual.
    """

    kept: Literal["memory", "disk", "store"] = "memory"
    up: bool = True
    pending_records: int = 0
    pending_streams: int = 0


IN_MEMORY: Final = StateView()


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the proxies on the same store. ``shards`` is how many callers it serves, ``here`` whether it is
    the one that is asked.
    """

    member: str
    here: bool
    pid: int
    version: str
    age_seconds: float
    shards: int
    draining: bool
    addresses: Sequence[str]


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """This proxy among those on the same store; without a store there is none but itself.

    ``sure``: nobody else can serve now whom it serves. ``shards`` is how many callers it serves; those that
    are ``provisional`` it serves because the store cannot be reached. ``fenced`` counts writes that were
    refused because another one serves the caller by now, ``waiting`` requests that wait for the end of a
    lease.
    """

    member: str = ""
    sure: bool = True
    draining: bool = False
    shards: int = 0
    provisional: int = 0
    fenced: int = 0
    waiting: int = 0
    members: Sequence[MemberView] = ()


ALONE: Final = ClusterView()


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that go up and down, read at scrape time. ``limits`` has the bounds of some of them.

    ``memory_bytes`` and ``memory_limit_bytes`` are by kind of what is kept: what there is, and what there
    may be.
    """

    phase: Phase
    upstreams: Mapping[str, int]
    limits: Mapping[str, int]
    client_sessions: int
    upstream_sessions: Mapping[str, int]
    upstream_session_age_seconds: Sequence[float]
    waiters: int
    exchanges_parked: int
    streams: Mapping[str, int]
    tasks: Mapping[str, int] = msgspec.field(default_factory=dict)
    children: int = 0
    state: StateView = IN_MEMORY
    cluster: ClusterView = ALONE
    memory_bytes: Mapping[str, int] = msgspec.field(default_factory=dict)
    memory_limit_bytes: Mapping[str, int] = msgspec.field(default_factory=dict)
