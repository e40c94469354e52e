"""What went wrong in the last hour, by what and why, and where it says what to do."""

from datetime import UTC, datetime, timedelta

import pytest

from mcp_session_proxy import events
from mcp_session_proxy.bounds import SHOWN_TROUBLES
from mcp_session_proxy.events import Level
from mcp_session_proxy.ops.admin.runbook import render, runbook, slug
from mcp_session_proxy.ops.observers import Tee
from mcp_session_proxy.ops.recent import Recent
from mcp_session_proxy.ops.runbook import path_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
REQUEST = {"method": "tools/call", "detail": "d", "request_id": "r1", "principal": "p1"}


def failed(reason="upstream-timeout"):
    return events.RequestFailed(reason=reason, fault="upstream", **REQUEST)


def refused():
    return events.RequestRefused(reason="upstream-rejected", fault="client", **REQUEST)


def lost(how="404"):
    return events.SessionLost(session="u1", principal="p1", how=how)


class Bench:
    def __init__(self):
        self.now = NOON
        self.recent = Recent(lambda: self.now)
        self.tell = Tee(self.recent)

    def seen(self):
        return [(each.event, each.reason, each.count) for each in self.recent.troubles()]


@pytest.fixture
def bench():
    return Bench()


def test_counts_by_what_and_why(bench):
    """A flood of one makes one entry, and hides no other; the newest first."""
    for _ in range(3000):
        bench.tell(failed())
    bench.now += timedelta(minutes=1)
    bench.tell(lost())
    bench.tell(lost("check"))
    assert sorted(bench.seen()) == [
        ("request.failed", "upstream-timeout", 3000),
        ("session.lost", "404", 1),
        ("session.lost", "check", 1),
    ]
    assert bench.recent.troubles()[-1].event == "request.failed"
    assert bench.recent.troubles()[-1].last == NOON


def test_callers_faults_come_last(bench):
    """They are shown, as what they are, behind everything that somebody has to do something about."""
    bench.tell(failed())
    bench.now += timedelta(minutes=1)
    bench.tell(refused())
    assert [(each.event, each.level) for each in bench.recent.troubles()] == [
        ("request.failed", Level.WARNING),
        ("request.failed", Level.INFO),
    ]


def test_an_hour_later_it_is_forgotten(bench):
    """Minute by minute."""
    bench.tell(failed())
    bench.now += timedelta(minutes=30)
    bench.tell(failed())
    bench.now += timedelta(minutes=29)
    assert bench.seen() == [("request.failed", "upstream-timeout", 2)]
    bench.now += timedelta(minutes=1)
    assert bench.seen() == [("request.failed", "upstream-timeout", 1)]
    bench.now += timedelta(hours=2)
    assert bench.seen() == []


def test_what_comes_from_outside_has_a_bound(bench):
    """Words of others make no more entries than fit; then they share one. Their length is bounded, too."""
    for number in range(SHOWN_TROUBLES * 3):
        bench.tell(lost(f"{number}" + "x" * 10_000))
    seen = bench.seen()
    assert len(seen) == SHOWN_TROUBLES + 1
    assert ("session.lost", "other", SHOWN_TROUBLES * 2) in seen
    assert max(len(reason) for _, reason, _ in seen) <= 100


def test_routine_is_no_trouble(bench):
    """Comings and goings."""
    bench.tell(events.SessionOpened(session="u1", principal="p1", why="demand", seconds=0.1))
    bench.tell(events.UpstreamUp(upstream="http://h"))
    assert bench.seen() == []


EVENTS = [
    events.AnonymousCaller(advice="a"),
    events.Crashed(where="request", error="KeyError()"),
    events.LeaseFailed(principal="p1", reason="acquire-timeout", waited_seconds=1.0),
    events.ReloadFailed(problem="p"),
    events.ReplayRefused(method="tools/call", session="u1"),
    events.SessionOpenFailed(principal="p1", why="demand", error="upstream-protocol-error", detail="d"),
    events.UpstreamDown(upstream="http://h", error="Connection refused"),
    failed(),
    refused(),
    lost(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_the_runbook_has_what_events_lead_to(event):
    """Every link of a problem leads to a section, or to a row of a table, that is there."""
    path = path_of(event)
    assert path is not None
    page, _, fragment = path.partition("#")
    assert page == "/runbook"
    assert f' id="{fragment}"' in runbook()


def test_what_needs_nobody_leads_nowhere():
    """There is nothing to do about a server that is back."""
    assert path_of(events.UpstreamUp(upstream="http://h")) is None


def test_the_runbooks_own_links_lead_somewhere():
    """Within the page; what is in another document is text."""
    page = runbook()
    targets = {link.partition('"')[0] for link in page.split('<a href="#')[1:]}
    assert len(targets) > 10
    assert [target for target in targets if f' id="{target}"' not in page] == []


def test_rendering():
    """Headings, paragraphs, lists, tables and code; texts stay texts."""
    text = """\
# A `b` & c

One *two* **three** <b>
`x * y * z` [here](#a) and [`there`](other.md#x).

- first
  goes on
- second

| word | `c` |
|---|---|
| `some-word` | <i> |

```sh
# no heading <x>

| no table |
```
"""
    assert render(text).split("\n") == [
        '<h1 id="a-b--c">A <code>b</code> &amp; c</h1>',
        "<p>One <i>two</i> <b>three</b> &lt;b&gt;",
        '<code>x * y * z</code> <a href="#a">here</a> and <code>there</code>.</p>',
        "<ul><li>first",
        "  goes on</li><li>second</li></ul>",
        "<table><thead><tr><th>word</th><th><code>c</code></th></tr></thead>"
        '<tbody><tr id="some-word"><td data-label="word"><code>some-word</code></td>'
        '<td data-label="c">&lt;i&gt;</td></tr></tbody></table>',
        "<pre># no heading &lt;x&gt;",
        "",
        "| no table |",
        "</pre>",
    ]


def test_slugs():
    """As Markdown's usual readers make them."""
    assert slug("`upstream-rejected`, by status") == "upstream-rejected-by-status"
