"""Recognises "that session is gone" in every dialect that servers use.

MCP 2025-11-25, basic/transports, "Session Management": a server answers a terminated session with
404 and a missing session id with 400. Servers do that in many ways, so this is one table of the ways
that are known, and one rule for all others. Only judgement lives here: no I/O, no re-opening.

The price of the two mistakes differs. Taking a living session for dead loses a user's state and runs
a request twice, so :attr:`Verdict.GONE` needs the words of a known dialect where that dialect puts
them: at the start of the error's message, with a status that rejects the whole HTTP request. Anything
that merely looks like it is :attr:`Verdict.SUSPECT` and costs one ``ping``.

403 and 503 have other meanings that are more usual: another caller's session, and load. They, and all
statuses that are not used for it at all, are believed only with words that say that the session does not
exist, from the request's answer and again from the ping's. The price there: a gateway that says "session
expired" of a *login* with 403, and does not mention that it is one, costs the state of the session, once; the
handshake that follows shows the caller what is wrong. Where a server says that it has failed (500), a session
that "expired" may have done so in the course of the request, which would not be unexecuted then: there only
words count that say that it was not there before.

Not knowing a session that is gone costs more the longer it lasts, so whatever words a server has, a session
on which it refuses everything is given up as ``upstream.deadlock`` says.
"""

import re
from enum import Enum
from functools import cache
from typing import Final, TypeGuard

import msgspec

from ..errors import METHOD_NOT_FOUND
from .jsonrpc import ErrorObject

_MAX_TEXT_BYTES: Final = 64 * 1024  # enough for a serialised Java exception with its stack trace


class Verdict(Enum):
    """What a reply says about the session that the request was sent on."""

    ALIVE = "alive"
    SUSPECT = "suspect"  # believe it only after a ping was answered the same way
    GONE = "gone"  # and the request was certainly not executed


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered to one HTTP request.

    ``body`` may be cut off. ``error`` is the JSON-RPC error of a JSON or SSE body, if it has one.
    ``sent_session_id`` is False on a session for which the server issued no id.
    """

    verb: str
    status: int
    body: bytes
    error: ErrorObject | None
    sent_session_id: bool


class _Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One way to say it: a ``text`` (a regular expression), with one of these statuses.

    ``id_sent`` says in answer to what: a session id, none, or (None) either.
    """

    text: str
    statuses: frozenset[int]
    id_sent: bool | None


def _dialect(text: str, *statuses: int, id_sent: bool | None) -> _Dialect:
    return _Dialect(text=text, statuses=frozenset(statuses), id_sent=id_sent)


_DIALECTS: Final = (
    # Python >= 1.26 and fastmcp, TypeScript, FastMCP-TS, supergateway, Playwright, go-sdk, rmcp (401 up
    # to 0.16), Java, C#, php-sdk ("... or has expired."), Ruby, Kotlin, Cloudflare.
    _dialect(r"session not found", 400, 404, id_sent=True),
    _dialect(r"session not found", 401, id_sent=None),
    # Python after DELETE, Swift; go-sdk while it closes; mcp-go (400 in old ones).
    _dialect(r"session has been terminated", 404, id_sent=True),
    _dialect(r"session is closing", 404, id_sent=True),
    _dialect(r"session terminated", 400, 404, id_sent=True),
    _dialect(r"invalid session id", 400, id_sent=True),
    _dialect(r"invalid session id", 404, id_sent=None),
    # php-mcp, Swift; a gateway seen in the wild.
    _dialect(r"invalid or expired session", 400, 404, id_sent=True),
    _dialect(r"unknown session", 400, 404, id_sent=True),
    # Over HTTP+SSE: Python, the TypeScript SDK's example, Java; go-sdk and mcp-go have those above.
    _dialect(r"could not find session", 400, 404, id_sent=True),
    _dialect(r"no transport found for session", 400, 404, id_sent=True),
    _dialect(r"no such session", 400, 404, id_sent=True),
    _dialect(r"session (?:has |is )?expired", 404, id_sent=True),
    _dialect(r"session (?:does not|doesn't|no longer) exists?", 400, 404, id_sent=True),
    # Python <= 1.25, TypeScript servers after the official example, FastMCP-TS (401 with auth), supergateway.
    _dialect(r"no valid session id provided", 400, 401, 404, id_sent=None),
    _dialect(r"no valid session\. send an initialize request first", 400, id_sent=None),
    # TypeScript, Playwright, Swift: a fresh process that never saw this session's initialize; then rmcp.
    _dialect(r"(?:server|session) not initialized", 400, 422, id_sent=None),
    _dialect(r"unexpected message, expect initialize request", 400, 422, id_sent=None),
    # Any: the server wants an id where it had issued none. Python, TypeScript, Java, Ruby, Swift, C#.
    _dialect(r"missing (?:mcp-)?session[- ]id", 400, id_sent=False),
    _dialect(r"(?:mcp-)?session[- ]id (?:header )?(?:is )?(?:required|missing)", 400, id_sent=False),
    _dialect(r"a new session can only be created by an initialize request", 400, id_sent=False),
)

