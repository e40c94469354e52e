"""Calls that a server carries out as tasks, for clients that do not ask for that.

A tool of 2025-11-25 may need to be called as a task (``execution.taskSupport``), which most clients of that
revision cannot, and those of later ones cannot at all. What the call has come to, its client gets as its
answer; progress, questions and cancelling are those of any call.
"""

import asyncio
import contextlib
from typing import Final

from ..errors import ProxyError, UpstreamTimeout
from ..events import Observer
from ..protocol import jsonrpc, tasks
from ..protocol.jsonrpc import Request, Response
from ..protocol.tasks import LegacyTask, TaskOutcome, TaskStatus
from ..sessions.binding import Visit
from ..tracing import UNTRACED, RequestTrace
from .cutoff import CutOff
from .exchange import Exchange, cancelled
from .followed import ADOPTION_SECONDS, Followed
from .outlet import NO_OUTLET, Outlet
from .upstream_task import UpstreamTask, unknown_outcome

_CANCELLED: Final = "The MCP server cancelled the task that this call ran as."
_LEFT: Final = b'{"reason":"The client is gone."}'


class CreatingExchange(Exchange):
    """A call that is to become a task, which the server keeps for ``ttl_seconds``; what it answers is for
    whoever knows what that is.
    """

    may_become_task = True

    def __init__(
        self,
        request: Request,
        token: bytes | None,
        visit: Visit,
        outlet: Outlet,
        observe: Observer,
        *,
        ttl_seconds: float,
        followed: Followed,
    ) -> None:
        super().__init__(request, token, visit, outlet, observe)
        self._ttl_seconds = ttl_seconds
        self._followed = followed

    async def run(self, trace: RequestTrace = UNTRACED) -> Response:
        """As any exchange; the response is a result, an error, or a ``CreateTaskResult``."""
        asked = self.request
        params = tasks.with_task(asked.params, round(self._ttl_seconds * 1000))
        self.request = Request(asked.id, asked.method, params)
        self._followed.expect(self.session)
        # A task of its own: a client may leave before the server has said that there is a task, and what
        # only that answer names could never be cancelled without it.
        creating = asyncio.get_running_loop().create_task(super().run(trace))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            await self._leave(creating)
            raise
        finally:
            self._followed.expect(self.session, ADOPTION_SECONDS)

    async def _leave(self, creating: "asyncio.Task[Response]") -> None:
        """Nobody wants the call any more: have the server stop it, be it a task by now or not.

        That takes a few seconds at most, as long as a server may need to answer what was cancelled.
        """
        try:
            await self.cancel(_LEFT, self.caller)
            if not self._cancelled:
                creating.cancel()  # not begun, or over
            with contextlib.suppress(ProxyError):
                await self.undo(await creating)
        except asyncio.CancelledError:
            creating.cancel()
            raise

    async def undo(self, response: Response) -> None:
        """Nobody takes this response: a task that it tells of is cancelled, and what was asked is refused."""
        created = tasks.read_created(response.result)
        if created is None:
            return
        self._followed.forget(self.session, created.id)
        await self._make_task(created, NO_OUTLET).cancel()

    def _make_task(self, created: LegacyTask, outlet: Outlet) -> UpstreamTask:
        """The task that the call has become; its client's side is ``outlet``."""
        return UpstreamTask(
            created, self._visit, outlet, take_status=self._followed.take_status, observe=self._observe
        )


class FollowingExchange(CreatingExchange):
    """A call that becomes a task, and whose response is what the task has come to."""

    may_become_task = False

    async def run(self, trace: RequestTrace = UNTRACED) -> Response:
        """As any exchange. Whatever ends it before the task is over has the task cancelled.

        Raises:
            UpstreamTimeout: the task took longer than the server was to keep it.
            OutcomeUnknown: the server does not know it any more.
        """
        response = await super().run(trace)
        created = tasks.read_created(response.result)
        if created is None:
            return response
        if self._cancelled:
            # Its client did so before the server has said that there is a task.
            await self.undo(response)
            raise cancelled()
        started = self._loop_time()
        # Its progress goes on under our number, after the answer.
        tokens = self._incarnation.calls.tokens
        tokens[self.upstream_id] = self
        task = self._make_task(created, self._outlet)
        try:
            outcome = await self._follow(task)
        except BaseException:
            # However its client came to leave it, nobody wants it any more.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self.session.spawn(task.cancel(), "cancel a task"))
            raise
        finally:
            tokens.pop(self.upstream_id, None)
            self.upstream_seconds = (self.upstream_seconds or 0.0) + self._loop_time() - started
        return self._respond(outcome)

    async def _follow(self, task: UpstreamTask) -> TaskOutcome:
        try:
            with self._cutoff:
                async with asyncio.timeout(self._ttl_seconds):
                    return await self._followed.follow(task)
        except CutOff:
            raise self._aborted or cancelled() from None
        except TimeoutError:
            raise UpstreamTimeout(
                "The task that this call ran as took longer than --task-ttl, and was cancelled."
            ) from None

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    @staticmethod
    def _respond(outcome: TaskOutcome) -> Response:
        unknown = unknown_outcome(outcome)
        if unknown is not None:
            raise unknown
        if outcome.status is TaskStatus.COMPLETED:
            return Response(jsonrpc.NULL, result=outcome.payload)
        error = outcome.payload or tasks.write_error(outcome.message or _CANCELLED)
        return Response(jsonrpc.NULL, error=error)
