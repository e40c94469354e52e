"""What the proxy keeps for each client session, each upstream session and each idle stream.

The memory is the private, dirty part: what the process would not have without them. It is read before and
after many of them were opened over one connection, which is there both times. Every figure is from a
proxy of its own.
"""

import json
import time
import urllib.request
from dataclasses import dataclass

from . import procfs
from .contenders import Place, Stage
from .listeners import hold_listeners
from .measure import in_rounds
from .messages import ECHO, Client, WrongAnswer, check_work, modern
from .result import CLIENT_SESSION, LISTENER, UPSTREAM_SESSION, Progress, Result

_MANY = ("--max-client-sessions-per-principal", "100000", "--max-sessions", "20000")
_OPTIONS = (*_MANY, "--max-sessions-per-principal", "20000")
_FIRST = 50
_SETTLE_SECONDS = 0.5
_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class MemoryCase:
    """How many are opened; the upstream sessions' figure is without the client sessions that hold them."""

    name: str
    title: str
    client_sessions: int
    upstream_sessions: int
    listeners: int
    most_rounds: int = 3
    """Rounds differ little here, and take long."""

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure; what the proxy gets wrong is noted in the result."""
        result = Result(name=self.name, title=self.title)

        def weigh() -> None:
            client = _client_sessions(stage, self.client_sessions)
            upstream = _upstream_sessions(stage, self.upstream_sessions) - client
            listener = _listeners(stage, self.listeners)
            result.add(CLIENT_SESSION, {"each": client / 1024})
            result.add(UPSTREAM_SESSION, {"each": upstream / 1024})
            result.add(LISTENER, {"each": listener / 1024})

        return in_rounds(result, min(rounds, self.most_rounds), say, weigh, subject="proxy")


def _settled(place: Place) -> int:
    time.sleep(_SETTLE_SECONDS)
    return procfs.memory(place.pid).private_dirty


def _open(client: Client, count: int) -> None:
    for _ in range(count):
        client.open_session()


def _client_sessions(stage: Stage, count: int) -> float:
    """Bytes for each. They all share one upstream session."""
    place = stage.contender("proxy", "stub", "--sharing", "shared", *_OPTIONS, own="client sessions")
    with Client(place.url) as client:
        _open(client, _FIRST)
        before = _settled(place)
        _open(client, count)
        after = _settled(place)
    stage.stop(place)
    return (after - before) / count


def _upstream_sessions(stage: Stage, count: int) -> float:
    """Bytes for each together with the one client session that it belongs to."""
    place = stage.contender("proxy", "stub", "--sharing", "isolated", *_OPTIONS, own="upstream sessions")
    server = stage.server("stub").url
    streams = _streams(server)
    with Client(place.url) as client:
        _open(client, _FIRST)
        _wait_for_streams(server, streams + _FIRST)
        before = _settled(place)
        _open(client, count)
        _wait_for_streams(server, streams + _FIRST + count)
        after = _settled(place)
    stage.stop(place)
    return (after - before) / count


def _listeners(stage: Stage, count: int) -> float:
    """Bytes for each, its connection included."""
    place = stage.contender("proxy", "stub", *_OPTIONS, own="listeners")
    check_work(place.url, modern(ECHO), ECHO)
    with hold_listeners(place.url, _FIRST):
        before = _settled(place)
        with hold_listeners(place.url, count):
            after = _settled(place)
    stage.stop(place)
    return (after - before) / count


def _streams(url: str) -> int:
    """How many GET streams the stub holds."""
    with urllib.request.urlopen(url.removesuffix("/mcp") + "/stats") as response:
        return int(json.load(response)["streams"])


def _wait_for_streams(url: str, count: int) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (open_now := _streams(url)) < count:
        if time.monotonic() > deadline:
            raise WrongAnswer(f"{open_now} GET streams were open at the server, not {count}")
        time.sleep(0.05)
