"""Every error the proxy can answer with, and whose fault each one is.

::

    ProxyError                       JSON-RPC code, HTTP status, reason
    ├── ClientError                  the caller did something wrong
    │   ├── BadJson                  400  -32700  parse-error
    │   │   └── TooDeep              400  -32700  json-too-deep
    │   ├── BadRequest               400  -32600  invalid-request
    │   ├── MethodGone               404  -32601  method-not-found
    │   ├── BodyTooLarge             413  -32600  body-too-large
    │   ├── HeadTooLarge             431  -32600  head-too-large
    │   ├── UnsupportedCoding        415  -32600  unsupported-content-coding
    │   ├── UnsupportedHttp          505  -32600  http-version-not-supported
    │   ├── ForbiddenOrigin          403  -32600  origin-not-allowed
    │   ├── ForbiddenHost            403  -32600  host-not-allowed
    │   ├── NotPassed                404  -32600  not-passed-through
    │   ├── PeerNotBelieved          403  -32600  peer-not-believed
    │   ├── UnknownSession           404  -32001  unknown-session
    │   ├── UnknownEvent             405  -32600  unknown-event
    │   ├── UnsupportedVersion       400  -32022  unsupported-version
    │   ├── HeaderMismatch           400  -32020  header-mismatch
    │   ├── InvalidParams            400  -32602  invalid-params
    │   ├── StateRefused             400  -32602  request-state-refused
    │   ├── UnknownTask              400  -32602  unknown-task
    │   ├── MissingCapability        400  -32021  missing-client-capability
    │   └── RequestCancelled         200  -32603  cancelled
    ├── UpstreamError                the server behind us did
    │   ├── UpstreamUnreachable      502          upstream-unreachable
    │   ├── UpstreamDown             503          upstream-down
    │   ├── ServerNotStarted         502          server-not-started
    │   ├── OneSessionOnly           503          one-session-only
    │   ├── UpstreamProtocolError    502          upstream-protocol-error
    │   ├── UpstreamTimeout          504          upstream-timeout
    │   ├── SessionLost              502          session-lost
    │   ├── OutcomeUnknown           502          outcome-unknown
    │   ├── NoRoomForAnswer          502          answer-over-budget
    │   ├── TooManyRounds            502          too-many-rounds
    │   ├── HandshakeRefused         200  its own handshake-refused
    │   └── UpstreamRejected         its own      upstream-rejected
    └── OverloadError                the proxy has no room, or is going away
        ├── TooManyConnections       503          too-many-connections
        ├── TooManyExchanges         503          too-many-exchanges
        ├── TooManyParked            503          too-many-parked
        ├── TooManyTasks             503          too-many-tasks
        ├── TooManyListeners         503          too-many-listeners
        ├── OverBudget               503          memory-budget
        ├── AcquireTimeout           503          acquire-timeout
        ├── TooManyWaiters           503          too-many-waiters
        ├── MemberUnreachable        503          peer-unreachable
        ├── Misrouted                503          misrouted
        ├── StoreUnavailable         503          store-unavailable
        └── Draining                 503          draining

An error knows whose fault it is (``fault``). That decides what is counted and how loudly it is told: callers
are refused all day, and nobody should be woken for it. An error also knows its HTTP status, its JSON-RPC code
and, where waiting helps, how long to wait (``Retry-After``). Texts never quote a credential, a header's value
or a client's payload.
Foreign exceptions (aiohttp, OSError, msgspec) are mapped to these at the edge, once.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Final

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SESSION_NOT_FOUND = -32001
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

SOURCE = "mcp-session-proxy"
_MAX_WORDS_BYTES = 64 * 1024

# Statuses of a server that say nothing of the caller: there is no MCP endpoint where it was asked, or what is
# between us and the server does not reach it.
_ABOUT_NO_CALLER: Final = frozenset({404, 405, 407, 408, 410, 421})


class Fault(StrEnum):
    """Whose fault an error is. The word is a label in metrics."""

    CLIENT = "client"  # the caller's: refused by us, or by the server
    UPSTREAM = "upstream"  # the server's behind us
    PROXY = "proxy"  # no room, going away, or a bug


class ProxyError(Exception):
    """Base of all errors that a client can see.

    ``message`` is a sentence for a person that says what to do next; ``reason`` is a stable word
    for programs, also the label in metrics. ``culprit`` is whose fault errors of the class are, unless one of
    them knows better (``fault``).
    """

    status: ClassVar[int] = 500
    code: ClassVar[int] = INTERNAL_ERROR
    reason: ClassVar[str] = "internal"
    culprit: ClassVar[Fault] = Fault.PROXY

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return self.culprit

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer."""
        return self.status

    @property
    def data(self) -> Mapping[str, object]:
        """The ``data`` member of the JSON-RPC error: that it is ours, and why."""
        return {"source": SOURCE, "reason": self.reason}

    def headers(self) -> Mapping[str, str]:
        """Extra HTTP headers of the answer."""
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(self.retry_after_seconds)}


