"""What can be asked of the running proxy: for the admin listener and the metrics."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from ..downstream.endpoint import Endpoint
from ..exchange.listening import Listening
from ..exchange.parking import Parking
from ..exchange.tasks import Handles
from ..memory import Memory
from ..sessions.acceptance import TokenOutcome
from ..sessions.accepting import Acceptances
from ..sessions.binding import Binder
from ..sessions.books import Slot
from ..sessions.client import ClientSession
from ..sessions.modes import TokenIdentity
from ..upstream.fleet import Fleet, Replica
from ..upstream.session import UpstreamSession
from ..upstream.stdio.children import ChildNow
from ..upstream.stdio.transport import Stdio
from ..upstream.transport import Channel
from .introspection import (
    ALONE,
    IN_MEMORY,
    ChildView,
    ClientSessionView,
    ClusterView,
    Gauges,
    Phase,
    Readiness,
    ReplicaView,
    StateView,
    TokensView,
    UpstreamSessionView,
)

_SHOWN_ISSUERS: Final = 20
_MAX_ISSUER_CHARS: Final = 200
# Of what a child has written to standard error.
_SHOWN_LINES: Final = 3
_MAX_LINE_CHARS: Final = 200


class Snapshot:
    """Reads the state of the core; changes nothing.

    Each answer is taken in one synchronous step, so that it is consistent in itself.
    """

    def __init__(
        self,
        *,
        binder: Binder,
        endpoint: Endpoint,
        parking: Parking,
        tasks: Handles,
        listening: Listening,
        fleet: Fleet,
        memory: Memory,
        acceptances: Acceptances,
        token_identity: TokenIdentity,
        limits: Callable[[], Mapping[str, int]],
        command: Stdio | None = None,
        state: Callable[[], StateView] = lambda: IN_MEMORY,
        cluster: Callable[[], ClusterView] = lambda: ALONE,
    ) -> None:
        self._limits = limits
        self._command = command
        self._state = state
        self._cluster = cluster
        self._binder = binder
        self._endpoint = endpoint
        self._parking = parking
        self._tasks = tasks
        self._listening = listening
        self._fleet = fleet
        self._memory = memory
        self._acceptances = acceptances
        self._token_identity = token_identity

    @property
    def paused(self) -> bool:
        """Whether an operator holds back all requests."""
        return self._binder.pool.queue.paused

    @property
    def in_flight(self) -> int:
        """How many requests are under way at the server for a client that waits."""
        return len(self._endpoint.exchanges())

    def readiness(self) -> Readiness:
        """Whether work can be taken now."""
        ready, total = self._fleet.ready, len(self._fleet.replicas)
        if self._endpoint.draining or self._cluster().draining:
            phase = Phase.DRAINING
        elif ready:
            phase = Phase.READY
        else:
            phase = Phase.UPSTREAM_DOWN if self._fleet.known else Phase.STARTING
        return Readiness(phase=phase, ready=ready, total=total)

    def replicas(self) -> Sequence[ReplicaView]:
        """The servers, in the order of the configuration."""
        now = asyncio.get_running_loop().time()
        return [_view_replica(replica, now) for replica in self._fleet.replicas]

    def upstream_sessions(self, limit: int | None = None) -> Sequence[UpstreamSessionView]:
        """The newest upstream sessions, newest first; all of them without a limit."""
        now = asyncio.get_running_loop().time()
        parked = Counter(self._parking.sessions())
        slots = self._binder.pool.books.slots()
        views = []
        for slot in sorted(slots, key=lambda slot: slot.born, reverse=True)[:limit]:
            session = slot.session
            server, condition = self._server_of(session, now)
            views.append(
                UpstreamSessionView(
                    session=session.tag,
                    principal=slot.key.principal_tag,
                    affinity=slot.key.affinity is not None,
                    state=slot.state.value,
                    protocol_version=session.version,
                    client_name=session.record.client_name,
                    age_seconds=now - session.born,
                    idle_seconds=max(0.0, now - (session.record.last_used or session.born)),
                    requests=session.requests,
                    in_flight=session.in_flight,
                    parked=parked[session],
                    attached=slot.leases,
                    stream=session.streaming,
                    server=server,
                    server_condition=condition,
                )
            )
        return views

    def client_sessions(self, limit: int | None = None) -> Sequence[ClientSessionView]:
        """The newest client sessions, newest first; all of them without a limit."""
        now = asyncio.get_running_loop().time()
        # There may be very many of them: none is looked at that is not shown.
        newest = islice(self._binder.directory.newest_first(), limit)
        return [self._view_client(client, now) for client in newest]

    @property
    def child_count(self) -> int:
        """How many processes of a server that is a command there are."""
        return 0 if self._command is None else len(self._command.children)

    def children(self, limit: int | None = None) -> Sequence[ChildView]:
        """The newest processes of a server that is a command, newest first; all of them without a limit."""
        if self._command is None:
            return []
        slots = {
            residence.channel: slot
            for slot in self._binder.pool.books.slots()
            if (residence := slot.session.residence) is not None
        }
        newest = self._command.children.newest_first(limit)
        return [_view_child(each, slots) for each in newest]

    def _server_of(self, session: UpstreamSession, now: float) -> tuple[str | None, str | None]:
        """The origin of the server that a session lives on, and how that one does."""
        home = None if session.residence is None else session.residence.replica
        return (None, None) if home is None else (home.name, home.condition(now).value)

    def _view_client(self, client: ClientSession, now: float) -> ClientSessionView:
        server, condition = (None, None) if client.home is None else self._server_of(client.home.session, now)
        return ClientSessionView(
            client=client.tag,
            principal=client.principal.tag,
            affinity=client.key.affinity is not None,
            origin="adopted" if client.record.adopted else "minted",
            attached=client.lease is not None,
            upstream=None if client.home is None else client.home.session.tag,
            age_seconds=now - client.record.created,
            idle_seconds=0.0 if client.busy else now - client.record.last_used,
            requests=client.record.requests,
            in_flight=client.in_flight,
            parked=client.open_questions,
            server=server,
            server_condition=condition,
        )

    def tokens(self) -> TokensView:
        """How callers' tokens count."""
        acceptances = self._acceptances
        judged, known = acceptances.judged, acceptances.known
        return TokensView(
            identity=self._token_identity,
            accepted=judged[TokenOutcome.ACCEPTED],
            refused=judged[TokenOutcome.REFUSED],
            not_believed=judged[TokenOutcome.NOT_BELIEVED],
            believed=known.believed,
            callers=known.callers,
            asking=acceptances.asking,
            # They are whatever a token says.
            unchecked_issuers=[
                issuer[:_MAX_ISSUER_CHARS] for issuer in islice(known.unchecked_issuers, _SHOWN_ISSUERS)
            ],
        )

    def cluster(self) -> ClusterView:
        """This proxy among those on the same store."""
        return self._cluster()

    def gauges(self) -> Gauges:
        """The numbers for a scrape; must be cheap."""
        now = asyncio.get_running_loop().time()
        sessions = [slot.session for slot in self._binder.pool.books.slots()]
        return Gauges(
            phase=self.readiness().phase,
            upstreams=Counter(replica.condition(now).value for replica in self._fleet.replicas),
            limits=self._limits(),
            client_sessions=len(self._binder.directory),
            upstream_sessions=self._binder.pool.books.count_states(),
            upstream_session_age_seconds=[now - session.born for session in sessions],
            waiters=len(self._binder.pool.queue),
            exchanges_parked=len(self._parking),
            tasks=self._tasks.count_by_status(),
            streams={
                "client": self._endpoint.streams,
                "listen": len(self._listening),
                "upstream": sum(session.streaming for session in sessions),
            },
            children=self.child_count,
            state=self._state(),
            cluster=self._cluster(),
            memory_bytes={kind: share.used_bytes for kind, share in self._memory.shares.items()},
            memory_limit_bytes={kind: share.max_bytes for kind, share in self._memory.shares.items()},
        )


