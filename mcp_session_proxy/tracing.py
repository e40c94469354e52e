"""Traces as the core sees them: what it tells about a request, and nothing of who listens.

``UNTRACED`` stands for a tracer and its traces where nobody listens. ``ops.tracing`` makes OpenTelemetry's
spans of what is told here. These are protocols, because that module is loaded only if somebody wants traces:
the library behind it is an extra, and takes its time.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# W3C Trace Context, as HTTP headers and as keys of ``_meta`` alike (MCP 2026-07-28, basic, "_meta").
CONTEXT_KEYS: Final = frozenset({TRACEPARENT, TRACESTATE})

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


class UpstreamTrace(Protocol):
    """One request on its way upstream, with all its attempts. Told of its end exactly once."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The trace context that the server gets, in place of the client's."""
        ...

    @property
    def id(self) -> str | None:
        """The trace's id."""
        ...

    def retried(self, reason: str) -> None:
        """It is sent again."""
        ...

    def answered(self, result: bytes | None, error: bytes | None) -> None:
        """The server's response has come: one of the two, raw."""
        ...

    def failed(self, reason: str) -> None:
        """There is no response."""
        ...


class RequestTrace(Protocol):
    """One request of a client."""

    @property
    def id(self) -> str | None:
        """The trace's id in hexadecimal, for logs; None when there is none."""
        ...

    @property
    def sampled(self) -> bool | None:
        """Whether the trace is recorded; None where nobody would."""
        ...

    def waits(self) -> None:
        """It may have to wait for an upstream session from now on."""
        ...

    def leased(self, session: str, *, waited: bool) -> None:
        """It has one now, by its tag; or had one all along."""
        ...

    def sends(self, session: str) -> UpstreamTrace:
        """It goes out on this session."""
        ...

    def parks(self) -> None:
        """Its call waits for the client's answers from now on."""
        ...

    def unparks(self, outcome: str) -> None:
        """Its call, if it waited, waits no more."""
        ...

    def resumes(self, former: "RequestTrace") -> None:
        """It brings the answers that a call of a former request waited for."""
        ...

    def finished(self, outcome: str, body: bytes) -> None:
        """It is over: ``outcome`` as in ``events.RequestFinished``, ``body`` is the answer."""
        ...


class Facts(NamedTuple):
    """What a trace is told of a request when it begins.

    ``meta`` is its ``_meta`` as raw JSON members, ``attributes`` have OpenTelemetry's names.
    """

    method: str
    headers: Mapping[str, str]
    meta: Mapping[str, bytes]
    attributes: Mapping[str, str | None]


class Tracer(Protocol):
    """Whoever follows requests."""

    def begin(self, facts: Callable[[], Facts]) -> RequestTrace:
        """A request of a client begins; ``facts`` gives what is to be known of it."""
        ...


class _Untraced:
    """Nobody listens. One object is tracer and trace of every request, so that nobody has to ask."""

    __slots__ = ()

    id: Final[str | None] = None
    sampled: Final[bool | None] = None
    headers: Final[tuple[tuple[str, str], ...]] = ()

    def begin(self, *_: object, **__: object) -> "_Untraced":
        return self

    def sends(self, *_: object, **__: object) -> "_Untraced":
        return self

    def waits(self, *_: object, **__: object) -> None:
        pass

    leased = retried = answered = failed = parks = unparks = resumes = finished = waits


UNTRACED: Final = _Untraced()


def read_trace_id(traceparent: str | None) -> str | None:
    """The trace id in a ``traceparent`` (W3C Trace Context, section 3.2.2); None without a valid one."""
    found = None if traceparent is None else _TRACEPARENT.match(traceparent)
    return None if found is None else found[1]