class InternalError(ProxyError):
    """A bug of ours, told without its details; the log has them."""


class ClientError(ProxyError):
    """The caller did something wrong."""

    status = 400
    code = INVALID_REQUEST
    reason = "invalid-request"
    culprit = Fault.CLIENT


class BadJson(ClientError):
    """The body is not JSON (JSON-RPC 2.0, section 5.1)."""

    code = PARSE_ERROR
    reason = "parse-error"


class TooDeep(BadJson):
    """The body's arrays and objects are nested deeper than ``--max-json-depth``."""

    reason = "json-too-deep"


class BadRequest(ClientError):
    """The body is JSON but not a JSON-RPC message that MCP allows."""


class MethodGone(ClientError):
    """The method does not exist for this caller."""

    status = 404
    code = METHOD_NOT_FOUND
    reason = "method-not-found"


class BodyTooLarge(ClientError):
    """The body is over ``--max-body-bytes``."""

    status = 413
    reason = "body-too-large"


class UnsupportedCoding(ClientError):
    """The body is compressed in a way that is not known here (RFC 9110, section 15.5.16)."""

    status = 415
    reason = "unsupported-content-coding"

    def headers(self) -> Mapping[str, str]:
        """What would do (RFC 7694)."""
        return {"Accept-Encoding": "gzip, deflate"}


class UnsupportedHttp(ClientError):
    """The request line names another version of HTTP than 1.0 and 1.1 (RFC 9110, section 15.6.6)."""

    status = 505
    reason = "http-version-not-supported"


class HeadTooLarge(ClientError):
    """The request line or the headers are over ``--max-header-bytes`` (RFC 6585, section 5)."""

    status = 431
    reason = "head-too-large"


class ForbiddenOrigin(ClientError):
    """A browser page that may not call us (DNS rebinding protection)."""

    status = 403
    reason = "origin-not-allowed"


class ForbiddenHost(ClientError):
    """The ``Host`` header names someone else."""

    status = 403
    reason = "host-not-allowed"


class NotPassed(ClientError):
    """A path that does not go through: the MCP endpoint misspelt, or one that ``--passthrough`` bars."""

    status = 404
    reason = "not-passed-through"


class PeerNotBelieved(ClientError):
    """A request to the listener for other members that is not taken for one of theirs."""

    status = 403
    reason = "peer-not-believed"

    def __init__(self, why: str) -> None:
        super().__init__(f"This is not taken for a request of another member ({why}).")


class UnknownSession(ClientError):
    """A session id that nothing is known of, under ``--unknown-session reject``; or one of ours that was
    forgotten, of a client that declared more than an id can carry.
    """

    status = 404
    code = SESSION_NOT_FOUND
    reason = "unknown-session"


class UnknownEvent(ClientError):
    """A ``Last-Event-ID`` that names nothing that could go on.

    405 says that there is no stream; clients take any other refusal of a GET worse.
    """

    status = 405
    reason = "unknown-event"

    def headers(self) -> Mapping[str, str]:
        """What else can be done here (RFC 9110, section 15.5.6)."""
        return {"Allow": "POST"}


