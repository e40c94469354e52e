"""Stand-ins for the world around the core, without sockets: a server behind a transport, and whoever listens.

A :class:`FakeServer` is a stateful MCP server and the transport to it in one. It behaves well until a
test scripts it: ``script`` puts replies, or the errors of a transport, in front of the usual answers,
request by request. What it saw is in ``transcript``, one line per HTTP request.
"""

import asyncio
import json
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from messages import GONE, INITIALIZE_PARAMS, raw, result
from yarl import URL

from mcp_session_proxy.errors import ProxyError
from mcp_session_proxy.events import Event
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_session_proxy.upstream.breaker import BreakerRules, Breakers
from mcp_session_proxy.upstream.fleet import Fleet, FleetRules, Replica, Residence, Server
from mcp_session_proxy.upstream.http.refusal import Refusal, why_no_stream
from mcp_session_proxy.upstream.http.streamable_http import fits_a_header
from mcp_session_proxy.upstream.monitor import always_there
from mcp_session_proxy.upstream.record import KnownSession, SessionRules
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import (
    NOBODY,
    ArrivingResult,
    Caller,
    ConnectionLost,
    Refused,
    StreamRefused,
)

# -- what a server answers -------------------------------------------------------------------------


@dataclass(frozen=True)
class Bytes:
    """A piece of an event stream: what its events say, their last id, and the retry time it asks for."""

    messages: tuple[bytes, ...] = ()
    event_id: str | None = None
    retry_seconds: float | None = None


Step: TypeAlias = Bytes | BaseException | asyncio.Event | float


def say(*messages: object, event_id: str | None = None, retry: float | None = None) -> Bytes:
    """A piece of a stream with these messages, given as JSON values or as raw JSON."""
    return Bytes(tuple(raw(message) for message in messages), event_id, retry)


@dataclass
class FakeReply:
    """One answer of Streamable HTTP, step by step. Implements ``transport.Reply``.

    A step is a piece of the body, an error to break off with, an event to wait for, or a time to take. One
    whose ``status`` is a refusal is never read: it is raised as what the real transport makes of it.
    """

    steps: Iterable[Step] = ()
    status: int = 200
    is_stream: bool = True
    content_type: str | None = "text/event-stream"
    session_id: str | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    last_event_id: str | None = None
    retry_seconds: float | None = None
    answers: bytes = b"null"
    closed: bool = False
    gives_arriving: bool = False
    gives_runs: bool = False

    def __post_init__(self) -> None:
        self._steps = deque(self.steps)

    def check(self, *, sent_session_id: bool) -> None:
        """Raises Refused if it is a refusal."""
        if self.status >= 300:
            raise self.refusal().refused(sent_session_id=sent_session_id)

    def check_stream(self) -> None:
        """Raises StreamRefused if it is no stream."""
        if self.status != 200 or not self.is_stream:
            raise StreamRefused(why_no_stream(self.status))

    def refusal(self) -> Refusal:
        """What the real transport reads of it."""
        found = [jsonrpc.parse_upstream(self.body)]
        return Refusal(
            status=self.status,
            body=self.body,
            content_type=self.content_type,
            headers=dict(self.headers),
            response=next((each for each in found if isinstance(each, Response)), None),
        )

    async def read(self) -> list[Message] | None:
        while self._steps:
            step = self._steps.popleft()
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            else:
                self.last_event_id = step.event_id or self.last_event_id
                self.retry_seconds = (
                    step.retry_seconds if step.retry_seconds is not None else self.retry_seconds
                )
                return [message for data in step.messages if (message := self._parse(data)) is not None]
        return None

    def after(self, seconds: float) -> "FakeReply":
        """The same, only later."""
        self._steps.appendleft(seconds)
        return self

    def _parse(self, data: bytes) -> Message | None:
        message = jsonrpc.parse_upstream(data)
        if isinstance(message, Response) and message.id == b'"?"':
            return Response(self.answers, message.result, message.error)
        return message

    async def text(self) -> bytes:
        return self.body


def stream(*steps: Step, **options: Any) -> FakeReply:
    """A 200 with an event stream."""
    return FakeReply(steps, **options)


def answer(*messages: object, **options: Any) -> FakeReply:
    """A 200 with a JSON body."""
    return FakeReply([say(*messages)], is_stream=False, content_type="application/json", **options)


def refusal(status: int, body: object = b"", **options: Any) -> FakeReply:
    """A status outside 2xx. A body that is not bytes is sent as JSON."""
    kind = "text/plain" if isinstance(body, bytes) else "application/json"
    return FakeReply(status=status, is_stream=False, content_type=kind, body=raw(body), **options)


