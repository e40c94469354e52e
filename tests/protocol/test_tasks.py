"""Tasks of both revisions, as text: what servers say, what clients hear, and what one is in the other."""

import json
from typing import Any

import pytest

from mcp_session_proxy.protocol import jsonrpc, tasks
from mcp_session_proxy.protocol.jsonrpc import Response
from mcp_session_proxy.protocol.tasks import LegacyTask, Support, TaskState, TaskStatus

RELATED = "io.modelcontextprotocol/related-task"
IMMEDIATE = "io.modelcontextprotocol/model-immediate-response"
EXTENSION = "io.modelcontextprotocol/tasks"
TOLD: dict[str, Any] = {
    "taskId": "t",
    "status": "working",
    "statusMessage": "soon",
    "createdAt": "2025-11-25T10:30:00Z",
    "lastUpdatedAt": "2025-11-25T10:40:00.5+01:00",
    "ttl": 60000,
    "pollInterval": 5000,
}
TASK = LegacyTask(
    "t",
    TaskStatus.WORKING,
    "soon",
    "2025-11-25T10:30:00Z",
    "2025-11-25T10:40:00.5+01:00",
    60000,
    5000,
)


def write(value: object) -> bytes:
    return json.dumps(value).encode()


def ended(status: TaskStatus, message: str | None = None) -> LegacyTask:
    return LegacyTask("t", status, message)


# -- what servers say ------------------------------------------------------------------------------


def test_a_task() -> None:
    """Everything that a server says of it."""
    assert tasks.read_task(write(TOLD)) == TASK


@pytest.mark.parametrize(
    "wrong",
    [
        {"taskId": 1},
        {"taskId": ""},
        {"taskId": None},
        {"taskId": "x" * 1025},
        {"status": "odd"},
        {"status": None},
        {"status": 3},
    ],
)
def test_what_is_no_task(wrong: dict[str, Any]) -> None:
    """Without an id and a status there is none."""
    assert tasks.read_task(write({**TOLD, **wrong})) is None


@pytest.mark.parametrize("raw", [None, b"", b"null", b"3", b"[]", b'"task"', b"{", b"{}"])
def test_what_is_no_object(raw: bytes | None) -> None:
    """Nor is there one in nonsense."""
    assert tasks.read_task(raw) is None


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (1, 1),
        (0.2, 1),
        (1000.4, 1000),
        (2**53 - 1, 2**53 - 1),
        (None, None),
        (0, None),
        (-1, None),
        (True, None),
        ("5", None),
        (2**53, None),
        (1e300, None),
    ],
)
def test_times(value: object, milliseconds: int | None) -> None:
    """A time is a whole number of milliseconds; what is none means that there is none."""
    task = tasks.read_task(write({**TOLD, "ttl": value, "pollInterval": value}))
    assert task is not None
    assert (task.ttl_milliseconds, task.poll_milliseconds) == (milliseconds, milliseconds)


@pytest.mark.parametrize("date", ["yesterday", "2025-11-25", "2025-11-25T10:30:00Z<script>", 3, "", None])
def test_dates_that_are_none(date: object) -> None:
    """They are left out, as strict clients insist on ISO 8601."""
    task = tasks.read_task(write({**TOLD, "createdAt": date}))
    assert task is not None
    assert task.created_at is None


def test_long_messages() -> None:
    """They are cut."""
    task = tasks.read_task(write({**TOLD, "statusMessage": "x" * 5000}))
    assert task is not None
    assert task.message == "x" * 4096


def test_news_of_a_task() -> None:
    """What a server leaves out the second time is still so."""
    newer = LegacyTask("t", TaskStatus.COMPLETED, created_at="2026-01-01T00:00:00Z")
    after = TASK.followed_by(newer)
    assert (after.status, after.created_at, after.poll_milliseconds) == ("completed", TASK.created_at, 5000)


@pytest.mark.parametrize("status", list(TaskStatus))
def test_what_is_final(status: TaskStatus) -> None:
    """Three words are, two are not."""
    assert status.is_final is (status in {"completed", "failed", "cancelled"})


@pytest.mark.parametrize(
    ("result", "is_one"),
    [
        ({"task": TOLD}, True),
        ({"task": TOLD, "_meta": {}}, True),
        ({"task": "t", "content": []}, False),
        ({"content": [{"type": "text", "text": '"task"'}]}, False),
        (TOLD, False),
        ({}, False),
    ],
)
def test_results_that_are_tasks(result: Any, *, is_one: bool) -> None:
    """A ``CreateTaskResult`` is told from a result that only speaks of tasks."""
    assert (tasks.read_created(write(result)) == TASK) is is_one
    assert is_one or tasks.read_created(write(result)) is None


def test_no_result() -> None:
    """An error is no task."""
    assert tasks.read_created(None) is None


