"""A server that takes long to open a session: the whole proxy waits for it, and says what it waited for."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from messages import INITIALIZE, call
from proxy_bench import Bench

pytestmark = pytest.mark.slow

HASTY = {"acquire_timeout": "50ms", "request_timeout": "100ms"}
META = "io.modelcontextprotocol/"
MODERN = call(
    1,
    "tools/list",
    _meta={f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}},
)
MODERN_HEADERS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}


def delay_handshakes(bench: Bench, seconds: float, *, at: str = "initialize") -> None:
    """Let the server take its time for one step of the handshake."""

    async def slow(_: web.Request, message: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return bench.server.open_session(message) if at == "initialize" else web.Response(status=202)

    bench.server.on[at] = slow


@pytest.mark.parametrize("step", ["initialize", "notifications/initialized"])
async def test_a_cold_start(bench: Bench, step: str) -> None:
    """The first call works though a handshake takes longer than a free session or an answer may."""
    delay_handshakes(bench, 0.4, at=step)
    await bench.start(**HASTY)
    session = await bench.initialize()
    answers = await asyncio.gather(
        bench.post(call(), session=session), bench.post(call()), bench.post(MODERN, headers=MODERN_HEADERS)
    )
    assert [answer.status for answer in answers] == [200, 200, 200]


async def test_a_session_that_is_opened_anew(bench: Bench) -> None:
    """A server that restarts may take as long as one that starts."""
    await bench.start(**HASTY)
    session = await bench.initialize()
    delay_handshakes(bench, 0.4)
    bench.server.sessions.clear()
    assert (await bench.post(call(), session=session)).status == 200


@pytest.mark.parametrize("session", [None, "mine"])
async def test_a_server_that_never_finishes(bench: Bench, session: str | None) -> None:
    """The error says what was waited for, for how long, and which option it is."""
    delay_handshakes(bench, 60)
    await bench.start(acquire_timeout="50ms", handshake_timeout="200ms")
    message = INITIALIZE if session is None else call()
    answer = await bench.post(message, session=session)
    assert answer.status == 504
    error = answer.json["error"]
    assert error["data"]["reason"] == "upstream-timeout"
    assert error["message"] == (
        "The MCP server did not finish the handshake within 0.2 s, which is what --handshake-timeout allows."
    )


async def test_a_client_that_does_not_wait(bench: Bench) -> None:
    """Leaves nothing behind but the session, which the next one gets."""
    delay_handshakes(bench, 0.3)
    await bench.start(**HASTY)
    async with bench.asking(MODERN, headers=MODERN_HEADERS):
        await asyncio.sleep(0.1)
    assert (await bench.post(MODERN, headers=MODERN_HEADERS)).status == 200
    assert len(bench.server.posts("initialize")) == 1
