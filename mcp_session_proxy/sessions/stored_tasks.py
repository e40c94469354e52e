"""What a store keeps of tasks that clients have handles of: to bytes and back.

A task of a server's is found again by its id and its session; what its client was asked and has not answered
the server does not say again, so that is kept. Of one that is over, the end is kept. A call that went on as a
task is gone with the process.
"""

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

import msgspec

from ..bounds import PROFILE_BYTES, QUESTIONS_A_TASK, TASK_ID_CHARS
from ..protocol.tasks import TaskStatus
from .record import UnreadableRecord

# The kind of these records, as their places are named.
TASK: Final = "task"
# An end that is larger than this is not kept; nor are questions that are larger together.
STORED_OUTCOME_BYTES: Final = 1024 * 1024
STORED_QUESTIONS_BYTES: Final = 1024 * 1024
_VERSION: Final = 1
_NONE: Final = msgspec.Raw(b"null")


class StoredQuestion(NamedTuple):
    """A server's request that waits for the client's answer; ``id`` and ``params`` are raw JSON."""

    id: bytes
    method: str
    params: bytes | None


class StoredTask(NamedTuple):
    """One handle. ``upstream`` is the task's id at its server, None for a call that goes on as a task.

    ``session`` is the tag of the upstream session, ``capabilities`` are its client's, raw. ``began`` is in
    seconds since 1970. ``outcome`` is the status that it has ended with, ``payload`` its raw result or error.
    ``info`` is how its server calls itself, raw. ``asked`` is what its client is asked, by key, and ``keys``
    are all keys that were used in its course. ``reading`` is the id of its ``tasks/result`` at the server, if
    that is under way, and ``reading_after`` the newest event of its stream, if that has any.
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
    updated_at: str = ""
    info: bytes | None = None
    asked: Mapping[str, StoredQuestion] = {}
    keys: tuple[str, ...] = ()
    reading: int | None = None
    reading_after: str | None = None


class _QuestionAsStored(msgspec.Struct):
    id: msgspec.Raw
    method: str
    params: msgspec.Raw = _NONE


class _TaskAsStored(msgspec.Struct):
    v: int
    id: Annotated[str, msgspec.Meta(max_length=64)]
    principal: str
    session: str
    upstream: Annotated[str, msgspec.Meta(max_length=TASK_ID_CHARS)] | None
    capabilities: msgspec.Raw
    created_at: str
    began: float
    ttl_milliseconds: int | None
    poll_milliseconds: int | None
    message: str | None
    outcome: str | None = None
    payload: msgspec.Raw = _NONE
    updated_at: str = ""
    info: msgspec.Raw = _NONE
    asked: Annotated[dict[str, _QuestionAsStored], msgspec.Meta(max_length=QUESTIONS_A_TASK)] = {}
    keys: Annotated[list[str], msgspec.Meta(max_length=QUESTIONS_A_TASK)] = []
    reading: int | None = None
    reading_after: str | None = None


def write_task(task: StoredTask) -> bytes:
    """A task as bytes. Questions that are too large together are left out, and so is a server's long name."""
    size = sum(len(question.params or b"") + len(question.id) for question in task.asked.values())
    asked = task.asked if size <= STORED_QUESTIONS_BYTES else {}
    info = task.info if len(task.info or b"") <= PROFILE_BYTES else None
    fields = task._asdict() | {
        "capabilities": msgspec.Raw(task.capabilities),
        "payload": _raw(task.payload),
        "info": _raw(info),
        "asked": {
            key: _QuestionAsStored(msgspec.Raw(question.id), question.method, _raw(question.params))
            for key, question in asked.items()
        },
        "keys": list(task.keys),
    }
    return msgspec.json.encode(_TaskAsStored(v=_VERSION, **fields))


def _raw(value: bytes | None) -> msgspec.Raw:
    return _NONE if value is None else msgspec.Raw(value)


def _bytes(raw: msgspec.Raw) -> bytes | None:
    data = bytes(raw)
    return None if data == b"null" else data


def read_task(data: bytes) -> StoredTask:
    """The task that was written so.

    Raises:
        UnreadableRecord: it is not one, or one of a later version.
    """
    try:
        stored = msgspec.json.decode(data, type=_TaskAsStored)
        if stored.outcome is not None:
            TaskStatus(stored.outcome)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
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
        None if stored.outcome is None else _bytes(stored.payload),
        stored.updated_at,
        _bytes(stored.info),
        {
            key: StoredQuestion(bytes(question.id), question.method, _bytes(question.params))
            for key, question in stored.asked.items()
        },
        tuple(stored.keys),
        stored.reading,
        stored.reading_after,
    )
