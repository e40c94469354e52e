"""A real server that closes the streams of long calls, and gives their answers in later ones (SEP-1699)."""

from collections.abc import Callable

import pytest

from .conftest import Desk
from .modern_wire import ModernCaller
from .sdk import call, connected

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("era", ["session", "sessionless", "modern"])
async def test_an_answer_that_comes_in_a_later_stream(era: str, desk: Callable[[str], Desk]) -> None:
    """A server that closes the stream of a long call, and each in which it is asked again, is heard out."""
    at = desk("resumable")
    arguments = {"times": 6}
    if era == "session":
        async with connected(at.proxy.url, at.caller.token) as client:
            text = await call(client, "poll", **arguments)
    elif era == "sessionless":
        text = (await at.caller.call("poll", arguments)).text
    else:
        text = (
            await ModernCaller(at.http, at.proxy.url, capabilities={}).call_modern("poll", arguments)
        ).text
    assert text == "polled 6 times"
