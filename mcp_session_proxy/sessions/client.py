"""A client session as it lives in this process: its record, and what hangs on it that could not be stored."""

import asyncio
import secrets
from enum import Enum
from typing import Final
from weakref import WeakSet

from ..upstream.session import UpstreamSession
from .attachment import Attachment
from .books import Slot
from .identity import Principal, Profile, SessionKey
from .mailbox import Former, Mailbox
from .pool import Lease
from .questions import Questions
from .record import ClientRecord, Contact

_NEVER: Final = float("-inf")

# Client sessions with nothing open, the longest silent first.
Queue = dict["ClientSession", None]


def new_tag() -> str:
    """A short opaque name for logs and pages."""
    return "c" + secrets.token_hex(4)


class Farewell(Enum):
    """Whether its client has said goodbye, the stronger word last."""

    NONE = 0
    HUNG_UP = 1  # its connections were closed as by somebody who leaves, and nothing came since
    DELETED = 2  # it said DELETE, and has not begun anew since
    FORGOTTEN = 3  # its id means nothing any more: nobody can come back
    ELSEWHERE = 4  # its id means nothing here: another process goes on with it


class ClientSession:
    """What a legacy client holds: an id, and the upstream session that is behind it.

    ``home`` is the upstream session that it used last and finds again when it comes back; ``lease`` is held
    while the client session is attached, as ``state`` says: only ``attaching`` sets the two. ``streams`` and
    ``in_flight`` count what is open now.
    """

    __slots__ = (
        "attaching",
        "connections",
        "farewell",
        "former",
        "hears",
        "home",
        "hung_up_at",
        "in_flight",
        "keeps_connections",
        "lease",
        "mailbox",
        "questions",
        "queue",
        "record",
        "state",
        "stored_as",
        "stored_at",
        "streams",
    )

    def __init__(self, record: ClientRecord) -> None:
        self.record = record
        self.state = Attachment.DETACHED
        self.lease: Lease | None = None
        self.attaching: asyncio.Task[Lease] | None = None
        self.home: Slot[UpstreamSession] | None = None
        self.hears: WeakSet[UpstreamSession] = WeakSet()  # see ``audience``
        self.mailbox: Mailbox | None = None  # made when the first message has to be kept for its client
        self.former: Former | None = None  # what an earlier process has left of that
        self.questions: Questions | None = None  # made when the server first asks
        self.streams = 0
        self.in_flight = 0
        self.queue: Queue | None = None  # of those whose return is waited for
        self.farewell = Farewell.NONE
        self.hung_up_at = 0.0
        self.connections = 0  # open ones that have carried this client session
        self.keeps_connections = False  # for more than one request
        self.stored_at = _NEVER  # of when what a store has of it is, by the event loop's clock
        self.stored_as: str | None = None  # the name of its record, once it has one

    def __repr__(self) -> str:
        return f"<ClientSession {self.tag} {self.state} in_flight={self.in_flight} streams={self.streams}>"

    @property
    def id(self) -> str:
        """The id that the client sends with each request."""
        return self.record.id

    @property
    def tag(self) -> str:
        """A short opaque name for logs and pages."""
        return self.record.tag

    @property
    def principal(self) -> Principal:
        """Whose it is."""
        return self.record.principal

    @property
    def key(self) -> SessionKey:
        """That of the upstream sessions that it may use."""
        return self.record.key

    @property
    def profile(self) -> Profile:
        """What its upstream sessions are initialised with."""
        return self.record.profile

    @property
    def had_stream(self) -> bool:
        """Whether its client has shown that it reads event streams, by opening one."""
        return self.record.contact is Contact.STREAMED

    @property
    def forgotten(self) -> bool:
        """Whether its id means nothing here any more, so that nobody can come back."""
        return self.farewell is Farewell.FORGOTTEN or self.farewell is Farewell.ELSEWHERE

    @property
    def busy(self) -> bool:
        """Whether a request or a stream of this client is open now."""
        return self.in_flight > 0 or self.streams > 0 or self.state is Attachment.ATTACHING

    @property
    def open_questions(self) -> int:
        """How many questions of the server's wait for its answer."""
        return 0 if self.questions is None else len(self.questions)

    def begin_anew(self) -> None:
        """Its client has initialised again: it knows nothing of what it was asked before."""
        if self.questions is not None:
            self.questions.refuse_all()

    def part(self) -> None:
        """Another process goes on with it: its streams end here, and what is kept for it is left to that."""
        mailbox, self.mailbox = self.mailbox, None
        if mailbox is not None:
            mailbox.part()

    def close(self) -> None:
        """Nobody can come back: its questions get errors, its streams end, and nothing is kept for it."""
        questions, self.questions = self.questions, None
        if questions is not None:
            questions.refuse_all()
        mailbox, self.mailbox = self.mailbox, None
        if mailbox is not None:
            mailbox.close()
