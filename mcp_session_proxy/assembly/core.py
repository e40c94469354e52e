"""The objects that serve a request once it has come in, from the servers to the exchanges."""

import random
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from .. import __version__
from ..downstream.in_flight import InFlight
from ..events import Observer
from ..exchange.attribution import Attribution
from ..exchange.catalog import Catalog
from ..exchange.delivery import Delivery
from ..exchange.early import EarlyStreams
from ..exchange.followed import Followed
from ..exchange.listening import Listening
from ..exchange.parking import Parking
from ..exchange.routing import Router
from ..exchange.tasks import Handles
from ..exchange.wishes import Wishes
from ..memory import Keeper, Memory
from ..sessions import upkeep
from ..sessions.accepting import Acceptances
from ..sessions.binding import Binder, hold
from ..sessions.books import Slot
from ..sessions.directory import Directory
from ..sessions.identity import Profile, SessionKey, sessionless_profile
from ..sessions.pool import Pool
from ..sessions.profiles import Profiles
from ..upstream.breaker import Breakers
from ..upstream.fleet import Fleet, Replica, Server
from ..upstream.record import KnownSession, SessionRules
from ..upstream.session import UpstreamSession
from ..upstream.trial import Trials
from . import rules
from .in_force import InForce

# The least part of the usual time between two pings. Each session has a part of its own, so that sessions
# that began together are not pinged together.
_LEAST_PART: Final = 0.85


class Core:
    """All of these objects, built in the order of the floors and joined to each other."""

    def __init__(
        self,
        in_force: InForce,
        *,
        memory: Memory,
        servers: Sequence[Server],
        observe: Observer,
        verify: Callable[[str], Awaitable[bool]] | None = None,
        parking: Callable[..., Parking] = Parking,
    ) -> None:
        self.memory = memory
        build = in_force.build
        replicas = [
            build(rules.upstream_era, partial(Replica, server, build(rules.breaker_rules, Breakers), observe))
            for server in servers
        ]
        self.fleet = build(rules.fleet_rules, partial(Fleet, replicas))
        self.opener = opener = build(
            rules.session_rules, partial(Opener, fleet=self.fleet, observe=observe, memory=self.memory)
        )
        self.pool = build(
            rules.pool_limits, lambda limits: Pool(connect=opener.make, rules=limits, observe=observe)
        )
        self.acceptances = build(
            rules.acceptance_rules,
            partial(
                Acceptances,
                trials=Trials(self.fleet, sessionless_profile(__version__).params),
                pool=self.pool,
                observe=observe,
                verify=verify,
            ),
        )
        self.in_flight = build(rules.exchange_limits, partial(InFlight, is_accepted=self.pool.books.has_open))
        self.profiles = Profiles(self.memory.profiles)
        directory = build(rules.directory_rules, Directory)
        self.binder = build(
            rules.binding_rules,
            lambda binding_rules: Binder(
                pool=self.pool,
                rules=binding_rules,
                sessionless=sessionless_profile(__version__),
                directory=directory,
                observe=observe,
                profile_of=self.profiles.of_initialize,
            ),
        )
        self.delivery = build(
            rules.event_rules,
            partial(Delivery, events=self.memory.events, questions=self.memory.questions),
        )
        self.early = EarlyStreams(binder=self.binder, delivery=self.delivery)
        self.attribution = Attribution()
        self.catalog = Catalog(observe, self.memory.lists)
        self.listening = Listening(observe, self.memory.events)
        self.parking = build(
            rules.parking_limits, lambda limits: parking(limits, observe, self.memory.questions)
        )
        followed = Followed(self.memory.questions)
        self.tasks = build(
            rules.task_rules,
            partial(
                Handles,
                observe=observe,
                followed=followed,
                results=self.memory.events,
                questions=self.memory.questions,
            ),
        )
        # Passes on what servers say of their own accord.
        opener.router = Router(
            delivery=self.delivery,
            attribution=self.attribution,
            catalog=self.catalog,
            listening=self.listening,
            followed=followed,
        )
        self.wishes = Wishes(
            binder=self.binder, listening=self.listening, observe=observe, room=self.memory.subscriptions
        )
        self._wire()

    def _wire(self) -> None:
        """Join lower floors to higher ones: who is told of what happens below, or asked from there."""
        binder, attachments = self.binder, self.binder.attachments
        binder.on_arrival.append(self.early.arrived)
        attachments.on_attached += [self.delivery.attached, self.wishes.attached]
        attachments.on_moved.append(self.delivery.moved)
        self.listening.wanted_elsewhere = self.wishes.wants
        self.tasks.hold = partial(hold, binder)

    def maintain(self) -> None:
        """Close and drop what has reached its time or its limit. To be called about once a second."""
        upkeep.maintain(self.pool)
        self.binder.maintain()
        self.delivery.maintain()
        self.catalog.keep_to_share()

    async def end(self, spared: Callable[[], Awaitable[frozenset[Slot[UpstreamSession]]]]) -> None:
        """End all that waits, and close every session, but for those that ``spared`` gives.

        ``spared`` is awaited when nothing is under way any more on any session.
        """
        self.parking.close()
        await self.tasks.part()
        self.tasks.close()
        self.acceptances.close()
        self.binder.end_streams()
        self.early.end()
        await self.pool.close(spared=await spared())


class Opener:
    """Makes upstream sessions. ``rules`` may be replaced at any time, also for sessions that were made.

    ``router`` has to be set before the first session is made. It cannot be an argument, because it is built
    of objects that are built with this one.
    """

    router: Router

    def __init__(self, rules: SessionRules, *, fleet: Fleet, observe: Observer, memory: Memory) -> None:
        self._rules = rules
        self._fleet = fleet
        self._observe = observe
        self._memory = memory
        self._results = Keeper(memory.profiles)
        self._made: weakref.WeakSet[UpstreamSession] = weakref.WeakSet()

    @property
    def rules(self) -> SessionRules:
        """What upstream sessions go by."""
        return self._rules

    @rules.setter
    def rules(self, rules: SessionRules) -> None:
        self._rules = rules
        for session in self._made:
            session.record.rules = rules

    def make(self, key: SessionKey, profile: Profile, known: KnownSession | None = None) -> UpstreamSession:
        """A session of this key that is not open yet. One that is ``known`` exists at its server already."""
        session = UpstreamSession(
            fleet=self._fleet,
            initialize_params=profile.params,
            version_is_free=profile.version_is_free,
            client_name=profile.client_name,
            principal=key.principal,
            principal_tag=key.principal_tag,
            router=self.router,
            observe=self._observe,
            rules=self._rules,
            keepalive_part=random.uniform(_LEAST_PART, 1.0),
            room_for_questions=self._memory.questions,
            room_for_subscriptions=self._memory.subscriptions,
            results=self._results,
            known=known,
        )
        self._made.add(session)
        return session
