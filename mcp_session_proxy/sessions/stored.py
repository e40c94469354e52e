"""What a store keeps of upstream sessions and of client sessions: to bytes and back.

Times are stored in seconds since 1970, because the event loop's clock begins anew with each process; in a
directory, by a clock that nobody sets. A later version may add fields, which an earlier one passes over; one
that changes what a field means raises ``v``, and records with a higher one are not read.
"""

import math
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec

from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc
from ..upstream.record import KnownSession
from .identity import Profile, read_profile
from .record import ClientRecord, UnreadableRecord, read_record, write_record

# Kinds of records, as their places are named.
UPSTREAM: Final = "session"
CLIENT: Final = "client"
CLAIM: Final = "claim"

_VERSION: Final = 1
_T = TypeVar("_T")
_TAG: Final = r"\Au[0-9a-f]{8}\Z"
_NONCE: Final = r"\A[0-9a-f]{6}\Z"


class UpstreamRecord(msgspec.Struct, kw_only=True):
    """One upstream session, as it could be stored, with what the pool knows of it.

    ``params`` and ``version_is_free`` are its profile's. ``age_seconds``, ``unused_seconds`` and
    ``lingering_seconds`` are how long ago it began, was used last, and lost its owner, if it did.
    ``reserved``: it belongs to one client session for life. ``principal`` is its caller's; None if the shard
    is named so.
    """

    known: KnownSession
    affinity: str | None
    params: bytes
    version_is_free: bool
    requests: int
    reserved: bool
    age_seconds: float
    unused_seconds: float
    lingering_seconds: float | None = None
    principal: str | None = None


class StoredClientSession(msgspec.Struct, kw_only=True):
    """One client session with what it had of the pool: ``home`` is the tag of its upstream session.

    ``attached``: it held that. ``deleted``: its client had said goodbye. ``nonce`` is its mailbox's, if it
    had one, and ``taken`` where its client was in that, if that is known. ``orderly``: so it was at the end
    of the process that wrote it.
    """

    record: ClientRecord
    home: str | None
    attached: bool
    deleted: bool
    nonce: str | None = None
    taken: int | None = None
    orderly: bool = False


class _StoredKnown(msgspec.Struct):
    server: str
    session_id: str | None
    version: str | None
    result: msgspec.Raw
    told: list[tuple[str, msgspec.Raw]]
    told_lists: list[str]
    last_event_id: str | None
    asked_for_roots: bool
    asked: list[msgspec.Raw] = []
    route: bytes | None = None


class _StoredUpstream(msgspec.Struct):
    v: int
    tag: Annotated[str, msgspec.Meta(pattern=_TAG)]
    affinity: bytes | None
    params: msgspec.Raw
    version_is_free: bool
    known: _StoredKnown
    requests: Annotated[int, msgspec.Meta(ge=0)]
    reserved: bool
    born: float
    last_used: float
    lingering_since: float | None
    principal: str | None = None


class _StoredClient(msgspec.Struct):
    v: int
    record: msgspec.Raw
    home: str | None
    attached: bool
    deleted: bool
    nonce: Annotated[str, msgspec.Meta(pattern=_NONCE)] | None = None
    taken: Annotated[int, msgspec.Meta(ge=0)] | None = None
    orderly: bool = False


class _StoredClaim(msgspec.Struct):
    principal: str | None = None


class _Versioned(msgspec.Struct):
    v: int


def write_upstream(record: UpstreamRecord, now: float) -> bytes:
    """The record of an upstream session as bytes. ``now`` is in seconds since 1970."""
    known, affinity, lingering = record.known, record.affinity, record.lingering_seconds
    return msgspec.json.encode(
        _StoredUpstream(
            v=_VERSION,
            tag=known.tag,
            affinity=None if affinity is None else affinity.encode(errors="surrogatepass"),
            params=msgspec.Raw(record.params),
            version_is_free=record.version_is_free,
            known=_StoredKnown(
                server=known.server,
                session_id=known.session_id,
                version=known.version,
                result=msgspec.Raw(known.initialize_result),
                told=[(method, msgspec.Raw(params)) for method, params in known.told],
                told_lists=sorted(known.told_lists),
                last_event_id=known.last_event_id,
                asked_for_roots=known.asked_for_roots,
                asked=list(map(msgspec.Raw, known.asked)),
                route=known.route,
            ),
            requests=record.requests,
            reserved=record.reserved,
            born=now - record.age_seconds,
            last_used=now - record.unused_seconds,
            lingering_since=None if lingering is None else now - lingering,
            principal=record.principal,
        )
    )


