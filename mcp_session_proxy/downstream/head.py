"""The head of one HTTP request, and what it was found to say.

Most requests of a connection have the same head but for the length of their bodies. So a head is judged once,
and kept with the connection for the requests that follow. What is judged by rules that may be replaced at any
time is noted with those rules.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from ..protocol.inbound import Accepts
from ..sessions.acceptance import Judged, TokenStanding
from ..sessions.identity import ANONYMOUS, Claim, Principal
from ..upstream.transport import Caller
from .guard import Guard

RawHeaders = tuple[tuple[bytes, bytes], ...]

_LENGTH: Final = b"content-length"


class Sender(NamedTuple):
    """Who sent a request, by the headers that say so, and by the rules of that time."""

    headers: list[tuple[str, str]]
    query: str
    rules: object
    principal: Principal
    caller: Caller
    claim: Claim | None = None  # of a token that does not count by its bytes, or need not
    shown: Principal = ANONYMOUS  # with a claim: the principal by the bytes all the same
    standing: TokenStanding | None = None  # with a claim: who it counts as; None until the server was asked


class Head(Judged):
    """A head, with the verdicts on it. Two places write them.

    The front door sets ``admitted_by``, the guard that has let it in; ``cors``, the headers that every answer
    to it gets; ``to_endpoint``, whether its path is that of the endpoint; and ``expects``, whether its client
    waits to be asked for the body. ``hops`` is how many members have forwarded it.

    ``senders.py`` sets the rest, for the endpoint. ``judged_by`` are the rules that it went by; it is None as
    long as it is not known who sends the request, and again when a token has ended.
    """

    __slots__ = (
        "_raw",
        "_target",
        "_version",
        "accepts",
        "admitted_by",
        "cors",
        "expects",
        "forwarded_as",
        "hops",
        "legacy_caller",
        "length_at",
        "names_modern",
        "sender",
        "session_id",
        "to_endpoint",
        "version",
        "version_served",
        "versions",
    )

    admitted_by: Guard
    cors: Mapping[str, str]
    to_endpoint: bool
    expects: bool
    hops: int
    # What another member gets after so many hops, from the connection of this number.
    forwarded_as: tuple[int, int, bytes] | None

    sender: Sender
    session_id: str | None
    versions: Sequence[str]  # all that its version header names; ``version`` is the first
    version: str | None
    names_modern: bool  # its version header does
    version_served: bool  # to a legacy request; else ``eras.check_version`` says what is wrong with it
    accepts: Accepts
    legacy_caller: Caller  # with what only the legacy era passes on

    def __init__(self, http: web.BaseRequest) -> None:
        self._target = http.raw_path
        self._version = http.version
        self._raw: RawHeaders = http.raw_headers
        self.length_at = _find_length(self._raw)
        self.judged_by = None
        self.forwarded_as = None
        self.hops = 0

    def is_of(self, http: web.BaseRequest) -> bool:
        """Whether this request has the same head, but for its method and the length of its body."""
        raw, known = http.raw_headers, self._raw
        if http.raw_path != self._target or http.version != self._version:
            return False
        # Most are the same byte for byte; else only the length of the body may differ.
        if raw == known:
            return True
        at = self.length_at
        if at < 0 or len(raw) != len(known):
            return False
        return raw[at][0] == known[at][0] and raw[:at] == known[:at] and raw[at + 1 :] == known[at + 1 :]


def without_length(raw: RawHeaders, former: Head) -> RawHeaders:
    """These headers but for the length of the body, which most likely stands where a former head has it."""
    at = former.length_at
    if not (0 <= at < len(raw) and raw[at][0].lower() == _LENGTH):
        at = _find_length(raw)
    return raw if at < 0 else raw[:at] + raw[at + 1 :]


def _find_length(raw: RawHeaders) -> int:
    """Where the length of the body stands; -1 if it does not."""
    return next((place for place, (name, _) in enumerate(raw) if name.lower() == _LENGTH), -1)
