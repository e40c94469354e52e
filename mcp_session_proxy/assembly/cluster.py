"""This process as a member of those that share a store: its parts, joined and run."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from .. import events
from ..aio import Tasks, all_of
from ..cluster.card import Card, roughly
from ..cluster.lease import LeaseAnswer, Served, left_by, owner_by, served_by
from ..cluster.members import Members
from ..cluster.merging import LeftRecords, Merging, read_records, write_records
from ..cluster.outcomes import PeerFailure, PeerRefused
from ..cluster.peers import Peers
from ..cluster.questions import answer as answer_lease
from ..cluster.reserving import Reservation
from ..cluster.routing import Routing
from ..cluster.shards import Shards
from ..cluster.takeover import CoreContents, Principals
from ..downstream.peer_door import Answer, Serve
from ..events import Observer
from ..exchange.handles import Handle
from ..exchange.stored_handles import describe
from ..ops.introspection import ClusterView, MemberView
from ..sessions.ledger import SessionLedger
from ..sessions.restoring import Restorer
from ..sessions.store_trouble import StoreTrouble
from ..sessions.stored_tasks import TASK
from ..settings.config import Settings
from ..settings.tls import Contexts
from ..store.engine import RecordPlace, StoredMember, StoreFailure
from ..store.membership import Membership
from ..store.sealing import Keys
from . import rules
from .core import Core
from .in_force import InForce
from .peer_listener import PeerListener, remove_socket

# How often members are asked who has a shard, if some do not answer.
_ASKED_TIMES: Final = 3
# The time between two looks for shards that can be handed over, while this member parts.
_LOOK_SECONDS: Final = 0.02
# The time between two checks that the store and the sockets are where others look for them.
_LOOK_AFTER_SECONDS: Final = 1.0
# How many shards are let go of together: that costs a store less than one after the other.
_AT_ONCE: Final = 32
# Where other members send the records of shards that they have lost.
_LEFT_PATH: Final = "/peer/records"
_OK: Final = 200
_NOT_HERE: Final = 409

T = TypeVar("T")


class Cluster:
    """This process as a member: the shards that it serves, and the connections to other members.

    ``directory`` has the sockets of members on this machine; None if the store has no directory. ``card``
    gives this member's card without what is known only here. ``clock`` gives seconds since 1970, in which
    times are stored.
    """

    def __init__(
        self,
        in_force: InForce,
        core: Core,
        *,
        membership: Membership,
        keys: Keys,
        card: Callable[[], Card],
        clock: Callable[[], float],
        is_gone: Callable[[StoredMember], bool],
        directory: Path | None,
        tls: Contexts,
        observe: Observer,
    ) -> None:
        settings = in_force.settings
        self.principals = Principals()
        self.ledger = SessionLedger(
            membership,
            keys,
            books=core.pool.books,
            directory=core.binder.directory,
            ttl_seconds=lambda: rules.cluster_rules(in_force.settings).ttl_seconds,
            observe=observe,
            shard_of=self.principals.shard_of,
            clock=clock,
        )
        restorer = Restorer(
            binder=core.binder,
            make=core.opener.make,
            keys=keys,
            profile_of=core.profiles.of_initialize,
            room=core.memory.subscriptions,
            note_claim=core.acceptances.remember,
            note_principal=self.principals.note,
            drop=self.ledger.note,
            observe=observe,
            readmit_task=core.tasks.readmit,
            clock=clock,
        )
        self.contents = CoreContents(
            binder=core.binder,
            parking=core.parking,
            handles=core.tasks,
            listening=core.listening,
            early=core.early,
            ledger=self.ledger,
            restorer=restorer,
            principals=self.principals,
        )
        self.digest = digest_of(settings)
        self.members = Members(
            membership, is_gone=is_gone, on_buried=self._clear_away, digest=self.digest, observe=observe
        )
        self.peers = Peers(membership.member, [keys.peer], tls=tls.peers)
        self.members.on_change.append(self.peers.keep)
        self.shards = in_force.build(
            rules.cluster_rules,
            lambda cluster_rules: Shards(
                membership,
                self.members,
                self.contents,
                rules=cluster_rules,
                observe=observe,
                lease_left=self._lease_left,
                who_has=self._who_has,
                who_serves=self._who_serves,
            ),
        )
        self.reservation = in_force.build(
            rules.pool_limits,
            lambda limits: Reservation(limits, pool=core.pool, membership=membership, members=self.members),
        )
        self.merging = Merging(self.shards, self._send_left)
        self.routing = Routing(self.shards, observe)
        self._in_force = in_force
        self._core = core
        self._own_card = card
        self._membership = membership
        self._directory = directory
        self._tls = tls
        self._observe = observe
        self._listener: PeerListener | None = None
        self._tasks = Tasks()
        self._wire(core)

    def _wire(self, core: Core) -> None:
        """Have the ledger note what becomes of sessions and tasks."""
        ledger, binder = self.ledger, core.binder
        core.pool.on_added.append(ledger.note_session)
        core.pool.on_removed.append(ledger.drop_session)
        binder.on_arrival.append(ledger.note_client)
        binder.on_departure.append(ledger.drop_client)
        binder.attachments.on_attached.append(ledger.attached)
        binder.attachments.on_detached.append(ledger.note_client)
        core.acceptances.on_found.append(ledger.note_claim)
        core.delivery.on_change.append(ledger.note_client)
        core.delivery.on_said.append(ledger.note_said)
        core.parking.on_parked.append(ledger.note_upstream)
        core.tasks.note, core.tasks.written = self._note_task, ledger.flush
        ledger.on_emptied.append(self._look_soon)

    def _note_task(self, principal: str, identifier: str, handle: Handle | None) -> None:
        data = None if handle is None else describe(handle, self.ledger.clock())
        place = RecordPlace(TASK, self.ledger.keys.name_of(identifier))
        self.ledger.note(self.principals.shard_of(principal), place, data)

    def _look_soon(self, shard: str) -> None:
        self._tasks.spawn(self._look_at(shard), "look at shard")

    async def _look_at(self, shard: str) -> None:
        with contextlib.suppress(StoreFailure):
            await self.shards.look_at(shard)

    def _clear_away(self, member: str) -> None:
        if self._directory is not None:
            remove_socket(self._directory, member)

    # -- the beginning -----------------------------------------------------------------------------

    async def open(self, handle: Serve, questions: Mapping[str, Answer]) -> None:
        """Let other members connect, send on what clients have sent (``handle``), and ask ``questions``.

        Raises:
            CannotListen: they cannot connect.
        """
        self._listener = await PeerListener.open(
            self._in_force,
            member=self._membership.member,
            keys=[self.ledger.keys.peer],
            handle=handle,
            on_lease=partial(answer_lease, self.shards),
            questions={_LEFT_PATH: self._take_left, **questions},
            knows=self.members.knows,
            heads=self._core.memory.heads,
            observe=self._observe,
            directory=self._directory,
            tls=self._tls.peer_listener,
        )
        with contextlib.suppress(StoreFailure):
            await self._membership.beat()  # with the addresses
            await self.members.look()
            # A member that is asked by one that it does not know learns of it, and leaves it its part.
            await self._lease_left()
            await self.reservation.renew()

    async def take_all(self) -> None:
        """Take all shards that have no owner. Raises StoreFailure: some were not taken."""
        for stored in await self._membership.shards():
            if stored.owner is None:
                await self.shards.find(stored.shard)

    @property
    def servers(self) -> frozenset[str]:
        """The names of the servers behind this member."""
        return frozenset(replica.name for replica in self._core.fleet.replicas)

    async def _look_after(self, look_after_store: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_AFTER_SECONDS)
            try:
                await look_after_store()
                if self._listener is not None:
                    await self._listener.look_after()
            except Exception as error:
                self._observe(events.Crashed(where="store", error=repr(error)))

    def begin(self, look_after_store: Callable[[], Awaitable[None]]) -> None:
        """Begin to beat, to write, to reserve, and to check the store and the sockets."""
        self._tasks.spawn(self.shards.keep(), "beat")
        self._tasks.spawn(self.ledger.keep_up(), "ledger")
        self._tasks.spawn(self.reservation.keep(), "reservation")
        self._tasks.spawn(self._look_after(look_after_store), "look after")

    def complete(self, card: Card) -> Card:
        """A card with what this member tells of itself now."""
        return msgspec.structs.replace(
            card,
            addresses=[] if self._listener is None else self._listener.addresses,
            servers=sorted(self.servers),
            digest=self.digest,
            draining=self.shards.draining,
            shards=roughly(len(self.shards.held)),
        )

    def view(self) -> ClusterView:
        """What operators see of the members, and of what is here."""
        membership, shards = self._membership, self.shards
        own = self.complete(self._own_card())
        return ClusterView(
            member=membership.member,
            sure=membership.is_sure,
            draining=shards.draining,
            shards=len(shards.held),
            provisional=shards.provisional,
            fenced=membership.fenced,
            waiting=self.routing.waiting,
            members=[_view(card, self.ledger.clock(), here=card is own) for card in (own, *self.members)],
        )

    # -- what members ask each other ------------------------------------------------------------------

    async def _ask_each(
        self, question: Callable[[Card], Awaitable[T]], cards: Iterable[Card] | None = None
    ) -> list[tuple[str, T | PeerFailure]]:
        """Ask each of the other members, or those with these ``cards``; gives each answer or failure."""

        async def ask(card: Card) -> tuple[str, T | PeerFailure]:
            try:
                return card.member, await question(card)
            except PeerFailure as failure:
                return card.member, failure

        return list(await asyncio.gather(*map(ask, self.members if cards is None else cards)))

    async def ask_all(self, start: bytes, body: bytes) -> list[tuple[str, tuple[int, bytes] | PeerFailure]]:
        """Send the same request to each of the others; gives the status and body of each answer, or its
        failure.
        """
        with contextlib.suppress(StoreFailure):  # then those are asked that were there at the last look
            await self.members.look()
        return await self._ask_each(lambda card: self.peers.ask(card, start, body))

    async def _ask_about(
        self,
        member: str | None,
        shard: str | None,
        find: Callable[[Iterable[tuple[str, LeaseAnswer]]], str | None],
    ) -> list[tuple[str, LeaseAnswer]]:
        """What the others know of a member and of a shard, once all have answered, or ``find`` has found in
        their answers what is wanted. Who does not answer may only be busy, and is asked again, unless nobody
        listens there: a caller whom nobody seems to have begins anew.
        """
        answers: list[tuple[str, LeaseAnswer]] = []
        cards = {card.member: card for card in self.members}
        for _ in range(_ASKED_TIMES):
            said_by_each = await self._ask_each(
                lambda card: self.peers.ask_lease(card, member, shard), cards.values()
            )
            for other, said in said_by_each:
                if not isinstance(said, PeerFailure):
                    answers.append((other, said))
                elif not isinstance(said, PeerRefused):
                    continue
                del cards[other]
            if not cards or find(answers) is not None:
                break
        return answers

    async def _lease_left(self) -> float | None:
        member = self._membership.member
        answers = await self._ask_each(lambda card: self.peers.ask_lease(card, member, None))
        return left_by((other, said) for other, said in answers if not isinstance(said, PeerFailure))

    async def _who_has(self, shard: str) -> str | None:
        """Which other member has a shard, by its own word or by the store."""
        find = partial(owner_by, asker=self._membership.member)
        return find(await self._ask_about(self._membership.member, shard, find))

    async def _who_serves(self, shard: str) -> Served:
        """Which other member serves a shard. Nobody claims it for that."""
        return served_by(await self._ask_about(None, shard, lambda answers: served_by(answers).owner))

    async def _send_left(self, member: str, left: LeftRecords) -> bool:
        card = await self.members.card(member)
        if card is None:
            return False
        status, _ = await self.peers.ask(card, f"POST {_LEFT_PATH}".encode(), write_records(left))
        return status == _OK

    async def _take_left(self, _: web.BaseRequest, body: bytes) -> web.Response:
        left = read_records(body)
        try:
            taken = left is not None and await self.merging.take(left)
        except StoreFailure:
            taken = False
        return web.Response(status=_OK if taken else _NOT_HERE)

    # -- the end -----------------------------------------------------------------------------------

    async def part(self, patience_seconds: float) -> bool:
        """Hand over each shard when nothing of it is under way; gives False at once if there are no others.

        Requests that come meanwhile are served as long as their shard is here, and sent on afterwards.
        """
        shards, now = self.shards, asyncio.get_running_loop().time
        deadline = now() + patience_seconds
        try:
            if await self.members.anyone() is None:
                return False
            shards.draining = True
            await self._membership.beat()
        except StoreFailure as error:
            self._observe(events.StoreFailed(problem=str(error)))
            return shards.draining
        trouble, give_up_at = StoreTrouble(self._observe), deadline
        while (shards.held or self._membership.owes) and now() < give_up_at:
            self._core.listening.close()
            try:
                await self._let_go_of_the_quiet()
            except StoreFailure as error:
                if not trouble.lasts:
                    # A store that is away for longer than a lease is not waited for.
                    give_up_at = min(deadline, now() + self._membership.lease_seconds)
                trouble.begin(error)
            else:
                trouble.end()
                give_up_at = deadline
            await asyncio.sleep(max(_LOOK_SECONDS, trouble.pause_seconds))
        return True

    async def _let_go_of_the_quiet(self) -> None:
        """Hand over the shards of which nothing is under way. Raises StoreFailure: some were not."""
        shards = list(self.shards.held)
        for start in range(0, len(shards), _AT_ONCE):
            await all_of(self.shards.release(shard) for shard in shards[start : start + _AT_ONCE])
        await self._membership.settle_all()

    async def close(self) -> None:
        """Stop serving other members, beating and writing."""
        self.shards.close()
        self.merging.close()
        await self.contents.close()
        self._tasks.cancel()
        await self._tasks.ended()
        if self._listener is not None:
            await self._listener.close()
        self.peers.close()


def _view(card: Card, now: float, *, here: bool) -> MemberView:
    return MemberView(
        member=card.member,
        here=here,
        pid=card.pid,
        version=card.version,
        age_seconds=max(0.0, now - card.started),
        shards=card.shards,
        draining=card.draining,
        addresses=list(card.addresses),
    )


def digest_of(settings: Settings) -> str:
    """A digest of the options that tell callers apart, which have to be the same at all members."""
    said = [
        settings.endpoint_path,
        sorted(settings.credential_header),
        settings.credential_query,
        list(settings.affinity_header),
        list(settings.affinity_meta),
        settings.anonymous,
        settings.token_identity,
        list(settings.identity_claims),
    ]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()
