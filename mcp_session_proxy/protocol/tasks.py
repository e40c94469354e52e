"""Tasks: as servers of 2025-11-25 tell of them, and as clients of the extension hear of them. Pure.

The earlier revision has them as an experiment (basic/utilities/tasks): a client asks for a task in its call,
and fetches its result with a request of its own, on which the server also asks. The later one has an
extension (``io.modelcontextprotocol/tasks``, SEP-2663): the server decides, and whoever asks how a task
stands gets its questions, its result or its error with the answer.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from ..bounds import TASK_ID_CHARS, TASK_MESSAGE_CHARS
from ..errors import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND
from . import jsonrpc, revisions
from .jsonrpc import Response

REQUIRED: Final[Mapping[str, object]] = {"extensions": {revisions.TASKS_EXTENSION: {}}}
"""What a client has to declare for the extension."""

_RESULT_TYPE: Final = b'"task"'
_RELATED: Final = revisions.META_RELATED_TASK.encode()
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,+\-Zz]{5,30}")
# A server that takes no calls but as tasks need not say so of each tool (basic/utilities/tasks, "Errors").
_WANTS_TASK: Final = re.compile(r"\btask[- ]augment", re.IGNORECASE)
# What a result has in it that refuses a call which was to be a task, and how long it is at most.
AUGMENT: Final = b"augment"
REFUSAL_BYTES: Final = 2048
_REFUSED_UNSEEN: Final = frozenset({METHOD_NOT_FOUND, INVALID_REQUEST})
_MOST_MILLISECONDS: Final = 2**53 - 1


class TaskStatus(StrEnum):
    """How a task stands. Both revisions have the same words."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self not in (TaskStatus.WORKING, TaskStatus.INPUT_REQUIRED)


class Support(StrEnum):
    """Whether a tool runs as a task (2025-11-25, ``execution.taskSupport``)."""

    FORBIDDEN = "forbidden"
    OPTIONAL = "optional"
    REQUIRED = "required"


# Which member tells more of a task that stands so (ext-tasks, "Task Status").
_DETAILS: Final = {
    TaskStatus.INPUT_REQUIRED: "inputRequests",
    TaskStatus.COMPLETED: "result",
    TaskStatus.FAILED: "error",
}


# -- what servers of 2025-11-25 say ----------------------------------------------------------------


class LegacyTask(NamedTuple):
    """What a server says of a task, as far as it is fit. ``ttl_milliseconds`` is None for ever."""

    id: str
    status: TaskStatus
    message: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    ttl_milliseconds: int | None = None
    poll_milliseconds: int | None = None

    def followed_by(self, newer: "LegacyTask") -> "LegacyTask":
        """What is known of it once the server has said this, too: not all of it is said every time."""
        return newer._replace(
            created_at=self.created_at or newer.created_at,
            poll_milliseconds=newer.poll_milliseconds or self.poll_milliseconds,
        )


def read_task(raw: bytes | None) -> LegacyTask | None:
    """A task as it stands in a result or a notification; None where there is none with an id and a status."""
    members = jsonrpc.read_object(raw)
    identifier = jsonrpc.read_string(members.get("taskId"))
    status = jsonrpc.read_string(members.get("status"))
    if not identifier or len(identifier) > TASK_ID_CHARS or status not in set(TaskStatus):
        return None
    message = jsonrpc.read_string(members.get("statusMessage"))
    return LegacyTask(
        identifier,
        TaskStatus(status),
        None if message is None else message[:TASK_MESSAGE_CHARS],
        _read_date(members.get("createdAt")),
        _read_date(members.get("lastUpdatedAt")),
        _read_milliseconds(members.get("ttl")),
        _read_milliseconds(members.get("pollInterval")),
    )


def read_created(result: bytes | None) -> LegacyTask | None:
    """The task that a result tells of instead of being one (``CreateTaskResult``); nearly no result does."""
    if result is None or _RESULT_TYPE not in result:
        return None
    return read_task(bytes(jsonrpc.view_object(result).get("task", b"")))


def _read_date(raw: bytes | None) -> str | None:
    text = jsonrpc.read_string(raw)
    return text if text is not None and _DATE.fullmatch(text) else None


