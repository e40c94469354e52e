"""How many requests may be under way: of everybody, of one caller, and of those nobody knows."""

import asyncio
from collections.abc import Container
from typing import Any

import pytest
from aiohttp import web
from http_server import reply_to
from messages import call
from proxy_bench import Bench, until

from mcp_session_proxy.downstream.in_flight import ExchangeLimits, InFlight, UnderWay
from mcp_session_proxy.errors import TooManyExchanges

# -- the count -------------------------------------------------------------------------------------


def in_flight(most: int = 8, each: int = 8, accepted: Container[str] = "abcd") -> InFlight:
    limits = ExchangeLimits(max_exchanges=most, max_exchanges_per_principal=each)
    return InFlight(limits, is_accepted=lambda name: name in accepted)


def fill(counted: InFlight, principal: str, most: int = 100) -> int:
    """How many requests of this caller may begin; they go on for ever."""
    for number in range(most):
        try:
            UnderWay(counted, principal).__enter__()
        except TooManyExchanges:
            return number
    return most


def test_one_caller_leaves_room_for_others() -> None:
    """Nobody gets all, whatever the limit for one; the rest is for those who have few."""
    counted = in_flight()
    assert fill(counted, "a") == 6
    assert [fill(counted, name) for name in "bcd"] == [1, 1, 0]
    assert len(counted) == 8
    assert fill(in_flight(each=3), "a") == 3
    assert fill(in_flight(most=1), "a") == 1


def test_several_callers_together_leave_room_for_others() -> None:
    """Two with many requests each do not keep out a third, which may have several at once."""
    counted = in_flight(most=128, each=128)
    assert [fill(counted, name) for name in "ab"] == [96, 4]
    assert fill(counted, "c") == 4


def test_dozens_together_leave_room_for_others() -> None:
    """However many requests dozens of callers have under way, one that has none finds a place."""
    names = [f"caller {number}" for number in range(14)]
    counted = in_flight(most=128, each=128, accepted=[*names, "newcomer"])
    assert [fill(counted, name) for name in names[:7]] == [96, 4, 4, 4, 4, 4, 4]
    assert len(counted) == 120
    assert [fill(counted, name) for name in names[7:14]] == [1] * 7
    assert fill(counted, "newcomer") == 1


def test_strangers_leave_room_for_accepted_callers() -> None:
    """However many callers somebody makes up, the last quarter is not for them."""
    counted = in_flight(accepted=("known", "known, too"))
    assert sum(fill(counted, f"made up {number}", most=1) for number in range(20)) == 6
    assert [fill(counted, name) for name in ("known", "known, too")] == [1, 1]


def test_what_is_over_makes_room() -> None:
    """Each that ends lets another one begin, and nothing is remembered of callers without requests."""
    counted = in_flight(most=1, accepted=())
    for _ in range(3):
        with UnderWay(counted, "a"):
            assert len(counted) == 1
            with pytest.raises(TooManyExchanges), UnderWay(counted, "a"):
                pass
    assert len(counted) == 0
    assert counted.own == {}


def test_a_caller_that_is_accepted_meanwhile() -> None:
    """Its request leaves the count that it came into."""
    accepted: set[str] = set()
    counted = in_flight(most=4, accepted=accepted)
    with UnderWay(counted, "a"):
        accepted.add("a")
    assert counted.strangers == 0
    with UnderWay(counted, "a"):
        accepted.clear()
    assert counted.strangers == 0


# -- at the front door -----------------------------------------------------------------------------


class Slow:
    """A tool that ends when it is told to."""

    def __init__(self) -> None:
        self.began = 0
        self.end = asyncio.Event()

    async def __call__(self, _: web.Request, message: Any) -> web.StreamResponse:
        self.began += 1
        await self.end.wait()
        return reply_to(message, {})


