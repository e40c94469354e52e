"""aiohttp's end of one client's connection, as far as it answers requests: one after the other, in one task.

aiohttp's own loop begins a task for each request and wakes the connection's when that is over. That keeps
context variables of requests apart, of which there are none here, and costs as much as a whole room of the
proxy's. In all else this is what aiohttp 3.14 does.

There is no public way to have it so. The methods that this follows are private, so the package takes no other
minor version of aiohttp, and a test (``test_known_aiohttp``) says which of them a release has changed.
"""

import asyncio
import contextlib

from aiohttp import StreamReader, web
from aiohttp.http import StreamWriter
from aiohttp.web_protocol import ERROR, _ErrInfo, _RequestHandler


class RequestLoop(web.RequestHandler):
    """One connection's requests. aiohttp begins ``start`` in a task when there is a connection."""

    __slots__ = ()

    async def start(self) -> None:
        """Answer requests until the connection ends, or is to end."""
        while not self._force_close and await self._answer_next():
            pass
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _answer_next(self) -> bool:
        """Wait for a request, and answer it. Gives whether another one may follow.

        What there was of it is let go of here, and not kept until the next one.
        """
        if not self._messages:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, body = self._messages.popleft()
        self._make_room()
        manager = self._manager
        if manager is None:
            return False  # lost in this very step
        manager.requests_count += 1
        handler = manager.request_handler
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        writer = StreamWriter(self, self._loop)
        # The task has no name here: its end may lead to this frame, which must not lead back to it.
        request = manager.request_factory(
            message,
            body,
            self,
            writer,
            self._task_handler or asyncio.current_task(),  # type: ignore[arg-type]
        )
        try:
            response = await self._answer(request, handler)
            if not body.is_eof():
                await self._drop_rest(body)
        except ConnectionError:
            return False  # its client has left
        except Exception as error:
            self.log_exception("Unhandled exception", exc_info=error)
            self.force_close()
            return False
        # Whatever ends this task ends the connection.
        except BaseException:
            self.force_close()
            raise
        finally:
            request._task = None  # type: ignore[assignment]  # a circle, if there was an error
        self._keepalive = bool(response.keep_alive)
        if not self._keepalive or self._close or self._force_close:
            return False
        self._next_keepalive_close_time = closes_at = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(closes_at, self._process_keepalive)
        return True

    async def _answer(self, request: web.BaseRequest, handler: _RequestHandler) -> web.StreamResponse:
        """Answer one request. Our handlers answer whatever happens, so they raise nothing but HTTP errors."""
        self._request_in_progress = True
        try:
            self._current_request = request
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = error
            finally:
                self._current_request = None
            if self._upgraded:  # as it was asked to be; what comes behind that was not read yet
                await self.finish_response(request, response, None)
            else:
                await response.prepare(request)
                await response.write_eof()
        finally:
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)  # of a shutdown
        return response

    def _make_room(self) -> None:
        """A request was taken: where many are sent before the first is answered, more may come."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    async def _drop_rest(self, body: StreamReader) -> None:
        """Read on for a while what a client sends of a request that has its answer already.

        Cut off amid its sending, it might never see that.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                while not (body.is_eof() or self._force_close):
                    await body.readany()
        if not (body.is_eof() or self._force_close):
            self.close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading where that was stopped. aiohttp says so for each piece and each end of a body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)
