"""Heartbeats of all answers that are under way, and an end to those whose clients read nothing."""

import asyncio
from typing import Final, Protocol

import msgspec

from ..aio import Tasks
from ..bounds import UNREAD_SECONDS
from ..protocol.inbound import HeartbeatFormat

# Also where heartbeats are rare: the same look finds those who read nothing, and theirs is a minute.
_LONGEST_PERIOD_SECONDS: Final = 5.0


class HeartbeatRules(msgspec.Struct, frozen=True, kw_only=True):
    """How often a silent stream beats, and how long an answer that may be JSON waits to become one."""

    interval_seconds: float
    json_patience_seconds: float = 0.0
    heartbeat_format: HeartbeatFormat = HeartbeatFormat.AUTO


class Writer(Protocol):
    """Who writes to a client: a POST's ``Beating``, or ``following.Reader``, whose module imports this one.

    ``last_write`` is when something was written last, or its piece was taken, by the loop's clock;
    ``writing`` says that the client has yet to take it.
    """

    last_write: float
    writing: bool

    def cut_off(self) -> None:
        """Give up a client that reads nothing: whatever is being written ends in a ConnectionError."""
        ...


class Beating(Writer, Protocol):
    """Who may have to beat: a POST's ``Responder``, whose module imports this one."""

    @property
    def begun(self) -> bool:
        """Whether its answer has become an event stream."""
        ...

    @property
    def takes_json(self) -> bool:
        """Whether its client understands JSON."""
        ...

    @property
    def prefers_json(self) -> bool:
        """Whether it most likely wants JSON."""
        ...

    async def beat(self) -> None:
        """Write a comment."""
        ...


class Heartbeats:
    """Writes a comment to every stream that was silent for the interval, so that nobody cuts it, and cuts
    off clients that read nothing.

    One timer for all of them, because nearly all that is written is taken at once. The responders of POSTs
    that were not answered yet become event streams at their first beat. Those of clients that prefer JSON, or
    that take it at all (``heartbeat_format``), get that beat only when ``json_patience_seconds`` are about to
    end. ``rules`` may be replaced at any time.
    """

    def __init__(self, rules: HeartbeatRules) -> None:
        self._rules = rules
        self.now = asyncio.get_running_loop().time
        self._responders: dict[Beating, None] = {}
        self._watched: dict[Writer, None] = {}
        self._beats = Tasks()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, responder: Beating) -> None:
        """Begin to watch a responder."""
        self._responders[responder] = None
        if self._timer is None:
            self._schedule()

    def remove(self, responder: Beating) -> None:
        """Stop watching it."""
        self._responders.pop(responder, None)

    def watch(self, writer: Writer) -> None:
        """Cut this one off if its client reads nothing; it beats by itself."""
        self._watched[writer] = None
        if self._timer is None:
            self._schedule()

    def unwatch(self, writer: Writer) -> None:
        """It writes no more."""
        self._watched.pop(writer, None)

    @property
    def rules(self) -> HeartbeatRules:
        """What all streams go by."""
        return self._rules

    @rules.setter
    def rules(self, rules: HeartbeatRules) -> None:
        self._rules = rules
        # A shorter interval counts from now on, and not after the look that is due by the longer one.
        if self._timer is not None:
            self._timer.cancel()
            self._schedule()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period_seconds, self._tick)

    @property
    def _period_seconds(self) -> float:
        # So a beat is late by a third of the interval at most.
        return min(self._rules.interval_seconds / 3, _LONGEST_PERIOD_SECONDS)

    def _longest_silence(self, responder: Beating) -> float:
        """The seconds after which a responder must write; the next look may be too late."""
        if responder.begun or not self._waits_for_json(responder):
            return self._rules.interval_seconds
        return max(self._rules.interval_seconds, self._rules.json_patience_seconds - self._period_seconds)

    def _waits_for_json(self, responder: Beating) -> bool:
        if self._rules.heartbeat_format is HeartbeatFormat.AUTO:
            return responder.prefers_json
        return self._rules.heartbeat_format is HeartbeatFormat.JSON and responder.takes_json

    def _tick(self) -> None:
        now = self.now()
        # A write lasts only where the transport's buffer is full: its client takes nothing.
        for writer in (*self._responders, *self._watched):
            if writer.writing and writer.last_write <= now - UNREAD_SECONDS:
                writer.cut_off()
        # Whoever is being written to gets no beat: beats would queue up behind a client that reads nothing.
        # The others get theirs in tasks, so that none waits for another's client.
        for responder in self._responders:
            if not responder.writing and responder.last_write <= now - self._longest_silence(responder):
                self._beats.spawn(responder.beat(), "heartbeat")
        # With nobody to look after there is no timer; who comes next starts it.
        self._timer = None
        if self._responders or self._watched:
            self._schedule()
