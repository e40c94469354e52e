"""What a member tells of itself, as the store keeps it. Pure."""

from typing import Final

import msgspec

_VERSION: Final = 1


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What one member tells of itself.

    ``addresses`` are where the others reach it, the best first: ``unix:/path``, or a URL. ``started`` is in
    seconds since 1970. ``servers`` are the names of the servers that it is in front of. ``digest`` is a hash
    of the settings that have to be the same at all members. A member that is ``draining`` claims no further
    shards. ``shards`` is roughly how many it has.
    """

    member: str
    pid: int
    started: float
    version: str
    addresses: list[str] = []
    servers: list[str] = []
    digest: str = ""
    draining: bool = False
    shards: int = 0
    v: int = _VERSION


def roughly(number: int) -> int:
    """A number of shards, rounded down to its highest four binary digits.

    So the card seldom changes, and the others need not read it anew for each shard that comes or goes.
    """
    rest = max(0, number.bit_length() - 4)
    return number >> rest << rest


def write_card(card: Card) -> bytes:
    """A card as bytes."""
    return msgspec.json.encode(card)


def read_card(data: bytes) -> Card | None:
    """The card that ``write_card`` has written; None if it cannot be read.

    Members that later versions have added to it are left out.
    """
    try:
        return msgspec.json.decode(data, type=Card)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
