"""Ending a piece of work from outside, now or at a time that is set while it runs."""

import asyncio

import msgspec


class CutOff(Exception):
    """The work was ended by its ``Cutoff``."""


class Cutoff(msgspec.Struct, eq=False):
    """The scope of work that may have to end early: ``with cutoff:`` in the task that does it.

    It does what ``asyncio.timeout`` does, which is made for deadlines that are set beforehand: as long as
    nobody calls ``at``, this one costs next to nothing, and every request has one.
    """

    _task: asyncio.Task[object] | None = None
    _cancelling: int = 0
    _timer: asyncio.TimerHandle | None = None
    _due: bool = False

    @property
    def open(self) -> bool:
        """Whether the work is under way and has not been ended."""
        return self._task is not None and not self._due

    def at(self, when: float) -> None:
        """End the work at this time of the loop's clock; a later call replaces an earlier one."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._cut)

    def _cut(self) -> None:
        if self._task is not None:
            self._due = True
            self._task.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is not None:
            # What was cancelled before is somebody else's cancellation.
            self._cancelling = self._task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Raises CutOff for the cancellation that was this one's, and lets any other pass."""
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._due and task is not None:
            # Somebody else may have cancelled the task in the same step: that cancellation has to go on.
            ours = task.uncancel() <= self._cancelling
            task = None  # what is raised leads to this frame, which must not lead back
            if ours and kind is asyncio.CancelledError:
                raise CutOff from error
