"""Where to look for an answer whose stream ended without it, how often, and for how long.

MCP 2025-11-25, basic/transports, "Resumability and Redelivery" and "Sending Messages to the Server": a server
may end a stream on purpose after it gave an event id, say with ``retry`` when to ask again, and answer in a
later stream. Others break such a stream, and are away for a moment.

One rule bounds all of it: the server may be silent about a request for as long as ``--request-timeout``
says, on streams and between them. A message ends the silence, and so does anything that comes on a stream
that has stood for a moment, such as a comment; but of a server that only comments, ten times as much is the
end. That a stream opens and ends does not, or a server that has forgotten the request would be asked for
ever. Within that, streams that end and bring nothing may be as many as they like; what *fails* may do so for
``FAILING_SECONDS`` in a row.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..backoff import Backoff
from ..bounds import CRASHING_SECONDS, FAILING_SECONDS, RETRY_SECONDS, WORDLESS_TIMES
from ..errors import ProxyError, UpstreamProtocolError, UpstreamTimeout
from ..protocol.jsonrpc import Message, Response
from ..upstream.incarnation import Incarnation
from ..upstream.transport import Caller, ConnectionLost, NoStream, Reply, StreamRefused

_POLLS: Final = Backoff(0.1, 2.0)
_RETRIES: Final = Backoff(0.1, 5.0)
# What comes within this time after a stream's beginning may be no more than its opening.
_STANDING_SECONDS: Final = 1.0
_SILENT: Final = "The MCP server accepted the request and then fell silent."


class AnswerLost(Exception):
    """The request was sent and no answer will come: it may have been executed."""


async def find_answer(
    first: Reply,
    incarnation: Incarnation,
    caller: Caller,
    *,
    read: Callable[[Reply], Awaitable[Response | None]],
    resumed: Callable[[], None],
) -> Response:
    """Look for a request's answer in further streams, after its first one ended or broke off without it.

    ``incarnation`` is that on which the request was sent, ``caller`` whose it is; a server that does not take
    its credentials any more is shown the newest of the same caller. ``read`` gives the answer if a stream
    brings it; ``resumed`` is told of a stream unless the one before brought nothing either.

    Whatever goes wrong here, the request has been sent: it must never look as if it had not. So what may
    mean that elsewhere (no connection, a session that is gone) leaves this function as one of these two:

    Raises:
        AnswerLost: nothing can be resumed, or the server refuses that, or could not be asked for too long.
        UpstreamTimeout: the server says nothing for too long.
    """
    loop, channel = asyncio.get_running_loop(), incarnation.channel
    silence = asyncio.timeout(channel.silence_seconds)
    resumption = Resumption(
        first,
        silence_seconds=channel.silence_seconds,
        now=loop.time,
        heard=silence.reschedule,
    )
    try:
        async with silence:
            while (last_event_id := resumption.place) is not None:
                # Within the silence, for to wait between two streams is to hear nothing.
                await asyncio.sleep(resumption.pause_seconds())
                if not incarnation.stands:
                    break  # another session would not know of this request
                try:
                    async with channel.resume(caller, last_event_id) as stream:
                        # Once for a row of streams that bring nothing: servers that poll end many.
                        if not resumption.fruitless:
                            resumed()
                        response = await _read_further(stream, resumption, read)
                        if response is not None:
                            return response
                except StreamRefused as refused:
                    asked_by, caller = caller, _renewed(caller, refused, incarnation)
                    # It has forgotten the place, keeps no events, or will not say: asking again is in vain.
                    if caller is asked_by and not refused.passes:
                        break
                    resumption.failed(refused)
                except UpstreamTimeout:
                    raise
                except UpstreamProtocolError:
                    break  # the id cannot be sent, or what the server sends cannot be read
                except (ProxyError, ConnectionLost):
                    # Among these are errors that elsewhere mean "not sent": from here they must not get out.
                    resumption.failed()
    except TimeoutError:
        if not resumption.failing:
            raise UpstreamTimeout(_SILENT) from None
    raise AnswerLost


def _renewed(caller: Caller, refused: StreamRefused, incarnation: Incarnation) -> Caller:
    """Who asks next: a call may outlive its token, and its caller have another one by now."""
    newest = incarnation.record.credentials
    is_outdated = refused.why is NoStream.CALLER and newest != caller.credentials
    return caller.renewed_by(newest) if is_outdated else caller


async def _read_further(
    stream: Reply, resumption: "Resumption", read: Callable[[Reply], Awaitable[Response | None]]
) -> Response | None:
    """The answer, if this stream brings it; else the resumption knows where to go on."""
    broke, response = False, None
    try:
        response = await read(resumption.follow(stream))
    except ConnectionLost:
        broke = True
    resumption.ended(stream, broke=broke)
    return response


class Resumption:
    """The search for one answer. ``last_event_id`` is where to go on, None where nothing can be resumed.

    ``now`` is the time of the event loop. ``heard`` is called whenever the server shows that it works on the
    request, with the time up to which it may be silent now; whoever made this ends the search then.
    """

    def __init__(
        self,
        first: Reply,
        *,
        silence_seconds: float,
        now: Callable[[], float],
        heard: Callable[[float], None],
    ) -> None:
        self.last_event_id = first.last_event_id
        self.fruitless = False  # whether the latest further stream brought nothing (so far)
        self._retry_seconds = first.retry_seconds
        # So that a server with a long ``retry`` is asked once more before the request's time is over.
        self._max_retry_seconds = min(RETRY_SECONDS, silence_seconds / 2)
        self._silence_seconds = silence_seconds
        self._now = now
        self._heard = heard
        self._word_at = now()
        self._failing_since: float | None = None
        self._patience_seconds = FAILING_SECONDS
        self._pause_seconds = 0.0  # the last one

    @property
    def failing(self) -> bool:
        """Whether the latest attempt failed."""
        return self._failing_since is not None

    @property
    def place(self) -> str | None:
        """Where to go on; None where nothing can be resumed, or asking has failed for too long."""
        since = self._failing_since
        if since is not None and self._now() - since >= self._patience_seconds:
            return None
        return self.last_event_id

    def pause_seconds(self) -> float:
        """How long to wait now: as the server asked, within reason, else longer each time."""
        # A pace of zero would leave the server no pause, one of a day would lose the answer.
        retry = min(self._retry_seconds or 0.0, self._max_retry_seconds)
        if retry >= _POLLS.first_seconds and not self.failing:
            return retry
        self._pause_seconds = (_RETRIES if self.failing else _POLLS).after(self._pause_seconds)
        return max(self._pause_seconds, retry)

    def failed(self, refused: StreamRefused | None = None) -> None:
        """The server could not be asked, refused in a way that passes, or broke off before anything new."""
        crashed = refused is not None and refused.why is NoStream.CRASH
        self._patience_seconds = CRASHING_SECONDS if crashed else FAILING_SECONDS
        if self._failing_since is None:
            self._failing_since = self._now()
            self._pause_seconds = 0.0

    def ended(self, stream: Reply, *, broke: bool) -> None:
        """A stream is over without the answer. It may have said where to go on, and when."""
        moved = stream.last_event_id is not None and stream.last_event_id != self.last_event_id
        # An id that is reset in a later stream takes nothing from the place before.
        self.last_event_id = stream.last_event_id or self.last_event_id
        if stream.retry_seconds is not None:
            self._retry_seconds = stream.retry_seconds
        if moved:
            self._pause_seconds = 0.0
        # A server that brings something new before it breaks is at work; one that only breaks may be gone.
        if broke and not moved:
            self.failed()
        else:
            self._failing_since = None

    def follow(self, stream: Reply) -> "FollowedStream":
        """The stream, on which the answer may come, to be read."""
        self.fruitless = True
        return FollowedStream(stream, self)

    def brought(self, messages: list[Message], *, standing_seconds: float) -> None:
        """A piece of a stream, that stood for so long, has come."""
        self.fruitless = self.fruitless and not messages
        now = self._now()
        if messages:
            self._word_at = now
        if messages or standing_seconds >= _STANDING_SECONDS:
            self._failing_since = None
            seconds = self._silence_seconds
            self._heard(min(now + seconds, self._word_at + WORDLESS_TIMES * seconds))


class FollowedStream:
    """A further stream, whose resumption hears of what it brings. Implements ``transport.Reply``."""

    __slots__ = ("_began", "_now", "_resumption", "_stream")

    gives_arriving = False  # what can be resumed is gathered
    gives_runs = False

    def __init__(self, stream: Reply, resumption: Resumption) -> None:
        self._stream = stream
        self._resumption = resumption
        self._now = asyncio.get_running_loop().time
        self._began = self._now()

    @property
    def last_event_id(self) -> str | None:
        """As ``transport.Reply.last_event_id``."""
        return self._stream.last_event_id

    @property
    def retry_seconds(self) -> float | None:
        """As ``transport.Reply.retry_seconds``."""
        return self._stream.retry_seconds

    async def read(self) -> list[Message] | None:
        """As ``transport.Reply.read``."""
        messages = await self._stream.read()
        if messages is not None:
            self._resumption.brought(messages, standing_seconds=self._now() - self._began)
        return messages
