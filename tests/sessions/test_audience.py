"""Who finds an upstream session when coming back: written down so that forgetting takes no search."""

import gc
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from binding_world import World

from mcp_session_proxy.sessions.audience import audience_of
from mcp_session_proxy.sessions.modes import Sharing

pytestmark = pytest.mark.looptime


def count_lines(work: Callable[[], object]) -> int:
    """How many lines of Python are run by this: the same number on any machine."""
    lines = 0

    def trace(_frame: object, event: str, _arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("sharing", [Sharing.HANDOVER, Sharing.ISOLATED])
async def test_forgetting_costs_the_same_however_many_sessions_there_are(sharing: Sharing) -> None:
    """A limit that is reached makes each ``initialize`` forget one: with three others or with a hundred."""
    costs = []
    for others in (3, 100):
        world = World(sharing, max_sessions_per_principal=200)
        clients = [await world.start() for _ in range(others + 1)]
        assert len(world.server.live) == others + 1
        first = clients[0]
        costs.append(count_lines(partial(world.binder.forget, first, "room")))
        assert not audience_of(first.home.session)
        await world.end()
    assert costs[0] == costs[1]


@pytest.mark.slow
async def test_a_client_keeps_no_session_that_is_closed() -> None:
    """It asked on many conversations' sessions, which are long closed: nothing of them is left with it."""
    world = World()
    one = await world.start()
    seen = []
    for number in range(5):
        session = await world.ask(affinity=str(number), client=one)
        assert set(audience_of(session)) == {one}
        seen.append(weakref.ref(session))
        session.lose(beyond_help=True)
    del session
    await world.call(one)
    world.server.sessions.clear()
    gc.collect()
    assert [ref() for ref in seen] == [None] * 5
    await world.end()
