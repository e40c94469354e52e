"""What the admin API answers, as data; ``openapi`` makes the schemas of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from ...sessions.modes import Sharing
from ..acting import MemberActed
from ..introspection import (
    ChildView,
    ClientSessionView,
    Phase,
    ReplicaView,
    StateView,
    TokensView,
    UpstreamSessionView,
)
from ..recent import Entry
from ..traffic import Traffic
from ..troubles import Trouble
from .access import Changes


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process lives."""

    status: str


class ReadinessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served: ``ready`` of ``total`` servers take connections."""

    status: Phase
    mode: str
    ready: int
    total: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is now. ``limits`` has the configured bounds of some of these numbers."""

    client_sessions: int
    upstream_sessions: Mapping[str, int]
    in_flight: int
    waiters: int
    exchanges_parked: int
    tasks: Mapping[str, int]
    streams: Mapping[str, int]
    limits: Mapping[str, int]


class ChurnSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Counts by minute of the last hour, the running minute last.

    ``clients_began`` and ``clients_ended`` are sessions of clients (their initialize, their DELETE),
    ``upstream_opened``, ``upstream_closed`` and ``upstream_lost`` sessions at the server; ``failures`` are
    requests and handshakes that failed.
    """

    clients_began: Sequence[int]
    clients_ended: Sequence[int]
    upstream_opened: Sequence[int]
    upstream_closed: Sequence[int]
    upstream_lost: Sequence[int]
    failures: Sequence[int]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the proxy does. ``changes`` says who may change something: open, token or refused.

    ``traffic`` is that of the last minute, ``troubles`` are those of the last hour, ``tokens`` says how
    callers' tokens count.
    """

    version: str
    started: datetime
    uptime_seconds: float
    phase: Phase
    paused: bool
    changes: Changes
    sharing: Sharing
    state: StateView
    replicas: Sequence[ReplicaView]
    totals: Totals
    churn: ChurnSeries
    traffic: Traffic
    troubles: Sequence[Trouble]
    tokens: TokensView


class SessionTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions there are, shown or not."""

    upstream_sessions: int
    client_sessions: int


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """The newest sessions of both kinds, newest first."""

    sharing: Sharing
    totals: SessionTotals
    upstream_sessions: Sequence[UpstreamSessionView]
    client_sessions: Sequence[ClientSessionView]


class ChildrenNow(msgspec.Struct, frozen=True, kw_only=True):
    """The newest processes of a server that is a command, newest first; ``total`` counts the others, too."""

    total: int
    children: Sequence[ChildView]


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Recent events, oldest first. ``newest`` is the highest id so far, to ask for what comes after it."""

    newest: int
    events: Sequence[Entry]


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are held back now."""

    paused: bool


class Reconnected(msgspec.Struct, frozen=True, kw_only=True):
    """How many upstream sessions are replaced, each when nobody holds it."""

    sessions: int


class Draining(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy ends when the requests in flight are finished."""

    exchanges: int


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """The tag of the upstream session that was closed."""

    session: str


class WentRound(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an action at each proxy on the store. ``done``: at all of them, or, of a session, at the
    one that had it.
    """

    action: str
    done: bool
    members: Sequence[MemberActed]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused: a stable word and, where there is more to say, a sentence."""

    error: str
    message: str | None = None
