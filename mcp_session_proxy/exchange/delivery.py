"""Who hears what a server says of its own accord, and who answers what it asks.

Messages of an upstream session's standalone stream go to its audience, the client sessions behind it, through
their mailboxes. A server's request goes to one client only, under an id of ours, and the client's response
goes back under the server's. A request that nobody can answer is answered with an error, at once:
a server that waits for an answer holds up a call.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from ..errors import OverBudget
from ..memory import UNBOUNDED, Share
from ..protocol import changes, jsonrpc, questions, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..sessions.audience import audience_of
from ..sessions.client import ClientSession, Farewell
from ..sessions.event_ledger import EventLedger, EventRules
from ..sessions.identity import Principal
from ..sessions.kept_stream import EventBudget
from ..sessions.mailbox import Former, Mailbox
from ..sessions.questions import Questions
from ..upstream.question import Question, refuse_request
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from .wishes import hears

# A client opens its GET stream just after the handshake, sooner or later; a server may ask before that. One
# that has not declared what it is asked for gets a moment only: the server waits for nothing then.
_STREAM_GRACE_SECONDS: Final = 2.0
_CAPABLE_GRACE_SECONDS: Final = 15.0
# Nothing more is kept for a client that has been away for so long; there may be thousands of them.
_AWAY_SECONDS: Final = 600.0


class Delivery:
    """Delivers between upstream sessions and client sessions. ``rules`` may be replaced at any time.

    ``ledger`` may be set before the first client session comes, if there is an event store.
    """

    def __init__(
        self,
        rules: EventRules,
        *,
        events: Share = UNBOUNDED,
        questions: Share = UNBOUNDED,
    ) -> None:
        self._rules = rules
        self._budget = EventBudget(rules.max_events, events)
        self._room_for_questions = questions
        self.ledger: EventLedger | None = None
        # Told of an upstream session whose server has said something of its own accord.
        self.on_said: list[Callable[[UpstreamSession], None]] = []
        # Told of a client session whose mailbox was made, or that was asked something.
        self.on_change: list[Callable[[ClientSession], None]] = []

    @property
    def rules(self) -> EventRules:
        """What is kept of streams, also of those that there are."""
        return self._rules

    @rules.setter
    def rules(self, rules: EventRules) -> None:
        self._rules = rules
        self._budget.max_events = rules.max_events
        if self.ledger is not None:
            self.ledger.rules = rules

    def mailbox(self, client: ClientSession) -> Mailbox:
        """The client session's mailbox, made when it is first needed."""
        if client.mailbox is None:
            if client.forgotten:  # in the course of a request, which leaves nothing behind
                return Mailbox(EventBudget(self._budget.max_events))
            client.mailbox = self.make_mailbox(client.principal, client.id, client.former)
            self._tell(client)
        return client.mailbox

    def make_mailbox(self, principal: Principal, identifier: str, former: Former | None = None) -> Mailbox:
        """The mailbox for a client session under this id, which there need not be yet."""
        keeping = None if self.ledger is None else self.ledger.keeping(principal.digest, identifier)
        return Mailbox(self._budget, keeping, former)

    def _tell(self, client: ClientSession) -> None:
        for told in self.on_change:
            told(client)

    async def fetch(self, mailbox: Mailbox, event_id: str) -> None:
        """Have in a mailbox what a client asks for that comes back, as far as it is kept anywhere."""
        if self.ledger is not None:
            await self.ledger.fetch(mailbox, event_id)

    def take_mailbox(self, client: ClientSession, mailbox: Mailbox) -> None:
        """Make this the mailbox of a client session that has just begun, with what came for it meanwhile."""
        former, client.mailbox = client.mailbox, mailbox
        if former is not None:
            # In the order in which it came, behind what the early stream has had.
            for event in former.standalone.after(0):
                mailbox.standalone.append(event.data)
            former.standalone.drop()
        self._tell(client)

    def maintain(self) -> None:
        """Let go of streams that ended long enough ago. Called regularly."""
        self._budget.expire(asyncio.get_running_loop().time() - self._rules.linger_seconds)

    def attached(self, _: ClientSession, session: UpstreamSession) -> None:
        """A client session has come to an upstream session: it hears what the server said before."""
        for message in session.incarnation.held.meet():
            self.route(session, message)

    # -- from the server -----------------------------------------------------------------------

    def route(self, session: UpstreamSession, message: Message) -> None:
        """Take a message of the upstream session's standalone stream that names no call in flight."""
        for told in self.on_said:
            told(session)
        if isinstance(message, Request):
            self._route_request(session, message)
        elif isinstance(message, Notification):
            self._notify(session, message)

    def session_changed(self, session: UpstreamSession) -> None:
        """It was re-opened, or missed what its server said: what its clients know may have changed."""
        # Of one that is closed its clients are told when they come to another one.
        if not session.closed:
            for message in changes.everything(session.told_lists, session.record.journal.subscriptions):
                self._notify(session, message)

    def moved(self, client: ClientSession, former: UpstreamSession, session: UpstreamSession) -> None:
        """A client session has come to another upstream session than it knows: the same, for this one."""
        told_lists = former.told_lists | session.told_lists
        subscriptions = {} if client.record.wishes is None else client.record.wishes.subscriptions
        for message in changes.everything(told_lists, subscriptions):
            data = jsonrpc.write_notification(message.method, message.params)
            self.mailbox(client).standalone.append(data)
        session.tell_differences(former.incarnation.initialize_result)

    def tell_others(
        self, session: UpstreamSession, messages: Iterable[Notification], client: ClientSession | None
    ) -> None:
        """What one client, or one without a session, hears in the course of its call, if it is a change.

        Servers that have one channel for everything do not say on which stream they tell of one; others may
        tell it nowhere else.
        """
        for message in messages:
            if message.method in changes.CHANGES:
                self._notify(session, message, besides=client)

    def _notify(
        self, session: UpstreamSession, message: Notification, *, besides: ClientSession | None = None
    ) -> None:
        """Put a notification into the mailboxes of the clients that may yet read it."""
        clients = audience_of(session)
        away_since = asyncio.get_running_loop().time() - _AWAY_SECONDS
        # Written once: a server with thousands of clients on a session says the same to each.
        same_for_all = None if message.method == revisions.CANCELLED else self.rewrite(None, session, message)
        for client in clients:
            if (
                client is besides
                or client.farewell is Farewell.DELETED
                or (client.record.last_used < away_since and not client.busy)
            ):
                continue
            if not (hears(client, message) and self._concerns(client, message)):
                continue
            data = same_for_all or self.rewrite(client, session, message)
            if data is not None:
                self.mailbox(client).standalone.append(data)

    def _concerns(self, client: ClientSession, message: Notification) -> bool:
        """Whether a notification is not about an elicitation of somebody else's.

        MCP 2025-11-25, client/elicitation, "Completion Notifications for URL Mode Elicitation".
        """
        if message.method != revisions.ELICITATION_COMPLETE:
            return True
        asked = client.questions
        return asked is not None and asked.has_elicited(questions.elicitation_id(message.params))

    def note_elicitation(self, client: ClientSession, params: bytes | None) -> None:
        """The client was asked for this: it is told when it is complete."""
        identifier = questions.elicitation_id(params)
        if identifier is not None and not client.forgotten:
            _questions_of(client).note_elicitation(identifier)

    def rewrite(
        self, client: ClientSession | None, session: UpstreamSession, message: Notification
    ) -> bytes | None:
        """A server's notification as the client should see it; None when it does not concern it.

        The id that ``notifications/cancelled`` names is one that the client knows under another.
        """
        if message.method != revisions.CANCELLED:
            return jsonrpc.write_notification(message.method, message.params)
        if client is None or client.questions is None:
            return None
        members = jsonrpc.read_object(message.params)
        number = client.questions.take_asked_as(session, members.get("requestId"))
        if number is None:
            return None
        members["requestId"] = b"%d" % number
        return jsonrpc.write_notification(message.method, jsonrpc.write_object(members))

    def knows(self, session: UpstreamSession) -> bool:
        """Whether any client session is behind the upstream session."""
        return bool(audience_of(session))

    def can_ask(self, session: UpstreamSession) -> bool:
        """Whether any of them is there, so that it can be asked."""
        return any(c.lease is not None or _listens(c) for c in audience_of(session))

    def _route_request(self, session: UpstreamSession, request: Request) -> None:
        """Ask the client that was here last, of those that listen if there are any.

        Where nobody listens, and a client waits for the answer to a request, it is asked on that one's
        stream: most likely the question belongs to it. Otherwise it may be about to open a GET stream.
        """
        clients = audience_of(session)
        listening = [c for c in clients if _listens(c)]
        attached = [c for c in clients if c.lease is not None]
        in_flight = () if listening else reversed(session.incarnation.calls.in_flight.values())
        calls = {call.asks: call for call in in_flight}  # by client, the oldest of each
        calling = [c for c in attached if c in calls]
        # One only, for a request has one answer.
        client = max(listening or calling or attached, key=lambda c: c.record.last_used, default=None)
        if request.method == revisions.LIST_ROOTS:
            # Whoever is being introduced answers, though it may be only about to open its stream.
            respondent = session.record.roots.respondent
            client = next((c for c in attached if c == respondent), client)
        if client is None:
            refuse_request(session, request)
            return
        if client in calls:
            calls[client].deliver(request)
            return
        number = self._ask_on_stream(client, session, request)
        if number is not None and not listening:
            # It may be about to open its stream: what it is asked waits there for a while.
            loop = asyncio.get_running_loop()
            grace_seconds = _CAPABLE_GRACE_SECONDS if _can_answer(client, request) else 0.0
            args = (client, number, loop.time() + grace_seconds)
            loop.call_later(_STREAM_GRACE_SECONDS, self._give_up_if_alone, *args)

    def _ask_on_stream(self, client: ClientSession, session: UpstreamSession, request: Request) -> int | None:
        asked = self.ask(client, session, request)
        if asked is None:
            return None
        number, data = asked
        self.mailbox(client).standalone.append(data)
        return number

    def _give_up_if_alone(self, client: ClientSession, number: int, deadline: float) -> None:
        """Refuse a question whose client does not listen, once it has left or had long enough."""
        asked = client.questions
        # Answered, or read by a client that is there: how long its user takes is for the server to judge.
        if asked is None or number not in asked or _listens(client):
            return
        loop = asyncio.get_running_loop()
        if client.lease is not None and loop.time() < deadline:
            loop.call_later(_STREAM_GRACE_SECONDS, self._give_up_if_alone, client, number, deadline)
        else:
            self.withdraw(client, number)

    def ask(
        self, client: ClientSession, session: UpstreamSession, request: Request
    ) -> tuple[int, bytes] | None:
        """A server's request as the client gets it: the number it will answer to, and the message.

        None if there is no memory for it, or its client is forgotten; the server has been told.
        """
        if client.forgotten:
            refuse_request(session, request)
            return None
        try:
            question = Question.keep(session, request, self._room_for_questions)
        except OverBudget:
            refuse_request(session, request)
            return None
        number = _questions_of(client).add(question)
        if request.method == revisions.ELICIT:
            self.note_elicitation(client, request.params)
        self._tell(client)
        return number, jsonrpc.write_request(b"%d" % number, request.method, request.params)

    def withdraw(self, client: ClientSession, number: int) -> None:
        """The client could not be asked, or will not answer: the server gets an error."""
        question = None if client.questions is None else client.questions.take(number)
        if question is not None:
            question.refuse()

    # -- from the client -------------------------------------------------------------------------

    async def forward(self, client: ClientSession, message: Notification, caller: Caller) -> None:
        """Give a client's notification to the server, if its upstream session lives.

        ``caller`` is that of the POST that brought it.
        """
        home = client.home
        # A notification is no reason to open a session: a new server has nothing that it could be about.
        if home is not None and home.usable:
            incarnation = home.session.incarnation
            await incarnation.tell(jsonrpc.write_notification(message.method, message.params), caller)

    def end_stream(self, client: ClientSession) -> None:
        """The client said goodbye: its GET stream ends. A later one begins anew."""
        if client.mailbox is not None:
            client.mailbox.standalone.end_following()

    async def answer(self, client: ClientSession, response: Response, caller: Caller) -> None:
        """Give a client's response to the server that asked; answers to nothing are dropped.

        ``caller`` is that of the POST that brought it.
        """
        number = jsonrpc.read_number(response.id)
        question = None if client.questions is None else client.questions.take(number)
        if question is not None:
            await question.answer(response, caller)


def _questions_of(client: ClientSession) -> Questions:
    if client.questions is None:
        client.questions = Questions()
    return client.questions


def _listens(client: ClientSession) -> bool:
    return client.mailbox is not None and client.mailbox.standalone.followed


def _can_answer(client: ClientSession, request: Request) -> bool:
    """Whether the client has declared that it can answer such a request."""
    declared = jsonrpc.read_object(jsonrpc.read_object(client.profile.params).get("capabilities"))
    if not questions.is_question(request.method):
        return False
    return questions.missing_capability(request.method, request.params, declared) is None
