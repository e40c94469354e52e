"""What there is to know of a client session that could be stored: plain data, to JSON and back. Pure.

Whatever hangs on this process is not here but in ``client``: leases, streams, tasks, what waits for an
answer. A client session that is made of a record attaches with its first request, as one that was detached.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from ..errors import BadRequest, InvalidParams
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, revisions
from ..upstream.journal import Journal
from .books import Usage
from .identity import Principal, Profile, SessionKey, read_profile

# The largest profile and the largest wishes have 320 KiB between them.
MAX_RECORD_BYTES: Final = 512 * 1024
_ID: Final = r"\A[^\x00-\x1f\x7f]+\Z"  # it is sent back in a header
_TAG: Final = r"\Ac[0-9a-f]{8}\Z"
_DIGEST: Final = r"\A[0-9A-Za-z]+\Z"
_KEPT_USAGES: Final = frozenset(Usage) - {Usage.ONCE}


class Contact(StrEnum):
    """How its client has shown itself so far. It says what its silence means: see ``presence``."""

    UNCLAIMED = "unclaimed"  # it has never sent its id back
    CLAIMED = "claimed"  # it has
    STREAMED = "streamed"  # it has also opened a GET stream


class UnreadableRecord(Exception):
    """What was stored is no record, or none that could be gone on with."""


class ClientRecord(msgspec.Struct, kw_only=True):
    """One client session, as it could be stored.

    ``adopted``: the client brought its id, we did not mint it. ``created`` and ``last_used`` are in seconds
    by the event loop's clock, which begins anew with each process: see ``moved``. ``version`` is what its
    handshake agreed on, if there was one here; ``wishes`` what it asked the server to tell it of.
    """

    id: str
    tag: str
    principal: Principal
    key: SessionKey
    profile: Profile
    usage: Usage
    adopted: bool
    created: float
    last_used: float
    contact: Contact = Contact.UNCLAIMED
    requests: int = 0
    version: str | None = None
    wishes: Journal | None = None

    def moved(self, seconds: float) -> "ClientRecord":
        """The same by a clock that is ahead by so much: for a process that did not write it."""
        return msgspec.structs.replace(
            self, created=self.created + seconds, last_used=self.last_used + seconds
        )


# -- as JSON ---------------------------------------------------------------------------------------


class _StoredPrincipal(msgspec.Struct, forbid_unknown_fields=True):
    digest: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_DIGEST)]
    anonymous: bool


class _StoredProfile(msgspec.Struct, forbid_unknown_fields=True):
    params: msgspec.Raw
    version_is_free: bool


class _StoredWishes(msgspec.Struct, forbid_unknown_fields=True):
    log_level: msgspec.Raw
    subscriptions: list[msgspec.Raw]


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON. The session key is not in it: it follows from principal, affinity and profile."""

    id: Annotated[str, msgspec.Meta(max_length=8192, pattern=_ID)]
    tag: Annotated[str, msgspec.Meta(pattern=_TAG)]
    principal: _StoredPrincipal
    affinity: bytes | None  # it may be of any bytes that a header can have
    profile: _StoredProfile
    usage: Usage
    adopted: bool
    created: float
    last_used: float
    contact: Contact
    requests: Annotated[int, msgspec.Meta(ge=0)]
    version: str | None
    wishes: _StoredWishes | None


def write_record(record: ClientRecord, ahead_seconds: float = 0.0) -> bytes:
    """The record as JSON, with its times by a clock that is ahead by so much."""
    wishes, profile, affinity = record.wishes, record.profile, record.key.affinity
    return msgspec.json.encode(
        _Stored(
            id=record.id,
            tag=record.tag,
            principal=_StoredPrincipal(record.principal.digest, record.principal.anonymous),
            affinity=None if affinity is None else affinity.encode(errors="surrogatepass"),
            profile=_StoredProfile(msgspec.Raw(profile.params), profile.version_is_free),
            usage=record.usage,
            adopted=record.adopted,
            created=record.created + ahead_seconds,
            last_used=record.last_used + ahead_seconds,
            contact=record.contact,
            requests=record.requests,
            version=record.version,
            wishes=None
            if wishes is None
            else _StoredWishes(
                msgspec.Raw(wishes.log_level or jsonrpc.NULL),
                [msgspec.Raw(params) for params in wishes.subscriptions.values()],
            ),
        )
    )


def read_record(
    data: bytes, profile_of: Callable[[bytes | None], Profile] = read_profile, room: Share = UNBOUNDED
) -> ClientRecord:
    """The record that was written so.

    Whoever can write to a store must not get more by it than a client could ask for, so the same readers
    judge by the same limits: ``profile_of`` makes the profile as of an ``initialize``, and wishes count
    against ``room`` as if they were asked for now.

    Raises:
        UnreadableRecord: it is not JSON, not a record, or says what no client session can be.
        OverBudget: ``profile_of`` has no memory for its profile.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise UnreadableRecord(f"A record has at most {MAX_RECORD_BYTES} bytes.")
    try:
        stored = msgspec.json.decode(data, type=_Stored)
        profile = profile_of(bytes(stored.profile.params))
        affinity = None if stored.affinity is None else stored.affinity.decode(errors="surrogatepass")
    except (*jsonrpc.UNREADABLE, BadRequest, InvalidParams) as error:
        raise UnreadableRecord(f"This is no record of a client session: {error}") from error
    if stored.usage not in _KEPT_USAGES or not all(map(math.isfinite, (stored.created, stored.last_used))):
        raise UnreadableRecord("No client session can be so.")
    # `initialize` has no place for this, so no reader of its parameters can tell.
    if stored.profile.version_is_free:
        profile = replace(profile, version_is_free=True)
    principal = Principal(digest=stored.principal.digest, anonymous=stored.principal.anonymous)
    return ClientRecord(
        id=stored.id,
        tag=stored.tag,
        principal=principal,
        key=SessionKey(principal.digest, affinity, profile.digest),
        profile=profile,
        usage=stored.usage,
        adopted=stored.adopted,
        created=stored.created,
        last_used=stored.last_used,
        contact=stored.contact,
        requests=stored.requests,
        version=stored.version,
        wishes=None if stored.wishes is None else _read_wishes(stored.wishes, room),
    )


def _read_wishes(stored: _StoredWishes, room: Share) -> Journal:
    wishes = Journal(room)
    wishes.record(revisions.SET_LEVEL, bytes(stored.log_level))
    for params in stored.subscriptions:
        wishes.record(revisions.SUBSCRIBE, bytes(params))
    return wishes
