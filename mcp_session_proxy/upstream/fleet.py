"""The servers behind us: equal replicas, each with its own transport, monitor and circuit breaker.

A session lives on one replica. New ones go to the replica with the fewest sessions among the healthy
ones, and a session whose replica is gone is re-opened on another; so a stateful server scales out
without anybody pinning clients to it.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from yarl import URL

from .. import events
from ..errors import Fault, HandshakeRefused, ProxyError, UpstreamDown, UpstreamRejected, UpstreamUnreachable
from ..events import Observer
from ..protocol.revisions import UpstreamEra
from .breaker import Breakers
from .era import EraProbe, Finding
from .handshake import Versions
from .monitor import Monitor, Probe
from .transport import Channel, Transport

_RETRY_AFTER_SECONDS: Final = 2


class Tenant(Protocol):
    """A session that lives on a replica."""

    @property
    def principal(self) -> str:
        """Whose it is."""
        ...

    @property
    def channel(self) -> Channel:
        """What the last handshake opened."""
        ...


class Condition(StrEnum):
    """How a server does."""

    UNKNOWN = "unknown"  # nobody has looked yet
    UP = "up"
    DOWN = "down"  # it takes no connections
    BREAKER_OPEN = "breaker-open"  # it takes connections but keeps failing handshakes


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How one server is reached.

    ``name`` stands for it in events and pages, so there is no credential in it. ``url`` is that of its MCP
    endpoint; None where that has none, and nothing can be passed through to it.
    """

    name: str
    transport: Transport
    probe: Probe
    url: URL | None = None


class Replica:
    """One server, and how it does.

    ``rules`` is what the operator knows of its era, and may be replaced at any time. A server without a URL
    can be passed no request as it came, so whatever is said of it, modern ones are translated.
    """

    def __init__(
        self,
        server: Server,
        breakers: Breakers,
        observe: Observer,
        rules: UpstreamEra = UpstreamEra.AUTO,
    ) -> None:
        self.name = server.name
        self.url = server.url
        self.transport = transport = server.transport
        self.breakers = breakers
        self.sessions: set[Tenant] = set()
        self.era = EraProbe(transport, rules, keeps_sessions=self._keeps_sessions, tell=self._tell_era)
        self.versions = Versions()
        self.monitor = Monitor(server.name, server.probe, self._forget, observe)
        self._observe = observe
        self.rules = rules

    @property
    def rules(self) -> UpstreamEra:
        """The operator's choice."""
        return self.era.rules

    @rules.setter
    def rules(self, rules: UpstreamEra) -> None:
        self.era.rules = UpstreamEra.LEGACY if self.url is None else rules

    def _forget(self) -> None:
        """It was away: what comes back may be another one."""
        self.era.forget()
        self.versions.forget()

    def _keeps_sessions(self) -> bool:
        return any(tenant.channel.session_id is not None for tenant in self.sessions)

    def _tell_era(self, finding: Finding) -> None:
        self._observe(
            events.EraFound(
                upstream=self.name,
                modern=finding.modern,
                stateful=finding.stateful,
                modern_requests="passed" if finding.passes else "translated",
            )
        )

    def condition(self, now: float) -> Condition:
        """How it does, by the monitor and the breaker. ``now`` is the event loop's time."""
        if self.monitor.up is None:
            return Condition.UNKNOWN
        if not self.monitor.up:
            return Condition.DOWN
        return Condition.BREAKER_OPEN if self.breakers.shown(now).is_open(now) else Condition.UP

    def __repr__(self) -> str:
        return f"<Replica {self.name} up={self.monitor.up} sessions={len(self.sessions)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRules:
    """For how long somebody may wait for servers that have all been down."""

    patience_seconds: float