# -- the server ------------------------------------------------------------------------------------


@dataclass
class Sent:
    """One HTTP request as the server saw it."""

    verb: str
    session_id: str | None
    version: str | None
    caller: Caller
    message: Message | None = None
    last_event_id: str | None = None
    for_answer: bool = False

    @property
    def method(self) -> str:
        """The JSON-RPC method; ``response`` for a response."""
        return getattr(self.message, "method", "response")

    @property
    def params(self) -> Any:
        """The parameters as a JSON value."""
        params = getattr(self.message, "params", None)
        return None if params is None else json.loads(params)

    def __str__(self) -> str:
        where = f" @{self.session_id}" if self.session_id else ""
        if self.verb != "POST":
            since = f" after {self.last_event_id}" if self.last_event_id else ""
            return f"{self.verb}{where}{since}"
        return f"{self.method}{where}"


Scripted: TypeAlias = FakeReply | BaseException | Callable[[Sent], FakeReply]


class FakeChannel:
    """One session at a fake server. Implements ``transport.Channel``."""

    route = None

    def __init__(
        self, server: "FakeServer", session_id: str | None = None, version: str | None = None
    ) -> None:
        self.server = server
        self.session_id = session_id
        self.version = version
        self._left_behind: str | None = None

    @property
    def silence_seconds(self) -> float:
        return self.server.silence_seconds

    def agree(self, version: str) -> None:
        self.version = version if fits_a_header(version) else self.version

    @asynccontextmanager
    async def open(
        self, body: bytes, caller: Caller, identifier: bytes, /, *, silence_seconds: float
    ) -> AsyncIterator[FakeReply]:
        async with self.server.answered(self._sent(caller, body)) as reply:
            if reply.status < 300:
                self.session_id = reply.session_id
            else:
                self._left_behind = reply.session_id
            reply.check(sent_session_id=False)
            yield reply

    @asynccontextmanager
    async def send(
        self,
        body: bytes,
        caller: Caller,
        identifier: bytes | None = None,
        /,
        *,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[FakeReply]:
        async with self.server.answered(self._sent(caller, body)) as reply:
            reply.check(sent_session_id=self.session_id is not None)
            yield reply

    @asynccontextmanager
    async def open_stream(
        self, caller: Caller, last_event_id: str | None, *, for_answer: bool = False
    ) -> AsyncIterator[FakeReply]:
        sent = Sent("GET", self.session_id, self.version, caller, None, last_event_id, for_answer)
        async with self.server.answered(sent) as reply:
            reply.check_stream()
            yield reply

    @asynccontextmanager
    async def resume(self, caller: Caller, last_event_id: str) -> AsyncIterator[FakeReply]:
        async with self.open_stream(caller, last_event_id, for_answer=True) as reply:
            yield reply

    def drop(self) -> None:
        pass

    async def close(self, caller: Caller) -> None:
        session_id = self.session_id or self._left_behind
        if session_id is not None:
            await self.server.delete(Sent("DELETE", session_id, self.version, caller))

    def _sent(self, caller: Caller, body: bytes) -> Sent:
        return Sent("POST", self.session_id, self.version, caller, jsonrpc.parse_message(body))


class FakeServer:
    """A stateful server. Implements ``transport.Transport``.

    ``executed`` counts the calls that it carried out, by method. With ``stateless``, it gives no ids.
    ``loss_shows_as`` is how it tells that a session is gone; ``hears_all`` says that whatever is sent on such
    a session reaches it, and that it notices when nobody waits for an answer any more.
    """

    loss_shows_as = "404"
    hears_all = True
    sessions_only = False

    def __init__(self, *, stateless: bool = False) -> None:
        self.silence_seconds = 600.0
        self.seen: list[Sent] = []
        self.sessions: list[str] = []
        self.deleted: list[str] = []
        self.executed: Counter[str] = Counter()
        self.initialize_result: Mapping[str, Any] = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "serverInfo": {"name": "fake", "version": "1"},
        }
        self._stateless = stateless
        self._opened = 0
        self._scripts: dict[str, deque[Scripted]] = defaultdict(deque)

    # -- what tests do ---------------------------------------------------------------------------

    def script(self, what: str, *replies: Scripted) -> None:
        """Answer the next requests of a kind (a method, ``response``, GET or DELETE) in these ways."""
        self._scripts[what].extend(replies)

    def script_first(self, what: str, reply: Scripted) -> None:
        """Answer the next request of a kind in this way, before what is scripted already."""
        self._scripts[what].appendleft(reply)

    def forget(self) -> None:
        """Lose all sessions, as a restart does."""
        self.sessions.clear()

    @property
    def transcript(self) -> list[str]:
        """What was seen, one line per HTTP request, without the GET streams that were refused."""
        return [str(sent) for sent in self.seen if sent.verb != "GET"]

    def posts(self, method: str) -> list[Sent]:
        """The POSTs with this method."""
        return [sent for sent in self.seen if sent.verb == "POST" and sent.method == method]

    @property
    def answers(self) -> list[tuple[Any, Any, Any]]:
        """What its questions were answered: id, result, error, as JSON values; one of the two is None."""
        found = []
        for sent in self.posts("response"):
            assert isinstance(sent.message, Response)
            identifier, result, error = (
                json.loads(part or b"null")
                for part in (sent.message.id, sent.message.result, sent.message.error)
            )
            found.append((identifier, result, error))
        return found

    def gets(self) -> list[Sent]:
        """The GETs."""
        return [sent for sent in self.seen if sent.verb == "GET"]

    # -- transport.Transport -----------------------------------------------------------------------

    def connect(self) -> FakeChannel:
        return FakeChannel(self)

    def reconnect(self, session_id: str | None, route: bytes | None = None) -> FakeChannel:
        return FakeChannel(self, session_id)

    async def reconsider(self, refused: Refused, caller: Caller) -> None:
        pass

    @asynccontextmanager
    async def answered(self, sent: Sent) -> AsyncIterator[FakeReply]:
        """The answer to one HTTP request."""
        self.seen.append(sent)
        await asyncio.sleep(0)
        what = "GET" if sent.verb == "GET" else sent.method
        reply = self._scripted(what, sent) or (self._usual_get if sent.verb == "GET" else self.usual)(sent)
        reply.answers = getattr(sent.message, "id", b"null")
        try:
            yield reply
        finally:
            reply.closed = True

    async def delete(self, sent: Sent) -> None:
        """A session is ended; errors are nobody's business."""
        for _ in range(2):
            self.seen.append(sent)
            await asyncio.sleep(0)
            try:
                if self._scripted("DELETE", sent) is not None:
                    return
            except (ConnectionLost, TimeoutError):
                continue
            except ProxyError:
                return
            if sent.session_id in self.sessions:
                self.sessions.remove(sent.session_id)
            self.deleted.append(sent.session_id or "")
            return

    # -- behaving well -----------------------------------------------------------------------------

    def _scripted(self, what: str, sent: Sent) -> FakeReply | None:
        queue = self._scripts[what]
        if not queue:
            return None
        reply = queue.popleft()
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, FakeReply):
            return reply
        return reply(sent)

    def usual(self, sent: Sent) -> FakeReply:
        """What is answered to a POST that nothing was scripted for."""
        if sent.method == "initialize":
            return self.open_session()
        if not self._stateless and sent.session_id not in self.sessions:
            return refusal(404, GONE)
        if not isinstance(sent.message, Request):
            return FakeReply(status=202, is_stream=False, content_type=None)
        self.executed[sent.method] += 1
        if sent.method == "ping":
            return answer(result())
        return answer(result({"from": sent.session_id}))

    def _usual_get(self, sent: Sent) -> FakeReply:
        if not self._stateless and sent.session_id not in self.sessions:
            return refusal(404, GONE)
        return refusal(405)

    def open_session(self) -> FakeReply:
        """The usual answer to ``initialize``."""
        if self._stateless:
            return answer(result(self.initialize_result))
        self._opened += 1
        self.sessions.append(f"s{self._opened}")
        return answer(result(self.initialize_result), session_id=self.sessions[-1])


