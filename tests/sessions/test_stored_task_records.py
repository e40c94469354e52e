"""What a store keeps of tasks: to bytes and back, with a bound for whatever a server can make large."""

import json

import pytest

from mcp_session_proxy.bounds import PROFILE_BYTES
from mcp_session_proxy.sessions.record import UnreadableRecord
from mcp_session_proxy.sessions.stored_tasks import (
    STORED_QUESTIONS_BYTES,
    StoredQuestion,
    StoredTask,
    read_task,
    write_task,
)

BARE = StoredTask("i", "p", "u1", "7", b"{}", "2026-01-01T00:00:00Z", 1.5, None, None, None)
RUNNING = BARE._replace(
    capabilities=b'{"elicitation":{}}',
    ttl_milliseconds=60_000,
    poll_milliseconds=20,
    message="soon",
    updated_at="2026-01-01T00:00:01Z",
    info=b'{"name":"s"}',
    asked={
        "name": StoredQuestion(b'"q"', "elicitation/create", b'{"message":"\\u00fc"}'),
        "roots_list": StoredQuestion(b"3", "roots/list", None),
    },
    keys=("name", "other", "roots_list"),
    reading=17,
    reading_after="e-1",
)
OVER = BARE._replace(outcome="completed", payload=b'{"content":[]}', message="done")


@pytest.mark.parametrize(
    "task", [BARE, RUNNING, OVER, BARE._replace(upstream=None)], ids=["bare", "running", "over", "call"]
)
def test_there_and_back(task: StoredTask) -> None:
    """Nothing is lost, and raw JSON stays as it was."""
    assert read_task(write_task(task)) == task


def test_records_of_earlier_versions() -> None:
    """What they did not keep is not there."""
    members = json.loads(write_task(BARE))
    for name in ("updated_at", "info", "asked", "keys", "reading", "reading_after"):
        del members[name]
    assert read_task(json.dumps(members).encode()) == BARE


def test_questions_that_are_large() -> None:
    """They are left out, together; their keys stay spent."""
    large = StoredQuestion(b"1", "elicitation/create", b'"%b"' % (b"x" * STORED_QUESTIONS_BYTES))
    task = RUNNING._replace(asked={**RUNNING.asked, "large": large}, keys=("name", "large"))
    assert read_task(write_task(task)) == task._replace(asked={})


def test_a_server_with_a_long_name() -> None:
    """It is not repeated for each of its tasks."""
    task = BARE._replace(info=b'{"name":"%b"}' % (b"x" * PROFILE_BYTES))
    assert read_task(write_task(task)) == BARE


@pytest.mark.parametrize(
    "wrong",
    [
        {"v": 2},
        {"id": "x" * 65},
        {"upstream": "x" * 1025},
        {"asked": [1]},
        {"keys": "name"},
        {"reading": "1"},
    ],
    ids=repr,
)
def test_what_cannot_be_gone_on_with(wrong: dict[str, object]) -> None:
    """What no version has written, or a later one, is nothing to go on with."""
    members = {**json.loads(write_task(RUNNING)), **wrong}
    with pytest.raises(UnreadableRecord):
        read_task(json.dumps(members).encode())
