"""``subscriptions/listen``: streams of change notifications for modern clients.

A listener hears what it asked for and nothing else. A resource is subscribed to upstream for its first
listener on a session, and unsubscribed from after its last (MCP 2026-07-28, basic/patterns/subscriptions).
A list's change reaches every listener of the principal, even if an idle session heard of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence, Set

from ..aio import Signal
from ..bounds import LISTENER_MESSAGES, LISTENERS_A_PRINCIPAL, SMALL_BYTES
from ..errors import OverBudget, TooManyListeners
from ..events import Observer
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, lifting, revisions
from ..protocol.changes import LIST_CHANGES
from ..protocol.jsonrpc import Notification
from ..protocol.subscriptions import FIELDS_BY_METHOD, LIST_FIELDS, Filter, wholes
from ..sessions.binding import Visit
from ..upstream.session import UpstreamSession
from .inquiry import inquire


class Listener:
    """One open stream: what it was promised, and what waits to be written, which counts against ``share``."""

    __slots__ = ("_news", "_queue", "_share", "ended", "id", "overrun", "promised", "visit", "wanted")

    def __init__(self, identifier: bytes, wanted: Filter, share: Share = UNBOUNDED) -> None:
        self.id = identifier
        self.wanted = wanted
        self.promised = Filter()
        self.visit: Visit | None = None
        self.ended = False  # gracefully, by us
        self.overrun = False  # it did not read what it was sent
        self._share = share
        self._queue: deque[bytes] = deque()
        self._news = Signal()

    @property
    def session_closed(self) -> bool:
        """Whether its upstream session was closed under it."""
        return self.visit is not None and self.visit.session.closed

    def put(self, method: str, params: bytes | None) -> None:
        """Queue a notification; a listener that does not read is dropped, never waited for."""
        data = jsonrpc.write_notification(method, lifting.tag(params, self.id))
        try:
            if len(self._queue) >= LISTENER_MESSAGES:
                raise OverBudget("Too many notifications wait.")
            self._share.take(len(data), large=len(data) > SMALL_BYTES)
        except OverBudget:
            self.overrun = True
            self.drain()
        else:
            self._queue.append(data)
        self.notice()

    def drain(self) -> list[bytes]:
        """Everything that waits to be written."""
        messages = list(self._queue)
        self._queue.clear()
        self._share.give_back(sum(map(len, messages)))
        return messages

    def notice(self) -> None:
        """Something happened that concerns this listener."""
        self._news.give()

    async def news(self) -> None:
        """Wait until there is something to write, or a reason for the stream to end or to move."""
        if self._queue or self.ended or self.overrun or self.session_closed:
            return
        await self._news.wait()


class Listening:
    """All listeners, by principal, and the upstream subscriptions that they share.

    ``share`` is what all that waits to be written to them may take of the memory.
    """

    def __init__(self, observe: Observer, share: Share = UNBOUNDED) -> None:
        self.share = share
        self._observe = observe
        self._listeners: dict[str, dict[Listener, None]] = {}
        # How many listeners want a resource of a session, and those that were promised its updates.
        self._counts: dict[UpstreamSession, dict[str, int]] = {}
        # By URI, so that an update costs the same however many listeners wait for other resources.
        self._promised: dict[UpstreamSession, dict[str, dict[Listener, None]]] = {}
        self._asking: dict[tuple[UpstreamSession, str], asyncio.Task[bool]] = {}
        # Whether others than listeners want a resource of a session.
        self.wanted_elsewhere: Callable[[UpstreamSession, str], bool] = lambda _session, _uri: False

    def __len__(self) -> int:
        return sum(len(listeners) for listeners in self._listeners.values())

    def uris_of(self, session: UpstreamSession) -> Set[str]:
        """The resources of a session that listeners want."""
        return self._counts.get(session, {}).keys()

    def _is_wanted(self, session: UpstreamSession, uri: str) -> bool:
        return uri in self.uris_of(session) or self.wanted_elsewhere(session, uri)

    # -- coming and going --------------------------------------------------------------------------

    def add(self, principal: str, listener: Listener) -> None:
        """Let a listener hear from now on.

        Raises:
            TooManyListeners: the principal has as many as it may have.
        """
        own = self._listeners.setdefault(principal, {})
        if len(own) >= LISTENERS_A_PRINCIPAL:
            raise TooManyListeners("Too many subscriptions/listen streams are open for this caller.")
        own[listener] = None

    async def settle(self, listener: Listener, visit: Visit) -> None:
        """Give a listener its upstream session: subscribe there, and note what can be promised."""
        listener.visit = visit
        session = visit.session
        facts = session.incarnation.facts
        lists = frozenset(
            field
            for field, feature in LIST_FIELDS.items()
            if field in listener.wanted.lists and facts.offers(feature, "listChanged")
        )
        tasks = listener.promised.tasks
        listener.promised = Filter(lists, (), tasks)
        if not facts.offers("resources", "subscribe"):
            return
        for uri in listener.wanted.uris:
            if await self._subscribe(visit, uri):
                # One by one: a listener that leaves in the middle knows what it has to give back.
                listener.promised = Filter(lists, (*listener.promised.uris, uri), tasks)
                self._promised.setdefault(session, {}).setdefault(uri, {})[listener] = None

    async def _subscribe(self, visit: Visit, uri: str) -> bool:
        """Count one listener more for a resource; the first one subscribes, others share its outcome.

        False if the server refuses.
        """
        session = visit.session
        counts = self._counts.setdefault(session, {})
        # Counted before it is asked for, so nobody who leaves meanwhile takes it for unwanted.
        counts[uri] = counts.get(uri, 0) + 1
        place = (session, uri)
        asking = self._asking.get(place)
        if asking is None:
            # Others have it, and who was refused is not counted any more: so it stands.
            if counts[uri] > 1:
                return True
            asking = self._asking[place] = session.spawn(self._ask_for(visit, uri), "subscribe")
            asking.add_done_callback(lambda _: self._asking.pop(place, None))
        agreed = False
        try:
            agreed = await asyncio.shield(asking)
        finally:
            if not agreed:
                self._uncount(session, uri)
        return agreed

    async def _ask_for(self, visit: Visit, uri: str) -> bool:
        params = jsonrpc.write_object({"uri": jsonrpc.quote(uri)})
        response = await inquire(visit, revisions.SUBSCRIBE, params, self._observe)
        agreed = response is not None and response.result is not None
        if agreed and not self._is_wanted(visit.session, uri):
            # Whoever wanted it has left meanwhile.
            await inquire(visit, revisions.UNSUBSCRIBE, params, self._observe)
        return agreed

    def _uncount(self, session: UpstreamSession, uri: str) -> bool:
        """Count one listener less; gives whether it was the last."""
        counts = self._counts.get(session, {})
        left = counts.get(uri, 0) - 1
        if left > 0:
            counts[uri] = left
            return False
        counts.pop(uri, None)
        if not counts:
            self._counts.pop(session, None)
        return left == 0

    def leave(self, listener: Listener) -> None:
        """Let go of a listener's upstream session; the last listener of a resource unsubscribes."""
        visit, listener.visit = listener.visit, None
        if visit is None:
            return
        self._forget_promises(listener, visit.session)
        last = [uri for uri in listener.promised.uris if self._uncount(visit.session, uri)]
        # The visit lasts until the server has heard of it: a session that goes on to others must not bring
        # them what they have not asked for.
        if last and not visit.session.closed:
            visit.session.spawn(self._unsubscribe(visit, last), "unsubscribe")
        else:
            visit.end()

    def _forget_promises(self, listener: Listener, session: UpstreamSession) -> None:
        by_uri = self._promised.get(session, {})
        for uri in listener.promised.uris:
            listeners = by_uri.get(uri, {})
            listeners.pop(listener, None)
            if not listeners:
                by_uri.pop(uri, None)
        if not by_uri:
            self._promised.pop(session, None)

    async def _unsubscribe(self, visit: Visit, uris: Sequence[str]) -> None:
        with visit:
            for uri in uris:
                if not self._is_wanted(visit.session, uri):
                    params = jsonrpc.write_object({"uri": jsonrpc.quote(uri)})
                    await inquire(visit, revisions.UNSUBSCRIBE, params, self._observe)

    def remove(self, principal: str, listener: Listener) -> None:
        """The stream is over."""
        listener.drain()
        self.leave(listener)
        own = self._listeners.get(principal, {})
        own.pop(listener, None)
        if not own:
            self._listeners.pop(principal, None)

    def end(self, principal: str) -> None:
        """End the streams of one principal gracefully."""
        for listener in self._listeners.get(principal, ()):
            listener.ended = True
            listener.notice()

    def close(self) -> None:
        """End all streams gracefully."""
        for principal in self._listeners:
            self.end(principal)

    # -- what servers say ----------------------------------------------------------------------------

    def take_notification(self, principal: str, session: UpstreamSession, message: Notification) -> None:
        """Give a notification to the listeners that asked for it."""
        if message.method == revisions.RESOURCE_UPDATED:
            by_uri = self._promised.get(session)
            uri = jsonrpc.read_string(jsonrpc.read_object(message.params).get("uri")) if by_uri else None
            if by_uri and uri is not None:
                concerned = {listener: None for whole in wholes(uri) for listener in by_uri.get(whole, ())}
                for listener in concerned:
                    listener.put(message.method, message.params)
        elif (field := FIELDS_BY_METHOD.get(message.method)) is not None:
            for listener in self._listeners.get(principal, {}):
                if field in listener.promised.lists:
                    listener.put(message.method, message.params)

    def session_changed(self, session: UpstreamSession) -> None:
        """A session was closed, or re-opened and may have missed something: tell its listeners."""
        for listeners in self._listeners.values():
            for listener in listeners:
                if listener.visit is None or listener.visit.session is not session:
                    continue
                if session.closed:
                    listener.notice()
                else:
                    self.tell_all_changed(listener)

    @staticmethod
    def tell_all_changed(listener: Listener) -> None:
        """Something may have been missed: everything the listener asked for counts as changed."""
        for field, feature in LIST_FIELDS.items():
            if field in listener.promised.lists:
                listener.put(LIST_CHANGES[feature], None)
        for uri in listener.promised.uris:
            listener.put(revisions.RESOURCE_UPDATED, jsonrpc.write_object({"uri": jsonrpc.quote(uri)}))