@pytest.mark.parametrize(
    ("capabilities", "runs"),
    [
        ({"tasks": {"requests": {"tools": {"call": {}}}}}, True),
        ({"tasks": {"requests": {"tools": {}}}}, False),
        ({"tasks": {"requests": {"tools": {"call": None}}}}, False),
        ({"tasks": {"list": {}, "cancel": {}}}, False),
        ({"tasks": 3}, False),
        ({"tools": {}}, False),
    ],
)
def test_servers_that_run_tasks(capabilities: Any, *, runs: bool) -> None:
    """They say of calls of tools that these may be tasks."""
    assert tasks.runs_tasks(jsonrpc.read_object(write(capabilities))) is runs


@pytest.mark.parametrize(
    ("execution", "support"),
    [
        ({"taskSupport": "required"}, Support.REQUIRED),
        ({"taskSupport": "optional"}, Support.OPTIONAL),
        ({"taskSupport": "forbidden"}, Support.FORBIDDEN),
        ({"taskSupport": "perhaps"}, Support.FORBIDDEN),
        ({}, Support.FORBIDDEN),
        ("required", Support.FORBIDDEN),
        (None, Support.FORBIDDEN),
    ],
)
def test_what_a_tool_says(execution: object, support: Support) -> None:
    """What it does not say plainly it forbids, which is the default."""
    assert tasks.read_support(write({"name": "a", "execution": execution})) is support


def test_a_tool_that_says_nothing() -> None:
    """It runs as no task."""
    assert tasks.read_support(b'{"name":"a"}') is Support.FORBIDDEN


def test_easing() -> None:
    """Only what needs a task is changed, and in it nothing else."""
    tool = {"name": "a", "execution": {"taskSupport": "required", "x": 1}, "inputSchema": {}}
    eased = {**tool, "execution": {"taskSupport": "optional", "x": 1}}
    assert json.loads(tasks.ease_tool(write(tool))) == eased
    other = write({"name": "a", "execution": {"taskSupport": "forbidden"}})
    assert tasks.ease_tool(other) is other


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "may_be"),
    [
        ({"error": {"code": -32601, "message": "x"}}, True),
        ({"error": {"code": -32600, "message": "x"}}, True),
        ({"error": {"code": -32602, "message": "requires task augmentation"}}, False),
        ({"result": {"content": [{"type": "text", "text": "task-augmented"}], "isError": True}}, True),
        ({"result": {"content": [{"type": "text", "text": "Task augmentation"}], "isError": True}}, True),
        ({"result": {"content": [{"type": "text", "text": "task-augmented"}], "isError": False}}, False),
        ({"result": {"content": [{"type": "text", "text": "task-augmented"}]}}, False),
        ({"result": {"content": [{"type": "text", "text": "no such file"}], "isError": True}}, False),
        ({"result": {"x": "task-augment" + "x" * 2048, "isError": True}}, False),
    ],
)
def test_refusals(answer: Any, *, may_be: bool) -> None:
    """A call that was to be a task is refused by two codes, or by a failed result that says why."""
    [(kind, value)] = answer.items()
    assert tasks.may_want_task(Response(b"1", **{kind: write(value)})) is may_be


@pytest.mark.parametrize(
    ("message", "says_so"),
    [
        ("Task augmentation required for tools/call requests", True),
        ("This tool requires task-augmented invocation", True),
        ("Method not found", False),
        ("No task of that name", False),
    ],
)
def test_servers_that_say_so(message: str, *, says_so: bool) -> None:
    """Some name the reason, of all calls at once."""
    assert tasks.wants_task(write({"code": -32600, "message": message})) is says_so


# -- what servers are told ---------------------------------------------------------------------------


def test_asking_for_a_task() -> None:
    """The time is added to whatever the call has."""
    asked = json.loads(tasks.with_task(b'{"name":"a","task":{"ttl":1}}', 5))
    assert asked == {"name": "a", "task": {"ttl": 5}}
    assert json.loads(tasks.with_task(None, 5)) == {"task": {"ttl": 5}}
    assert tasks.asks_for_task(b'{"task":{}}')
    assert not tasks.asks_for_task(b'{"arguments":{"task":{}}}')
    assert not tasks.asks_for_task(None)
    assert json.loads(tasks.name_task('a"b')) == {"taskId": 'a"b'}


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"_meta": {RELATED: {"taskId": "t"}}}, "t"),
        ({"_meta": {RELATED: {"taskId": 1}}}, None),
        ({"_meta": {RELATED: "t"}}, None),
        ({"_meta": {}}, None),
        ({"taskId": "t"}, None),
    ],
)
def test_related_tasks(params: Any, named: str | None) -> None:
    """Which task a message belongs to."""
    assert tasks.related_task(write(params)) == named


def test_without_the_link() -> None:
    """It goes, wherever else there is metadata; what has none is not touched."""
    meta = {RELATED: {"taskId": "t"}}
    assert json.loads(tasks.without_related_task(write({"a": 1, "_meta": meta})) or b"") == {"a": 1}
    kept = json.loads(tasks.without_related_task(write({"_meta": {**meta, "b": 2}})) or b"")
    assert kept == {"_meta": {"b": 2}}
    escaped = b'{"_meta":{"io.modelcontextprotocol\\/related-t\\u0061sk":{}}}'
    assert tasks.without_related_task(escaped) == b"{}"
    for payload in (None, b"{}", write({"content": [RELATED]})):
        assert tasks.without_related_task(payload) is payload


