"""What the proxy shows of itself: snapshots without secrets, for the admin listener and the metrics.

Everything here is plain data, taken in one synchronous step, so a snapshot is always consistent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Phase(StrEnum):
    """Whether the proxy can take work. Only ``ready`` answers 200 on ``/readyz``."""

    STARTING = "starting"
    READY = "ready"
    UPSTREAM_DOWN = "upstream-down"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """``ready`` of ``total`` upstream servers answer."""

    phase: Phase
    ready: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSessionView:
    """One upstream session. Tags are short and opaque; ages are in seconds."""

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
    attached: int
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSessionView:
    """One client session."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Numbers that go up and down, read at scrape time."""

    client_sessions: int
    upstream_sessions: Mapping[str, int]
    upstream_session_age_seconds: Sequence[float]
    waiters: int
    exchanges_parked: int
    streams: Mapping[str, int]


class Introspection(Protocol):
    """Whatever can be asked; the running proxy implements it."""

    def readiness(self) -> Readiness:
        """Whether work can be taken now."""
        ...

    def upstream_sessions(self) -> Sequence[UpstreamSessionView]:
        """All upstream sessions."""
        ...

    def client_sessions(self) -> Sequence[ClientSessionView]:
        """All client sessions."""
        ...

    def gauges(self) -> Gauges:
        """The numbers for a scrape; must be cheap."""
        ...