async def test_clients_that_left_still_count(bench: Bench) -> None:
    """Their calls go on, so that whoever leaves and comes again does not pile up calls without end."""
    tool = bench.server.on["tools/call"] = Slow()
    await bench.start(max_exchanges=4)
    session = await bench.initialize()
    for number in range(3):
        async with bench.asking(call(number), session=session):
            await until(lambda: tool.began == number + 1)  # noqa: B023
    refused = await bench.post(call(9), session=session)
    assert (refused.status, refused.error) == (503, (9, -32603, "too-many-exchanges"))
    assert "Retry-After" in refused.headers
    assert tool.began == 3
    tool.end.set()
    await until(lambda: len(bench.proxy.core.in_flight) == 0)
    assert (await bench.post(call(), session=session)).status == 200


async def test_a_method_of_the_other_era_counts(bench: Bench) -> None:
    """Only the streams of modern listeners have limits of their own."""
    method = "subscriptions/listen"
    tool = bench.server.on[method] = Slow()
    await bench.start(max_exchanges=4)
    session = await bench.initialize()
    for number in range(3):
        async with bench.asking(call(number, method), session=session):
            await until(lambda: tool.began == number + 1)  # noqa: B023
    refused = await bench.post(call(9, method), session=session)
    assert (refused.status, refused.error) == (503, (9, -32603, "too-many-exchanges"))
    tool.end.set()
    await until(lambda: len(bench.proxy.core.in_flight) == 0)


async def test_each_of_a_batch_counts(bench: Bench) -> None:
    """A hundred calls in one POST are a hundred calls."""
    tool = bench.server.on["tools/call"] = Slow()
    await bench.start(max_exchanges=4)
    session = await bench.initialize()
    tool.end.set()
    answers = (await bench.post([call(number) for number in range(10)], session=session)).json
    refused = [answer for answer in answers if "error" in answer]
    assert len(answers) == 10
    assert len(refused) == 10 - tool.began
    assert tool.began <= 3
    assert {answer["error"]["data"]["reason"] for answer in refused} == {"too-many-exchanges"}


async def test_what_a_batch_is_refused_is_told_once(bench: Bench) -> None:
    """Each of its requests gets its answer and is counted, but a hundred of them are one line of the log."""
    tool = bench.server.on["tools/call"] = Slow()
    await bench.start(max_exchanges=4)
    session = await bench.initialize()
    sending = asyncio.create_task(bench.post([call(number) for number in range(100)], session=session))
    await until(lambda: tool.began == 3)
    refused = (await bench.post([call(number) for number in range(100)], session=session)).json
    assert sorted(answer["id"] for answer in refused) == list(range(100))
    assert {answer["error"]["data"]["reason"] for answer in refused} == {"too-many-exchanges"}
    assert {answer["error"]["message"] for answer in refused} == {
        "3 requests of this caller are under way already (--max-exchanges-per-principal)."
    }
    tool.end.set()
    assert sum("result" in answer for answer in (await sending).json) == 3


async def test_other_pages_count(bench: Bench) -> None:
    """What is passed through holds a connection to the server, too."""
    tool = bench.server.on["GET"] = Slow()
    await bench.start(max_exchanges=4)
    url = f"{bench.proxy.listen_url}/page"
    reading = [asyncio.create_task(bench.http.get(url)) for _ in range(3)]
    await until(lambda: tool.began == 3)
    async with bench.http.get(url) as response:
        assert response.status == 503
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await until(lambda: len(bench.proxy.core.in_flight) == 0)


async def test_a_flood_of_notifications(bench: Bench) -> None:
    """They are bounded like requests; one that is dropped is accepted all the same, as clients want it."""
    tool = bench.server.on["notifications/odd"] = Slow()
    await bench.start(max_exchanges=4)
    session = await bench.initialize()
    odd = {"jsonrpc": "2.0", "method": "notifications/odd"}
    sending = [asyncio.create_task(bench.post(odd, session=session)) for _ in range(3)]
    await until(lambda: tool.began == 3)
    assert (await bench.post(odd, session=session)).status == 202
    assert tool.began == 3
    tool.end.set()
    assert [answer.status for answer in await asyncio.gather(*sending)] == [202] * 3