# -- ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
def test_a_failed_tool_has_completed(status: TaskStatus) -> None:
    """The extension's "failed" is for errors of JSON-RPC."""
    result = write({"content": [], "isError": True})
    outcome = tasks.judge(ended(status), Response(b"1", result=result))
    assert outcome == (TaskStatus.COMPLETED, result, None)


def test_an_error_has_failed() -> None:
    """With the server's words of it, and the error's own where it has none."""
    error = write({"code": -32000, "message": "no"})
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        outcome = tasks.judge(ended(status, "why"), Response(b"1", error=error))
        assert outcome == (TaskStatus.FAILED, error, "why")
    outcome = tasks.judge(ended(TaskStatus.FAILED), Response(b"1", error=error))
    assert outcome == (TaskStatus.FAILED, error, "no")


def test_a_failure_without_a_result() -> None:
    """Servers that keep nothing of a failed task have said at least why, or nothing at all."""
    for message, told in [("why", "why"), (None, "The task failed, and the MCP server did not say why.")]:
        outcome = tasks.judge(ended(TaskStatus.FAILED, message), Response(b"1", result=b"{}"))
        assert outcome.status is TaskStatus.FAILED
        assert json.loads(outcome.payload or b"") == {"code": -32603, "message": told}


def test_the_servers_own_id_is_not_told() -> None:
    """An error that is about the task gives way to what the server has said of it."""
    error = write({"code": -32603, "message": "Task t-17 has no result stored"})
    task = LegacyTask("t-17", TaskStatus.FAILED, "it broke")
    outcome = tasks.judge(task, Response(b"1", error=error))
    assert json.loads(outcome.payload or b"") == {"code": -32603, "message": "it broke"}


def test_a_cancelled_task() -> None:
    """It has neither result nor error, whatever the server answers."""
    outcome = tasks.judge(ended(TaskStatus.CANCELLED, "enough"), Response(b"1", result=b'{"content":[]}'))
    assert outcome == (TaskStatus.CANCELLED, None, "enough")


# -- what clients hear -------------------------------------------------------------------------------


def state(status: TaskStatus, detail: bytes | None = None, **changed: Any) -> TaskState:
    usual = TaskState("i", status, None, "2025-11-25T10:30:00Z", "2025-11-25T10:40:00Z", None, None, detail)
    return usual._replace(**changed)


COMMON = {
    "taskId": "i",
    "createdAt": "2025-11-25T10:30:00Z",
    "lastUpdatedAt": "2025-11-25T10:40:00Z",
    "ttlMs": None,
}


def test_a_handle() -> None:
    """It is flat, has no details, and of the server's metadata only what the model is told."""
    created = write({"task": TOLD, "_meta": {IMMEDIATE: "wait", RELATED: {}}})
    asked = state(TaskStatus.INPUT_REQUIRED, b'{"a":{}}', ttl_milliseconds=5, poll_milliseconds=7)
    assert json.loads(tasks.write_handle(asked, b'{"name":"s"}', created)) == {
        **COMMON,
        "resultType": "task",
        "status": "input_required",
        "ttlMs": 5,
        "pollIntervalMs": 7,
        "_meta": {IMMEDIATE: "wait", "io.modelcontextprotocol/serverInfo": {"name": "s"}},
    }
    assert "_meta" not in json.loads(tasks.write_handle(asked, None))


@pytest.mark.parametrize(
    ("status", "member"),
    [
        (TaskStatus.WORKING, None),
        (TaskStatus.INPUT_REQUIRED, "inputRequests"),
        (TaskStatus.COMPLETED, "result"),
        (TaskStatus.FAILED, "error"),
        (TaskStatus.CANCELLED, None),
    ],
)
def test_how_it_stands(status: TaskStatus, member: str | None) -> None:
    """Each status has its own detail, in an answer as in a notification."""
    expected: dict[str, Any] = {**COMMON, "status": status, "statusMessage": "m"}
    if member is not None:
        expected[member] = {"a": 1}
    shown = state(status, b'{"a":1}', message="m")
    assert json.loads(tasks.write_state(shown)) == expected
    assert json.loads(tasks.write_news(shown)) == expected


@pytest.mark.parametrize(
    ("capabilities", "knows"),
    [
        ({"extensions": {EXTENSION: {}}}, True),
        ({"extensions": {EXTENSION: {"later": 1}}}, True),
        ({"extensions": {EXTENSION: None}}, False),
        ({"extensions": {"other": {}}}, False),
        ({"extensions": []}, False),
        ({EXTENSION: {}}, False),
        ({"tasks": {}}, False),
    ],
)
def test_clients_that_know_tasks(capabilities: Any, *, knows: bool) -> None:
    """They declare the extension with each request."""
    assert tasks.declares(jsonrpc.read_object(write(capabilities))) is knows
