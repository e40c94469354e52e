"""Reading the body of a POST: its limit, its compression, and its share of the memory."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest
from messages import call
from proxy_bench import Bench, until

from mcp_session_proxy.errors import OverBudget
from mcp_session_proxy.memory import LEAST_BUDGET_BYTES, Budget, Memory, Share, default_budget_bytes

CALL = json.dumps(call(), separators=(",", ":")).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# -- compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(CALL, mtime=0)),
        ("GZIP", gzip.compress(CALL, mtime=0)),
        ("x-gzip", gzip.compress(CALL, mtime=0)),
        ("deflate", zlib.compress(CALL)),
        ("deflate", raw_deflate(CALL)),
        ("identity", CALL),
    ],
)
async def test_codings(bench: Bench, coding: str, packed: bytes) -> None:
    """Each is read, also where it was sent in pieces."""
    await bench.start()
    headers = {"Content-Encoding": coding}
    assert (await bench.post(packed, headers=headers)).json["result"] == {"count": 1}

    async def pieces() -> AsyncIterator[bytes]:
        for byte in packed:
            yield bytes([byte])

    async with bench.http.post(bench.url, data=pieces(), headers=headers) as response:
        assert (await response.json())["result"] == {"count": 2}


async def test_a_large_body_in_steps(bench: Bench) -> None:
    """What decompresses to more than a step arrives whole."""
    await bench.start()
    body = json.dumps(call(text="x" * 1_000_000 + "y")).encode()
    assert (await bench.post(gzip.compress(body), headers={"Content-Encoding": "gzip"})).status == 200
    assert bench.server.seen[-1][1]["params"]["text"][-2:] == "xy"


@pytest.mark.parametrize(
    ("coding", "body", "status", "reason"),
    [
        ("gzip", b"this is not gzip", 400, "invalid-request"),
        ("gzip", gzip.compress(CALL, mtime=0)[:-9], 400, "invalid-request"),
        ("gzip", gzip.compress(CALL, mtime=0) + b"more", 400, "invalid-request"),
        ("deflate", b"\xff\xff\xff", 400, "invalid-request"),
        ("br", b"x", 415, "unsupported-content-coding"),
        ("gzip, gzip", b"x", 415, "unsupported-content-coding"),
        ("gzip", gzip.compress(bytes(100_000_000), mtime=0), 413, "body-too-large"),
    ],
)
async def test_bad_bodies(bench: Bench, coding: str, body: bytes, status: int, reason: str) -> None:
    """They are refused with the reason, and leave nothing taken."""
    await bench.start()
    answer = await bench.post(body, headers={"Content-Encoding": coding})
    assert (answer.status, answer.error[2]) == (status, reason)
    assert bench.proxy.core.memory.bodies.used_bytes == 0


# -- memory ----------------------------------------------------------------------------------------


async def test_large_bodies_leave_room_for_ordinary_calls(bench: Bench) -> None:
    """Where the share is used up by large bodies under way, one more is answered 503; calls go on."""
    await bench.start(max_inflight_bytes="1MiB", max_body_bytes="4MiB")
    bodies = bench.proxy.core.memory.bodies
    arrived = asyncio.Event()
    pad = b" " * 700_000

    async def slow() -> AsyncIterator[bytes]:
        yield pad
        await arrived.wait()
        yield CALL

    sending = asyncio.create_task(bench.http.post(bench.url, data=slow()))
    await until(lambda: bodies.used_bytes >= len(pad))
    refused = await bench.post(pad + CALL)
    assert (refused.status, refused.error[2]) == (503, "memory-budget")
    assert "Retry-After" in refused.headers
    assert (await bench.post(call())).status == 200
    arrived.set()
    async with await sending as response:
        assert response.status == 200
    assert bodies.used_bytes == 0


async def test_who_leaves_gives_back(bench: Bench) -> None:
    """A client that disappears in the middle of its body holds nothing."""
    await bench.start()
    bodies = bench.proxy.core.memory.bodies

    async def endless() -> AsyncIterator[bytes]:
        yield b" " * 100_000
        await asyncio.Event().wait()

    sending = asyncio.create_task(bench.http.post(bench.url, data=endless()))
    await until(lambda: bodies.used_bytes)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: bodies.used_bytes == 0)


def test_shares() -> None:
    """What is taken is given back; what is large leaves room for what is small."""
    share = Share("things", 100)
    share.take(75, large=True)
    with pytest.raises(OverBudget, match=r"memory left for more things.*--memory-budget"):
        share.take(1, large=True)
    share.take(25)
    with pytest.raises(OverBudget):
        share.take(1)
    share.give_back(100)
    assert share.used_bytes == 0


def test_the_budget_is_cut_into_shares() -> None:
    """Together they are no more than the budget, and bodies may have another share."""
    memory = Memory(Budget(total_bytes=1_000_000))
    assert sum(share.max_bytes for share in memory.shares.values()) <= 1_000_000
    memory.rules = Budget(total_bytes=2_000_000, bodies_bytes=5)
    assert memory.bodies.max_bytes == 5
    assert memory.answers.max_bytes == 600_000


def test_the_default_budget() -> None:
    """Every machine has some."""
    assert default_budget_bytes() >= LEAST_BUDGET_BYTES
