"""What survives each incarnation of an upstream session: plain values, and what counts and remembers."""

import itertools
from collections.abc import Callable

import msgspec

from ..errors import UpstreamTimeout
from ..memory import UNBOUNDED, UNCOUNTED, Keeper, Share
from .journal import Journal
from .roots import RootsTalk
from .transport import NOBODY, Caller


class SessionRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose for upstream sessions.

    One that nobody uses is pinged every ``keepalive_seconds``; one that was quiet for ``check_after_seconds``
    is pinged before it is used, never with 0. A server may take ``handshake_timeout_seconds`` to open one;
    for one that takes no connections, whoever wants a session opened anew waits ``patience_seconds``.
    """

    keepalive_seconds: float = 120.0
    check_after_seconds: float = 0.0
    handshake_timeout_seconds: float = 60.0
    patience_seconds: float = 10.0


class KnownSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that stands at a server already, and what it takes to go on with it without a handshake.

    ``server`` is the name of the replica that it lives on. ``session_id`` and ``version`` are what the server
    calls it and what was agreed on, ``route`` is what else its channel needs to come there;
    ``initialize_result`` is what the server said of itself, raw; ``told`` are the requests of its journal.
    ``told_lists`` are the features whose changes clients expect to hear of, ``last_event_id`` is where its
    standalone stream goes on; ``asked_for_roots``: the server may know those of some client; ``asked`` are
    its ids of requests that nobody has answered. ``tag`` is its name in logs; without one it gets another.

    ``first_id`` is that of its first request from here, so that none has the id of one that is still under
    way from elsewhere. ``asleep``: nothing is said on it, not even a ping, until the first request comes.
    """

    server: str
    session_id: str | None
    version: str | None
    initialize_result: bytes
    route: bytes | None = None
    told: tuple[tuple[str, bytes], ...] = ()
    told_lists: frozenset[str] = frozenset()
    last_event_id: str | None = None
    asked_for_roots: bool = False
    asked: tuple[bytes, ...] = ()
    tag: str = ""
    first_id: int = 1
    asleep: bool = False


class Record(msgspec.Struct, kw_only=True):
    """What all incarnations of one upstream session have in common.

    ``initialize_params`` is raw JSON, whose version may be another one if ``version_is_free``.
    ``principal_tag`` is the principal's short form for logs. ``rules`` may be replaced at any time.
    ``credentials`` are the newest caller's, for what the session sends by itself. ``last_used``, by a
    request, is on the event loop's clock. ``next_id`` gives ids for requests, which no two incarnations have
    in common: what still comes for a lost one must not be taken for the answer to a later request.
    ``results`` keeps what servers say of themselves.
    """

    tag: str
    principal: str
    principal_tag: str
    client_name: str
    initialize_params: bytes
    version_is_free: bool
    rules: SessionRules
    room_for_questions: Share = UNBOUNDED
    journal: Journal = msgspec.field(default_factory=Journal)
    results: Keeper = UNCOUNTED
    roots: RootsTalk = msgspec.field(default_factory=RootsTalk)
    credentials: Caller = NOBODY
    requests: int = 0
    last_used: float = 0.0
    next_id: Callable[[], int] = msgspec.field(default_factory=lambda: itertools.count(1).__next__)

    def too_slow(self, what: str) -> UpstreamTimeout:
        """The error for a server that has not done within a handshake's time what it should."""
        return UpstreamTimeout(
            f"The MCP server did not {what} within {self.rules.handshake_timeout_seconds:g} s, "
            "which is what --handshake-timeout allows."
        )