class UnsupportedVersion(ClientError):
    """A protocol version that is not served here (MCP 2026-07-28, basic/versioning)."""

    code = UNSUPPORTED_VERSION
    reason = "unsupported-version"

    def __init__(self, *, supported: Sequence[str], requested: str | None) -> None:
        super().__init__("This protocol version is not supported.")
        self._supported = list(supported)
        self._requested = requested

    @property
    def data(self) -> Mapping[str, object]:
        """Which versions would do."""
        return {"supported": self._supported, "requested": self._requested, **super().data}


class HeaderMismatch(ClientError):
    """A header does not say what the body says (MCP 2026-07-28, streamable-http, "Server Validation")."""

    code = HEADER_MISMATCH
    reason = "header-mismatch"


class InvalidParams(ClientError):
    """A parameter is missing or malformed."""

    code = INVALID_PARAMS
    reason = "invalid-params"


class StateRefused(InvalidParams):
    """A ``requestState`` that is not, or no longer, good for this request of this caller."""

    reason = "request-state-refused"


class UnknownTask(InvalidParams):
    """An id of a task that never was, has expired, or is another caller's: which of them is not told."""

    reason = "unknown-task"


class MissingCapability(ClientError):
    """The server needs something of the client that it did not declare (2026-07-28, basic, "_meta")."""

    code = MISSING_CAPABILITY
    reason = "missing-client-capability"

    def __init__(self, required: Mapping[str, object]) -> None:
        super().__init__(f"The server needs a client that can do: {', '.join(required)}.")
        self._required = required

    @property
    def data(self) -> Mapping[str, object]:
        """Which capabilities are missing."""
        return {"requiredCapabilities": self._required, **super().data}


class RequestCancelled(ClientError):
    """The client cancelled its request, and the server sent no response to it."""

    status = 200
    code = INTERNAL_ERROR
    reason = "cancelled"


class UpstreamError(ProxyError):
    """The server behind us failed."""

    status = 502
    reason = "upstream-error"
    culprit = Fault.UPSTREAM


class UpstreamUnreachable(UpstreamError):
    """No connection could be made: nothing was sent, nothing was executed."""

    reason = "upstream-unreachable"


class UpstreamDown(UpstreamError):
    """The server has been failing for a while, so nobody is kept waiting for it."""

    status = 503
    reason = "upstream-down"


class ServerNotStarted(UpstreamError):
    """The command that is the server (``--stdio``) could not be started, or ended before it had answered."""

    reason = "server-not-started"


class OneSessionOnly(UpstreamError):
    """The server can have one session only, and that one cannot serve this client."""

    status = 503
    reason = "one-session-only"


class UpstreamProtocolError(UpstreamError):
    """The server answered something that is not MCP."""

    reason = "upstream-protocol-error"


class UpstreamTimeout(UpstreamError):
    """The server accepted the request and then said nothing for too long."""

    status = 504
    reason = "upstream-timeout"


class SessionLost(UpstreamError):
    """The session is gone and a new one could not be opened. The request was not executed."""

    reason = "session-lost"


class OutcomeUnknown(UpstreamError):
    """The connection broke after the request was sent: it may or may not have been executed."""

    reason = "outcome-unknown"