def _read_milliseconds(raw: bytes | None) -> int | None:
    """A whole number of milliseconds, at least one; None for ``null`` and for what is no such time."""
    value = jsonrpc.read_value(raw)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST_MILLISECONDS:
        return None
    return max(1, round(value))


def runs_tasks(capabilities: Mapping[str, bytes]) -> bool:
    """Whether a server with these capabilities runs calls of tools as tasks."""
    if "tasks" not in capabilities:
        return False
    requests = jsonrpc.read_object(jsonrpc.read_object(capabilities["tasks"]).get("requests"))
    return jsonrpc.read_object(requests.get("tools")).get("call", b"")[:1] == b"{"


def read_support(tool: bytes) -> Support:
    """Whether a raw tool of a list runs as a task."""
    if b"execution" not in tool and b"\\u" not in tool:
        return Support.FORBIDDEN
    execution = jsonrpc.read_object(jsonrpc.read_object(tool).get("execution"))
    word = jsonrpc.read_string(execution.get("taskSupport"))
    return Support(word) if word in set(Support) else Support.FORBIDDEN


def ease_tool(tool: bytes) -> bytes:
    """A tool that needs a task as one that may also be called without: here it may, and clients that know no
    tasks would not call it otherwise.
    """
    if read_support(tool) is not Support.REQUIRED:
        return tool
    execution = jsonrpc.read_object(jsonrpc.read_object(tool)["execution"])
    execution["taskSupport"] = jsonrpc.quote(Support.OPTIONAL)
    return jsonrpc.replace_members(tool, {"execution": jsonrpc.write_object(execution)})


def may_want_task(response: Response) -> bool:
    """Whether a server may have refused a call because it wants it as a task.

    The specification wants an error for that. The SDKs give a result, as for any tool that fails.
    """
    if response.error is not None:
        return jsonrpc.read_error(response.error).code in _REFUSED_UNSEEN
    result = response.result or b""
    if len(result) > REFUSAL_BYTES or not _WANTS_TASK.search(result.decode(errors="replace")):
        return False
    return bytes(jsonrpc.view_object(result).get("isError", b"")) == b"true"


def wants_task(error: bytes) -> bool:
    """Whether it says so itself, by an error that no tool can have made."""
    return bool(_WANTS_TASK.search(jsonrpc.read_error(error).message))


# -- what servers of 2025-11-25 are told -----------------------------------------------------------


def with_task(params: bytes | None, ttl_milliseconds: int) -> bytes:
    """The parameters of a call that is to become a task, to be kept for so long."""
    task = jsonrpc.write_object({"ttl": b"%d" % ttl_milliseconds})
    return jsonrpc.replace_members(params or b"{}", {"task": task})


def asks_for_task(params: bytes | None) -> bool:
    """Whether a client asks for a task itself, as 2025-11-25 has it."""
    return params is not None and "task" in jsonrpc.view_object(params)


def name_task(identifier: str) -> bytes:
    """The parameters of a request about a task."""
    return jsonrpc.write_object({"taskId": jsonrpc.quote(identifier)})


# -- the link between a message and its task ---------------------------------------------------------


def related_task(params: bytes | None) -> str | None:
    """The id of the task that a message belongs to, if it says so in its ``_meta``."""
    related = jsonrpc.read_meta(params).get(revisions.META_RELATED_TASK)
    return jsonrpc.read_string(jsonrpc.read_object(related).get("taskId"))


def without_related_task(payload: bytes | None) -> bytes | None:
    """A result, or the parameters of a question, as if no task was involved."""
    if payload is None or (_RELATED not in payload and b"\\u" not in payload):
        return payload
    members = jsonrpc.read_object(payload)
    meta = jsonrpc.read_object(members.get("_meta"))
    if meta.pop(revisions.META_RELATED_TASK, None) is None:
        return payload
    if meta:
        members["_meta"] = jsonrpc.write_object(meta)
    else:
        del members["_meta"]
    return jsonrpc.write_object(members)


# -- how a task ends -----------------------------------------------------------------------------------


class TaskOutcome(NamedTuple):
    """How a task has ended, in the words of the extension. ``payload`` is a raw result, or a raw error."""

    status: TaskStatus
    payload: bytes | None = None
    message: str | None = None


