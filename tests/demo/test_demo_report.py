import io

import pytest
from prometheus_client.exposition import generate_latest
from rich.console import Console

from mcp_session_proxy import events
from mcp_session_proxy.demo import report
from mcp_session_proxy.demo.churn import SessionCounts, parse_churn
from mcp_session_proxy.demo.client import DemoStep, Round
from mcp_session_proxy.ops.metrics import Metrics
from mcp_session_proxy.ops.observers import Tee


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def text_of(console) -> str:
    return console.file.getvalue()


def test_rounds_are_shown_side_by_side(console):
    """What fails directly and what works through the proxy stand in one line."""
    direct = [Round(steps=(DemoStep(name="tools/call", status=404, text="Session not found"),), count=None)]
    proxied = [Round(steps=(DemoStep(name="tools/call", status=200, text="the count is 1"),), count=1)]
    report.compare_rounds(console, direct, proxied)
    (line,) = [line for line in text_of(console).splitlines() if "tools/call" in line]
    assert "404 Session not found" in line
    assert "200 the count is 1" in line
    assert "fails" in text_of(console)
    assert "1 of 1 work, and they share one count" in text_of(console)


def test_a_failure_through_the_proxy_is_not_glossed_over(console):
    """When the demonstration goes wrong, it says so."""
    rounds = [Round(steps=(DemoStep(name="tools/call", status=500, text="oops"),), count=None)]
    report.compare_rounds(console, rounds, rounds)
    assert "0 of 1 work, which is a bug" in text_of(console)


def test_foreign_text_is_not_markup(console):
    """A server's message in brackets is shown as it is."""
    rounds = [Round(steps=(DemoStep(name="tools/call", status=500, text="[red]boom[/red]"),), count=None)]
    report.compare_rounds(console, rounds, rounds)
    assert "[red]boom[/red]" in text_of(console)


def test_churn_is_shown(console):
    """Clients' sessions against the server's."""
    report.show_churn(console, SessionCounts(begun=5, ended=5, opened=1, closed=0))
    assert "by clients, at the proxy" in text_of(console)


def test_commands_can_be_copied(console):
    """A command stays in one line, however narrow the terminal."""
    report.show_commands(console, "http://127.0.0.1:8080/mcp", "http://127.0.0.1:9090")
    assert any(
        line.strip().startswith("curl") and line.endswith("}}}'") for line in text_of(console).splitlines()
    )
    assert "http://127.0.0.1:9090/metrics" in text_of(console)


def test_commands_without_an_admin_listener(console):
    """What is off is not advertised."""
    report.show_commands(console, "http://127.0.0.1:8080/mcp", None)
    assert "/metrics" not in text_of(console)


def test_churn_is_read_from_a_scrape():
    """The same samples that an operator would query, summed over their labels."""
    metrics = Metrics()
    for method in ("initialize", "initialize", "tools/call"):
        Tee(metrics)(
            events.RequestFinished(
                era="legacy",
                method=method,
                outcome="ok",
                sessionless=False,
                seconds=0.1,
                waited_seconds=None,
                upstream_seconds=0.1,
                request_id="r",
                principal="p",
                session=None,
            )
        )
    Tee(metrics)(events.DeleteAbsorbed(client="c", principal="p"))
    for why in ("demand", "reopen"):
        Tee(metrics)(events.SessionOpened(session="s", principal="p", why=why, seconds=0.1))
    assert parse_churn(generate_latest(metrics.registry).decode()) == SessionCounts(
        begun=2, ended=1, opened=2, closed=0
    )