# -- whoever listens -------------------------------------------------------------------------------


class FakeRouter:
    """Implements ``session.Router``: keeps what it is given."""

    def __init__(self) -> None:
        self.routed: list[Message] = []
        self.noted: list[Notification] = []
        self.changes: list[tuple[int, bool]] = []

    def route(self, session: UpstreamSession, message: Message) -> None:
        self.routed.append(message)

    def note_change(self, session: UpstreamSession, message: Notification) -> None:
        self.noted.append(message)

    def session_changed(self, session: UpstreamSession) -> None:
        self.changes.append((session.number, session.closed))


class Recorder:
    """An observer that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Event, /) -> None:
        self.events.append(event)

    def named(self, name: str) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if event.name == name]

    @property
    def names(self) -> list[str]:
        """The names of all events, in order."""
        return [event.name for event in self.events]


class FakeResidence(Residence):
    """A place whose fleet is told what happens there."""

    fleet: "FakeFleet"

    def opened(self) -> None:
        self.fleet.notes.append("opened")

    def failed(self, error: ProxyError | None) -> None:
        self.fleet.notes.append(f"failed: {None if error is None else error.reason}")
        self.replica.residences.discard(self)

    def leave(self) -> None:
        self.fleet.notes.append("left")
        super().leave()

    @property
    def can_move(self) -> bool:
        return self.fleet.elsewhere is not None

    def suspect(self) -> None:
        self.fleet.notes.append("suspect")


class FakeFleet(Fleet):
    """A fleet of one server, and what happens there is noted. Sessions go to ``elsewhere`` once it is set."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__([replica_of(server)], FleetRules(patience_seconds=10.0))
        self.elsewhere: FakeServer | None = None
        self.hopeless: ProxyError | None = None
        self.notes: list[str] = []

    def place(self, principal: str) -> Residence:
        self.notes.append("place")
        self.check_worth_waiting()
        if self.elsewhere is not None:
            self.replicas, self.elsewhere = (replica_of(self.elsewhere),), None
        place = FakeResidence(self, self.replicas[0], principal, tried=True)
        place.fleet = self
        return place

    def check_worth_waiting(self) -> None:
        if self.hopeless is not None:
            raise self.hopeless


