"""The picture of the churn: sessions that stateless clients begin and end, and what the server sees of it.

    python tests/soak/churn.py --seconds 60 --plot docs/churn.svg

Clients of a few callers live as OpenAI's do (begin, list, end, and only then call), through a proxy before a
real stateful server. What is drawn is read from the proxy's /metrics, once a second.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from e2e.launch import Fleet
from e2e.wire import Caller

from mcp_session_proxy.demo.churn import SessionCounts, read_churn
from soak.plot import frame

CALLERS, CLIENTS_OF_EACH = 4, 2
PAUSE_SECONDS = 0.35
_WIDTH, _HEIGHT, _LEFT, _TOP = 620, 190, 70, 52
_CLIENTS, _SERVER = "#c05621", "#2b6cb0"


async def run(seconds: float) -> list[tuple[float, SessionCounts]]:
    """Let the clients live; the moments (in seconds) and what was counted until then."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        try:
            proxy = fleet.new_proxy(fleet.new_server("mcp-1.30").url)
            return await _watch(proxy.url, proxy.admin, seconds)
        finally:
            fleet.stop()


async def _watch(url: str, admin: str, seconds: float) -> list[tuple[float, SessionCounts]]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        tokens = [f"caller-{number}" for number in range(CALLERS)] * CLIENTS_OF_EACH
        clients = [asyncio.create_task(_live(Caller(http, url, token=token))) for token in tokens]
        started, samples = time.monotonic(), [(0.0, SessionCounts(begun=0, ended=0, opened=0, closed=0))]
        while samples[-1][0] < seconds:
            await asyncio.sleep(1)
            samples.append((time.monotonic() - started, await read_churn(admin)))
        for client in clients:
            client.cancel()
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("a client failed") from ended
    return samples


async def _live(caller: Caller) -> None:
    expected = None
    while True:
        session = await caller.open()
        await caller.ask("tools/list", session=session)
        await caller.delete(session)
        count = int((await caller.call("increment", session=session)).text)
        assert expected is None or count > 1, "the session's state is gone"
        expected = count
        await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))


def draw(samples: Sequence[tuple[float, SessionCounts]]) -> str:
    """The two sums over time."""
    last_second, last = samples[-1]
    highest = (last.begun + last.ended) * 1.08

    def line(values: Sequence[float], colour: str) -> str:
        points = [
            f"{_LEFT + second / last_second * _WIDTH:.1f},{_TOP + _HEIGHT * (1 - value / highest):.1f}"
            for (second, _), value in zip(samples, values, strict=True)
        ]
        return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="3"/>'

    def label(value: int, text: str, colour: str) -> str:
        # Above the axis with both of its lines.
        y, x = min(_TOP + _HEIGHT * (1 - value / highest), _TOP + _HEIGHT - 18), _LEFT + _WIDTH + 10
        return (
            f'<text x="{x}" y="{y:.1f}" fill="{colour}" font-size="22" font-weight="bold">{value:,}</text>'
            f'<text x="{x}" y="{y + 16:.1f}" fill="{colour}">{text}</text>'
        )

    by_clients, at_server = last.begun + last.ended, last.opened + last.closed
    parts = [
        f'<path d="M{_LEFT},{_TOP}V{_TOP + _HEIGHT}H{_LEFT + _WIDTH}" fill="none" stroke="#a0aec0"/>',
        line([each.begun + each.ended for _, each in samples], _CLIENTS),
        line([each.opened + each.closed for _, each in samples], _SERVER),
        label(by_clients, "begun and ended by clients", _CLIENTS),
        label(at_server, "opened and closed at the server", _SERVER),
        *(
            f'<text x="{_LEFT + share * _WIDTH}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">'
            f"{share * last_second:.0f} s</text>"
            for share in (0, 0.5, 1)
        ),
    ]
    title = f"Sessions of {CALLERS * CLIENTS_OF_EACH} stateless clients in front of one stateful server"
    return frame(title, _LEFT + _WIDTH + 220, _TOP + _HEIGHT + 34, parts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the churn that a proxy keeps from its server.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--plot", type=Path, required=True)
    arguments = parser.parse_args()
    samples = asyncio.run(run(arguments.seconds))
    arguments.plot.write_text(draw(samples))
    print(samples[-1][1])


if __name__ == "__main__":
    main()