class UpstreamRejected(UpstreamError):
    """The server refused with a status of its own, which the client needs to see (401, 403, 429 ...).

    ``body`` and the few end-to-end ``headers`` that explain the refusal (``WWW-Authenticate``,
    ``Retry-After``) are passed to the client as they came. A 4xx is the caller's fault, unless it says that
    there is no MCP endpoint at all.
    """

    reason = "upstream-rejected"

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str | None,
        headers: Mapping[str, str],
        raw_error: bytes | None,
    ) -> None:
        super().__init__(f"The MCP server answered HTTP {status}.")
        self.upstream_status = status
        self.body = body
        self.content_type = content_type
        self.upstream_headers = headers
        self.raw_error = raw_error

    @property
    def fault(self) -> Fault:
        """The caller's for a 4xx; one in JSON-RPC is about the request even where it is a 404."""
        if not 400 <= self.upstream_status < 500:
            return Fault.UPSTREAM
        if self.upstream_status in _ABOUT_NO_CALLER and self.raw_error is None:
            return Fault.UPSTREAM
        return Fault.CLIENT

    @property
    def words(self) -> bytes:
        """What the server said, as far as anybody reads."""
        return self.body[:_MAX_WORDS_BYTES].strip()

    @property
    def is_failure(self) -> bool:
        """Whether the server says that it failed, and not that it will not do what it was asked."""
        return self.upstream_status >= 500

    @property
    def http_status(self) -> int:
        """The server's own status where that tells the client something, else 502."""
        passes = 400 <= self.upstream_status < 500 or self.upstream_status in (503, 504)
        return self.upstream_status if passes else 502

    def headers(self) -> Mapping[str, str]:
        """The server's headers that explain the refusal."""
        return self.upstream_headers

    def saying(self, raw_error: bytes) -> "UpstreamRejected":
        """The same with another JSON-RPC error."""
        return UpstreamRejected(
            self.upstream_status, self.body, self.content_type, self.upstream_headers, raw_error
        )


class NoRoomForAnswer(UpstreamError):
    """The answer does not fit into its share of ``--memory-budget``; the request was executed."""

    reason = "answer-over-budget"


class TooManyRounds(UpstreamError):
    """The server keeps asking in one call, over the limit."""

    reason = "too-many-rounds"


class HandshakeRefused(UpstreamError):
    """The server answered ``initialize`` with a JSON-RPC error, which the client gets as it came.

    That is about what the caller sent, unless the server calls it an internal error of its own (``code``).
    """

    status = 200
    reason = "handshake-refused"

    def __init__(self, raw_error: bytes, code: int = 0) -> None:
        super().__init__("The MCP server refused to open a session.")
        self.raw_error = raw_error
        self.upstream_code = code

    @property
    def words(self) -> bytes:
        """What the server said, as far as anybody reads."""
        return self.raw_error[:_MAX_WORDS_BYTES]

    @property
    def fault(self) -> Fault:
        """The caller's, unless the server says that it failed."""
        return Fault.UPSTREAM if self.upstream_code == INTERNAL_ERROR else Fault.CLIENT

    def saying(self, raw_error: bytes) -> "HandshakeRefused":
        """The same with another JSON-RPC error."""
        return HandshakeRefused(raw_error, self.upstream_code)


class OverloadError(ProxyError):
    """The proxy has no room now; nothing was sent upstream, so trying again is safe."""

    status = 503
    reason = "overload"

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class AcquireTimeout(OverloadError):
    """No upstream session became free within ``--acquire-timeout``."""

    reason = "acquire-timeout"


class TooManyWaiters(OverloadError):
    """``--max-waiters`` requests already wait."""

    reason = "too-many-waiters"


class TooManyConnections(OverloadError):
    """One caller may have no more connections."""

    reason = "too-many-connections"


class TooManyExchanges(OverloadError):
    """No more requests may be under way."""

    reason = "too-many-exchanges"


class TooManyParked(OverloadError):
    """No more calls may wait for their clients' answers."""

    reason = "too-many-parked"


class TooManyTasks(OverloadError):
    """No more calls may become tasks."""

    reason = "too-many-tasks"


class TooManyListeners(OverloadError):
    """No more streams of change notifications may be opened."""

    reason = "too-many-listeners"


class OverBudget(OverloadError):
    """The share of ``--memory-budget`` that this would need is used up."""

    reason = "memory-budget"


class Draining(OverloadError):
    """The proxy is shutting down."""

    reason = "draining"


class MemberUnreachable(OverloadError):
    """Another proxy serves this caller, and cannot be reached from here."""

    reason = "peer-unreachable"


class Misrouted(OverloadError):
    """The proxies that share a store do not agree on who serves this caller."""

    reason = "misrouted"


class StoreUnavailable(OverloadError):
    """The store that the proxies share cannot be reached (``--store-outage refuse``)."""

    reason = "store-unavailable"
