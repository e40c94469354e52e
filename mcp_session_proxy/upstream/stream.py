"""The standalone stream of an upstream session: held for life, opened again whenever it ends or is refused.

It brings what the server says of its own accord. Over Streamable HTTP it is a GET (MCP 2025-11-25,
basic/transports, "Listening for Messages from the Server" and "Resumability").

For life means without end: only the session's own end ends it. What is given up is a place to go on from
(a ``Last-Event-ID`` that the server does not take), never the stream.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from ..backoff import Backoff
from ..errors import ProxyError, UpstreamProtocolError, UpstreamUnreachable
from ..protocol.jsonrpc import Message
from .transport import ConnectionLost, NoStream, Reply, StreamRefused

_GRACE_SECONDS: Final = 0.5
_RETRIES: Final = Backoff(0.05, 60.0)
# Many servers offer no stream, ever. One that is being deployed may begin to.
_SELDOM_RETRIES: Final = Backoff(180.0, 3600.0)
_SPREAD: Final = 0.2
# A stream that lasted this long, or brought something, was a good one: the next one is opened at once.
_GOOD_STREAM_SECONDS: Final = 5.0
# Who was without a stream for longer, and cannot resume it, has most likely missed something.
_GAP_SECONDS: Final = 5.0
# How often in a row an event id may fail before it is the one to blame: with what may have other reasons,
# and with what rarely has.
_PATIENCE_WITH_ID: Final = 10
_LITTLE_PATIENCE_WITH_ID: Final = 3


class StandaloneStream:
    """The stream of one incarnation of a session. ``is_open`` tells whether it stands now.

    ``connect`` opens it, resumed after an event id if one is given. ``take`` gets each message.
    ``unreachable`` is told that the server takes no connections, and ``vanished`` looks whether the session
    itself is gone; both give whether to stop trying. ``missed`` is told, once the stream
    stands again, that messages may have been lost meanwhile.
    A stream that ``goes_on`` was held elsewhere before: behind the event ``after``, if that is known.
    """

    def __init__(
        self,
        *,
        connect: Callable[[str | None], AbstractAsyncContextManager[Reply]],
        take: Callable[[Message], None],
        unreachable: Callable[[], bool],
        vanished: Callable[[], Awaitable[bool]],
        missed: Callable[[], None],
        goes_on: bool = False,
        after: str | None = None,
    ) -> None:
        self.is_open = False
        self.gaps = 0  # how often it was opened again without going on from where it broke
        self._connect = connect
        self._take = take
        self._unreachable = unreachable
        self._vanished = vanished
        self._missed = missed
        self._now = asyncio.get_running_loop().time
        self._tried = asyncio.Event()
        self._last_event_id = after
        self._reply: Reply | None = None  # while it stands
        self._doubts = 0  # about that id: failures in a row that it may be the reason of
        # What came between then and now is lost, as it is when the server does not take the id.
        self._id_refused = goes_on and after is None
        self._retry_seconds = 0.0
        self._given = False  # whether the server has ever given a stream
        self._closed_since = self._now()
        self._pause_seconds = 0.0  # the last one, as ``_seldom_seconds`` is
        self._seldom_seconds = 0.0

    @property
    def last_event_id(self) -> str | None:
        """Where somebody else could go on with it."""
        return (self._reply and self._reply.last_event_id) or self._last_event_id

    async def tried(self) -> None:
        """Wait until it stands or has failed, but a moment only."""
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._tried.wait()
        except TimeoutError:
            return  # some servers send no header before the first event

    async def hold(self) -> None:
        """Hold it until this is cancelled, or the session is to go elsewhere.

        A stream that is gone looks the same from here whatever the reason, and the reasons want different
        things: a server that restarts is asked soon, one that has no streams seldom, one that chokes on the
        event id without it, and a session that is gone not at all. So each way to fail has a pause of its
        own. The session is looked at only over what the event id cannot be the reason of.
        """
        while True:
            refused: StreamRefused | None = None
            asked_after = self._last_event_id
            try:
                async with self._connect(asked_after) as reply:
                    self._tried.set()
                    await self._follow(reply)
                    pause_seconds = self._next_pause()
            except StreamRefused as error:
                refused = error
                pause_seconds = self._refused(error)
            # Before its kin below: nothing was asked, so the event id is not to blame.
            except UpstreamUnreachable:
                if self._unreachable():
                    return
                pause_seconds = self._next_pause()
            except UpstreamProtocolError:  # the id cannot be sent, or the server redirects elsewhere
                pause_seconds = self._refused(StreamRefused(NoStream.NOT_OFFERED))
            except (ProxyError, ConnectionLost):
                self._doubt(_PATIENCE_WITH_ID)
                pause_seconds = self._next_pause()
            # Also when it has failed: whoever opens the session waits for a try and not for a stream.
            finally:
                self._tried.set()
            may_be_gone = refused is not None and refused.why is NoStream.NO_SESSION and asked_after is None
            if may_be_gone and await self._vanished():
                return
            await asyncio.sleep(pause_seconds)

    # -- a stream that stands ------------------------------------------------------------------------

    async def _follow(self, reply: Reply) -> None:
        """Take what a stream brings, until it ends or breaks."""
        began, brought = self._now(), False
        self._reply = reply
        self._stands()
        try:
            while (messages := await reply.read()) is not None:
                for message in messages:
                    brought = True
                    self._take(message)
        # As good as one that ended: either way it is opened again.
        except ConnectionLost:
            pass
        finally:
            self._reply = None
            self.is_open = False
            self._closed_since = self._now()
            brought = brought or (reply.last_event_id or self._last_event_id) != self._last_event_id
            # A stream that broke before its first event is gone on with from where the former one was.
            self._last_event_id = reply.last_event_id or self._last_event_id
            self._retry_seconds = reply.retry_seconds or 0.0
        if brought or self._closed_since - began >= _GOOD_STREAM_SECONDS:
            self._doubts = 0
            self._pause_seconds = 0.0
        else:
            # Some servers (mcp 1.x) answer an id that they do not know with a stream that ends at once.
            self._doubt(_LITTLE_PATIENCE_WITH_ID)

    def _stands(self) -> None:
        resumed = self._last_event_id is not None
        if self._given and not resumed:
            # One that is back in a moment is likely complete, but what is kept may not rely on that.
            self.gaps += 1
        # What was to come after a refused id is lost, and after a gap that nothing bridges, most likely, too.
        if self._id_refused or (not resumed and self._now() - self._closed_since > _GAP_SECONDS):
            self._missed()
        self.is_open = self._given = True
        self._id_refused = False
        self._seldom_seconds = 0.0

    # -- a stream that is refused --------------------------------------------------------------------

    def _refused(self, refused: StreamRefused) -> float:
        """The server gives no stream now; gives how long to wait before it is asked again, in seconds."""
        if self._last_event_id is not None:
            # It may be the id's doing: servers without an event store crash over one.
            if refused.why is NoStream.CALLER or refused.why is NoStream.CRASH:
                self._doubt(_LITTLE_PATIENCE_WITH_ID)
            elif refused.passes:
                self._doubt(_PATIENCE_WITH_ID)
            else:
                self._drop_id()
                return _RETRIES.first_seconds
        elif not self._given and not refused.passes:
            self._seldom_seconds = _SELDOM_RETRIES.after(self._seldom_seconds)
            return _spread(self._seldom_seconds)
        return self._next_pause()

    def _next_pause(self) -> float:
        self._pause_seconds = _RETRIES.after(self._pause_seconds)
        # The server may ask for a longer pause (its ``retry``), but not for more than the longest of ours.
        return max(_spread(self._pause_seconds), min(self._retry_seconds, _RETRIES.last_seconds))

    def _doubt(self, patience: int) -> None:
        """Something failed that the event id may be the reason of."""
        if self._last_event_id is not None:
            self._doubts += 1
            if self._doubts >= patience:
                self._drop_id()

    def _drop_id(self) -> None:
        """Go on from nowhere: better to miss what is lost than all that comes."""
        self._last_event_id = None
        self._doubts = 0
        self._id_refused = True


def _spread(pause_seconds: float) -> float:
    """About this long: sessions that lost their streams together need not ask together."""
    return pause_seconds * random.uniform(1, 1 + _SPREAD)
