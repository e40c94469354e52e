"""A real server that closes the streams of its calls and answers in later ones (mcp 1.30, SEP-1699)."""

from collections.abc import Callable

import pytest

from .conftest import Desk

pytestmark = pytest.mark.e2e


async def test_a_call_whose_stream_the_server_closes(desk: Callable[[str], Desk]) -> None:
    """However often it does, the one answer comes, with a session and without one."""
    at = desk("polling")
    session = await at.caller.open()
    first = await at.caller.call("slow", {"times": 8}, session=session)
    second = await at.caller.call("slow", {"times": 1}, session=None)
    assert int(second.text.split()[1]) == int(first.text.split()[1]) + 1


async def test_what_is_said_while_nobody_listens(desk: Callable[[str], Desk]) -> None:
    """Comes in the next stream, in order and once."""
    at = desk("polling")
    session = await at.caller.open()
    reply = await at.caller.call("tell", {"times": 5}, session=session)
    assert reply.text == "told"
    news = [m["params"]["data"] for m in reply.messages if m.get("method") == "notifications/message"]
    assert news == [f"news {number}" for number in range(5)]
