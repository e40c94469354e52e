"""The last resort for a session on which its server refuses everything, in words that nobody knows.

``protocol.lost`` knows servers by their words; here only what they do counts. Some answers in a row,
over some time, that are all refusals of the same kind, with nothing else in between, make a session
suspect. It is given up only if the server still refuses a ping on it *and* opens a new session for the
same caller at once: then the server is neither down nor busy nor against the caller, and it is this
session that it does not want.

The price of the mistake: a server that is so busy that it refuses everything on one session for this
long, and opens another in the same moment, loses that session's state. No request runs twice by it:
what was refused was answered, and is not sent again.
"""

import asyncio
from typing import Final

from ..errors import ProxyError
from ..protocol import jsonrpc, revisions
from .handshake import open_and_close
from .transport import Caller, Channel, Concern, ConnectionLost, Refused, Transport

_OTHER_MATTERS: Final = frozenset({Concern.CALLER, Concern.RATE})
_IN_A_ROW: Final = 3
_SECONDS: Final = 5.0
# Who says when to come back is busy, and means to go on.
_BUSY_SECONDS: Final = 60.0
_PING_SECONDS: Final = 10.0
_OWN_ID: Final = b"0"  # no request of a session's has it


class Refusals:
    """The refusals in a row on one incarnation of a session. ``now`` is the event loop's time."""

    __slots__ = ("_how", "_since", "count")

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0
        self._how: int | str = ""

    def clear(self) -> None:
        """The server answered something else."""
        self.count = 0

    def note(self, refused: Refused, now: float) -> bool:
        """One more; gives whether the session is suspect."""
        if not _counts(refused):
            self.clear()
            return False
        if not self.count or refused.how != self._how:
            self.count, self._since, self._how = 0, now, refused.how
        self.count += 1
        return self.count >= _IN_A_ROW and now - self._since >= (_BUSY_SECONDS if refused.busy else _SECONDS)


def _counts(refused: Refused) -> bool:
    """Whether a refusal may be about the session: not about the caller, and not about the rate."""
    return refused.concern not in _OTHER_MATTERS


async def is_deadlocked(
    transport: Transport,
    session: Channel,
    caller: Caller,
    initialize_params: bytes,
    patience_seconds: float,
) -> bool:
    """Whether the server refuses this session, ping included, and opens another. That one is ended again."""
    # Pinged again at the end: a server that has recovered meanwhile opens another one just as well.
    return (
        await _refuses_ping(session, caller)
        and await _opens_another(transport, session, caller, initialize_params, patience_seconds)
        and await _refuses_ping(session, caller)
    )


async def _refuses_ping(session: Channel, caller: Caller) -> bool:
    body = jsonrpc.write_request(_OWN_ID, revisions.PING, None)
    try:
        async with asyncio.timeout(_PING_SECONDS), session.send(body, caller, _OWN_ID):
            # It was taken, whatever the answer to it says.
            return False
    except Refused as refused:
        return _counts(refused)
    except (ProxyError, ConnectionLost, TimeoutError):
        return False


async def _opens_another(
    transport: Transport,
    session: Channel,
    caller: Caller,
    initialize_params: bytes,
    patience_seconds: float,
) -> bool:
    # In the version that it took for this session: it must not refuse the other one over that.
    if session.version is not None:
        version = {"protocolVersion": jsonrpc.quote(session.version)}
        initialize_params = jsonrpc.replace_members(initialize_params, version)
    try:
        await open_and_close(
            transport,
            caller,
            lambda handshake: handshake.initialize(initialize_params),
            timeout_seconds=patience_seconds,
            is_somebodys=lambda opened: opened.session_id == session.session_id is not None,
        )
    except (ProxyError, ConnectionLost, TimeoutError):
        return False
    return True
