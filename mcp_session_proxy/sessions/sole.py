"""Servers that can have one session only: how they refuse another, and whom their one can serve. Pure.

The official example of a stateful server is such a one: a single transport, which is initialised once.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from ..errors import HandshakeRefused, ProxyError, UpstreamRejected
from ..protocol import jsonrpc
from .books import Slot, Usage
from .identity import Profile, SessionKey

S = TypeVar("S")

# Known by their words, for they come as a 400 and -32600 as any mistake does. The official TypeScript
# transport says "Server already initialized".
_REFUSALS: Final = re.compile(
    rb"already (?:been )?initiali[sz]ed"
    rb"|only (?:one|a single|1) (?:active |concurrent |client )?(?:session|connection|client)",
    re.IGNORECASE,
)
_MAX_LEVELS: Final = 20
_ABSENT: Final = b"null"


def refuses_another(error: ProxyError) -> bool:
    """Whether a server that failed a handshake with this has a session already, and can have no other."""
    return isinstance(error, UpstreamRejected | HandshakeRefused) and bool(_REFUSALS.search(error.words))


def find_shareable(
    slots: Iterable[Slot[S]],
    principal: str,
    profile: Profile,
    usage: Usage,
    told: Callable[[SessionKey], Profile],
) -> Slot[S] | None:
    """The session of a server that can have one only, where this use by this client can share it.

    ``told`` gives the profile that the sessions of a key were opened with.
    """
    # In the other modes sessions are not for two at a time, and the only one that there is has its owner.
    if usage is not Usage.JOINT:
        return None
    for slot in slots:
        shared = slot.usable and not slot.reserved and slot.key.principal == principal
        if shared and can_serve(told(slot.key), profile):
            return slot
    return None


def can_serve(told: Profile, client: Profile) -> bool:
    """Whether a session that was opened with one profile can serve a client with another.

    It can where the client is able to do whatever the server was told of: nothing will be asked in vain.
    """
    return _covers(_capabilities(client), _capabilities(told), _MAX_LEVELS)


def _capabilities(profile: Profile) -> bytes:
    return jsonrpc.read_object(profile.params).get("capabilities", b"{}")


def _covers(able: bytes, told: bytes, levels: int) -> bool:
    """Whether one raw JSON value promises what the other does. False promises as little as nothing."""
    if told in (b"false", _ABSENT):
        return True
    # Capabilities are what a client likes to write, so the depth to which they are compared has a bound.
    if told[:1] != b"{" or levels == 0:
        return jsonrpc.canonical(able) == jsonrpc.canonical(told)
    members = jsonrpc.read_object(able)
    return able[:1] == b"{" and all(
        _covers(members.get(key, _ABSENT), value, levels - 1)
        for key, value in jsonrpc.read_object(told).items()
    )
