"""A call that has taken long, and goes on as a task of the proxy's own (``--task-after``).

It needs nothing of the server, which works on it as on any call. Its client has a handle instead of an
answer: for platforms that end requests after half a minute.
"""

import asyncio
from collections.abc import Mapping

from ..errors import ProxyError
from ..memory import UNBOUNDED, Share
from ..protocol import tasks
from ..protocol.tasks import TaskOutcome, TaskStatus
from ..upstream.transport import Caller
from .call import UNHEARD, Asked, Created, ModernCall, Outcome
from .handles import Handle
from .upstream_task import failure_of


class LateCall(Handle):
    """A call that is under way: its client has gone, and asks for it by its id.

    ``round`` is what its first client waited for.
    """

    kind = "call"

    def __init__(
        self,
        call: ModernCall,
        round: "asyncio.Task[Outcome]",  # noqa: A002
        *,
        principal: str,
        ttl_milliseconds: int,
        results: Share = UNBOUNDED,
    ) -> None:
        super().__init__(
            principal=principal, session=call.session, ttl_milliseconds=ttl_milliseconds, results=results
        )
        call.go_on_unheard()
        self._call = call
        self._round = round
        self._given: dict[str, bytes] = {}
        # Until the call has taken them, and for good: no key is used for two questions.
        self._answered: set[str] = set()
        self._cancelled = False

    @property
    def asked(self) -> Mapping[str, bytes]:
        """What the server has asked and the client has not answered."""
        return {key: question for key, question in self._call.asked.items() if key not in self._answered}

    @property
    def methods_asked(self) -> Mapping[str, str]:
        """The methods of these."""
        methods = self._call.methods_asked
        return {key: method for key, method in methods.items() if key not in self._answered}

    async def run(self) -> TaskOutcome:
        """Let the call go on, one round after the other."""
        try:
            outcome = await self._round
            while isinstance(outcome, Asked):
                answers = await self._answers()
                self._round = asyncio.create_task(self._call.next(UNHEARD, answers))
                outcome = await self._round
        except ProxyError as error:
            return failure_of(error)
        except asyncio.CancelledError:
            # Its client has cancelled the call, and nobody this task.
            task = asyncio.current_task()
            if self._cancelled and not (task is not None and task.cancelling()):
                return TaskOutcome(TaskStatus.CANCELLED)
            self._stop()
            raise
        assert not isinstance(outcome, Created), "a call that goes on as a task of ours asks for none"
        if outcome.error is not None:
            return tasks.failed(outcome.error)
        return TaskOutcome(TaskStatus.COMPLETED, tasks.without_related_task(outcome.result))

    async def _answers(self) -> Mapping[str, bytes]:
        """The client's answers, as soon as there are any; none, once the server has gone on without them.

        URLs are visited together: the call is made anew when all have been.
        """
        told: tuple[str, ...] = ()
        while True:
            if self._cancelled:
                raise asyncio.CancelledError
            urls = set(self._call.urls.asked)
            ready = {
                key: answer
                for key, answer in self._given.items()
                if key not in urls or urls <= self._given.keys()
            }
            if ready or (self._call.is_over and not urls):
                for key in ready:
                    del self._given[key]
                return ready
            if (asked := tuple(self._call.asked)) != told:
                told = asked
                self.changed()
            await self._call.news.wait()

    async def answer(self, answers: Mapping[str, bytes], caller: Caller) -> None:
        """Give them to the call; those to nothing are dropped."""
        open_keys = self.asked
        given = {key: answer for key, answer in answers.items() if key in open_keys}
        if given:
            self._given |= given
            self._answered |= given.keys()
            self._call.caller = caller
            self.changed()
            self._call.news.give()

    async def look(self) -> None:
        """There is nothing to be found out: whatever happens is heard of."""

    async def cancel(self) -> None:
        """Give the call up, as if its client had closed the response."""
        if self.outcome is None and not self._cancelled:
            self._cancelled = True
            self._stop()

    def _stop(self) -> None:
        if self._round.done():
            self._call.abandon()
            self._call.news.give()
        else:
            self._round.cancel()
