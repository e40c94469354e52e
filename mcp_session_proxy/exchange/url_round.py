"""URLs that a server wants visited before it does what a modern client asks of it.

The server has failed the call with an error that names them (MCP 2025-11-25, client/elicitation, "URL
Elicitation Required Error"), so it has executed nothing. Its client is asked to visit them, as it is asked
anything else; when it has, the call is made anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

import msgspec

from ..errors import MissingCapability
from ..memory import Loan, Share
from ..protocol import jsonrpc, lifting, questions, revisions


class Stage(Enum):
    """How far it is: there and back for each error that names URLs, until the client will not go."""

    NOTHING_ASKED = "nothing asked"
    ASKED = "asked"  # the client is visiting them
    DECLINED = "declined"  # it will not: the server's error is the outcome of the call, now and later


class UrlRound(msgspec.Struct, eq=False):
    """The URLs of one call, each as raw parameters of an elicitation, by the key of its question."""

    _share: Share
    stage: Stage = Stage.NOTHING_ASKED
    asked: Mapping[str, bytes] = {}
    _urls: dict[str, bytes] = {}
    _room: Loan | None = None

    @property
    def keys(self) -> Iterable[str]:
        """Under which the client has been asked."""
        return self._urls.keys()

    def ask(
        self, urls: Sequence[bytes], capabilities: Mapping[str, bytes], taken: set[str] | None = None
    ) -> Mapping[str, bytes]:
        """What the client is asked, by key; ``capabilities`` are its own. No key is used that is ``taken``.

        Raises:
            MissingCapability: it visits none.
            OverBudget: there is no memory for them.
        """
        missing = questions.missing_capability(revisions.ELICIT, b'{"mode":"url"}', capabilities)
        if missing is not None:
            raise MissingCapability(missing)
        self._room = self._share.lend(sum(map(len, urls)))
        self._urls = {}
        asked: dict[str, bytes] = {}
        for params in urls:
            key = questions.key_for(revisions.ELICIT, params, asked if taken is None else taken)
            self._urls[key] = params
            asked[key] = lifting.lift_question(revisions.ELICIT, params)
            if taken is not None:
                taken.add(key)
        self.stage = Stage.ASKED
        self.asked = asked
        return asked

    def answer(self, answers: Mapping[str, bytes]) -> Sequence[str] | None:
        """Take the client's answers.

        None as long as one is missing, or if the client will not visit them all. Else all of them have been:
        the ids of those elicitations whose completion the server may tell, and nothing is asked any more.
        """
        if self.stage is not Stage.ASKED or any(key not in answers for key in self._urls):
            return None
        if not all(_accepts(answers[key]) for key in self._urls):
            self.stage, self.asked = Stage.DECLINED, {}
            return None
        ids = map(questions.elicitation_id, self._urls.values())
        told = [identifier for identifier in ids if identifier is not None]
        self.stage, self.asked, self._urls, self._room = Stage.NOTHING_ASKED, {}, {}, None
        return told


def _accepts(answer: bytes) -> bool:
    return jsonrpc.read_object(answer).get("action") == b'"accept"'
