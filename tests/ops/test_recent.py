from datetime import UTC, datetime

import pytest

from mcp_session_proxy import events
from mcp_session_proxy.bounds import SHOWN_EVENTS_OF_A_KIND
from mcp_session_proxy.ops.observers import Tee
from mcp_session_proxy.ops.recent import Recent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DOWN = events.UpstreamDown(upstream="http://h", error="Connection refused")
UP = events.UpstreamUp(upstream="http://h")


@pytest.fixture
def recent():
    return Recent(lambda: NOON)


def test_keeps_what_the_event_says(recent):
    """Its id, when it was, how loud it is, its name and its fields."""
    Tee(recent)(DOWN)
    (entry,) = recent.after(0, 10)
    assert (entry.id, entry.time, entry.level, entry.event) == (1, NOON, "warning", "upstream.down")
    assert entry.fields == {"upstream": "http://h", "error": "Connection refused"}


def test_gives_what_came_after(recent):
    """Whoever has seen an event is told of later ones, oldest first, whatever their kinds."""
    for event in (DOWN, UP, DOWN, UP):
        Tee(recent)(event)
    assert [(entry.id, entry.event) for entry in recent.after(1, 10)] == [
        (2, "upstream.up"),
        (3, "upstream.down"),
        (4, "upstream.up"),
    ]
    assert recent.after(4, 10) == []
    assert recent.newest == 4


def test_limit_takes_the_newest(recent):
    """Of more events than wanted, the newest are given, still oldest first."""
    for event in (DOWN, UP, DOWN, UP):
        Tee(recent)(event)
    assert [entry.id for entry in recent.after(0, 2)] == [3, 4]
    assert recent.after(0, 0) == []


def test_refused_callers_wash_away_no_failures(recent):
    """They have the name of failed requests, and room of their own."""
    words = {"method": "initialize", "detail": "d", "request_id": "r1", "principal": "p1"}
    Tee(recent)(events.RequestFailed(reason="upstream-timeout", fault="upstream", **words))
    for _ in range(1000):
        Tee(recent)(events.RequestRefused(reason="upstream-rejected", fault="client", **words))
    kept = recent.after(0, 2000)
    assert len(kept) == SHOWN_EVENTS_OF_A_KIND + 1
    assert [entry.level for entry in kept].count("warning") == 1
    assert {entry.event for entry in kept} == {"request.failed"}


def test_a_flood_washes_away_its_own_kind_only(recent):
    """What explains a flood of failures is still there when somebody looks."""
    Tee(recent)(DOWN)
    for _ in range(10 * SHOWN_EVENTS_OF_A_KIND):
        Tee(recent)(
            events.LeaseFailed(principal="p1", reason="upstream-down", waited_seconds=0.123456789),
        )
    entries = recent.after(0, 10_000)
    assert len(entries) == SHOWN_EVENTS_OF_A_KIND + 1
    assert entries[0].event == "upstream.down"
    assert entries[-1].id == recent.newest == 10 * SHOWN_EVENTS_OF_A_KIND + 1
    assert entries[-1].fields["waited_seconds"] == 0.123457


def test_debug_events_are_not_kept(recent):
    """What comes with every request is nobody's news."""
    Tee(recent)(events.DeleteAbsorbed(client="c1", principal="p1"))
    assert (recent.newest, recent.after(0, 10)) == (0, [])


def test_names_from_outside_are_cut(recent):
    """A client may call a method whatever it likes, at any length."""
    Tee(recent)(
        events.RequestFailed(method="x" * 4_000_000, reason="r", detail="d", request_id="1", principal="p1")
    )
    (entry,) = recent.after(0, 1)
    assert len(str(entry.fields["method"])) < 400


def test_fields_that_say_nothing_are_left_out(recent):
    """As in the log."""
    Tee(recent)(events.Crashed(where="open", error="KeyError()"))
    (entry,) = recent.after(0, 1)
    assert "request_id" not in entry.fields