def _view_replica(replica: Replica, now: float) -> ReplicaView:
    monitor, breaker, finding = replica.monitor, replica.breakers.shown(now), replica.era.finding
    error = breaker.last_error
    return ReplicaView(
        upstream=replica.name,
        condition=replica.condition(now).value,
        down_seconds=None if monitor.down_since is None else now - monitor.down_since,
        breaker=breaker.state,
        last_error=None if error is None else error.reason,
        modern=None if finding is None else finding.modern,
        modern_requests={True: "passed", False: "translated", None: "unknown"}[replica.era.passes()],
        sessions=len(replica.residences),
        retry_after_seconds=breaker.retry_after_seconds(now) if breaker.is_open(now) else None,
    )


def _view_child(now: ChildNow, slots: Mapping[Channel | None, Slot[UpstreamSession]]) -> ChildView:
    child, channel = now.child, now.child.carries
    slot = None if channel is None else slots.get(channel)
    return ChildView(
        pid=child.pid,
        state="leaving" if now.leaving else "serving" if child.answered else "starting",
        session=None if slot is None else slot.session.tag,
        principal=None if slot is None else slot.key.principal_tag,
        age_seconds=now.age_seconds,
        requests=0 if slot is None else slot.session.requests,
        attached=0 if slot is None else slot.leases,
        strays=0 if channel is None else channel.strays,
        said=[line[:_MAX_LINE_CHARS] for line in now.said[-_SHOWN_LINES:]],
    )
