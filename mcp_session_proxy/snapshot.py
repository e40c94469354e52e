"""What the running proxy shows of itself: implements ``introspection.Introspection``."""

import asyncio
from collections.abc import Sequence
from typing import cast

from .downstream.endpoint import Endpoint
from .exchange.listening import Listening
from .exchange.parking import Parking
from .introspection import ClientSessionView, Gauges, Phase, Readiness, UpstreamSessionView
from .sessions.binding import Binder
from .sessions.directory import ClientSession
from .upstream.fleet import Fleet
from .upstream.session import UpstreamSession


class Snapshot:
    """Reads the state of the core; changes nothing."""

    def __init__(
        self,
        *,
        binder: Binder,
        endpoint: Endpoint,
        parking: Parking,
        listening: Listening,
        fleet: Fleet,
    ) -> None:
        self._binder = binder
        self._endpoint = endpoint
        self._parking = parking
        self._listening = listening
        self._fleet = fleet

    def readiness(self) -> Readiness:
        """Whether work can be taken now."""
        ready, total = self._fleet.ready, len(self._fleet.replicas)
        if self._endpoint.draining:
            phase = Phase.DRAINING
        elif ready:
            phase = Phase.READY
        else:
            phase = Phase.UPSTREAM_DOWN if self._fleet.known else Phase.STARTING
        return Readiness(phase=phase, ready=ready, total=total)

    def upstream_sessions(self) -> Sequence[UpstreamSessionView]:
        """All upstream sessions."""
        now = asyncio.get_running_loop().time()
        views = []
        for slot in self._binder.pool.books.slots():
            session = cast(UpstreamSession, slot.session)
            views.append(
                UpstreamSessionView(
                    session=session.tag,
                    principal=slot.key.principal_tag,
                    affinity=slot.key.affinity is not None,
                    state=slot.state.value,
                    protocol_version=session.ref.version,
                    client_name=session.client_name,
                    age_seconds=now - session.born,
                    idle_seconds=max(0.0, now - (session.last_used or session.born)),
                    requests=session.requests,
                    in_flight=len(session.calls),
                    attached=slot.leases,
                    stream=session.streaming,
                )
            )
        return views

    def client_sessions(self) -> Sequence[ClientSessionView]:
        """All client sessions."""
        now = asyncio.get_running_loop().time()
        return [self._view(client, now) for client in self._binder.directory]

    @staticmethod
    def _view(client: ClientSession, now: float) -> ClientSessionView:
        return ClientSessionView(
            client=client.tag,
            principal=client.principal.tag,
            affinity=client.key.affinity is not None,
            origin="adopted" if client.adopted else "minted",
            attached=client.lease is not None,
            upstream=None if client.home is None else client.home.session.tag,
            age_seconds=now - client.created,
            idle_seconds=0.0 if client.busy else now - client.last_used,
            requests=client.requests,
            in_flight=client.in_flight,
        )

    def gauges(self) -> Gauges:
        """The numbers for a scrape."""
        now = asyncio.get_running_loop().time()
        sessions = [cast(UpstreamSession, slot.session) for slot in self._binder.pool.books.slots()]
        return Gauges(
            client_sessions=len(self._binder.directory),
            upstream_sessions=self._binder.pool.count_states(),
            upstream_session_age_seconds=[now - session.born for session in sessions],
            waiters=self._binder.pool.waiting,
            exchanges_parked=len(self._parking),
            streams={
                "client": self._endpoint.streams,
                "listen": len(self._listening),
                "upstream": sum(session.streaming for session in sessions),
            },
        )
