"""Attaches client sessions to upstream sessions, hands those over, and detaches who has left.

What may happen when is in the table of ``attachment``; here it is carried out. Whoever changes something of a
client session (a stream ends, a word of its client comes) says ``look_at``, or, where that needs no looking,
what it means.
"""

import asyncio
from collections.abc import Callable

from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import audience, presence
from .attachment import ATTACHED, Attachment, AttachmentEvent, advance
from .books import Usage
from .client import ClientSession, Farewell
from .pool import Lease, Pool
from .presence import Patience, Presence


class Attachments:
    """Attaches and detaches. ``patience`` may be replaced at any time."""

    def __init__(self, *, pool: Pool, patience: Patience) -> None:
        self.patience = patience
        # Told when a client session has come to an upstream session.
        self.on_attached: list[Callable[[ClientSession, UpstreamSession], None]] = []
        # Told when a client session comes to another upstream session (the last) than it had.
        self.on_moved: list[Callable[[ClientSession, UpstreamSession, UpstreamSession], None]] = []
        # Told when a client session has let go of its upstream session.
        self.on_detached: list[Callable[[ClientSession], None]] = []
        self._pool = pool
        self._presence = Presence()
        # Those that held a session when the process before was killed, and when they were used last.
        self._unseen: dict[ClientSession, float] = {}
        self._now = asyncio.get_running_loop().time

    # -- what becomes of a client session --------------------------------------------------------

    def look_at(self, client: ClientSession) -> None:
        """Something of this client session has changed: see what that means for it."""
        self._advance(client, presence.judge(client, self._now, self.patience))

    def note_opening(self, client: ClientSession) -> None:
        """A request or a stream of it has been opened."""
        self._advance(client, AttachmentEvent.OPEN)

    def note_life(self, client: ClientSession) -> None:
        """Its client has shown itself and opened nothing: if it is waited for, its silence begins anew."""
        if client.state is Attachment.AWAITED:
            self._presence.wait_for(client)

    def look_after_goodbye(self, client: ClientSession) -> None:
        """Its client may have left. If not, that was no sign of life either: its silence goes on."""
        if presence.judge(client, self._now, self.patience) is AttachmentEvent.LEFT:
            self._advance(client, AttachmentEvent.LEFT)

    def maintain(self) -> None:
        """Detach the silent. Called regularly."""
        for client in self._presence.overdue(self._now(), self.patience):
            self._advance(client, AttachmentEvent.LEFT)
        for client in [each for each in self._unseen if not self._is_unseen(each)]:
            del self._unseen[client]

    def _advance(self, client: ClientSession, event: AttachmentEvent) -> None:
        """Change the state, and carry out what that means: the only place where a lease is given back.

        Giving it back is the hand-over. The pool gives the session in the same step to whoever waits for it,
        so between the last thing that this client does on it and the first of the next one there is no
        moment in which it is nobody's, and no await in which both could have it. The former holder keeps its
        ``home`` and its place in the audience: when it comes back it finds its own session, its state
        included, and shares it with who has it by then. State is never lost to a hand-over; that two may meet
        is the price, and the smaller one.
        """
        client.state = state = advance(client.state, event)
        if state is Attachment.AWAITED:
            self._presence.wait_for(client)
            return
        self._presence.stop_waiting(client)
        if state in ATTACHED:
            return
        if client.lease is not None:
            lease, client.lease = client.lease, None
            lease.release()
            for told in self.on_detached:
                told(client)
        if state is Attachment.DETACHED and event is AttachmentEvent.LEFT and client.forgotten:
            self.let_linger(client)

    def let_linger(self, client: ClientSession) -> None:
        """The owner of a session of its own has said goodbye, or cannot come back."""
        if client.home is not None and client.home.reserved:
            client.home.lingering_since = self._now()

    @staticmethod
    def withdraw_goodbye(client: ClientSession) -> None:
        """Whatever goodbye it said, the client is here again."""
        if client.farewell is Farewell.DELETED:
            client.farewell = Farewell.NONE
        if client.home is not None:
            client.home.lingering_since = None

    # -- attaching -------------------------------------------------------------------------------

    async def attach(self, client: ClientSession, caller: Caller, deadline: float) -> Lease:
        """The client session's lease, taken anew if it has none that can be used.

        All who ask at once wait for one attempt, which is a task of its own: the request that began it may be
        cancelled while others wait for the same, and a session that is on its way must find somebody who
        holds it, or it would be leased for ever. What needs no waiting is taken without a task: its own
        session of before, or for one that had none a session that is free. But nothing is taken during a
        pause, which is also to end for whoever needs nothing of the pool.

        Raises:
            OverloadError, UpstreamError: as ``Pool.acquire``.
        """
        while (lease := usable_lease(client)) is None and self._pool.queue.paused:
            await self._pool.resumed(client.key, deadline)
        if lease is not None:
            return lease
        if client.attaching is None:
            if (lease := self._take_at_once(client, caller)) is not None:
                return self._hold(client, lease)
            self._advance(client, AttachmentEvent.NEEDED)
            work = self._take_session(client, caller, deadline)
            client.attaching = asyncio.get_running_loop().create_task(work, name=f"attach {client.tag}")
            client.attaching.add_done_callback(lambda task: self._tried(client, task))
        return await asyncio.shield(client.attaching)

    def _take_at_once(self, client: ClientSession, caller: Caller) -> Lease | None:
        """A lease that it need not wait for; None where it has to, or has lost what it had."""
        home, usage = client.home, client.record.usage
        if home is not None:
            return self._pool.reclaim(home, usage)
        lease = self._pool.take_free(client.key, client.profile, usage, caller)
        if lease is not None:
            audience.join(lease.slot.session, client)
        return lease

    async def _take_session(self, client: ClientSession, caller: Caller, deadline: float) -> Lease:
        """Take a session of the client's key, and bring it to where the client's former one was.

        A session without a history is told again what the lost one was told, before anybody may use it. One
        that others have used has a history of its own, which is left as it is: the client hears that all it
        knows may have changed (``on_moved``), as after any other loss.
        """
        self._have_one_make_way(client)
        lease = await self._pool.acquire(client.key, client.profile, client.record.usage, caller, deadline)
        session, former = lease.slot.session, client.home
        audience.join(session, client)  # the server may ask in the course of being told
        if former is not None:
            lost = former.session
            if session.requests == 0:
                await self._restore(lease, lost, client)
            # Not before it is restored: where that fails, the next attempt sets out from the former one.
            audience.leave(lost, client)
            if lost is not session:
                for told in self.on_moved:
                    told(client, lost, session)
        return self._hold(client, lease)

    def _have_one_make_way(self, client: ClientSession) -> None:
        """Where no session is free, one is given up that somebody held when the process before was killed,
        and who has not shown itself since.

        Many clients die of a connection that breaks amid a call, and begin anew: this is most likely the
        same one, and its state is to go on. If the other one lives after all, it comes back to its session,
        and shares it.
        """
        bucket, usage = self._pool.books.buckets.get(client.key), client.record.usage
        if bucket is None or usage is Usage.OWNED or bucket.candidate(usage) is not None:
            return
        for other in reversed(self._unseen):
            if other.key == client.key and self._is_unseen(other):
                del self._unseen[other]
                self._advance(other, AttachmentEvent.LEFT)
                return

    def _is_unseen(self, client: ClientSession) -> bool:
        return (
            not client.busy and client.lease is not None and client.record.last_used == self._unseen[client]
        )

    async def _restore(self, lease: Lease, lost: UpstreamSession, client: ClientSession) -> None:
        session = lease.slot.session
        try:
            await session.restore(lost.record.journal)
        except BaseException:
            audience.leave(session, client)
            lease.retire("lost")  # half restored, it is nobody's
            raise

    def _hold(self, client: ClientSession, lease: Lease) -> Lease:
        """The lease is the client session's, in the step that it was taken in."""
        client.lease, client.home = lease, lease.slot
        self._advance(client, AttachmentEvent.TAKEN)
        for told in self.on_attached:
            told(client, lease.slot.session)
        return lease

    def resume(self, client: ClientSession, *, orderly: bool) -> None:
        """It was attached to its home before a restart, and may come back: it has it, as if used just now.

        ``orderly``: the process before was not killed, so whoever was connected has had its answers.
        """
        lease = None if client.home is None else self._pool.reclaim(client.home, client.record.usage)
        if lease is not None:
            client.lease = lease
            self._advance(client, AttachmentEvent.TAKEN)
            self.look_at(client)
            if not orderly:
                self._unseen[client] = client.record.last_used

    def _tried(self, client: ClientSession, task: asyncio.Task[Lease]) -> None:
        """The attempt is over. Everyone who asked for it may have left meanwhile."""
        client.attaching = None
        if not task.cancelled():
            task.exception()  # whoever waits has got it
        if client.state is Attachment.ATTACHING:
            self._advance(client, AttachmentEvent.FAILED)
        # Else the request that is under way looks at it when it ends.
        if client.in_flight == 0:
            self.look_at(client)


def usable_lease(client: ClientSession) -> Lease | None:
    """The lease that the client session holds, unless its session is gone."""
    return client.lease if client.lease is not None and client.lease.slot.usable else None
