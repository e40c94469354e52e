"""Tasks that are kept until they have ended, and a signal that wakes all who wait."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from mcp_session_proxy.aio import Signal, Tasks


@pytest.fixture
async def told() -> list[dict[str, Any]]:
    """What the event loop's exception handler is told."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def fail() -> None:
    raise ValueError("broken")


class TestTasks:
    """Whatever becomes of a task, it is kept until then and no longer."""

    @pytest.mark.slow
    async def test_a_task_that_nobody_holds_lives_on(self) -> None:
        """The collector does not take a task that waits for something that only the task itself knows."""
        tasks = Tasks()
        task = weakref.ref(tasks.spawn(for_ever(), "waits"))
        await asyncio.sleep(0)
        gc.collect()
        assert (kept := task()) is not None
        assert kept.get_name() == "waits"
        tasks.cancel()
        await tasks.ended()

    async def test_one_that_has_ended_is_let_go(self) -> None:
        """It leaves when it is over, and its result is for whoever waits."""
        tasks = Tasks()
        assert await tasks.spawn(asyncio.sleep(0, "result")) == "result"
        assert not tasks

    async def test_one_that_was_begun_elsewhere_is_kept_as_well(self) -> None:
        """A task that did something else first is kept from then on."""
        tasks = Tasks()
        tasks.keep(asyncio.create_task(asyncio.sleep(0)))
        assert len(tasks) == 1
        await tasks.ended()
        assert not tasks

    async def test_what_nobody_waits_for_is_told_when_it_fails(self, told: list[dict[str, Any]]) -> None:
        """The loop's exception handler hears of it at once, without the help of the collector."""
        tasks = Tasks()
        tasks.spawn(fail(), "fails")
        await tasks.ended()
        await asyncio.sleep(0)
        assert [str(context["exception"]) for context in told] == ["broken"]
        assert told[0]["future"].get_name() == "fails"

    @pytest.mark.slow
    async def test_what_somebody_waits_for_is_not_told_twice(self, told: list[dict[str, Any]]) -> None:
        """Whoever waits gets the exception, and nobody else does."""
        tasks = Tasks()
        with pytest.raises(ValueError, match="broken"):
            await tasks.spawn(fail())
        gc.collect()
        assert (tasks, told) == (set(), [])

    async def test_cancelling_spares_whoever_cancels(self) -> None:
        """A task may end the others, and goes on; one that is named is spared, too."""
        tasks = Tasks()
        other, spared = tasks.spawn(for_ever()), tasks.spawn(for_ever())

        async def end_others() -> str:
            tasks.cancel(spared, None)
            return "went on"

        assert await tasks.spawn(end_others()) == "went on"
        await asyncio.wait([other])
        assert other.cancelled()
        assert tasks == {spared}
        tasks.cancel()
        await tasks.ended()

    async def test_the_end_of_all_includes_those_that_begin_meanwhile(self) -> None:
        """A task that ends in another one has not ended."""
        tasks, done = Tasks(), []

        async def second() -> None:
            done.append("second")

        async def first() -> None:
            await asyncio.sleep(0)
            tasks.spawn(second())
            done.append("first")

        tasks.spawn(first())
        await tasks.ended()
        assert done == ["first", "second"]

    async def test_one_of_them_may_wait_for_the_others(self) -> None:
        """It does not wait for itself."""
        tasks = Tasks()
        tasks.spawn(asyncio.sleep(0))
        async with asyncio.timeout(5):
            await tasks.spawn(tasks.ended())

    async def test_waiting_for_the_end_can_be_given_up(self) -> None:
        """Whoever waits and is cancelled takes no task along."""
        tasks = Tasks()
        task = tasks.spawn(for_ever())
        waiting = asyncio.create_task(tasks.ended())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert tasks == {task}
        tasks.cancel()
        await tasks.ended()

    async def test_one_that_will_not_be_cancelled_is_waited_for(self) -> None:
        """The end is when they have ended, not when they were told to."""
        tasks, cleaned = Tasks(), []

        async def clean_up() -> None:
            try:
                await for_ever()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        tasks.spawn(clean_up())
        await asyncio.sleep(0)
        tasks.cancel()
        await tasks.ended()
        assert cleaned == [True]

    def test_a_loop_that_closes_ends_them(self) -> None:
        """A program that ends without ending its tasks has none of them left, and nothing hangs."""
        tasks = Tasks()

        async def leave() -> None:
            tasks.spawn(for_ever())
            await asyncio.sleep(0)

        asyncio.run(leave())
        assert not tasks


class TestSignal:
    """All who wait are woken, once, whatever becomes of some of them."""

    async def test_everybody_who_waits_is_woken(self) -> None:
        """One signal is for all, and each goes on."""
        signal = Signal()
        waiting = [asyncio.create_task(signal.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        signal.give()
        await asyncio.gather(*waiting)

    async def test_a_signal_that_nobody_waits_for_is_forgotten(self) -> None:
        """Who comes later waits for the next one."""
        signal = Signal()
        signal.give()
        late = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        assert not late.done()
        signal.give()
        await late

    async def test_one_who_leaves_takes_nobody_along_and_leaves_nothing_behind(self) -> None:
        """A caller that is cancelled while it waits does not wake others, and is no longer counted."""
        signal = Signal()
        leaving, staying = (asyncio.create_task(signal.wait()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert len(signal) == 1
        signal.give()
        await staying
        assert signal == []

    async def test_one_who_is_cancelled_in_the_step_of_the_signal(self) -> None:
        """In either order, it ends as cancelled, and the others are woken."""
        signal = Signal()
        before, after, other = (asyncio.create_task(signal.wait()) for _ in range(3))
        await asyncio.sleep(0)
        before.cancel()
        signal.give()
        after.cancel()
        await asyncio.wait([before, after, other])
        assert (before.cancelled(), after.cancelled(), other.cancelled()) == (True, True, False)

    async def test_who_waits_again_as_it_is_woken_waits_for_the_next(self) -> None:
        """A loop of looking and waiting neither misses a signal nor turns without one."""
        signal = Signal()
        rounds: list[object] = []

        async def follow() -> None:
            while len(rounds) < 2:
                await signal.wait()
                rounds.append(len(rounds))

        following = asyncio.create_task(follow())
        for expected in ([], [0]):
            await asyncio.sleep(0)
            assert rounds == expected
            signal.give()
        await following

    def test_a_loop_that_closes_leaves_nobody_waiting(self) -> None:
        """After that, the signal may still be given: it wakes nobody, and raises nothing."""
        signal = Signal()

        async def leave() -> None:
            tasks = Tasks()
            tasks.spawn(signal.wait())
            await asyncio.sleep(0)

        asyncio.run(leave())
        signal.give()
