"""What was seen of one server: answers, and how simulated clients fared. Only data. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ..protocol import jsonrpc, lost, revisions
from ..protocol.jsonrpc import ErrorObject
from .text import clean

_NOT_ABOUT_VERSION: Final = frozenset({401, 403, 404, 405, 406, 415, 429, 502, 503, 504})
_NOT_ABOUT_SESSIONS: Final = frozenset({401, 403, 429, *range(500, 600)})
_ONE_SESSION: Final = re.compile(
    r"already (?:been )?initiali[sz]ed|session (?:already|is already) (?:exists|active|open)"
    r"|(?:only|a) (?:one|single) (?:\w+ )?session|one session only|another (?:session|client) is",
    re.IGNORECASE,
)


class Failure(StrEnum):
    """Why there was no HTTP answer."""

    UNREACHABLE = "unreachable"  # nothing was sent
    SILENT = "silent"  # no answer in time
    BROKEN = "broken"  # the connection ended without one
    UNUSABLE = "unusable"  # TLS, redirects


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAnswer:
    """What came back for one HTTP request.

    ``result`` is the JSON-RPC result, raw; ``error`` the error, ``error_id`` the raw id that it came with
    and ``error_source`` what its data names as its source. ``body`` is kept of refusals only.
    """

    verb: str = "POST"
    sent_session_id: bool = False
    status: int | None = None
    failure: Failure | None = None
    explanation: str = ""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    session_id: str | None = None
    stray_session: bool = False
    result: bytes | None = None
    error: ErrorObject | None = None
    error_id: bytes | None = None
    error_source: str | None = None
    seconds: float = 0.0

    @property
    def is_2xx(self) -> bool:
        """Whether the HTTP status is one of success."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_answered(self) -> bool:
        """Whether there is a result."""
        return self.is_2xx and self.result is not None

    @property
    def may_be_about_version(self) -> bool:
        """Whether a refused ``initialize`` is perhaps taken in another version of the protocol."""
        if self.failure is not None or self.is_answered:
            return False
        if self.takes_no_more_sessions or self.status in _NOT_ABOUT_VERSION:
            return False
        return self.error is not None or self.status in (400, 422)

    @property
    def takes_no_more_sessions(self) -> bool:
        """Whether an ``initialize`` was refused because somebody has the one session that there is."""
        return not self.is_answered and _ONE_SESSION.search(self.said) is not None

    @property
    def is_stream(self) -> bool:
        """Whether a GET got an event stream."""
        return self.status == 200 and self.content_type == revisions.SSE

    @property
    def loss(self) -> lost.Verdict:
        """What the proxy would take this for, in answer to a request that named a session or should have."""
        if self.status is None:
            return lost.Verdict.ALIVE
        return lost.judge(
            lost.Evidence(
                verb=self.verb,
                status=self.status,
                body=self.body,
                error=self.error,
                sent_session_id=self.sent_session_id,
            )
        )

    @property
    def said(self) -> str:
        """The server's own words, fit to be shown; may be empty."""
        if self.error is not None and self.error.message:
            return clean(self.error.message)
        if self.content_type == "text/html":
            return "a web page"
        return clean(self.body.decode("utf-8", "replace"))

    def __str__(self) -> str:
        """Status and words: ``404 Session not found``."""
        if self.status is None:
            return clean(self.explanation)
        if self.is_2xx and self.error is not None:
            return f"{self.status}, error {self.error.code}: {self.said}"
        # Some bodies repeat the status.
        return f"{self.status} {self.said.removeprefix(str(self.status)).lstrip(': ')}".rstrip()


class Sent(StrEnum):
    """What a step of a client sends, which decides what counts as success."""

    REQUEST = "request"  # a result
    NOTIFICATION = "notification"  # any 2xx
    FAREWELL = "farewell"  # anything: clients do not look


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One HTTP request of a simulated client."""

    name: str
    answer: ServerAnswer
    sent: Sent = Sent.REQUEST

    @property
    def is_fine(self) -> bool:
        """Whether a client would go on after it."""
        if self.sent is Sent.FAREWELL:
            return True
        return self.answer.is_2xx if self.sent is Sent.NOTIFICATION else self.answer.is_answered

    @property
    def complaint(self) -> str:
        """What went wrong, for a step that is not fine."""
        if self.answer.is_2xx and self.answer.error is None:
            return f"{self.name}: {self.answer.status} without a response"
        return f"{self.name}: {self.answer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One conversation of a simulated client, up to the step that failed, or to its end."""

    steps: tuple[Step, ...]

    @property
    def lost_its_session(self) -> bool:
        """Whether the server did not know the session that it had opened itself."""
        failed = self.failed
        if failed is None or not self.steps[0].answer.is_answered or failed is self.steps[0]:
            return False
        return failed.answer.loss is lost.Verdict.GONE

    @property
    def failed(self) -> Step | None:
        """The step that a client could not get over."""
        return next((step for step in self.steps if not step.is_fine), None)

    @property
    def unknown_version(self) -> str | None:
        """The version in which ``initialize`` was answered, if nobody knows it: clients give up then."""
        opened = next((step for step in self.steps if step.name == revisions.INITIALIZE), None)
        result = None if opened is None else opened.answer.result
        version = jsonrpc.read_string(jsonrpc.read_object(result).get("protocolVersion"))
        return None if version is None or version in revisions.LEGACY_VERSIONS else version

    @property
    def outcome(self) -> str:
        """What the last request answered, in a form that can be compared."""
        last = self.steps[-1].answer
        return read_outcome(last.result)

    @property
    def handshake_seconds(self) -> float:
        """The time until the client could ask what it wanted."""
        handshake = (revisions.INITIALIZE, revisions.INITIALIZED)
        return sum(step.answer.seconds for step in self.steps if step.name in handshake)


