"""The servers behind us: equal replicas, each with its own transport, monitor and circuit breaker.

A session lives on one replica. New ones go to the replica with the fewest sessions among the healthy
ones, and a session whose replica is gone is re-opened on another; so a stateful server scales out
without anybody pinning clients to it.
"""

import asyncio
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec
from yarl import URL

from .. import events
from ..errors import (
    Fault,
    HandshakeRefused,
    ProxyError,
    SessionLost,
    UpstreamDown,
    UpstreamRejected,
    UpstreamUnreachable,
)
from ..events import Observer
from ..protocol.revisions import UpstreamEra
from .breaker import Breakers
from .era import EraProbe, Finding
from .handshake import Versions
from .issuers import CheckedIssuers
from .monitor import Monitor, Probe
from .transport import Channel, Transport

# The monitors look at what is down every half second, so by then more is known.
_RETRY_AFTER_SECONDS: Final = 2


class Condition(StrEnum):
    """How a server does."""

    UNKNOWN = "unknown"  # nobody has looked yet
    UP = "up"
    DOWN = "down"  # it takes no connections
    BREAKER_OPEN = "breaker-open"  # it takes connections but keeps failing handshakes


class Server(msgspec.Struct, frozen=True, kw_only=True):
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
        self.residences: set[Residence] = set()  # of the sessions that live here, or are being opened
        self.era = EraProbe(transport, rules, keeps_sessions=self._keeps_sessions, tell=self._tell_era)
        self.versions = Versions()
        self.checks = CheckedIssuers()
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
        self.checks.forget()

    def _keeps_sessions(self) -> bool:
        return any(residence.session_id is not None for residence in self.residences)

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
        return f"<Replica {self.name} up={self.monitor.up} sessions={len(self.residences)}>"


class Residence:
    """Where one incarnation of a session lives, or is being opened: from its handshake until it has left.

    The handshake owes the replica's breaker an outcome, ``opened`` or ``failed``, even if the session has
    left meanwhile.
    """

    __slots__ = ("_fleet", "_tried", "channel", "principal", "replica")

    def __init__(self, fleet: "Fleet", replica: Replica, principal: str, *, tried: bool) -> None:
        self._fleet = fleet
        self._tried = tried  # there is a handshake, and its outcome is owed
        self.replica = replica
        self.principal = principal
        self.channel: Channel | None = None  # once the server has opened a session on it
        replica.residences.add(self)

    @property
    def session_id(self) -> str | None:
        """What the server calls the session; None if it has no name for it, or there is none yet."""
        return None if self.channel is None else self.channel.session_id

    @property
    def is_anothers(self) -> bool:
        """Whether the server has given the session's id to another principal, too."""
        identifier = self.session_id
        return identifier is not None and any(
            other.session_id == identifier and other.principal != self.principal
            for other in self.replica.residences
        )

    def opened(self) -> None:
        """The handshake succeeded, which the breaker is told, and what is known of the server's era."""
        if self._tried:
            self._tried = False
            self.replica.breakers.succeeded(self.principal)
            self.replica.era.note_handshake(gave_id=self.session_id is not None)

    def failed(self, error: ProxyError | None) -> None:
        """The handshake failed, or was given up (None)."""
        self.leave()
        if not self._tried:
            return
        self._tried = False
        if error is None or _says_nothing_of_health(error):
            self.replica.breakers.undecided(self.principal)
        else:
            self.replica.breakers.failed(error, asyncio.get_running_loop().time(), self.principal)

    def opening_failed(self, error: BaseException, *, cut_short: bool = False) -> None:
        """What came in the way of a handshake, or ended it. ``cut_short``: whoever wanted it is gone.

        Raises:
            UpstreamDown: in place of that error, once all servers have been away for long.
        """
        # A handshake that was cut short says nothing of the server's health.
        self.failed(error if isinstance(error, ProxyError) and not cut_short else None)
        # Whoever waits has it tried again, which this ends.
        if isinstance(error, UpstreamUnreachable):
            self._fleet.check_worth_waiting()

    def leave(self) -> None:
        """The session is over here. A second call does nothing."""
        self.replica.residences.discard(self)

    @property
    def can_move(self) -> bool:
        """Whether the replica is down and another one is not."""
        if self not in self.replica.residences or self.replica.monitor.up is not False:
            return False
        return any(replica.monitor.up for replica in self._fleet.replicas)

    def suspect(self) -> None:
        """A connection to the replica was refused: look at it now, and not only in a while."""
        if self in self.replica.residences:
            self.replica.monitor.look_now()


class FleetRules(msgspec.Struct, frozen=True, kw_only=True):
    """For how long somebody may wait for servers that have all been down."""

    patience_seconds: float


class Fleet:
    """All replicas.

    While every replica has been down for longer than the ``rules`` say, which may be replaced at any time,
    sessions are refused at once.
    """

    def __init__(self, replicas: Sequence[Replica], rules: FleetRules) -> None:
        self.replicas = tuple(replicas)
        self.rules = rules

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

    def place(self, principal: str) -> Residence:
        """Choose the replica for a handshake that begins now.

        Raises:
            UpstreamDown: there is no hope for any at this moment.
        """
        now = asyncio.get_running_loop().time()
        open_to = [replica for replica in self.replicas if not replica.breakers.is_open(now, principal)]
        if not open_to:
            raise self._broken(now, principal)
        if all(replica.monitor.hangs for replica in self.replicas):
            self.check_worth_waiting()  # not even a refusal would come soon
        up = [replica for replica in open_to if replica.monitor.up is not False]
        # If all are down, one of them may just be coming back, and a refused connection is cheap. Sessions
        # that are being opened count, so that many that come at once are spread.
        chosen = min(up or open_to, key=lambda replica: len(replica.residences))
        chosen.breakers.begin(now, principal)
        return Residence(self, chosen, principal, tried=True)

    def settle(self, principal: str, name: str) -> Residence:
        """The residence of a session that lives on the replica of this name already.

        Raises:
            SessionLost: there is no such replica any more.
        """
        for replica in self.replicas:
            if replica.name == name:
                return Residence(self, replica, principal, tried=False)
        raise SessionLost("The MCP server that the session lives on is none of ours any more.")

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

    def check_worth_waiting(self) -> None:
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


def _says_nothing_of_health(error: ProxyError) -> bool:
    """Whether another caller's handshake may well succeed: one caller must never shut out the others.

    So an answer to the request counts for nothing here even where ``fault`` takes it for the server's.
    """
    if error.fault is not Fault.UPSTREAM or isinstance(error, UpstreamUnreachable | HandshakeRefused):
        return True
    return isinstance(error, UpstreamRejected) and not error.is_failure
