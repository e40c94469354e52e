"""What one server needs of us with modern requests: nothing, or that they are translated onto its sessions.

A server that does not speak the 2026-07-28 revision needs the translation. So does one that speaks both
revisions and keeps state in sessions on its legacy side: it would serve every modern request by itself, and
a client's state would be gone with each of them. Only a server that gives no sessions gets modern requests
as they are.

Both are asked when the first modern request comes, by the credentials of its caller and nothing else of it:
``server/discover``, and then a handshake, whose session is given back at once. The answers are believed for
some minutes, whatever they are, and forgotten when the server was away. Handshakes that happen anyway tell
the same without being asked.

A server's trouble, or what it has against one caller, settles nothing: that caller's request is translated,
and the next caller's asks again.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from ..aio import Tasks
from ..backoff import Backoff
from ..bounds import UNDECIDED_CALLERS
from ..errors import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    ProxyError,
    UpstreamTimeout,
)
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Response
from ..protocol.revisions import UpstreamEra
from .transport import Caller, Concern, ConnectionLost, Refused, Transport, first_response

_PROBE_SECONDS: Final = 10.0
_BELIEVED_SECONDS: Final = 300.0
_DOUBTED_SECONDS: Final = 10.0
# A server that does not answer at all is not asked for every request: each would wait as long.
_SILENT_SECONDS: Final = 60.0
# A caller whom it answers neither yes nor no a few times asks ever more seldom.
_PATIENT_QUESTIONS: Final = 3
_PAUSES: Final = Backoff(1.0, 60.0)

_ID: Final = b'"era"'
_META: Final = jsonrpc.write_object(
    {revisions.META_VERSION: jsonrpc.quote(revisions.FIRST_MODERN), revisions.META_CAPABILITIES: b"{}"}
)
_QUESTION: Final = jsonrpc.write_request(_ID, revisions.DISCOVER, jsonrpc.write_object({"_meta": _META}))
# What refusals of ``server/discover`` and ``initialize`` as such are about. The others are about the caller
# or the moment.
_REFUSES_DISCOVERY: Final = frozenset({Concern.MESSAGE, Concern.PLACE})
_REFUSES_HANDSHAKES: Final = _REFUSES_DISCOVERY | {Concern.FORM, Concern.METHOD}
# Codes that a server may answer anything with that went wrong.
_SAY_NOTHING: Final = frozenset({INTERNAL_ERROR, 0})
_SPEAKS_OF_SESSIONS: Final = re.compile(r"session|initiali[sz]e", re.IGNORECASE)
# Said by servers that do keep sessions, and can have no more of them.
_HAS_NO_ROOM: Final = re.compile(
    r"already initiali[sz]ed|too many (?:\w+ )?sessions|maximum (?:\w+ ){0,3}sessions|session limit",
    re.IGNORECASE,
)
_SPEAKS_OF_VERSIONS: Final = re.compile(r"protocol ?version", re.IGNORECASE)


class Finding(NamedTuple):
    """What is known of a server: whether it speaks modern and, if so, whether it keeps sessions besides."""

    modern: bool
    stateful: bool

    @property
    def passes(self) -> bool:
        """Whether modern requests go to the server as they are."""
        return self.modern and not self.stateful


class _Undecided(NamedTuple):
    """How often a caller has asked in vain, and when it may again."""

    questions: int
    pause_seconds: float
    pause_until: float


class EraProbe:
    """What is known of one server, and how to find out.

    ``rules`` is the operator's choice, and may be replaced at any time. ``keeps_sessions`` says whether a
    session with an id lives at the server now; ``tell`` is called with every new finding.
    """

    def __init__(
        self,
        transport: Transport,
        rules: UpstreamEra = UpstreamEra.AUTO,
        *,
        keeps_sessions: Callable[[], bool] = lambda: False,
        tell: Callable[[Finding], None] = lambda _: None,
    ) -> None:
        self.rules = rules
        self._transport = transport
        self._keeps_sessions = keeps_sessions
        self._tell = tell
        self._finding: Finding | None = None
        self._told: Finding | None = None
        self._believed_until = 0.0
        self._silent_until = 0.0
        self._undecided: OrderedDict[str, _Undecided] = OrderedDict()
        self._asking: asyncio.Task[None] | None = None
        self._goodbyes = Tasks()

    @property
    def finding(self) -> Finding | None:
        """What was found last, if it still counts."""
        return self._finding

    def forget(self) -> None:
        """The server was away: what comes back may be another one."""
        self._finding = None
        self._believed_until = self._silent_until = 0.0
        self._undecided.clear()

    def note_handshake(self, *, gave_id: bool) -> None:
        """A session of the pool's was opened, with an id or without."""
        if self._finding is not None and self._finding.modern and self._finding.stateful is not gave_id:
            self._settle(self._finding._replace(stateful=gave_id))

    def passes(self) -> bool | None:
        """Whether modern requests go to the server as they are; None where that has to be asked."""
        if self._transport.sessions_only:
            return False
        if self.rules is not UpstreamEra.AUTO:
            return self.rules is UpstreamEra.MODERN
        if self._finding is None or asyncio.get_running_loop().time() >= self._believed_until:
            return None
        return self._finding.passes

    async def ask(self, caller: Caller, asker: str) -> bool:
        """As ``passes``, by asking the server if need be. ``asker`` is whose credentials the caller holds.

        False, too, where the server gives no clear answer: the translation makes the best of it.
        """
        while self.passes() is None:
            # One that is over is not waited for: that would not let go of the loop, and nothing would change.
            if self._asking is not None and not self._asking.done():
                await asyncio.shield(self._asking)  # it may bring an answer that is good for everybody
            elif self._may_ask(asker):
                await asyncio.shield(self._begin(self._ask(caller, asker)))
                break
            else:
                return False
        return self.passes() is True

    def _begin(self, asking: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let it run to its end, whoever leaves meanwhile: cut short, it might leave a session behind."""
        self._asking = asyncio.get_running_loop().create_task(asking, name="era")
        return self._asking

    def _may_ask(self, asker: str) -> bool:
        now = asyncio.get_running_loop().time()
        undecided = self._undecided.get(asker)
        return now >= self._silent_until and (undecided is None or now >= undecided.pause_until)

    async def _ask(self, caller: Caller, asker: str) -> None:
        loop = asyncio.get_running_loop()
        # What was found before goes on counting for a moment if this brings nothing better.
        self._believed_until = loop.time() + _DOUBTED_SECONDS
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                finding = await self._find_out(caller)
        except (TimeoutError, UpstreamTimeout):
            self._silent_until = loop.time() + _SILENT_SECONDS
            return
        except (ProxyError, ConnectionLost):
            return  # what was asked did not arrive, or its answer did not
        if finding is None:
            self._pause(asker, loop.time())
            return
        self._believed_until = loop.time() + _BELIEVED_SECONDS
        self._undecided.clear()
        self._settle(finding)

    def _pause(self, asker: str, now: float) -> None:
        """This caller's question brought no clear answer: others may ask at once, this one after a while."""
        former = self._undecided.pop(asker, None)
        questions, pause_seconds = (
            (1, 0.0) if former is None else (former.questions + 1, former.pause_seconds)
        )
        if questions >= _PATIENT_QUESTIONS:
            pause_seconds = _PAUSES.after(pause_seconds)
        self._undecided[asker] = _Undecided(questions, pause_seconds, now + pause_seconds)
        if len(self._undecided) > UNDECIDED_CALLERS:
            self._undecided.popitem(last=False)

    def _settle(self, finding: Finding) -> None:
        # By what was told last: a server that comes back as it was is no news.
        if finding != self._told:
            self._tell(finding)
        self._finding = self._told = finding

    # -- the two questions -------------------------------------------------------------------------

    async def _find_out(self, caller: Caller) -> Finding | None:
        """Both answers, by one caller's credentials; None where one of them is neither yes nor no."""
        modern = await self._speaks_modern(caller)
        if not modern:
            # Its requests are translated whether it keeps sessions or not.
            return None if modern is None else Finding(modern=False, stateful=False)
        # A session that lives there is answer enough; a server that can have but one would refuse another.
        stateful = self._keeps_sessions() or await self._gives_sessions(caller)
        return None if stateful is None else Finding(modern=True, stateful=stateful)

    async def _speaks_modern(self, caller: Caller) -> bool | None:
        # As each modern request has to (MCP 2026-07-28, basic/transports/streamable-http).
        headers = (*caller.headers, (revisions.METHOD_HEADER, revisions.DISCOVER))
        routed = Caller(headers=headers, query=caller.query)
        return _read_discovery(await self._ask_once(_QUESTION, routed, revisions.FIRST_MODERN))

    async def _gives_sessions(self, caller: Caller) -> bool | None:
        """Whether a handshake, of whatever version the server wants, is answered with a session id."""
        for version in reversed(revisions.LEGACY_VERSIONS):
            gives = _read_handshake(await self._ask_once(_handshake(version), caller))
            if not isinstance(gives, _OtherVersion):
                return gives
        return False

    async def _ask_once(self, body: bytes, caller: Caller, version: str | None = None) -> "_Said | None":
        """Ask, and give back the session that was opened by it; some servers do that even as they refuse."""
        channel = self._transport.connect()
        if version is not None:
            channel.agree(version)
        try:
            async with channel.open(body, caller, _ID, silence_seconds=channel.silence_seconds) as reply:
                response = await first_response(reply)
                return None if response is None else _read(response, opened=channel.session_id is not None)
        except Refused as refused:
            return _read_refusal(refused)
        finally:
            # In a task, so that nobody has to wait for it.
            self._goodbyes.spawn(channel.close(caller), "era goodbye")


class _OtherVersion:
    """The server wants a handshake with another version."""


def _handshake(version: str) -> bytes:
    """An ``initialize`` of a client that can do nothing."""
    params = {
        "protocolVersion": jsonrpc.quote(version),
        "capabilities": b"{}",
        "clientInfo": jsonrpc.write_object({"name": b'"mcp-session-proxy"', "version": b'"0"'}),
    }
    return jsonrpc.write_request(_ID, revisions.INITIALIZE, jsonrpc.write_object(params))


class _Said(NamedTuple):
    """What a server answered: a result, or an error in JSON-RPC and its text, or a refusal's text.

    ``concern`` is what a refusal is about; None where there was none. ``opened``: there is a session now.
    """

    result: bytes | None = None
    raw_error: bytes | None = None
    code: int = 0
    text: str = ""
    concern: Concern | None = None
    opened: bool = False


def _read(response: Response, *, opened: bool = False, concern: Concern | None = None) -> _Said | None:
    if response.result is not None:
        return _Said(response.result, concern=concern, opened=opened)
    if response.error is not None and response.error[:1] == b"{":  # {"error": "..."} is not JSON-RPC's
        error = jsonrpc.read_error(response.error)
        return _Said(None, response.error, error.code, error.message, concern)
    return None


def _read_refusal(refused: Refused) -> _Said | None:
    """None for one without words, and for a page of whatever stands before the server."""
    response = refused.response
    if response is not None and (said := _read(response, concern=refused.concern)) is not None:
        return said
    if not refused.words or refused.is_page:
        return None
    return _Said(text=refused.words.decode("utf-8", "replace"), concern=refused.concern)


def _read_discovery(said: _Said | None) -> bool | None:
    """Whether this says that modern requests are understood."""
    if said is None or not (said.concern is None or said.concern in _REFUSES_DISCOVERY):
        return None
    if said.result is not None:
        return revisions.FIRST_MODERN in _strings(jsonrpc.read_object(said.result).get("supportedVersions"))
    # Only modern servers have these codes, whatever they have against the question.
    if said.code in (HEADER_MISMATCH, MISSING_CAPABILITY):
        return True
    # Legacy servers want a handshake first, or another version, and say so.
    if _SPEAKS_OF_SESSIONS.search(said.text) or _SPEAKS_OF_VERSIONS.search(said.text):
        return False
    return None if said.code in _SAY_NOTHING else False


def _read_handshake(said: _Said | None) -> bool | _OtherVersion | None:
    """Whether this says that the server keeps sessions."""
    if said is None or not (said.concern is None or said.concern in _REFUSES_HANDSHAKES):
        return None
    if said.result is not None:
        return said.opened
    # A server that refuses one session more has some.
    if _HAS_NO_ROOM.search(said.text):
        return True
    # Parameters that are called invalid are ours but for the version, as in a real handshake.
    if said.code in (UNSUPPORTED_VERSION, INVALID_PARAMS) or _SPEAKS_OF_VERSIONS.search(said.text):
        data = jsonrpc.read_object(jsonrpc.read_object(said.raw_error).get("data"))
        named = _strings(data.get("supported"))
        return _OtherVersion() if not named or named & set(revisions.LEGACY_VERSIONS) else False
    return None if said.raw_error is not None and said.code in _SAY_NOTHING else False


def _strings(raw: bytes | None) -> set[str | None]:
    """The strings in a raw JSON list."""
    return {jsonrpc.read_string(item) for item in jsonrpc.read_array(raw or b"")}