def judge(task: LegacyTask, response: Response) -> TaskOutcome:
    """What a task has come to whose server gave this response to ``tasks/result``.

    The earlier revision calls a task failed whose tool has failed; the extension does so only where there is
    a JSON-RPC error instead of a result. Servers that keep no result of a failed task give an empty one.
    """
    if task.status is TaskStatus.CANCELLED:
        return TaskOutcome(TaskStatus.CANCELLED, message=task.message)
    if response.error is not None:
        if task.message is not None and task.id in jsonrpc.read_error(response.error).message:
            # It is about the task, and not of it: some keep nothing of a task that has failed but this.
            return failed(write_error(task.message), task.message)
        return failed(response.error, task.message)
    result = without_related_task(response.result) or b"{}"
    if task.status is TaskStatus.FAILED and bytes(jsonrpc.view_object(result).get("isError", b"")) != b"true":
        message = task.message or "The task failed, and the MCP server did not say why."
        return failed(write_error(message), task.message)
    return TaskOutcome(TaskStatus.COMPLETED, result, task.message)


def failed(error: bytes, message: str | None = None) -> TaskOutcome:
    """A task that has ended in a raw JSON-RPC error."""
    text = message or jsonrpc.read_error(error).message[:TASK_MESSAGE_CHARS]
    return TaskOutcome(TaskStatus.FAILED, error, text or None)


def write_error(message: str) -> bytes:
    """A raw JSON-RPC error of ours."""
    members = {"code": b"%d" % INTERNAL_ERROR, "message": jsonrpc.quote(message)}
    return jsonrpc.write_object(members)


# -- what clients of the extension hear ----------------------------------------------------------------


class TaskState(NamedTuple):
    """A task as its client hears of it.

    ``detail`` is raw: what it is asked, its result, or its error, as the status has it. ``ttl_milliseconds``
    is None for ever.
    """

    id: str
    status: TaskStatus
    message: str | None
    created_at: str
    updated_at: str
    ttl_milliseconds: int | None
    poll_milliseconds: int | None
    detail: bytes | None = None

    def members(self, *, detailed: bool) -> dict[str, bytes]:
        """The members of a ``Task``, or of a ``DetailedTask``."""
        members = {
            "taskId": jsonrpc.quote(self.id),
            "status": jsonrpc.quote(self.status),
            "createdAt": jsonrpc.quote(self.created_at),
            "lastUpdatedAt": jsonrpc.quote(self.updated_at),
            "ttlMs": jsonrpc.NULL if self.ttl_milliseconds is None else b"%d" % self.ttl_milliseconds,
        }
        if self.message is not None:
            members["statusMessage"] = jsonrpc.quote(self.message)
        if self.poll_milliseconds is not None:
            members["pollIntervalMs"] = b"%d" % self.poll_milliseconds
        name = _DETAILS.get(self.status)
        if detailed and name is not None:
            members[name] = self.detail or b"{}"
        return members


def declares(capabilities: Mapping[str, bytes]) -> bool:
    """Whether a client with these capabilities knows the extension."""
    if "extensions" not in capabilities:
        return False
    extensions = jsonrpc.read_object(capabilities["extensions"])
    return extensions.get(revisions.TASKS_EXTENSION, b"")[:1] == b"{"


def write_handle(state: TaskState, info: bytes | None, created: bytes | None = None) -> bytes:
    """The result of a call that has become a task (``CreateTaskResult``), flat, by the server of this name.

    ``created`` is the server's own result, of which what it says to the model meanwhile is kept.
    """
    members = {"resultType": _RESULT_TYPE, **state.members(detailed=False)}
    said = jsonrpc.read_object(jsonrpc.read_object(created).get("_meta"))
    kept = {key: value for key, value in said.items() if key == revisions.META_IMMEDIATE_RESPONSE}
    if info is not None:
        kept[revisions.META_SERVER_INFO] = info
    if kept:
        members["_meta"] = jsonrpc.write_object(kept)
    return jsonrpc.write_object(members)


def write_state(state: TaskState) -> bytes:
    """How it stands, as ``tasks/get`` is answered once that is lifted."""
    return jsonrpc.write_object(state.members(detailed=True))


def write_news(state: TaskState) -> bytes:
    """The parameters of ``notifications/tasks``."""
    return jsonrpc.write_object(state.members(detailed=True))
