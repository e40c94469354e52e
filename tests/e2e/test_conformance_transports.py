"""The official conformance suite, both revisions, before servers that speak HTTP+SSE of 2024, and stdio."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .launch import SERVERS, Fleet, python
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


async def test_legacy(urls: Urls, tmp_path: Path) -> None:
    """All that is scored of a server of 2025-11-25."""
    status, said = await run_suite(LEGACY, urls(LEGACY), tmp_path)
    assert status == 0, said


async def test_modern(urls: Urls, tmp_path: Path) -> None:
    """All of 2026-07-28 with its checks, and without a warning.

    A child that has to be started first may take longer than a scenario waits, so there is a second try.
    """
    url = urls(MODERN)
    status, said = await run_suite(MODERN, url, tmp_path / "first")
    if status == 0 and complaints(tmp_path / "first") == "":
        return
    status, said = await run_suite(MODERN, url, tmp_path / "second")
    assert complaints(tmp_path / "second") == ""
    assert status == 0, said