# What modern results say of themselves.
_ABOUT_THE_RESULT: Final = frozenset({"_meta", "resultType"})


def is_tool_error(result: bytes | None) -> bool:
    """Whether a tool's result says that the tool failed."""
    return jsonrpc.read_object(result).get("isError") == b"true"


def read_outcome(result: bytes | None) -> str:
    """The gist of a tool's result: its text contents, or all of it."""
    contents = jsonrpc.read_array(jsonrpc.read_object(result).get("content", b""))
    texts = [jsonrpc.read_string(jsonrpc.read_object(item).get("text")) for item in contents]
    known = [text for text in texts if text is not None]
    if known:
        return " ".join(known)
    members = jsonrpc.read_object(result)
    said = {name: value for name, value in members.items() if name not in _ABOUT_THE_RESULT}
    return jsonrpc.canonical(jsonrpc.write_object(said) if members else result).decode("utf-8", "replace")


# The version that OpenAI's clients ask for.
OPENAI_VERSION: Final = "2025-03-26"


class Client(StrEnum):
    """The kinds of client that are simulated."""

    KEEPS = "session-keeping"
    NO_COOKIES = "keeps-no-cookies"
    OPENAI = "openai-style"
    PER_CALL = "session-per-call"
    LEAVES = "leaves-without-delete"
    FORGETFUL = "never-sends-id"
    STALE = "keeps-old-id"
    MODERN = "modern"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What the server does about GET streams of one session.

    ``first_ended``: whether the first stream ended when the second one came. ``again``: a GET after both
    were dropped, ``again_seconds`` later. What was not tried is None.
    """

    first: ServerAnswer
    second: ServerAnswer | None = None
    first_ended: bool | None = None
    again: ServerAnswer | None = None
    again_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A request after this much silence on a session without any stream."""

    seconds: float
    answer: ServerAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The first ``initialize`` that was answered, or else the very first; ``version`` is what it asked for.

    ``refusals`` are the answers to those before it, by the versions that they asked for.
    """

    answer: ServerAnswer
    version: str
    refusals: Mapping[str, ServerAnswer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """For whom tokens are, by the server (``resource``) and by the given one (``audience``).

    Each is None where that is not told.
    """

    resource: str | None = None
    audience: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSeen:
    """What was seen. ``damaged``: the answer to ``initialize`` with the first token and another signature.

    ``other``: the answer to a request with another token on a session of the first; ``is_same``: whether both
    claim to speak for the same. Each is None where it was not tried, or cannot be told.
    """

    damaged: ServerAnswer | None = None
    other: ServerAnswer | None = None
    is_same: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Everything seen of one server. ``url`` is fit to be shown; ``reads`` is the method that stands for use.

    ``hello``: the answer to ``initialize`` in ``asked_version``.
    ``refused_versions``: the answers to others before it, by the versions that they asked for.
    ``beside``: the answer to another ``initialize`` while that first session was open, ``is_replaced``
    whether that ended it; None and False if not tried.
    ``cookies``: the names of those that the server set.
    ``unknown``: a request with an id that the server never gave out. ``missing``: one without id, before
    any ``initialize`` of that client. ``bare_get``: a GET without id. ``nonsense``: JSON that is no message.
    ``plays`` hold at least one conversation for each client that was played.
    ``entrance``: for whom tokens are, if one was given. ``tokens``: what becomes of others, if asked for.
    ``in_session`` are answers of the tool, called twice in one session. ``moved_to`` is where a redirect
    leads, as a path.
    """

    url: str
    reads: str
    tool: str | None = None
    moved_to: str | None = None
    hello: ServerAnswer
    asked_version: str = revisions.LATEST_LEGACY
    refused_versions: Mapping[str, ServerAnswer] = field(default_factory=dict)
    beside: ServerAnswer | None = None
    is_replaced: bool = False
    cookies: tuple[str, ...] = ()
    listed: ServerAnswer | None = None
    ping: ServerAnswer | None = None
    in_session: tuple[ServerAnswer, ...] = ()
    missing: ServerAnswer
    unknown: ServerAnswer
    bare_get: ServerAnswer
    nonsense: ServerAnswer
    discover: ServerAnswer
    streams: Streams | None = None
    plays: Mapping[Client, tuple[Play, ...]]
    entrance: Entrance | None = None
    tokens: TokensSeen | None = None
    idle: Idle | None = None

    @property
    def issues_ids(self) -> bool:
        """Whether the answer to ``initialize`` brought a session id."""
        return self.hello.session_id is not None

    @property
    def has_one_session(self) -> bool:
        """Whether a second session is refused while there is one, ends it, or is the same again."""
        second = self.beside
        if second is None or second.status is None:
            return False
        if second.is_answered:
            return self.is_replaced or second.session_id == self.hello.session_id
        return second.takes_no_more_sessions or second.status not in _NOT_ABOUT_SESSIONS

    @property
    def is_proxied(self) -> bool:
        """Whether it is this proxy that answers."""
        return any(answer.error_source is not None for answer in (self.nonsense, self.missing))

    @property
    def modern_versions(self) -> tuple[str, ...]:
        """The modern versions that the server says it speaks."""
        raw = jsonrpc.read_object(self.discover.result).get("supportedVersions", b"")
        named = [jsonrpc.read_string(item) for item in jsonrpc.read_array(raw)]
        return tuple(version for version in revisions.MODERN_VERSIONS if version in named)

    @property
    def tools(self) -> int | None:
        """How many tools it lists (on the first page)."""
        if self.listed is None or self.reads != revisions.TOOLS_LIST or not self.listed.is_answered:
            return None
        return len(jsonrpc.read_array(jsonrpc.read_object(self.listed.result).get("tools", b"")))
