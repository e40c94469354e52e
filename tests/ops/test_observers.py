import logging

import pytest

from mcp_session_proxy.events import DeleteAbsorbed, SessionReused
from mcp_session_proxy.ops.observers import Tee

EVENT = DeleteAbsorbed(client="c1", principal="p1")
OTHER = SessionReused(session="s1", principal="p1")


class Ear:
    """Hears the kinds it was made for."""

    def __init__(self, told, *kinds):
        self.kinds = kinds
        self.told = told
        self.asked = 0

    def listener(self, kind):
        self.asked += 1
        return self.hear if kind in self.kinds else None

    def hear(self, event):
        self.told.append((self, event))


@pytest.fixture
def told():
    return []


def test_tells_every_observer_in_order(told):
    """One event reaches all observers that want its kind, and no other."""
    one, two, three = Ear(told, DeleteAbsorbed), Ear(told, SessionReused), Ear(told, DeleteAbsorbed)
    Tee(one, two, three)(EVENT)
    assert told == [(one, EVENT), (three, EVENT)]


def test_asks_once_for_each_kind(told):
    """What an observer wants is asked again only when it may have changed."""
    ear = Ear(told, DeleteAbsorbed)
    tee = Tee(ear)
    for event in (EVENT, EVENT, OTHER, OTHER):
        tee(event)
    assert (ear.asked, len(told)) == (2, 2)
    ear.kinds = (SessionReused,)
    tee.refresh()
    tee(EVENT)
    tee(OTHER)
    assert told[2:] == [(ear, OTHER)]


def test_a_failing_observer_harms_nobody(told, caplog):
    """The core sees no exception, the other observers see the event, the log sees the failure."""

    class Broken(Ear):
        def hear(self, event):
            raise RuntimeError("no space left")

    ear = Ear(told, DeleteAbsorbed)
    with caplog.at_level(logging.ERROR):
        Tee(Broken(told, DeleteAbsorbed), ear)(EVENT)
    assert told == [(ear, EVENT)]
    assert "client.delete_absorbed" in caplog.text
    assert "no space left" in caplog.text
