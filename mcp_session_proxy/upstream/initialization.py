"""How an incarnation comes to stand: the handshake, and what the server says before it is over.

MCP 2025-11-25: basic/lifecycle, "Initialization".
"""

import asyncio
from collections.abc import Callable
from typing import Final

from .. import events
from ..errors import Draining, ProxyError, UpstreamProtocolError, UpstreamUnreachable
from ..events import Observer
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Request
from ..protocol.lost import Verdict
from .handshake import Handshake
from .incarnation import Incarnation, Standing
from .journal import Journal
from .record import KnownSession
from .transport import Caller, ConnectionLost, Refused, first_response
from .unheard import Unheard

# How long a server that asks within the handshake may wait for an answer.
_ANSWER_GRACE_SECONDS: Final = 1.0
_INITIALIZED_SECONDS: Final = 1.0


class Initialization:
    """The handshake of one incarnation. What the server says meanwhile is held: nobody could hear it yet."""

    def __init__(self, incarnation: Incarnation, observe: Observer) -> None:
        loop = asyncio.get_running_loop()
        self._incarnation = incarnation
        self._record = incarnation.record
        self._observe = observe
        self._said = Unheard(incarnation.refuse, loop.time(), incarnation.record.room_for_questions)
        self._asked: asyncio.Future[None] = loop.create_future()  # something that waits for an answer
        self._over = False
        incarnation.hear = self._hold

    async def run(self, caller: Caller) -> None:
        """Do it, with the headers of the request that it is for.

        It ends when the server has been told again what the session's record knows, so that nobody meets a
        session that has forgotten half of it. A handshake that fails leaves nothing behind: the server may
        have opened a session long before it does, so it gets a goodbye. Only one that is cancelled does
        not, because a goodbye cannot be waited for then; ``Incarnation.close`` makes up for it.

        Raises:
            UpstreamError: the server could not be reached, refused, or answered something else.
            Draining: the incarnation was closed meanwhile.
        """
        incarnation, record = self._incarnation, self._record
        failure: ProxyError
        try:
            async with asyncio.timeout(record.rules.handshake_timeout_seconds):
                result = record.results.keep(await self._initialize(caller))
                if incarnation.standing is Standing.CLOSED:
                    raise closed_meanwhile()
                await self._send_initialized(caller)
                await replay(incarnation, self._take)
        except ProxyError as error:
            failure = error
        except ConnectionLost:
            # Nothing of a user's was executed, so for the pool this is as good as no connection.
            failure = UpstreamUnreachable("The MCP server closed the connection during the handshake.")
        except TimeoutError:
            failure = record.too_slow("finish the handshake")
        except BaseException:
            incarnation.end(Standing.CLOSED)
            raise
        else:
            incarnation.stand(result)
            return
        incarnation.end(Standing.CLOSED)
        await incarnation.say_goodbye()
        raise failure

    def skip(self, known: KnownSession) -> None:
        """Do without a handshake: the session stands, as far as is known.

        Whether it does shows as for any other: by the first request, or by a ping before that.

        Raises:
            SessionLost: there is no way to go on with it.
            UpstreamProtocolError: it is another caller's as well.
            OverBudget: there is no memory for what its server has said of itself.
        """
        incarnation, record = self._incarnation, self._record
        channel = incarnation.residence.replica.transport.reconnect(known.session_id, known.route)
        if known.version is not None:
            channel.agree(known.version)
        incarnation.opened(channel)
        incarnation.stand(record.results.keep(known.initialize_result))
        if known.asleep:
            incarnation.former = known
            incarnation.calls.asked_elsewhere = known.asked
        for method, params in known.told:
            record.journal.record(method, params)

    def hand_over(self, hear: Callable[[Message], None]) -> None:
        """Let ``hear`` hear what the server said, and what it says from now on."""
        # In this order, and in one step: what was held goes first, and nothing comes in between.
        self._over = True
        self._incarnation.hear = hear
        for message in self._said.drain():
            hear(message)

    async def _initialize(self, caller: Caller) -> bytes:
        record, replica = self._record, self._incarnation.residence.replica
        handshake = Handshake(
            replica.transport,
            caller,
            allocate=record.next_id,
            take=self._take,
            stands=self._incarnation.opened,
            silence_seconds=record.rules.handshake_timeout_seconds,
        )
        # Nobody else has chosen it. A client's own version is never changed: it may know more than we do.
        if record.version_is_free:
            return await handshake.initialize_in(replica.versions, record.initialize_params)
        return await handshake.initialize(record.initialize_params)

    async def _send_initialized(self, caller: Caller) -> None:
        """Tell the server that the client is ready, and wait for its word.

        Some servers ask before they give it, on a standalone stream: so that is opened when the word does not
        come at once, and a question is as good as the word.
        """
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[None] = loop.create_future()
        # Not one of the incarnation's tasks before it has done its part: those end with it, and a handshake
        # that is cut short may leave a session behind at the server.
        sending = loop.create_task(
            self._post_initialized(caller, accepted), name=f"initialized {self._record.tag}"
        )
        try:
            await asyncio.wait([accepted], timeout=_INITIALIZED_SECONDS)
            if not accepted.done():
                await self._incarnation.open_stream()
                await asyncio.wait([accepted, self._asked], return_when=asyncio.FIRST_COMPLETED)
            if accepted.done():
                accepted.result()
        except BaseException:
            sending.cancel()
            raise
        self._incarnation.tasks.keep(sending)

    async def _post_initialized(self, caller: Caller, accepted: asyncio.Future[None]) -> None:
        incarnation = self._incarnation
        body = jsonrpc.write_notification(revisions.INITIALIZED, None)
        silence_seconds = self._record.rules.handshake_timeout_seconds
        try:
            async with incarnation.channel.send(body, caller, silence_seconds=silence_seconds) as reply:
                if not accepted.done():
                    accepted.set_result(None)
                # There is no response, but what the server says may be here.
                await first_response(reply, incarnation.take)
        except Refused as refused:
            self._judge(refused, accepted)
        except (ProxyError, ConnectionLost) as error:
            if not accepted.done():
                accepted.set_exception(error)
                accepted.exception()  # whoever waits gets it; maybe nobody does

    def _judge(self, refused: Refused, accepted: asyncio.Future[None]) -> None:
        """A refusal of ``notifications/initialized``: the session may be served all the same."""
        if refused.session is not Verdict.GONE:
            self._observe(events.InitializedRefused(session=self._record.tag, status=refused.how))
            if not accepted.done():
                accepted.set_result(None)
        elif not accepted.done():
            # Told as it came (404), it would make the client drop a session that it never had.
            error = UpstreamProtocolError(
                "The MCP server does not know the session that it has just opened. "
                "If a balancer before it sticks to neither cookies nor session ids, "
                "name its replicas to the proxy instead."
            )
            accepted.set_exception(error)
            accepted.exception()

    def _take(self, message: Request | Notification) -> None:
        """Take what the server says on a stream of the handshake.

        A server that waits there for an answer to go on would wait for ever, so it gets a moment only.
        """
        # A server may not go on before its ping is answered, and anybody can answer that.
        if isinstance(message, Request) and message.method == revisions.PING:
            self._incarnation.answer_ping(message)
        elif not self._over:
            self._hold(message)
            if isinstance(message, Request):
                asyncio.get_running_loop().call_later(_ANSWER_GRACE_SECONDS, self._stop_waiting)

    def _hold(self, message: Message) -> None:
        if isinstance(message, Request | Notification):
            self._said.hold(message)
        if isinstance(message, Request) and not self._asked.done():
            self._asked.set_result(None)

    def _stop_waiting(self) -> None:
        if not self._over:
            self._said.refuse_requests()


