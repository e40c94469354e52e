"""Progress of tasks: a call that became a task goes on under its progress token after its answer.

MCP 2025-11-25, basic/utilities/tasks, "Task Progress Notifications": the token of the request that created a
task is good for the task's lifetime. The server knows one of ours, so it has to be remembered whose it is.
"""

import asyncio
from typing import Final

from ..bounds import TASK_SECONDS, TASKS
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from ..sessions.client import ClientSession
from ..upstream.session import UpstreamSession
from .delivery import Delivery

_TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_DEFAULT_SECONDS: Final = 3600.0


class TaskProgress:
    """The progress of one task, for the client session that asked for it. Implements ``calls.CallHandler``.

    ``token`` is the client's own, as raw JSON.
    """

    asks = None  # its request is over

    def __init__(self, task_id: str, token: bytes, client: ClientSession, delivery: Delivery) -> None:
        self.task_id = task_id
        self._token = token
        self._client = client
        self._delivery = delivery

    def deliver(self, message: Message) -> None:
        """Put progress on the client's own stream."""
        if not isinstance(message, Notification) or self._client.forgotten:
            return
        members = jsonrpc.read_object(message.params)
        members["progressToken"] = self._token
        data = jsonrpc.write_notification(message.method, jsonrpc.write_object(members))
        self._delivery.mailbox(self._client).standalone.append(data)


def follow(
    session: UpstreamSession,
    number: int,
    token: bytes,
    client: ClientSession,
    response: Response,
    delivery: Delivery,
) -> None:
    """Keep a progress token if the response says that its request has become a task.

    ``number`` is the token that the server knows.
    """
    # A look at the bytes, for nearly no call becomes a task.
    if response.result is None or b'"task"' not in response.result:
        return
    task = jsonrpc.read_object(jsonrpc.read_object(response.result).get("task"))
    task_id = jsonrpc.read_string(task.get("taskId"))
    if task_id is None or jsonrpc.read_string(task.get("status")) in _TERMINAL:
        return
    tokens = session.incarnation.calls.tokens
    tokens[number] = TaskProgress(task_id, token, client, delivery)
    if len(tokens) > TASKS:
        del tokens[next(iter(tokens))]
    # Servers need not tell of a task's end, so its time bounds what is kept of it.
    asyncio.get_running_loop().call_later(_lifetime_seconds(task.get("ttl")), tokens.pop, number, None)


def _lifetime_seconds(raw_ttl: bytes | None) -> float:
    """How long a task's token may be of use. ``ttl`` is in milliseconds, and null for ever."""
    if raw_ttl is None or not raw_ttl.isdigit():
        return _DEFAULT_SECONDS
    return min(int(raw_ttl[:12]) / 1000, TASK_SECONDS)


def note_response(session: UpstreamSession, request: Request, response: Response) -> None:
    """Forget the token of a task that a response to a ``tasks/`` request shows to be over."""
    if not session.incarnation.calls.tokens or response.result is None:
        return
    task_id = jsonrpc.read_string(jsonrpc.read_object(request.params).get("taskId"))
    status = jsonrpc.read_string(jsonrpc.read_object(response.result).get("status"))
    if request.method == revisions.TASK_RESULT or status in _TERMINAL:
        _forget(session, task_id)


def note_status(session: UpstreamSession, params: bytes | None) -> None:
    """The same for a ``notifications/tasks/status``."""
    members = jsonrpc.read_object(params) if session.incarnation.calls.tokens else {}
    if jsonrpc.read_string(members.get("status")) in _TERMINAL:
        _forget(session, jsonrpc.read_string(members.get("taskId")))


def _forget(session: UpstreamSession, task_id: str | None) -> None:
    for number, handler in list(session.incarnation.calls.tokens.items()):
        if isinstance(handler, TaskProgress) and handler.task_id == task_id:
            del session.incarnation.calls.tokens[number]
