"""Playwright MCP with Debian's chromium behind the proxy: a browser that outlives its clients' sessions."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Desk
from .launch import Fleet, unused_port
from .run import Run
from .sdk import call, connected

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(0)]


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


async def test_the_browser_outlives_the_proxy(page: str, owned: Fleet, tmp_path: Path) -> None:
    """Another process takes the place of the proxy between two calls of a client: the page is still there."""
    server = owned.new_server("playwright")
    options = ("--state-dir", str(tmp_path / "state"), "--replace")
    listen = f"127.0.0.1:{unused_port()}"
    old = owned.new_proxy(server.url, *options, listen=listen)
    async with connected(old.url, "ada") as client:
        await call(client, "browser_navigate", url=page)
        new = owned.new_proxy(server.url, *options, listen=listen, start=False)
        await asyncio.to_thread(new.start)
        assert old.program.process is not None
        assert await asyncio.to_thread(old.program.process.wait, 30) == 0
        # The server's pings go unanswered until its caller is back, and it ends the session after five
        # seconds of that; the client opens its stream again at once.
        assert 'heading "Start"' in await call(client, "browser_snapshot")