# Where a dialect's words stand: at the start of the error's message, or of the body or a string in it,
# after at most a label. Anywhere else they may be a quotation of what the client sent.
_AT_START: Final = (
    r'(?:\A|(?<!\\)")\s*(?:(?:bad request|not found|unauthorized|forbidden|gone|unprocessable entity'
    r"|service unavailable|error): ?)?(?:(?:the|this|your) )?(?:mcp )?"
)


@cache
def _says_it_is_gone(status: int, sent_session_id: bool) -> re.Pattern[str] | None:
    """All dialects of this status, with or without an id; None if there are none."""
    # 410 says of something that was there what 404 says of anything.
    status = 404 if status == 410 else status
    texts = [
        dialect.text
        for dialect in _DIALECTS
        if status in dialect.statuses and dialect.id_sent in (None, sent_session_id)
    ]
    return re.compile(f"{_AT_START}(?:{'|'.join(texts)})", re.IGNORECASE) if texts else None


_NEVER: Final = re.compile(
    r"unsupported protocol version|duplicate in-flight request id|(?:server|session) already initialized"
    r"|too many open sessions|maximum concurrent sessions",
    re.IGNORECASE,
)
_LOOKS_LIKE_IT: Final = re.compile(r"session|not initialized|initialize first", re.IGNORECASE)
# With all others, a session that does not exist is the less usual meaning, or none.
_USUAL_STATUSES: Final = frozenset({400, 401, 404, 410, 422})
_OVERLOADED: Final = 503
_NOT_FOUND_STATUSES: Final = frozenset({404, 410})
_SAYS_IT_IS_NOT_THERE: Final = re.compile(
    _AT_START + r"(?:(?:no such|unknown|invalid|expired|no (?:valid|active)|(?:could not|cannot) find)"
    r" session"
    r"|session(?: id)?(?:[ :]+[\"']?[\w.-]{4,}[\"']?)? (?:has been |has |is |was )?"
    r"(?:expired|unknown|invalid|terminated|closed|ended|deleted|removed|gone|lost|timed out|not found"
    r"|does not exist|doesn't exist|no longer (?:exists|valid|active)))",
    re.IGNORECASE,
)
# Of those words, what is said of a session that was not there before the request.
_WAS_NOT_THERE: Final = re.compile(
    r"no such|unknown|no (?:valid|active)|not find|cannot find|not found|(?:does not|doesn't) exist",
    re.IGNORECASE,
)
_ABOUT_LOGIN: Final = re.compile(
    r"log ?in|sign ?in|authenti|authori[sz]ation|token|credential|cookie", re.IGNORECASE
)
_HARMLESS_ON_GET: Final = frozenset({400, 409})
# Seen in the wild: 200 with {"error": "Session not found"}, in JSON or as an SSE event's data.
_BARE_ERROR: Final = re.compile(rb'(?:\A|^data:)\s*\{\s*"error"\s*:\s*"([^"\\]{0,200})', re.MULTILINE)


