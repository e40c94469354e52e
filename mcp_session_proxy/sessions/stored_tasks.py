"""What a store keeps of tasks that clients have handles of: to bytes and back.

A task of a server's is found again by its id and its session, so what it has come to need not be kept: the
server is asked. A call that went on as a task is gone with the process; of one that is over, the end is kept.
"""

from typing import Annotated, Final, NamedTuple

import msgspec

from .record import UnreadableRecord

# The kind of these records, as their places are named.
TASK: Final = "task"
# The end of a call that is larger than this is not kept.
STORED_OUTCOME_BYTES: Final = 1024 * 1024
_VERSION: Final = 1
_NONE: Final = msgspec.Raw(b"null")


class StoredTask(NamedTuple):
    """One handle. ``upstream`` is the task's id at its server, None for a call that goes on as a task.

    ``session`` is the tag of the upstream session, ``capabilities`` are its client's, raw. ``began`` is in
    seconds since 1970. ``outcome`` is the status that a call has ended with, ``payload`` its raw result or
    error.
    """

    id: str
    principal: str
    session: str
    upstream: str | None
    capabilities: bytes
    created_at: str
    began: float
    ttl_milliseconds: int | None
    poll_milliseconds: int | None
    message: str | None
    outcome: str | None = None
    payload: bytes | None = None


class _TaskAsStored(msgspec.Struct):
    v: int
    id: Annotated[str, msgspec.Meta(max_length=64)]
    principal: str
    session: str
    upstream: str | None
    capabilities: msgspec.Raw
    created_at: str
    began: float
    ttl_milliseconds: int | None
    poll_milliseconds: int | None
    message: str | None
    outcome: str | None = None
    payload: msgspec.Raw = _NONE


def write_task(task: StoredTask) -> bytes:
    """A task as bytes."""
    payload = _NONE if task.payload is None else msgspec.Raw(task.payload)
    fields = task._replace(payload=None)._asdict() | {"capabilities": msgspec.Raw(task.capabilities)}
    return msgspec.json.encode(_TaskAsStored(v=_VERSION, **{**fields, "payload": payload}))


def read_task(data: bytes) -> StoredTask:
    """The task that was written so.

    Raises:
        UnreadableRecord: it is not one, or one of a later version.
    """
    try:
        stored = msgspec.json.decode(data, type=_TaskAsStored)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableRecord(str(error)) from error
    if stored.v > _VERSION:
        raise UnreadableRecord("It was written by a later version.")
    return StoredTask(
        stored.id,
        stored.principal,
        stored.session,
        stored.upstream,
        bytes(stored.capabilities),
        stored.created_at,
        stored.began,
        stored.ttl_milliseconds,
        stored.poll_milliseconds,
        stored.message,
        stored.outcome,
        None if stored.outcome is None or bytes(stored.payload) == b"null" else bytes(stored.payload),
    )
