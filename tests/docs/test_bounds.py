"""The numbers under "Where growth ends" are those of the code."""

from pathlib import Path

import pytest

from mcp_session_proxy.downstream import connection, senders
from mcp_session_proxy.exchange import attribution, call, catalog, listening
from mcp_session_proxy.ops.admin import admission, api
from mcp_session_proxy.protocol import jsonrpc, questions, sse, subscriptions
from mcp_session_proxy.sessions import identity, mailbox, profiles
from mcp_session_proxy.sessions import questions as asked
from mcp_session_proxy.upstream import cookies, http_client, journal, refusing, unheard

PAGE = (Path(__file__).parents[2] / "docs/security.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("heads of requests", f"{connection.MAX_FIELDS} headers"),
        ("bodies at the admin listener", f"{api.MAX_BODY_BYTES // KIB} KiB"),
        ("connections to the admin listener", f"{admission.MAX_CONNECTIONS};"),
        ("messages", f"{jsonrpc.MAX_BATCH} in a batch, ids of {jsonrpc._MAX_ID_BYTES // KIB} KiB"),
        ("messages", f"{jsonrpc.MAX_MEMBERS:,} members"),
        ("what a client says of itself", f"{identity.MAX_PROFILE_BYTES // KIB} KiB"),
        ("headers' names", f"{senders._CACHED_NAMES:,}, 256 and {profiles._REMEMBERED:,}"),
        ("events kept for lost clients", f"{mailbox._MAX_BYTES // MIB} MiB a stream"),
        ("events kept for lost clients", f"{mailbox._MAX_STREAMS} streams a client session"),
        (
            "events kept for lost clients",
            f"{mailbox._MAX_UNREAD_EVENTS:,} events and {mailbox._MAX_UNREAD_BYTES // MIB} MiB",
        ),
        ("what a server asks in one call", f"{call._MAX_OPEN_QUESTIONS} questions"),
        ("questions to clients", f"{asked._MAX_QUESTIONS} unanswered"),
        (
            "ids of elicitations",
            f"{asked._MAX_ELICITATIONS} of {questions._MAX_ELICITATION_ID_CHARS:,}",
        ),
        ("ids of elicitations", f"{attribution._MAX_COMPLETIONS} of"),
        (
            "what a client wants to be told of",
            f"{journal._MAX_SUBSCRIPTIONS:,} resources and {journal._MAX_BYTES // KIB} KiB",
        ),
        ("`subscriptions/listen`", f"{listening._MAX_PER_PRINCIPAL:,} a principal"),
        ("`subscriptions/listen`", f"{listening._MAX_QUEUED:,} queued messages"),
        ("`subscriptions/listen`", f"{subscriptions._MAX_URIS:,} resources"),
        ("kept lists", f"{catalog._MAX_ENTRY_BYTES // MIB} MiB each; {catalog._MAX_MARKED_TOOLS:,} tools"),
        ("one event or answer", f"{sse.DEFAULT_MAX_EVENT_BYTES // MIB} MiB"),
        ("cookies", f"{cookies._MAX_COOKIES}, and {cookies._MAX_BYTES:,} bytes"),
        (
            "what a server says before",
            f"{unheard._MAX_MESSAGES} messages and {unheard._MAX_BYTES // KIB} KiB a session",
        ),
        ("refusals", f"{refusing._REFUSALS_AT_ONCE} at once, {refusing._MAX_REFUSALS:,} of"),
        ("refusals", f"{refusing._MAX_REFUSAL_BYTES:,} bytes"),
        ("what is kept for a parked call", f"{call._MAX_KEPT} messages"),
        ("the head of a server's answer", f"{http_client.MAX_HEADERS} headers"),
        ("the head of a server's answer", f"{http_client.MAX_HEAD_BYTES // KIB} KiB"),
    ],
)
def test_each_number_is_true(row: str, text: str) -> None:
    """Each limit stands in the row that is about it."""
    lines = [line for line in PAGE.splitlines() if line.startswith(f"| {row}")]
    assert len(lines) == 1
    assert text in lines[0]
