"""What a lost session's successor is told again: the newest of each, bounded."""

import pytest

from mcp_session_proxy.memory import Share
from mcp_session_proxy.upstream.journal import Journal


def test_journal_keeps_the_newest() -> None:
    """The last log level counts; a subscription is kept until it is given up, in the order of asking."""
    journal = Journal()
    journal.record("logging/setLevel", b'{"level":"debug"}')
    journal.record("logging/setLevel", b'{"level":"error"}')
    journal.record("resources/subscribe", b'{"uri":"a"}')
    journal.record("resources/subscribe", b'{"uri":"b"}')
    journal.record("resources/subscribe", b'{"uri":"a","x":1}')
    journal.record("resources/unsubscribe", b'{"uri":"b"}')
    assert journal.requests() == [
        ("logging/setLevel", b'{"level":"error"}'),
        ("resources/subscribe", b'{"uri":"a","x":1}'),
    ]


@pytest.mark.parametrize("params", [None, b"[]", b"{}", b'{"uri":7}', b'"x"'])
def test_journal_ignores_what_it_cannot_read(params: bytes | None) -> None:
    """Parameters without a URI are not replayed."""
    journal = Journal()
    journal.record("resources/subscribe", params)
    journal.record("resources/unsubscribe", params)
    journal.record("tools/call", b'{"name":"x"}')
    assert journal.requests() == []


def test_journal_is_bounded() -> None:
    """A client that subscribes to everything does not fill our memory."""
    journal = Journal()
    for number in range(2000):
        journal.record("resources/subscribe", b'{"uri":"a:%d"}' % number)
    assert len(journal.requests()) == 1000
    journal.record("resources/unsubscribe", b'{"uri":"a:0"}')
    journal.record("resources/subscribe", b'{"uri":"new"}')
    assert len(journal.requests()) == 1000


def test_journal_is_bounded_in_bytes() -> None:
    """Nor does one that subscribes to few things with long names, or adds to its log level."""
    journal = Journal()
    for number in range(10):
        journal.record("resources/subscribe", b'{"uri":"%d","x":"%s"}' % (number, b"x" * 100_000))
    journal.record("logging/setLevel", b'{"level":"debug","x":"%s"}' % (b"x" * 100_000))
    assert [len(params) for method, params in journal.requests() if method == "resources/subscribe"] == [
        100_018,
        100_018,
    ]
    assert journal.log_level == b'{"level":"debug"}'
    journal.record("logging/setLevel", b'{"level":"%s"}' % (b"x" * 100_000))
    assert journal.log_level is None


def test_all_journals_together_are_bounded() -> None:
    """What finds no place is not remembered; what is given up gives it back, and so does a journal's end."""
    share = Share("subscriptions", 100)
    first, second = Journal(share), Journal(share)
    first.record("resources/subscribe", b'{"uri":"a","x":"%s"}' % (b"x" * 60))
    second.record("resources/subscribe", b'{"uri":"a","x":"%s"}' % (b"x" * 60))
    assert [len(journal.requests()) for journal in (first, second)] == [1, 0]
    first.record("resources/unsubscribe", b'{"uri":"a"}')
    second.record("resources/subscribe", b'{"uri":"a","x":"%s"}' % (b"x" * 60))
    assert [len(journal.requests()) for journal in (first, second)] == [0, 1]
    del second
    assert share.used_bytes == 0