def read_upstream(data: bytes, now: float, first_id: int) -> UpstreamRecord:
    """The record that was written so. Requests on it have ids from ``first_id`` on.

    A clock that was set back makes nothing younger than new.

    Raises:
        UnreadableRecord: it is not one, or one of a later version.
    """
    try:
        stored = _read(data, _StoredUpstream)
        affinity = None if stored.affinity is None else stored.affinity.decode(errors="surrogatepass")
    except jsonrpc.UNREADABLE as error:
        raise UnreadableRecord(f"This is no record of an upstream session: {error}") from error
    lingering, known = stored.lingering_since, stored.known
    return UpstreamRecord(
        known=KnownSession(
            server=known.server,
            session_id=known.session_id,
            version=known.version,
            initialize_result=bytes(known.result),
            told=tuple((method, bytes(params)) for method, params in known.told),
            told_lists=frozenset(known.told_lists),
            last_event_id=known.last_event_id,
            asked_for_roots=known.asked_for_roots,
            asked=tuple(map(bytes, known.asked)),
            route=known.route,
            tag=stored.tag,
            first_id=first_id,
            asleep=True,
        ),
        affinity=affinity,
        params=bytes(stored.params),
        version_is_free=stored.version_is_free,
        requests=stored.requests,
        reserved=stored.reserved,
        age_seconds=_since(stored.born, now),
        unused_seconds=_since(stored.last_used, now),
        lingering_seconds=None if lingering is None else _since(lingering, now),
        principal=stored.principal,
    )


def write_client(stored: StoredClientSession, ahead_seconds: float) -> bytes:
    """A client session as bytes. The clock on the wall is ahead of the event loop's by so much."""
    return msgspec.json.encode(
        _StoredClient(
            v=_VERSION,
            record=msgspec.Raw(write_record(stored.record, ahead_seconds)),
            home=stored.home,
            attached=stored.attached,
            deleted=stored.deleted,
            nonce=stored.nonce,
            taken=stored.taken,
            orderly=stored.orderly,
        )
    )


def read_client(
    data: bytes,
    now: float,
    ahead_seconds: float,
    profile_of: Callable[[bytes | None], Profile] = read_profile,
    room: Share = UNBOUNDED,
) -> StoredClientSession:
    """The client session that was written so.

    ``now`` is by the event loop's clock, of which the one on the wall is ahead by ``ahead_seconds``.

    Raises as ``record.read_record``.
    """
    try:
        stored = _read(data, _StoredClient)
    except jsonrpc.UNREADABLE as error:
        raise UnreadableRecord(f"This is no record of a client session: {error}") from error
    record = read_record(bytes(stored.record), profile_of, room).moved(-ahead_seconds)
    # No client session was used later than now, whatever a clock says that was set back since.
    record.created, record.last_used = min(record.created, now), min(record.last_used, now)
    return StoredClientSession(
        record=record,
        home=stored.home,
        attached=stored.attached,
        deleted=stored.deleted,
        nonce=stored.nonce,
        taken=stored.taken,
        orderly=stored.orderly,
    )


def write_claim(principal: str) -> bytes:
    """Who the tokens with a claim count as, as bytes."""
    return msgspec.json.encode(_StoredClaim(principal=principal))


def read_claim(data: bytes, shard: str) -> str:
    """The principal that was written so; it may be what the shard is named after.

    Raises:
        UnreadableRecord: it is none.
    """
    try:
        return msgspec.json.decode(data, type=_StoredClaim).principal or shard
    except jsonrpc.UNREADABLE as error:
        raise UnreadableRecord(f"This is no record of a claim: {error}") from error


def _read(data: bytes, kind: type[_T]) -> _T:
    version = msgspec.json.decode(data, type=_Versioned).v
    if version > _VERSION:
        raise UnreadableRecord(f"It was written by a later version (record format {version}).")
    return msgspec.json.decode(data, type=kind)


def _since(when: float, now: float) -> float:
    return max(0.0, now - when) if math.isfinite(when) else 0.0