def replica_of(server: FakeServer) -> Replica:
    """A replica whose transport leads to a fake server."""
    breakers = Breakers(BreakerRules(threshold=5, reset_seconds=10.0))
    there = Server(name="http://fake", transport=server, probe=always_there, url=URL("http://fake/mcp"))
    return Replica(there, breakers, Recorder())


def make_session(
    server: FakeServer,
    *,
    fleet: Fleet | None = None,
    router: FakeRouter | None = None,
    observe: Recorder | None = None,
    keepalive_seconds: float = 120.0,
    check_after_seconds: float = 0.0,
    initialize_params: bytes = INITIALIZE_PARAMS,
    version_is_free: bool = False,
    handshake_timeout_seconds: float = 60.0,
    patience_seconds: float = 10.0,
    known: KnownSession | None = None,
) -> UpstreamSession:
    """An upstream session to a fake server, not open yet."""
    return UpstreamSession(
        fleet=fleet or FakeFleet(server),
        initialize_params=initialize_params,
        version_is_free=version_is_free,
        client_name="t",
        principal="anonymous",
        principal_tag="anonymous",
        router=router or FakeRouter(),
        observe=observe or Recorder(),
        rules=SessionRules(
            keepalive_seconds=keepalive_seconds,
            check_after_seconds=check_after_seconds,
            handshake_timeout_seconds=handshake_timeout_seconds,
            patience_seconds=patience_seconds,
        ),
        known=known,
    )


@asynccontextmanager
async def open_session(server: FakeServer, **options: Any) -> AsyncIterator[UpstreamSession]:
    """The same, open; without a goodbye afterwards."""
    session = make_session(server, **options)
    await session.open(NOBODY)
    try:
        yield session
    finally:
        session.abandon()


class Holder:
    """Whoever keeps a session. ``wanted`` says whether anybody holds it: then it is to be opened anew."""

    def __init__(self, session: UpstreamSession, *, wanted: bool = False) -> None:
        self.told: list[str] = []
        self.failures: list[type[ProxyError]] = []
        self._session = session
        self._wanted = wanted
        session.watch(self)

    def __call__(self, how: str) -> None:
        self.told.append(how)
        if self._wanted:
            self._session.spawn(self._revive(how), "revive")

    async def _revive(self, how: str) -> None:
        session = self._session
        try:
            await session.revive(session.incarnation, how, session.record.credentials)
        except ProxyError as error:
            self.failures.append(type(error))


async def settle(rounds: int = 20) -> None:
    """Let everything that can go on without time passing go on."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeVisit:
    """One request's use of a session, as an exchange knows it."""

    patience_seconds = 10.0

    def __init__(self, session: UpstreamSession, client: Any = None) -> None:
        self.session = session
        self.client = client
        self.caller = NOBODY
        self.retired = 0
        self.patience_seconds = 10.0

    def retire(self) -> None:
        self.retired += 1


class FakeOutlet:
    """Implements ``exchange.Outlet``: keeps what the client would see."""

    asks = None

    def __init__(self) -> None:
        self.notified: list[Notification] = []
        self.asked: list[Request] = []

    async def begin(self) -> None:
        pass

    async def notify(self, *messages: Notification) -> None:
        self.notified += messages

    async def ask(self, session: UpstreamSession, request: Request) -> None:
        self.asked.append(request)

    async def pass_on(self, identifier: bytes, coming: ArrivingResult) -> bool:
        return False

    @property
    def heard(self) -> list[Any]:
        """The parameters of the notifications, as JSON values."""
        return [json.loads(message.params or b"null") for message in self.notified]
