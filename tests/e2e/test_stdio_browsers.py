"""Browsers behind servers that are commands: they outlive their clients, and never their proxy."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from .launch import Fleet, Proxy, chromium, node, node_module, write_playwright_config
from .run import Run

pytestmark = pytest.mark.e2e


@pytest.fixture
def playwright(owned: Fleet, tmp_path: Path) -> Callable[..., Proxy]:
    """Starts the proxy before Playwright MCP."""
    write_playwright_config(tmp_path)

    def start(*options: str) -> Proxy:
        return owned.new_stdio_proxy(
            [
                *(node(), node_module("@playwright/mcp/cli.js"), "--headless", "--isolated", "--no-sandbox"),
                *("--executable-path", chromium(), "--config", str(tmp_path / "playwright.json")),
            ],
            *options,
        )

    return start


def processes_of(home: Path) -> list[str]:
    """The command lines of processes whose home this is."""
    mark, found = f"HOME={home}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


async def test_langchain_drives_a_browser(page: str, playwright: Callable[..., Proxy], run: Run) -> None:
    """Navigates, clicks and reads the page, each call in its own session: it is one browser; and another
    caller has another one. When the proxy has ended, no process of theirs is left.
    """
    proxy = playwright()
    (seen,) = await run.client(
        "langchain",
        proxy.url,
        "ada",
        [
            ("browser_navigate", {"url": page}),
            ("browser_click", {"element": "the button", "target": "text=Press me"}),
            ("browser_snapshot", {}),
        ],
    )
    assert 'heading "Clicked"' in seen["answers"][2]
    (other,) = await run.client("langchain", proxy.url, "bob", [("browser_snapshot", {})])
    assert page not in other["answers"][0]
    home = Path(proxy.program.environment["HOME"])
    assert len(processes_of(home)) > 3
    assert proxy.stop() == 0
    async with asyncio.timeout(30):
        while processes_of(home):
            await asyncio.sleep(0.1)


async def test_modern_client_drives_a_browser(page: str, playwright: Callable[..., Proxy], run: Run) -> None:
    """So does a client that knows no sessions."""
    proxy = playwright("--min-idle", "1")
    calls = [("browser_navigate", {"url": page}), ("browser_snapshot", {})]
    (seen,) = await run.client("mcp-2", proxy.url, "ada", calls)
    assert 'heading "Start"' in seen["answers"][1]


async def test_chrome_devtools(page: str, owned: Fleet, run: Run) -> None:
    """Chrome's own server keeps its page, too."""
    proxy = owned.new_stdio_proxy(
        [
            *(node(), node_module("chrome-devtools-mcp/build/src/bin/chrome-devtools-mcp.js", "stdio")),
            *("--headless", "--isolated", "--executablePath", chromium(), "--chromeArg=--no-sandbox"),
            *("--usageStatistics", "false"),
        ]
    )
    calls = [("new_page", {"url": page}), ("list_pages", {}), ("take_snapshot", {"pageId": 2})]
    (seen,) = await run.client("langchain", proxy.url, "ada", calls)
    assert "Start" in seen["answers"][2], seen
