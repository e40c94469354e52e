"""One upstream session: what goes on when the server loses it.

An incarnation is what there is at the server now; the session is what its holders keep: the record, the
incarnation of the moment, and the handshake of the next one when the former is lost. All of that runs in
tasks of its own; a client's request only borrows an incarnation.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Protocol

from .. import events
from ..aio import Tasks
from ..backoff import Backoff
from ..errors import Draining, SessionLost, UpstreamError, UpstreamRejected, UpstreamUnreachable
from ..events import Observer
from ..memory import UNBOUNDED, UNCOUNTED, Keeper, Share
from ..protocol import changes
from ..protocol.jsonrpc import Message, Notification
from .fleet import Fleet, Residence
from .incarnation import Incarnation, Standing, is_being_cancelled
from .initialization import Initialization, closed_meanwhile, restore
from .journal import Journal
from .life import ELSEWHERE, Life, Turn, advance
from .record import KnownSession, Record, SessionRules
from .transport import Caller

_FAREWELL_SECONDS: Final = 3.0
_RETRIES: Final = Backoff(0.05, 1.0)


class Router(Protocol):
    """Passes on what the server of a session says of its own accord. Nothing here may block.

    This is a protocol because the implementation, ``exchange.routing``, needs the floors above.
    """

    def route(self, session: "UpstreamSession", message: Message) -> None:
        """Take a message of the standalone stream that names no call in flight."""
        ...

    def note_change(self, session: "UpstreamSession", message: Notification) -> None:
        """Note what a notification on a call's own stream says about everybody's lists and resources."""
        ...

    def session_changed(self, session: "UpstreamSession") -> None:
        """A new incarnation stands, or messages of its stream were missed, or the session was closed."""
        ...


class UpstreamSession:
    """One session for those who hold it, however often the server loses it.

    ``initialize_params`` is raw JSON; with ``version_is_free``, another version may be tried than it names.
    ``principal`` identifies the caller that the session serves, and ``principal_tag`` is its short form for
    logs. What the server says before anybody can hear it, and refusals of what it asks, count against
    ``room_for_questions``, and the journal against ``room_for_subscriptions``; ``results`` keeps what the
    server says of itself. ``keepalive_part`` is the part of the usual time that passes between two pings, so
    that sessions that began together are not pinged together. A session that is ``known`` exists at its
    server already, so its first opening needs no handshake.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        initialize_params: bytes,
        version_is_free: bool = False,
        client_name: str,
        principal: str,
        principal_tag: str,
        router: Router,
        observe: Observer,
        rules: SessionRules,
        keepalive_part: float = 1.0,
        room_for_questions: Share = UNBOUNDED,
        room_for_subscriptions: Share = UNBOUNDED,
        results: Keeper = UNCOUNTED,
        known: KnownSession | None = None,
    ) -> None:
        self.record = Record(
            tag=(known and known.tag) or "u" + secrets.token_hex(4),
            principal=principal,
            principal_tag=principal_tag,
            client_name=client_name,
            initialize_params=initialize_params,
            version_is_free=version_is_free,
            rules=rules,
            room_for_questions=room_for_questions,
            journal=Journal(room_for_subscriptions),
            results=results,
        )
        if known is not None:
            self.record.next_id = itertools.count(known.first_id).__next__
            if known.asked_for_roots:
                self.record.roots.know_somebodys()
        self.tag = self.record.tag
        self.principal = principal
        self.born = asyncio.get_running_loop().time()
        # Features whose list_changed some incarnation has promised: clients were told of it.
        self.told_lists: frozenset[str] = frozenset() if known is None else known.told_lists
        # Who finds this session when coming back; only ``sessions.audience`` reads and writes it.
        self.audience: dict[Hashable, None] = {}
        self.router = router
        self._keepalive_part = keepalive_part
        self._fleet = fleet
        self._known = known
        self._observe = observe
        self.life = Life.NEW  # only ``_turn`` changes it
        self._incarnation: Incarnation | None = None
        self._next: Incarnation | None = None  # whose handshake is under way, or has failed
        self._handshake: asyncio.Task[None] | None = None  # the task that is at it: an opening, or a revival
        self._tasks = Tasks()
        self._on_lost: Callable[[str], None] = lambda _: None

    def __repr__(self) -> str:
        return f"<UpstreamSession {self.tag}.{self.number} in_flight={self.in_flight}>"

    # -- what there is -----------------------------------------------------------------------

    @property
    def incarnation(self) -> Incarnation:
        """What there is at the server, or was there last. There is none before the first handshake."""
        assert self._incarnation is not None, "the session was never opened"
        return self._incarnation

    @property
    def number(self) -> int:
        """How many incarnations there have been."""
        return 0 if self._incarnation is None else self._incarnation.number

    @property
    def closed(self) -> bool:
        """Whether this object's life is over."""
        return self.life is Life.CLOSED

    @property
    def in_flight(self) -> int:
        """How many calls wait for an answer."""
        return 0 if self._incarnation is None else len(self._incarnation.calls.in_flight)

    @property
    def streaming(self) -> bool:
        """Whether the standalone stream stands."""
        return self._incarnation is not None and self._incarnation.streaming

    @property
    def version(self) -> str | None:
        """The protocol version that was agreed on."""
        return None if self._incarnation is None else self._incarnation.channel.version

    @property
    def residence(self) -> Residence | None:
        """Where it lives, or is being opened."""
        newest = self._next or self._incarnation
        return None if newest is None else newest.residence

    @property
    def requests(self) -> int:
        """How many requests it has served."""
        return self.record.requests

    # -- opening and closing -----------------------------------------------------------------

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call ``on_lost``, with how it showed, when the session turns out to be gone between requests.

        What follows is for whoever watches: to have it re-opened with ``revive``, or to close it.
        """
        self._on_lost = on_lost

    async def open(self, caller: Caller) -> None:
        """Do the handshake, with the headers of the request that it is for.

        Raises:
            UpstreamError: the server could not be reached, refused, or answered something else.
            Draining: the session was closed meanwhile.
        """
        self.record.credentials = caller.credentials
        self._turn(Turn.BEGUN)
        self._handshake = asyncio.current_task()
        try:
            await self._shake_hands(caller)
        except BaseException:
            self._turn(Turn.FAILED)
            raise
        finally:
            self._handshake = None

    async def _shake_hands(self, caller: Caller) -> None:
        """Have the next incarnation stand, and take it for the present one.

        Until then the former one stays the present one, because everybody compares it with the one that they
        have met: a handshake that fails has changed nothing for them. A session that is known from elsewhere
        needs none, once; where it cannot be gone on with, the next try is a handshake like any other.
        """
        known, self._known = self._known, None
        if known is None:
            # Anew for each try: the server that has lost it may be down, and another one up.
            residence = self._fleet.place(self.principal)
        else:
            residence = self._fleet.settle(self.principal, known.server)
        if self._incarnation is not None:
            # The former one is gone, and counts no more where the fleet looks for the emptiest server.
            self._incarnation.residence.leave()
        incarnation = self._next = Incarnation(
            self.record,
            residence,
            self.number + 1,
            missed=lambda: self.router.session_changed(self),
            on_lost=self.lost,
        )
        initialization = Initialization(incarnation, self._observe)
        try:
            if known is None:
                await initialization.run(caller)
            else:
                initialization.skip(known)
        except BaseException as error:
            residence.opening_failed(error, cut_short=self.closed)
            raise
        residence.opened()
        if self.closed:
            # Whoever closed it could not say goodbye to what did not stand yet.
            await incarnation.close()
            raise closed_meanwhile()
        self._incarnation, self._next = incarnation, None
        # Only ever more: what clients were told of by a former incarnation, they still expect to hear.
        self.told_lists |= changes.lists_told_of(incarnation.facts)
        # Only now: whoever is given what the server has said looks for the incarnation that it was said on.
        initialization.hand_over(lambda message: self.router.route(self, message))
        if known is not None and known.asleep:
            self._turn(Turn.LAID_DOWN)
            return
        # It stands already where the server was slow to take ``initialized``.
        if not incarnation.wants_stream:
            await incarnation.open_stream()
        self._turn(Turn.OPENED)

    async def close(self, reason: str) -> None:
        """Say goodbye to the server, also after a handshake that was abandoned. Raises nothing.

        A handshake that is under way comes to its own end first: cut short, it may leave a session behind at
        the server whose id nobody has learnt. Whoever opens the session says goodbye then.
        """
        if not self.closed:
            opening = self.life is Life.OPENING
            if self._incarnation is not None and (self.life is Life.ASLEEP or reason == ELSEWHERE):
                # A goodbye wants its caller's credentials, which nobody has: the server's own time ends it.
                self._incarnation.end(Standing.LOST)
            self._end()
            self._observe(
                events.SessionClosed(
                    session=self.tag,
                    principal=self.record.principal_tag,
                    reason=reason,
                    age_seconds=asyncio.get_running_loop().time() - self.born,
                    requests=self.requests,
                )
            )
            self.router.session_changed(self)
            if opening:
                return
            if self._handshake is not None:
                # Nobody says goodbye to what a revival opens but us: its end is waited for, unless it hangs.
                await asyncio.wait([self._handshake], timeout=_FAREWELL_SECONDS)
                if self._handshake is not None:
                    self._handshake.cancel()
        for incarnation in (self._next, self._incarnation):
            if incarnation is not None:
                await incarnation.close()

    def abandon(self) -> None:
        """Give up at once, without a goodbye; a handshake that is under way is cut short."""
        self._end()
        if self._handshake is not None and self._handshake is not asyncio.current_task():
            self._handshake.cancel()

    def _end(self) -> None:
        """Nothing may begin any more, and nothing goes on but a handshake that is under way."""
        self._turn(Turn.CLOSED)
        # Cut short, a handshake may leave a session behind of which nobody has learnt the id.
        self._tasks.cancel(self._handshake)
        for incarnation in (self._next, self._incarnation):
            if incarnation is not None:
                incarnation.end(Standing.CLOSED)

    def _turn(self, turn: Turn) -> None:
        self.life = advance(self.life, turn)

    # -- requests ----------------------------------------------------------------------------

    async def ready(self, caller: Caller) -> Incarnation:
        """The incarnation that a request can be sent on.

        Waits for a revival that is under way, and looks whether a session that was quiet for long lives.
        ``caller`` is whoever sends the request.

        Raises:
            SessionLost: it is gone and could not be re-opened.
            UpstreamRejected: the server does not want this caller any more.
        """
        incarnation = self.incarnation
        quiet_seconds = self.record.rules.check_after_seconds
        if self.life is Life.REVIVING:
            assert self._handshake is not None
            await _join(self._handshake)
        elif self.life is Life.ASLEEP:
            await self.wake(caller)
        elif self.life is Life.LOST or (
            quiet_seconds
            and incarnation.calls.are_quiet_for(quiet_seconds)
            and not await incarnation.confirm()
        ):
            await self.revive(incarnation, "check", caller)
        else:
            return incarnation
        return self.incarnation

    async def wake(self, caller: Caller) -> None:
        """Go on with a session that is asleep, if its server knows it still, in the name of this caller.

        All who come at once share one ping. Raises as ``ready``.
        """
        incarnation = self.incarnation
        self.record.credentials = caller.credentials
        alive = await incarnation.confirm()
        if self.life is not Life.ASLEEP:
            return
        self._observe(
            events.SessionWoken(
                session=self.tag,
                principal=self.record.principal_tag,
                outcome="resumed" if alive else "gone",
            )
        )
        if not alive:
            await self.revive(incarnation, "check", caller)
            return
        self._turn(Turn.WOKEN)
        for request in incarnation.calls.take_asked_elsewhere():
            incarnation.refuse(request)
        await incarnation.open_stream()

    async def refused(self, caller: Caller) -> None:
        """A connection to the server was refused, so nothing was sent: move elsewhere, where that can be.

        ``caller`` is whoever sends the request that was not sent.

        Raises:
            SessionLost: the session could not be re-opened elsewhere.
            UpstreamDown: waiting is no use.
        """
        incarnation = self.incarnation
        incarnation.residence.suspect()
        # Only from a server that is known to be away to one that is there: it costs the session's state.
        if incarnation.residence.can_move:
            await self.revive(incarnation, "unreachable", caller)
        else:
            self._fleet.check_worth_waiting()

    async def restore(self, journal: Journal) -> None:
        """Tell this new session what another one was told (its client comes back to a closed session).

        Raises:
            UpstreamError: it could not be told, or not within the time of a handshake.
        """
        await restore(self.incarnation, journal)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something that ends with this session at the latest."""
        return self._tasks.spawn(work, name)

    def tick(self, now: float) -> None:
        """Called regularly: pings a session that was quiet for the keep-alive time."""
        if self.life is Life.OPEN:
            self.incarnation.tick(now, self.record.rules.keepalive_seconds * self._keepalive_part)

    # -- loss and revival --------------------------------------------------------------------

    def lost(self, incarnation: Incarnation, how: str) -> None:
        """An incarnation turned out to be gone, and no request needs it now: tell whoever watches."""
        # What a former one notices late is known, and what is being made good as well. A session that is
        # still opening counts: its stream may be the first to find out.
        if incarnation is self._incarnation and self.life in (Life.OPENING, Life.OPEN, Life.ASLEEP):
            self._on_lost(how)

    async def revive(self, lost: Incarnation, how: str, caller: Caller) -> None:
        """Open the session anew from its journal, unless that has happened since ``lost``.

        Many notice the same loss, each with the incarnation that it has met, and sooner or later. The first
        one begins the revival, with its own credentials; all who come while it is under way wait for the very
        same, and share its failure; who comes later finds another incarnation and has nothing to do. It runs
        in a task of its own, so it goes on when the first one's client leaves. ``how`` the loss showed, and
        with whose request.

        Raises:
            SessionLost: no new session could be opened.
            UpstreamRejected: the server does not want this caller any more.
        """
        if self.life is not Life.REVIVING:
            # Somebody has met the same loss before, and it is made good already.
            if self._incarnation is not lost:
                return
            if self.closed:
                raise SessionLost("The MCP server lost the session, and the proxy has given it up.")
            self._observe(events.SessionLost(session=self.tag, principal=self.record.principal_tag, how=how))
            self._turn(Turn.LOST)
            lost.end(Standing.LOST)
            self._handshake = self._tasks.spawn(self._revive(lost, caller), f"revive {self.tag}")
            self._handshake.add_done_callback(self._revived)
        assert self._handshake is not None
        await _join(self._handshake)

    def _revived(self, task: asyncio.Task[None]) -> None:
        self._handshake = None
        if task.cancelled() or task.exception() is not None:  # whoever waited has got it
            self._turn(Turn.FAILED)

    async def _revive(self, former: Incarnation, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._shake_hands_patiently(caller, started + self.record.rules.patience_seconds)
        self.router.session_changed(self)
        self.tell_differences(former.initialize_result)
        self._observe(
            events.SessionOpened(
                session=self.tag,
                principal=self.record.principal_tag,
                why="reopen",
                seconds=loop.time() - started,
            )
        )

    async def _shake_hands_patiently(self, caller: Caller, deadline: float) -> None:
        """Do the handshake; while the server takes no connections, try again until the deadline."""
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        while True:
            try:
                return await self._shake_hands(caller)
            except UpstreamUnreachable:
                pause_seconds = _RETRIES.after(pause_seconds)
                if loop.time() + pause_seconds >= deadline or self.closed:
                    raise
            await asyncio.sleep(pause_seconds)

    def tell_differences(self, former_result: bytes) -> None:
        """Say so where the server says otherwise of itself than in a former ``InitializeResult``."""
        result = self.incarnation.initialize_result
        what = changes.differences(former_result, result)
        if what:
            self._observe(
                events.ServerChanged(
                    session=self.tag,
                    principal=self.record.principal_tag,
                    what=", ".join(what),
                    before=changes.name_and_version(former_result),
                    after=changes.name_and_version(result),
                )
            )


async def _join(revival: asyncio.Task[None]) -> None:
    """Wait for a revival without owning it."""
    try:
        await asyncio.shield(revival)
    except asyncio.CancelledError:
        # The revival was cancelled and this task was not: to it, that is an error like any other.
        if revival.cancelled() and not is_being_cancelled():
            raise SessionLost("The session is gone and the proxy is closing it.") from None
        raise
    except UpstreamRejected:
        raise  # what the server says of the caller's credentials is for the caller
    except (UpstreamError, Draining) as error:
        raise SessionLost(
            f"The MCP server lost the session and a new one could not be opened: {error.message}"
        ) from error
