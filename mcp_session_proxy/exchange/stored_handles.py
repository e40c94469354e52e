"""Handles as a store keeps them, and handles that are made of that again, in the next process."""

import asyncio
from collections.abc import Callable
from typing import Final

from ..errors import OutcomeUnknown
from ..memory import Share
from ..protocol import jsonrpc, tasks
from ..protocol.jsonrpc import Request
from ..protocol.tasks import LegacyTask, TaskOutcome, TaskStatus
from ..sessions.binding import Visit
from ..sessions.stored_tasks import STORED_OUTCOME_BYTES, StoredQuestion, StoredTask, write_task
from .handles import Handle, PastTask
from .legacy_handle import LegacyHandle
from .result_stream import ResultPlace
from .upstream_task import LOST, FollowedBefore, failure_of

_LOST_CALL: Final = (
    "The proxy was restarted while the MCP server was working on this call. "
    "It may or may not have been executed."
)
_TOO_LARGE: Final = "The task was carried out, but its result was too large to outlive the proxy's restart."


def describe(handle: Handle, now: float) -> bytes:
    """What could be stored of a task, as bytes. ``now`` is in seconds since 1970."""
    outcome, updated_at = handle.ending or (None, handle.updated_at)
    if handle.outcome is not None:
        updated_at = handle.updated_at
    server = handle if isinstance(handle, LegacyHandle) else None
    if outcome is not None and len(outcome.payload or b"") > STORED_OUTCOME_BYTES:
        # That of a server's task is at the server, and asked for again if need be.
        outcome = None if server is not None else tasks.failed(tasks.write_error(_TOO_LARGE))
    goes_on = server if outcome is None else None
    place = None if goes_on is None else goes_on.upstream.reading.place
    return write_task(
        StoredTask(
            handle.id,
            handle.principal,
            handle.tag,
            _upstream_of(handle),
            b"{}" if server is None else server.capabilities,
            handle.created_at,
            now - (asyncio.get_running_loop().time() - handle.began),
            handle.ttl_milliseconds,
            handle.poll_milliseconds,
            handle.message if outcome is None else outcome.message,
            None if outcome is None else outcome.status.value,
            None if outcome is None else outcome.payload,
            updated_at,
            handle.facts.info,
            {} if goes_on is None else _questions_of(goes_on),
            () if goes_on is None else tuple(goes_on.spent_keys),
            None if place is None else place.number,
            None if place is None else place.after,
        )
    )


def _upstream_of(handle: Handle) -> str | None:
    if isinstance(handle, LegacyHandle):
        return handle.upstream.task.id
    # Of one that was over before a restart, no more is known than whose it was.
    return "" if handle.kind == LegacyHandle.kind else None


def _questions_of(handle: LegacyHandle) -> dict[str, StoredQuestion]:
    return {key: StoredQuestion(r.id, r.method, r.params) for key, r in handle.questions.items()}


def go_on(
    stored: StoredTask,
    hold: Callable[[str], Visit | None],
    make: Callable[[LegacyTask, Visit, str, dict[str, bytes], FollowedBefore], LegacyHandle],
) -> LegacyHandle | None:
    """A server's task that was not over, held in its session; None where there is nothing to go on with.

    It is followed as soon as its client comes, whose credentials that takes.
    """
    if stored.upstream is None or stored.outcome is not None or (visit := hold(stored.session)) is None:
        return None
    task = LegacyTask(
        stored.upstream,
        TaskStatus.WORKING,
        stored.message,
        stored.created_at,
        ttl_milliseconds=stored.ttl_milliseconds,
        poll_milliseconds=stored.poll_milliseconds,
    )
    reading = None if stored.reading is None else ResultPlace(stored.reading, stored.reading_after)
    before = FollowedBefore(reading, knows_no_question=not stored.asked)
    handle = make(task, visit, stored.principal, jsonrpc.read_object(stored.capabilities), before)
    asked = {key: Request(q.id, q.method, q.params) for key, q in stored.asked.items()}
    handle.keep_on(asked, stored.keys)
    handle.await_client()
    return handle


def remember_end(stored: StoredTask, results: Share) -> PastTask:
    """A task that was over, or is since nobody can go on with it."""
    past = PastTask(
        "call" if stored.upstream is None else "server",
        principal=stored.principal,
        ttl_milliseconds=stored.ttl_milliseconds,
        info=stored.info,
        is_old=stored.outcome is not None,
        results=results,
    )
    past.poll_milliseconds = stored.poll_milliseconds
    if stored.outcome is None:
        outcome = failure_of(OutcomeUnknown(_LOST_CALL if stored.upstream is None else LOST))
    else:
        outcome = TaskOutcome(TaskStatus(stored.outcome), stored.payload, stored.message)
    past.end(outcome)
    past.settle()
    return past
