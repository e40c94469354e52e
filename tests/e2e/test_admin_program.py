"""The admin API's hand on the program: draining it, and the token that it was given."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Desk
from .wire import eventually

pytestmark = pytest.mark.e2e

ASKING = {"X-Requested-With": "test"}


@pytest.fixture
def at(option_desk: Callable[..., Desk]) -> Desk:
    """A caller of a proxy of the test's own before the counting server."""
    return option_desk("mcp-1.30")


async def _drain_while_busy(at: Desk) -> asyncio.Task[object]:
    """Drain the proxy by the API in the middle of a call; gives the call."""
    session = await at.caller.open()
    slow = asyncio.create_task(at.caller.call("slow", {"seconds": 2}, session=session))

    async def busy() -> bool:
        return bool(at.proxy.json("/api/v1/status")["totals"]["in_flight"])

    await eventually(busy)
    async with at.http.post(f"{at.proxy.admin}/api/v1/drain", headers=ASKING) as response:
        assert (response.status, await response.json()) == (202, {"exchanges": 1})
    return slow


async def test_drain(at: Desk) -> None:
    """The call is finished, the sessions are given back, and the program ends with status 0 by itself."""
    slow = await _drain_while_busy(at)
    process = at.proxy.program.process
    assert process is not None
    assert (await slow).status == 200  # type: ignore[attr-defined]
    assert await asyncio.to_thread(process.wait, 10) == 0
    assert (await at.stats())["sessions"]["live"] == 0
    assert "Traceback" not in at.proxy.program.log.read_text()


async def test_sigterm_after_a_drain(at: Desk) -> None:
    """A service manager that has it drained and then sends SIGTERM does not cut anything off."""
    slow = await _drain_while_busy(at)
    at.proxy.program.ask_to_leave()
    process = at.proxy.program.process
    assert process is not None
    assert (await slow).status == 200  # type: ignore[attr-defined]
    assert await asyncio.to_thread(process.wait, 10) == 0


async def test_token_from_the_file(option_desk: Callable[..., Desk], tmp_path: Path) -> None:
    """As secrets are best given: not on the command line. It comes out nowhere, not even at the loudest."""
    config = tmp_path / "proxy.toml"
    config.write_text('admin-token = "hunter2-token"\nlog-level = "debug"\n')
    at = option_desk("mcp-1.30", "--config", str(config))
    for token, status in ((None, 401), ("guess", 401), ("hunter2-token", 200)):
        headers = ASKING if token is None else {"Authorization": f"Bearer {token}"}
        async with at.http.post(f"{at.proxy.admin}/api/v1/pause", headers=headers) as response:
            assert response.status == status
            assert "hunter2" not in await response.text()
    assert at.proxy.json("/api/v1/status")["paused"] is True
    assert at.proxy.stop() == 0
    assert "hunter2" not in at.proxy.program.log.read_text()
