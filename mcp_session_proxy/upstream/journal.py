"""What a lost session's successor must be told again."""

import contextlib
from dataclasses import dataclass, field
from typing import Final

from ..bounds import LOG_LEVEL_BYTES, SUBSCRIPTIONS, SUBSCRIPTIONS_BYTES
from ..errors import OverBudget
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import jsonrpc, revisions

# What is recorded, once the server has agreed to it.
JOURNALLED: Final = frozenset({revisions.SET_LEVEL, revisions.SUBSCRIBE, revisions.UNSUBSCRIBE})


@dataclass(slots=True)
class Journal:
    """What a client told the server that a new session must be told again. All parameters are raw JSON.

    It counts against ``room``; what finds no place there, a new session is not told.
    """

    room: Share = field(default=UNBOUNDED, repr=False, compare=False)
    log_level: bytes | None = None
    subscriptions: dict[str, bytes] = field(default_factory=dict)  # by URI
    _loans: dict[str, Loan] = field(default_factory=dict, init=False, repr=False, compare=False)

    def record(self, method: str, params: bytes | None) -> None:
        """Remember a request that the server has agreed to."""
        if params is None:
            return
        if method == revisions.SET_LEVEL:
            self.log_level = only_level(params)
        elif method in (revisions.SUBSCRIBE, revisions.UNSUBSCRIBE):
            members = jsonrpc.read_object(params)
            uri = jsonrpc.read_string(members.get("uri"))
            if uri is None:
                return
            # Also to take its place at the end, since a new session is told in the order of asking.
            self.subscriptions.pop(uri, None)
            self._loans.pop(uri, None)
            if method == revisions.SUBSCRIBE and len(self.subscriptions) < SUBSCRIPTIONS:
                # A progress token in "_meta" was good for that one request.
                members.pop("_meta", None)
                self._keep(uri, jsonrpc.write_object(members))

    def _keep(self, uri: str, params: bytes) -> None:
        if sum(map(len, self.subscriptions.values())) + len(params) <= SUBSCRIPTIONS_BYTES:
            with contextlib.suppress(OverBudget):
                self._loans[uri] = self.room.lend(len(params))
                self.subscriptions[uri] = params

    def requests(self) -> list[tuple[str, bytes]]:
        """The requests that bring a new session to where the old one was."""
        level = [] if self.log_level is None else [(revisions.SET_LEVEL, self.log_level)]
        return level + [(revisions.SUBSCRIBE, params) for params in self.subscriptions.values()]


def only_level(params: bytes | None) -> bytes | None:
    """What is kept of the parameters of ``logging/setLevel``; None where there is no fit level in them."""
    level = jsonrpc.read_object(params).get("level")
    if level is None or len(level) > LOG_LEVEL_BYTES:
        return None
    return jsonrpc.write_object({"level": level})
