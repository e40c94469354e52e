"""Playwright MCP with Debian's chromium behind the proxy: a browser that outlives its clients' sessions."""

import asyncio
from collections.abc import Callable

import pytest

from .conftest import Desk
from .run import Run

pytestmark = pytest.mark.e2e


async def test_langchain_drives_a_browser(page: str, own_desk: Callable[..., Desk], run: Run) -> None:
    """LangChain navigates, clicks and reads the page, each call in its own session: it is one browser."""
    at = own_desk("playwright")
    (seen,) = await run.client(
        "langchain",
        at.proxy.url,
        at.caller.token,
        [
            ("browser_navigate", {"url": page}),
            ("browser_click", {"element": "the button", "target": "text=Press me"}),
            ("browser_snapshot", {}),
        ],
    )
    navigated, clicked, snapshot = seen["answers"]
    assert page in navigated
    assert "click()" in clicked
    assert page in snapshot
    assert 'heading "Clicked"' in snapshot


async def test_the_browser_outlives_the_patience_of_its_server(
    page: str, own_desk: Callable[..., Desk], run: Run
) -> None:
    """Over more than one of the server's ping rounds, without any client, the browser keeps its page."""
    at = own_desk("playwright")
    await run.client("langchain", at.proxy.url, at.caller.token, [("browser_navigate", {"url": page})])
    await asyncio.sleep(6)  # an unanswered ping would end the session in under five seconds
    (seen,) = await run.client("langchain", at.proxy.url, at.caller.token, [("browser_snapshot", {})])
    assert 'heading "Start"' in seen["answers"][0]


async def test_two_callers_two_browsers(page: str, own_desk: Callable[..., Desk], run: Run) -> None:
    """Two principals browse at the same server without seeing each other's page."""
    at = own_desk("playwright")
    await run.client("langchain", at.proxy.url, at.caller.token, [("browser_navigate", {"url": page})])
    at.caller = at.another()
    (seen,) = await run.client("langchain", at.proxy.url, at.caller.token, [("browser_snapshot", {})])
    assert page not in seen["answers"][0]