def judge(reply: Evidence) -> Verdict:
    """Whether a reply shows that its session is gone.

    ``GONE`` also promises that the request was rejected unexecuted, so it may be sent again.
    """
    if reply.status == 200:
        return _judge_success(reply)
    if reply.status < 400 or (reply.verb == "GET" and reply.status in _HARMLESS_ON_GET):
        return Verdict.ALIVE
    text = _read_text(reply)
    if _NEVER.search(text):
        return Verdict.ALIVE
    is_usual = reply.status in _USUAL_STATUSES
    if not is_usual and reply.verb == "POST" and _says_it_is_not_there(reply.status, text):
        return Verdict.SUSPECT
    # Without those words it is about the caller (403), who is told; another caller's session may live on.
    if not is_usual and reply.status != _OVERLOADED:
        return Verdict.ALIVE
    if reply.verb == "POST" and _is_known_dialect(reply, text):
        return Verdict.GONE
    if _LOOKS_LIKE_IT.search(text) or _is_bare_not_found(reply):
        return Verdict.SUSPECT
    return Verdict.ALIVE


def confirms_loss(ping: Evidence) -> bool:
    """Whether the reply to the ping that followed a suspicion shows that the session is gone.

    A refusal that is about the credential (401, 403), the load (503) or whatever else says nothing about the
    session, unless it says in so many words that there is none.
    """
    verdict = judge(ping)
    if verdict is not Verdict.SUSPECT or ping.status == 401:
        return verdict is Verdict.GONE
    if ping.status in _USUAL_STATUSES or ping.status == 200:
        return True
    return _says_it_is_not_there(ping.status, _read_text(ping))


def _says_it_is_not_there(status: int, text: str) -> bool:
    found = _SAYS_IT_IS_NOT_THERE.search(text)
    if found is None or _ABOUT_LOGIN.search(text) is not None:
        return False
    # C# says "Session not found", with 403, of a session that is another caller's.
    if status == 403:
        return not found[0].lower().endswith("not found")
    return status < 500 or status == _OVERLOADED or _WAS_NOT_THERE.search(found[0]) is not None


def judge_error(error: ErrorObject) -> Verdict:
    """The same of a JSON-RPC error that came as any other answer does, whatever carried it.

    At most a suspicion: the error may be a tool's own, about sessions of quite another kind.
    """
    return _judge_words(error.message)


def _judge_words(text: str) -> Verdict:
    if _NEVER.search(text):
        return Verdict.ALIVE
    return Verdict.SUSPECT if _LOOKS_LIKE_IT.search(text) else Verdict.ALIVE


def _judge_success(reply: Evidence) -> Verdict:
    if reply.error is not None:
        return judge_error(reply.error)
    if (bare := _BARE_ERROR.search(reply.body[:_MAX_TEXT_BYTES])) is not None:
        return _judge_words(bare[1].decode("utf-8", "replace"))
    return Verdict.ALIVE


def _read_text(reply: Evidence) -> str:
    """What the server said: the JSON-RPC error's message, or the body where there is none."""
    if _has_rpc_message(reply.error):
        return reply.error.message
    return reply.body[:_MAX_TEXT_BYTES].decode("utf-8", "replace")


def _has_rpc_message(error: ErrorObject | None) -> TypeGuard[ErrorObject]:
    """A code of 0 is not JSON-RPC's: such a body is a gateway's, and may say more beside its "error"."""
    return error is not None and error.code != 0 and error.message != ""


def _is_known_dialect(reply: Evidence, text: str) -> bool:
    pattern = _says_it_is_gone(reply.status, reply.sent_session_id)
    if pattern is None:
        return False
    # A message is the server's own words, so a dialect's must begin it. A body may be JSON around them, and
    # any of its strings may begin so.
    if _has_rpc_message(reply.error):
        return pattern.match(text) is not None
    return pattern.search(text) is not None


def _is_bare_not_found(reply: Evidence) -> bool:
    """A 404 or 410 that may mean the session: not when no id was sent, not when it means the method."""
    if reply.status not in _NOT_FOUND_STATUSES or not reply.sent_session_id:
        return False
    return reply.error is None or reply.error.code != METHOD_NOT_FOUND
