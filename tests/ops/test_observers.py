import logging

from mcp_session_proxy.events import DeleteAbsorbed
from mcp_session_proxy.ops.observers import tee

EVENT = DeleteAbsorbed(client="c1", principal="p1")


def test_tells_every_observer_in_order():
    """One event reaches all observers."""
    told = []
    tee(lambda event: told.append((1, event)), lambda event: told.append((2, event)))(EVENT)
    assert told == [(1, EVENT), (2, EVENT)]


def test_a_failing_observer_harms_nobody(caplog):
    """The core sees no exception, the other observers see the event, the log sees the failure."""
    told = []

    def broken(event):
        raise RuntimeError("no space left")

    with caplog.at_level(logging.ERROR):
        tee(broken, told.append)(EVENT)
    assert told == [EVENT]
    assert "client.delete_absorbed" in caplog.text
    assert "no space left" in caplog.text
