"""What clients have asked a server to tell them of: updates of resources, and log messages from a level on.

That belongs to the client session (``ClientSession.wishes``), for an upstream session may serve several, at
once or in turn. The server is asked for what those want together who are there now; each hears what it asked
for itself (``hears``). A session that comes to other clients is settled: what only the former ones wanted is
given up, what a returning one wants is asked for again.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakSet

from ..errors import ProxyError
from ..events import Observer
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Notification, Request, Response
from ..protocol.subscriptions import wholes
from ..sessions.audience import audience_of
from ..sessions.binding import Binder
from ..sessions.client import ClientSession
from ..upstream.journal import Journal, only_level
from ..upstream.session import UpstreamSession
from .inquiry import inquire
from .listening import Listening

# What a server is set to that some client has set to another level, when none is there that wants one: it
# cannot be asked what it did before. It is what most begin with.
_USUAL_LEVEL: Final = "info"
_MAX_STEPS: Final = 3000


class Wishes:
    """Brings together what the client sessions behind each upstream session want."""

    def __init__(
        self, *, binder: Binder, listening: Listening, observe: Observer, room: Share = UNBOUNDED
    ) -> None:
        self._binder = binder
        self._listening = listening
        self._room = room
        self._observe = observe
        self._settling: WeakSet[UpstreamSession] = WeakSet()

    async def ask(
        self,
        client: ClientSession,
        session: UpstreamSession,
        request: Request,
        send: Callable[[Request], Awaitable[Response]],
    ) -> Response:
        """The response to one of ``journal.JOURNALLED``.

        It is sent to the server as far as that serves all who are there.

        Raises:
            ProxyError: as ``send``.
        """
        wishes = client.record.wishes
        if wishes is None:
            wishes = client.record.wishes = Journal(self._room)
        if request.method == revisions.UNSUBSCRIBE:
            wishes.record(request.method, request.params)
            uri = _uri(request.params)
            # Somebody else still wants it, and the server knows one subscription for all of them.
            if uri in self._wanted(session) or uri in self._listening.uris_of(session):
                return Response(request.id, result=b"{}")
            response = await send(request)
        elif request.method == revisions.SUBSCRIBE:
            response = await self._subscribe(wishes, request, send)
        else:
            # From before it is sent, as a subscription: what is settled meanwhile has to count it.
            former, wishes.log_level = wishes.log_level, only_level(request.params)
            level = self._level(session, _level_of(request.params))
            agreed = False
            try:
                response = await send(_with_level(request, level))
                agreed = response.result is not None
            finally:
                if not agreed:
                    wishes.log_level = former
        self._settle_soon(client, session)  # whatever crossed this on its way
        return response

    async def _subscribe(
        self, wishes: Journal, request: Request, send: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """The wish counts from before it is sent: nobody who gives up the same meanwhile unsubscribes it."""
        uri = _uri(request.params)
        new = uri not in wishes.subscriptions
        wishes.record(request.method, request.params)
        agreed = False
        try:
            response = await send(request)
            agreed = response.result is not None
        finally:
            if new and not agreed:
                wishes.record(revisions.UNSUBSCRIBE, request.params)
        return response

    # -- who wants what ------------------------------------------------------------------------

    def _present(self, session: UpstreamSession) -> list[Journal]:
        clients = audience_of(session)
        return [
            c.record.wishes
            for c in clients
            if c.record.wishes is not None and (c.lease is not None or c.busy)
        ]

    def _wanted(self, session: UpstreamSession) -> dict[str, bytes]:
        """The subscriptions of the client sessions that are there, by URI."""
        return {uri: params for own in self._present(session) for uri, params in own.subscriptions.items()}

    def wants(self, session: UpstreamSession, uri: str) -> bool:
        """Whether any of them wants to be told of this resource."""
        return uri in self._wanted(session)

    def _level(self, session: UpstreamSession, more: str | None = None) -> str | None:
        """The most talkative level that anybody wants who is there; None when nobody wants any."""
        levels = [*(_level_of(own.log_level) for own in self._present(session)), more]
        known = [level for level in levels if level in revisions.LOG_LEVELS]
        return min(known, key=revisions.LOG_LEVELS.index, default=None)

    # -- settling ------------------------------------------------------------------------------

    def attached(self, client: ClientSession, session: UpstreamSession) -> None:
        """A client session has come to a session that others may have had before."""
        told = session.record.journal
        if client.record.wishes is not None or told.subscriptions or told.log_level is not None:
            self._settle_soon(client, session)

    def _settle_soon(self, client: ClientSession, session: UpstreamSession) -> None:
        # One at a time for a session: two would undo each other's steps.
        if session not in self._settling and self._next_step(session, set()) is not None:
            self._settling.add(session)
            session.spawn(self._settle(client, session), f"settle {session.tag}")

    async def _settle(self, client: ClientSession, session: UpstreamSession) -> None:
        """Ask the server for what is wanted now, one by one; what it refuses is left as it is."""
        refused: set[tuple[str, bytes]] = set()
        try:
            if client.lease is None:
                return  # it has left already
            with await self._binder.enter(client, session.record.credentials) as visit:
                # A bound, should clients change their minds faster than the server answers.
                for _ in range(_MAX_STEPS):
                    step = self._next_step(session, refused)
                    if step is None or visit.session is not session:
                        return
                    response = await inquire(visit, *step, self._observe)
                    if response is None or response.result is None:
                        refused.add(step)
        except ProxyError:
            return  # it has no session any more, so there is nothing to settle
        finally:
            self._settling.discard(session)

    def _next_step(
        self, session: UpstreamSession, refused: set[tuple[str, bytes]]
    ) -> tuple[str, bytes] | None:
        """The next request that brings what the server was told nearer to what is wanted."""
        told, wanted, level = session.record.journal, self._wanted(session), self._level(session)
        others = self._listening.uris_of(session)
        for uri in told.subscriptions:
            if uri not in wanted and uri not in others:
                step = (revisions.UNSUBSCRIBE, jsonrpc.write_object({"uri": jsonrpc.quote(uri)}))
                if step not in refused:
                    return step
        for uri, params in wanted.items():
            if uri not in told.subscriptions and (revisions.SUBSCRIBE, params) not in refused:
                return revisions.SUBSCRIBE, params
        if level is None and told.log_level is not None:
            level = _USUAL_LEVEL
        if level is not None and level != _level_of(told.log_level):
            step = (revisions.SET_LEVEL, jsonrpc.write_object({"level": jsonrpc.quote(level)}))
            return None if step in refused else step
        return None


def hears(client: ClientSession, message: Notification) -> bool:
    """Whether a client session asked for what a notification tells, if it has to be asked for."""
    wishes = client.record.wishes
    if message.method == revisions.RESOURCE_UPDATED:
        uri = _uri(message.params)
        if wishes is None or uri is None:
            return False
        return any(whole in wishes.subscriptions for whole in wholes(uri))
    if message.method == revisions.LOG_MESSAGE and wishes is not None:
        return _is_loud_enough(_level_of(message.params), _level_of(wishes.log_level))
    return True


def _is_loud_enough(level: str | None, wanted: str | None) -> bool:
    levels = revisions.LOG_LEVELS
    return wanted not in levels or level not in levels or levels.index(level) >= levels.index(wanted)


def _uri(params: bytes | None) -> str | None:
    return jsonrpc.read_string(jsonrpc.read_object(params).get("uri"))


def _level_of(params: bytes | None) -> str | None:
    return jsonrpc.read_string(jsonrpc.read_object(params).get("level"))


def _with_level(request: Request, level: str | None) -> Request:
    """The request for a level that serves all; its own where that is none we know: the server judges it."""
    own = _level_of(request.params)
    if request.params is None or level is None or own not in revisions.LOG_LEVELS or level == own:
        return request
    params = jsonrpc.replace_members(request.params, {"level": jsonrpc.quote(level)})
    return Request(request.id, request.method, params)