class Fleet:
    """All replicas. Implements ``session.Placement``.

    While every replica has been down for longer than the ``rules`` say, which may be replaced at any time,
    sessions are refused at once.
    """

    def __init__(self, replicas: Sequence[Replica], rules: FleetRules) -> None:
        self.replicas = tuple(replicas)
        self.rules = rules
        self._homes: dict[Tenant, Replica] = {}
        # Handshakes under way. Each owes its replica's breaker an outcome, even if its session has left.
        self._trying: dict[Tenant, Replica] = {}

    @property
    def ready(self) -> int:
        """How many replicas take connections."""
        return sum(replica.monitor.up is True for replica in self.replicas)

    @property
    def known(self) -> bool:
        """Whether every replica was looked at."""
        return all(replica.monitor.up is not None for replica in self.replicas)

    def best(self) -> Replica:
        """The replica for what belongs to no session: the first one that is not known to be down."""
        up = (replica for replica in self.replicas if replica.monitor.up is not False)
        return next(up, self.replicas[0])

    # -- placing sessions --------------------------------------------------------------------------

    def place(self, tenant: Tenant) -> Transport:
        """Choose the replica for a handshake that begins now.

        Raises:
            UpstreamDown: there is no hope for any at this moment.
        """
        now = asyncio.get_running_loop().time()
        principal = tenant.principal
        open_to = [replica for replica in self.replicas if not replica.breakers.is_open(now, principal)]
        if not open_to:
            raise self._broken(now, principal)
        if all(replica.monitor.hangs for replica in self.replicas):
            self.check_hope()  # not even a refusal would come soon
        up = [replica for replica in open_to if replica.monitor.up is not False]
        chosen = min(up or open_to, key=lambda replica: len(replica.sessions))
        self.left(tenant)
        self._homes[tenant] = chosen
        chosen.sessions.add(tenant)
        self._trying[tenant] = chosen
        chosen.breakers.begin(now, principal)
        return chosen.transport

    def versions(self, tenant: Tenant) -> Versions:
        """What is known of the versions that the session's server takes."""
        return self._homes[tenant].versions

    def _broken(self, now: float, principal: str) -> UpstreamDown:
        breakers = [replica.breakers.first_to_close(now, principal) for replica in self.replicas]
        first = min(breakers, key=lambda breaker: breaker.retry_after_seconds(now))
        error = first.last_error
        reason = "" if error is None else f" ({error.reason})"
        return UpstreamDown(
            f"The MCP server keeps failing handshakes{reason} and is left alone for a moment.",
            retry_after_seconds=max(1, math.ceil(first.retry_after_seconds(now))),
        )

    def check_up(self) -> None:
        """Say it when no replica takes connections at this moment.

        Raises:
            UpstreamDown: none does.
        """
        if all(replica.monitor.up is False for replica in self.replicas):
            raise UpstreamDown(
                "The MCP server takes no connections. Is it running, and is its address right?",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    def check_hope(self) -> None:
        """Do not let anybody wait any longer for servers that have been away for long. Trying once is cheap.

        Raises:
            UpstreamDown: all of them have.
        """
        now = asyncio.get_running_loop().time()
        for replica in self.replicas:
            since = replica.monitor.down_since
            if since is None or now - since < self.rules.patience_seconds:
                return
        raise UpstreamDown(
            "The MCP server has been unreachable for a while. Is it running, and is its address right?",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )

    def is_anothers(self, tenant: Tenant) -> bool:
        """Whether the tenant's server has given its session's id to another principal, too."""
        home, identifier = self._homes.get(tenant), tenant.channel.session_id
        if home is None or identifier is None:
            return False
        return any(
            other.channel.session_id == identifier and other.principal != tenant.principal
            for other in home.sessions
        )

    def opened(self, tenant: Tenant) -> None:
        """The handshake succeeded."""
        if (replica := self._trying.pop(tenant, None)) is not None:
            replica.breakers.succeeded(tenant.principal)
            replica.era.note_handshake(gave_id=tenant.channel.session_id is not None)

    def failed(self, tenant: Tenant, error: ProxyError | None) -> None:
        """The handshake failed, or was given up (None)."""
        replica = self._trying.pop(tenant, None)
        self.left(tenant)
        if replica is None:
            return
        if error is None or _says_nothing_of_health(error):
            replica.breakers.undecided(tenant.principal)
        else:
            replica.breakers.failed(error, asyncio.get_running_loop().time(), tenant.principal)

    def left(self, tenant: Tenant) -> None:
        """The session is closed, or goes elsewhere."""
        replica = self._homes.pop(tenant, None)
        if replica is not None:
            replica.sessions.discard(tenant)

    def home(self, tenant: Tenant) -> Replica | None:
        """The replica that the session lives on, or is being opened on."""
        return self._homes.get(tenant)

    def can_move(self, tenant: Tenant) -> bool:
        """Whether the session's replica is down and another one is not."""
        home = self._homes.get(tenant)
        if home is None or home.monitor.up is not False:
            return False
        return any(replica.monitor.up for replica in self.replicas)

    def suspect(self, tenant: Tenant) -> None:
        """A connection to the session's replica was refused: look at it now, and not only in a while."""
        if (replica := self._homes.get(tenant)) is not None:
            replica.monitor.look_now()


def _says_nothing_of_health(error: ProxyError) -> bool:
    """Whether another caller's handshake may well succeed: one caller must never shut out the others.

    So an answer to the request counts for nothing here even where ``fault`` takes it for the server's.
    """
    if error.fault is not Fault.UPSTREAM or isinstance(error, UpstreamUnreachable | HandshakeRefused):
        return True
    return isinstance(error, UpstreamRejected) and not error.is_failure
