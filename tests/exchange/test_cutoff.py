"""Ending work from outside."""

import asyncio

import pytest

from mcp_session_proxy.exchange.cutoff import CutOff, Cutoff


async def wait_in(cutoff: Cutoff) -> None:
    with cutoff:
        await asyncio.Event().wait()


async def begun(cutoff: Cutoff) -> "asyncio.Task[None]":
    task = asyncio.create_task(wait_in(cutoff))
    await asyncio.sleep(0)
    return task


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_work_that_nobody_ends() -> None:
    """It is open while the work goes on, and lets results and errors pass."""
    cutoff = Cutoff()
    assert not cutoff.open
    with cutoff:
        assert cutoff.open
    assert not cutoff.open
    with pytest.raises(KeyError), cutoff:
        raise KeyError


async def test_ends_the_work() -> None:
    """The cancellation becomes CutOff, and the task goes on as one that nobody cancelled."""
    cutoff = Cutoff()
    asyncio.get_running_loop().call_soon(lambda: cutoff.at(now()))
    with pytest.raises(CutOff):
        await wait_in(cutoff)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert not cutoff.open


async def test_the_last_time_counts() -> None:
    """A later call replaces an earlier one, also to put the end off."""
    cutoff = Cutoff()
    task = await begun(cutoff)
    cutoff.at(now())
    cutoff.at(now() + 3600)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    cutoff.at(now())
    with pytest.raises(CutOff):
        await task


async def test_work_that_was_over_first() -> None:
    """What is over is not ended, and the task's next work is not either."""
    cutoff = Cutoff()
    with cutoff:
        cutoff.at(now())
    await asyncio.sleep(0.01)
    cutoff.at(now())
    await asyncio.sleep(0.01)


async def test_cancelling_the_task_stays_cancelling() -> None:
    """Somebody else's cancellation passes, also when both come at once."""
    cutoff = Cutoff()
    task = await begun(cutoff)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cutoff = Cutoff()
    task = await begun(cutoff)
    cutoff._cut()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_work_that_ends_as_it_is_cut() -> None:
    """Work that finishes in spite of the cancellation keeps its result, and the task is not cancelled."""
    cutoff = Cutoff()
    result = None
    with cutoff:
        cutoff.at(now())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            result = "done"
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert result == "done"
    assert task is not None
    assert task.cancelling() == 0
