"""Where a message of an upstream standalone stream goes that names no call in flight.

The catalogue and the listeners hear of changes, modern calls of what the server asks in their course,
and legacy clients of all the rest. What comes before anybody has come who may hear it is held for the first.
"""

from ..protocol import revisions
from ..protocol.jsonrpc import Message, Notification, Request
from ..upstream.session import UpstreamSession
from . import task_progress
from .attribution import Attribution
from .catalog import Catalog
from .delivery import Delivery
from .followed import Followed
from .listening import Listening


class Router:
    """Implements ``upstream.session.Router``."""

    def __init__(
        self,
        *,
        delivery: Delivery,
        attribution: Attribution,
        catalog: Catalog,
        listening: Listening,
        followed: Followed | None = None,
    ) -> None:
        self._delivery = delivery
        self._attribution = attribution
        self._catalog = catalog
        self._listening = listening
        self._followed = followed or Followed()

    def route(self, session: UpstreamSession, message: Message) -> None:
        """Take one message of the standalone stream."""
        if isinstance(message, Notification):
            if message.method == revisions.TASK_STATUS:
                task_progress.note_status(session, message.params)
                self._followed.take_status(session, message.params)
            self._attribution.take_notification(session, message)
            self.note_change(session, message)
            if not (session.incarnation.held.met or self._delivery.knows(session)):
                session.incarnation.held.hold(message)
                return
        elif isinstance(message, Request):
            if message.method == revisions.LIST_ROOTS:
                session.record.roots.asked(message.id)
            # A task that it is about, or else the running call: they can have a modern client asked.
            if self._followed.take_request(session, message):
                return
            if self._attribution.take_request(session, message):
                return
            if not self._delivery.can_ask(session) and self._followed.take_stray_request(session, message):
                return
            if not (session.incarnation.held.met or self._delivery.can_ask(session)):
                session.incarnation.held.hold(message)
                return
        self._delivery.route(session, message)

    def note_change(self, session: UpstreamSession, message: Notification) -> None:
        """Let the catalogue and the listeners know of a change."""
        self._catalog.take_notification(message.method)
        self._listening.take_notification(session.principal, session, message)

    def session_changed(self, session: UpstreamSession) -> None:
        """A session was closed, or re-opened and what its server knows may be another thing."""
        self._catalog.session_changed(session)
        self._listening.session_changed(session)
        self._delivery.session_changed(session)
