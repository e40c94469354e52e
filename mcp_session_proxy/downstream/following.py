"""A GET's answer: what one stream of a mailbox holds, and what comes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from ..aio import break_circle
from ..errors import UnknownEvent
from ..protocol import revisions, sse
from ..sessions.kept_stream import Stream
from ..sessions.mailbox import Mailbox
from .connection import begin_following
from .heartbeats import Heartbeats
from .streams import STREAM_HEADERS


def find_stream(http: web.BaseRequest, mailbox: Mailbox) -> tuple[Stream, int]:
    """The stream that a GET asks for, and the number of the event that it goes on after.

    Raises:
        UnknownEvent: any other stream would take what is meant for somebody else's.
    """
    place = mailbox.find(http.headers.get(revisions.LAST_EVENT_ID_HEADER, ""))
    if place is None:
        raise UnknownEvent("This event id names no stream that could go on. Open one without it.")
    return place


class Reader:
    """A client that reads a stream. Implements ``streams.Writer``."""

    def __init__(self, http: web.BaseRequest, now: Callable[[], float]) -> None:
        self.last_write = 0.0
        self.writing = False
        self._http = http
        self._now = now

    async def take(self, writing: Awaitable[None]) -> None:
        """Have what is being written taken.

        Raises:
            ConnectionError: the client has left, or was cut off.
        """
        self.last_write = self._now()
        self.writing = True
        try:
            await writing
        finally:
            self.writing = False

    def cut_off(self) -> None:
        """As ``Writer.cut_off``."""
        if self._http.transport is not None:
            self._http.transport.abort()


async def follow(
    http: web.BaseRequest,
    stream: Stream,
    *,
    after: int,
    heartbeats: Heartbeats,
    cors: Mapping[str, str],
    cursors: bool = False,
) -> web.StreamResponse:
    """Answer a GET with what a stream holds after an event and with what comes, until it is closed,
    another GET takes over, or the client leaves.

    ``cursors`` says that the client can read events without data.
    """
    response = web.StreamResponse(headers={**cors, **STREAM_HEADERS})
    begin_following(http)
    reader = Reader(http, heartbeats.now)
    # Before anything is awaited, so that of two GETs it is really the newer one that has the stream.
    follower, retry_seconds = stream.take_over(heartbeats.now())
    heartbeats.watch(reader)
    try:
        await response.prepare(http)
        # The client sees its stream begin before anything has happened.
        beginning = sse.write_cursor(stream.event_id(after), retry_seconds=retry_seconds) if cursors else b""
        await reader.take(response.write(sse.HEARTBEAT + beginning))
        while stream.is_follower(follower):
            if (kept_after := stream.kept_after(after)) > after:
                await reader.take(response.write(sse.GAP))
                after = kept_after
            for event in stream.after(after):
                if not stream.is_follower(follower):
                    break  # the rest is for the new one
                data = sse.write_event(event.data, event_id=stream.event_id(event.number))
                await reader.take(response.write(data))
                after = event.number
                # A client may have come back with an older id, to read some again.
                stream.taken = max(stream.taken, after)
            if stream.closed:
                break
            # What happened during the last write is seen here: ``changed`` only tells of what comes later.
            if stream.after(after) or not stream.is_follower(follower):
                continue
            try:
                async with asyncio.timeout(heartbeats.rules.interval_seconds):
                    await stream.changed()
            except TimeoutError:
                await reader.take(response.write(sse.HEARTBEAT))
        if (retry_seconds := stream.stays_away(follower)) is not None:
            # Whoever has taken the stream may be another tab with the same id, and so may this one be to it.
            farewell = sse.write_retry(retry_seconds)
            if cursors:
                farewell = sse.write_cursor(stream.event_id(after), retry_seconds=retry_seconds)
            await reader.take(response.write(farewell))
        await reader.take(response.write_eof())
        if stream.closed and not stream.after(after):
            # Nobody is known to have missed anything, so it goes first when room is needed.
            stream.close(reached_at=heartbeats.now())
    except ConnectionError as error:  # the client left, or reads nothing
        break_circle(error)
    finally:
        heartbeats.unwatch(reader)
        stream.leave(follower)
    return response
