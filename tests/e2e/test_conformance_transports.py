"""The official conformance suite, both revisions, before servers that speak HTTP+SSE of 2024, and stdio."""

from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from .launch import SERVERS, Fleet, python
from .modern_wire import ModernCaller
from .test_conformance_modern import LEGACY, MODERN, complaints, run_suite

pytestmark = pytest.mark.e2e

Urls = Callable[[str], str]
SCRIPTS = {LEGACY: "conformance_server.py", MODERN: "modern_fixture_server.py"}


@pytest.fixture(params=["sse", "stdio"])
def urls(request: pytest.FixtureRequest, fleet: Fleet, owned: Fleet) -> Urls:
    """The proxy's URL, by the revision that is tested, before a server that speaks this transport."""

    def sse(revision: str) -> str:
        return fleet.proxy("modern-sse" if revision == MODERN else "conformance-sse").url

    def stdio(revision: str) -> str:
        command = [python("mcp-1.30"), str(SERVERS / SCRIPTS[revision]), "--transport", "stdio"]
        return owned.new_stdio_proxy(command).url

    return sse if request.param == "sse" else stdio


@pytest.mark.share(2)
async def test_legacy(urls: Urls, tmp_path: Path) -> None:
    """All that is scored of a server of 2025-11-25."""
    status, said = await run_suite(LEGACY, urls(LEGACY), tmp_path)
    assert status == 0, said


async def test_modern(urls: Urls, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """All of 2026-07-28 with its checks, and without a warning."""
    url = urls(MODERN)
    # One check waits for 0.6 s, in which no child starts: one for clients like the suite's is there before.
    caller = ModernCaller(http, url, token=None, capabilities={"elicitation": {}})
    caller.info = {"name": "conformance-client", "version": "1.0.0"}
    await caller.ask_modern("tools/list")
    status, said = await run_suite(MODERN, url, tmp_path / "results")
    assert complaints(tmp_path / "results") == ""
    assert status == 0, said