async def restore(incarnation: Incarnation, journal: Journal) -> None:
    """Tell the server what another session was told (its client comes back to a closed session).

    Raises:
        UpstreamError: it could not be told, or not within the time of a handshake.
    """
    record = incarnation.record
    for method, params in journal.requests():
        record.journal.record(method, params)
    try:
        async with asyncio.timeout(record.rules.handshake_timeout_seconds):
            await replay(incarnation, incarnation.take)
    except ConnectionLost as error:
        raise UpstreamUnreachable("The MCP server closed the connection.") from error
    except TimeoutError as error:
        raise record.too_slow("take over the state of the session that it lost") from error


async def replay(incarnation: Incarnation, take: Callable[[Request | Notification], None]) -> None:
    """Tell the server what is in the session's journal. ``take`` gets what it says beside its answers."""
    record = incarnation.record
    for method, params in record.journal.requests():
        identifier = b"%d" % record.next_id()
        body = jsonrpc.write_request(identifier, method, params)
        try:
            async with incarnation.channel.send(body, record.credentials, identifier) as reply:
                await first_response(reply, take)
        except Refused:
            continue  # as it would be with an answer that says no


def closed_meanwhile() -> Draining:
    """The error for whoever opened what was closed meanwhile."""
    return Draining("The session was closed while it was being opened.")
