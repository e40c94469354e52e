"""What one legacy client was asked and has not answered yet, and what it may still be told about that.

Its answers come in other POSTs, under numbers of ours: servers number for themselves, and a client may have
had several.
"""

from ..bounds import ELICITATIONS, UNANSWERED_QUESTIONS
from ..upstream.question import Question
from ..upstream.session import UpstreamSession


class Questions:
    """The open questions of one client session, bounded: a server that asks without end gets errors."""

    __slots__ = ("_elicitations", "_newest", "_open")

    def __init__(self) -> None:
        self._open: dict[int, Question] = {}
        self._newest = 0
        self._elicitations: dict[str, None] = {}  # the newest last

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def add(self, question: Question) -> int:
        """The number under which the client knows the question. Over the bound, the oldest is refused."""
        if len(self._open) >= UNANSWERED_QUESTIONS:
            self._open.pop(next(iter(self._open))).refuse()
        # A number of ours, for two servers that a client has had may ask under one id.
        self._newest += 1
        self._open[self._newest] = question
        return self._newest

    def take(self, number: int) -> Question | None:
        """The question under this number, which is open no longer: each is answered or refused once."""
        return self._open.pop(number, None)

    def take_asked_as(self, session: UpstreamSession, identifier: bytes | None) -> int | None:
        """The number of the question that this server asked under this id of its own, open no longer."""
        for number, question in self._open.items():
            if question.session is session and question.request.id == identifier:
                del self._open[number]
                return number
        return None

    def refuse_all(self) -> None:
        """Nobody will answer any of them. The numbers go on: what is answered late means none of the next."""
        questions, self._open = self._open, {}
        for question in questions.values():
            question.refuse()

    def note_elicitation(self, identifier: str) -> None:
        """The client was asked for this: it is told when it is complete."""
        self._elicitations[identifier] = None
        if len(self._elicitations) > ELICITATIONS:
            del self._elicitations[next(iter(self._elicitations))]

    def has_elicited(self, identifier: str | None) -> bool:
        """Whether the client was asked for this."""
        return identifier in self._elicitations
