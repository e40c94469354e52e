"""The numbers under "Where growth ends" are those of the code, and all of them are there."""

from pathlib import Path

import pytest

from mcp_session_proxy import bounds

PAGE = (Path(__file__).parents[2] / "docs/security.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024 * 1024


def number(name: str) -> str:
    """A bound as the page writes it."""
    value = getattr(bounds, name)
    if name.endswith("_SECONDS"):
        return f"{value / 3600:.0f} h" if value >= 3600 else f"{value:.0f} s"
    if name.endswith("_PERCENT"):
        return f"{value} %"
    if name.endswith("_BYTES"):
        if value % MIB == 0:
            return f"{value // MIB} MiB"
        return f"{value // KIB} KiB" if value % KIB == 0 else f"{value:,} bytes"
    return f"{value:,}"


# By the row that is about them; braces stand for the number.
ROWS = {
    "connections |": {
        "TIME_TO_SPEAK_SECONDS": "within {} and have not",
        "FIRST_REQUEST_SECONDS": "must begin within {}",
        "UNREAD_SECONDS": "given up after {}",
    },
    "TLS handshakes": {
        "TLS_HANDSHAKE_SECONDS": "{} from the connection on",
        "HANDSHAKES_PERCENT": "at most {} of `--max-connections`",
        "LEAST_HANDSHAKES": "or {}",
    },
    "heads of requests": {
        "HEAD_NAME_BYTES": "names have {} each",
        "HEAD_FIELDS": "{} headers",
        "HEAD_TIMES_A_FIELD": "{} times that for all headers",
        "HEADS_PERCENT": "have not ended {}",
        "KNOWN_HEADS": "{} known ones",
    },
    "bodies at the MCP endpoint": {
        "BODY_SECONDS": "{} to arrive",
        "BODY_HELD_BYTES": "of one that nobody reads yet {}",
        "BODIES_PERCENT": "{} of `--memory-budget` if that is not given",
        "SMALL_PERCENT": "of which {} are kept",
        "SMALL_BYTES": "for those under {}",
        "PAGE_HELD_BYTES": "the operating system holds {}",
    },
    "bodies at the admin listener": {
        "ADMIN_BODY_BYTES": "{};",
        "ADMIN_BODY_SECONDS": "{} to arrive",
    },
    "connections to the admin listener": {
        "ADMIN_CONNECTIONS": "{};",
        "ADMIN_FIRST_REQUEST_SECONDS": "within {}",
        "ADMIN_HEAD_FIELDS": "heads of {} fields",
        "ADMIN_UNREAD_BYTES": "{} all together",
        "ADMIN_ROWS": "{} sessions of each kind",
    },
    "other proxies of a cluster": {
        "PEER_CONNECT_SECONDS": "{} to connect",
        "PEER_SILENCE_SECONDS": "{} until what was sent is confirmed",
        "PEER_KEPT_SECONDS": "{} kept when idle",
        "PEER_SKEW_SECONDS": "differ by, with the way, {}",
        "PEER_WINDOW": "{} newest requests",
        "PEER_SENDERS": "of {} of them",
        "PEER_CLIENTS": "{} heads",
        "PEER_BODY_BYTES": "ask each other {}",
        "PEER_ANSWER_SECONDS": "answered within {}",
    },
    "messages": {
        "BATCH_MESSAGES": "{} in a batch",
        "ID_BYTES": "ids of {}",
        "PARAMS_MEMBERS": "of {} members each",
    },
    "what a client says of itself": {
        "PROFILE_BYTES": "{} (capabilities",
        "PROFILES_PERCENT": "of themselves {}",
        "REMEMBERED_PROFILE_BYTES": "for what has {} at most",
        "CARRIED_PROFILE_BYTES": "up to {} of it",
        "CARRIED_PROFILE_DEPTH": "and {} levels",
        "PACKED_PROFILE_CHARS": "fit into {} characters",
    },
    "events kept for lost clients": {
        "KEPT_STREAM_BYTES": "{} a stream, ",
        "KEPT_STREAMS": "{} streams a client session",
        "UNREAD_EVENTS": "{} events and",
        "UNREAD_BYTES": "and {} a stream;",
        "EVENTS_PERCENT": "all together {}",
    },
    "`subscriptions/listen`": {
        "LISTENERS_A_PRINCIPAL": "{} a principal",
        "LISTENER_MESSAGES": "{} queued messages",
        "LISTENED_URIS": "{} resources",
    },
    "what a client wants to be told of": {
        "SUBSCRIPTIONS": "{} resources and",
        "SUBSCRIPTIONS_BYTES": "and {} a client session",
        "LOG_LEVEL_BYTES": "a log level of {}",
        "SUBSCRIPTIONS_PERCENT": "all together {}",
    },
    "headers' names": {
        "CACHED_HEADER_NAMES": "| {}, ",
        "CACHED_ACCEPTS": ", {} and",
        "REMEMBERED_PROFILES": "and {} |",
    },
    "callers of whom it is known which tools": {
        "MARKING_CALLERS": "{} (tools)",
        "UNDECIDED_CALLERS": "{} (modern)",
        "FAILED_CALLERS": "{} (handshakes)",
        "PINGED_CALLERS": "{} (pings)",
    },
    "callers of whom it is known which other": {"KNOWN_PLACES": "| {};", "LOST_FENCES": "and {} that"},
    "tokens": {
        "TOKEN_BYTES": "within {}, ",
        "TOKEN_DEPTH": "{} levels",
        "KNOWN_TOKENS": "{} accepted ones, as many others",
        "KNOWN_CLAIMANTS": "{} callers",
        "KNOWN_ISSUERS": "{} issuers",
        "ISSUER_KEYS": "{} keys of an issuer",
        "NEW_TOKENS": "{} new ones at a time",
        "NEW_TOKENS_A_CLAIMANT": ", {} with one claim",
        "TOKEN_HANDSHAKES": "{} handshakes at once",
        "TOKEN_HANDSHAKES_A_CLAIMANT": "handshakes at once, {} with one claim",
    },
    "a request of which a server": {"WORDLESS_TIMES": "{} times `--request-timeout`"},
    "a record in a state directory": {"RECORD_BYTES": "{};"},
    "what a server asks in one call": {"QUESTIONS_A_CALL": "{} questions"},
    "questions to clients": {
        "UNANSWERED_QUESTIONS": "{} unanswered",
        "QUESTIONS_PERCENT": "together {}",
    },
    "one event or answer": {
        "SERVER_MESSAGES": "{} messages",
        "SERVER_EVENT_BYTES": "{};",
        "ANSWERS_PERCENT": "together {}",
    },
    "what a server says of itself": {"INITIALIZE_RESULT_BYTES": "{},"},
    "the head of a server's answer": {"SERVER_FIELDS": "{} headers", "SERVER_HEAD_BYTES": "{} all together"},
    "idle connections to a server": {"KEPT_CONNECTIONS": "{} at most"},
    "kept lists": {
        "LIST_BYTES": "{} each",
        "MARKED_TOOLS": "{} tools",
        "LIST_PAGES": "in {} pages",
        "TOOL_BYTES": "a tool over {}",
        "LIFTED_LISTS": "{} of them as modern clients get them",
        "LISTS_PERCENT": "together {}",
    },
    "children": {
        "CHILD_LEAVES_SECONDS": "{} to leave",
        "CHILD_TERMINATES_SECONDS": "{} more after SIGTERM",
    },
    "what a child is told": {"CHILD_UNREAD_BYTES": "{};"},
    "what a child writes to": {
        "STDERR_LINES_A_SECOND": "{} lines a second",
        "STDERR_LINE_CHARS": "at most {} characters",
        "NOISE_CHARS": "first {} characters",
    },
    "cookies": {"COOKIES": "{}, and", "COOKIES_BYTES": "and {}"},
    "what a server says before": {
        "UNHEARD_MESSAGES": "{} messages",
        "UNHEARD_BYTES": "and {} a session",
        "UNHEARD_SECONDS": "for {}",
    },
    "what a server has said in one call": {"CALL_UNREAD_BYTES": "| {};"},
    "the URI of an update": {"LISTENED_URI_CHARS": "{} characters"},
    "documents about signing in": {"METADATA_BYTES": "{}"},
    "progress tokens of tasks": {"TASKS": "{} a session", "TASK_SECONDS": "{} at most"},
    "tasks that clients have handles of": {
        "TASK_ID_CHARS": "of {} characters",
        "TASK_MESSAGE_CHARS": ", {} of what they say",
        "QUESTIONS_A_TASK": "{} questions in the course",
        "UNKNOWN_TASKS": "of {} tasks of a session",
    },
    "looking for an answer": {
        "FAILING_SECONDS": "{} of failures",
        "CRASHING_SECONDS": "({} of 500)",
        "RETRY_SECONDS": "to {} ",
        "EVENT_ID_BYTES": "ids of {}",
    },
    "what is kept for the status page": {
        "SHOWN_EVENTS_OF_A_KIND": "{} events of each kind",
        "SHOWN_EVENT_CHARS": "texts of {} characters",
        "SHOWN_TROUBLES": "troubles of {} kinds",
    },
    "refusals": {
        "REFUSALS_AT_ONCE": "{} at once",
        "WAITING_REFUSALS": ", {} of",
        "REFUSAL_BYTES": "of {} waiting",
    },
    "what is kept for a parked call": {"PARKED_MESSAGES": "{} messages"},
    "ids of elicitations": {
        "ELICITATIONS": "{} of",
        "COMPLETED_ELICITATIONS": "{} of",
        "ELICITATION_ID_CHARS": "of {} characters",
    },
}
SAID = [(row, name, text) for row, texts in ROWS.items() for name, text in texts.items()]


@pytest.mark.parametrize(("row", "name", "text"), SAID)
def test_each_number_is_true(row: str, name: str, text: str) -> None:
    """Each limit stands in the row that is about it."""
    lines = [line for line in PAGE.splitlines() if line.startswith(f"| {row}")]
    assert len(lines) == 1
    assert text.format(number(name)) in lines[0]


def test_none_is_left_out() -> None:
    """Whatever is bounded in the code, the page says."""
    assert sorted(name for _, name, _ in SAID) == sorted(name for name in vars(bounds) if name.isupper())
