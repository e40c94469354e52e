"""``initialize``, in a version that the server takes.

Where the version is the proxy's own choice (for requests without a session, and for modern ones), a server
that refuses it is asked again with one that it names, or else with the others that are known, newest first.
A client's own version is never changed.

MCP 2025-11-25: basic/lifecycle, "Initialization" and "Version Negotiation".
"""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Final

from ..bounds import INITIALIZE_RESULT_BYTES
from ..errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    UNSUPPORTED_VERSION,
    HandshakeRefused,
    ProxyError,
    UpstreamProtocolError,
)
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Notification, Request
from .transport import TOO_DEEP, Caller, Channel, Concern, Refused, Transport, first_response

_NEWEST_FIRST: Final = tuple(reversed(revisions.LEGACY_VERSIONS))
# What refusals are about that may be about the version. The others are about the caller, the place or the
# moment, whatever words they use.
_MAY_MEAN_THE_VERSION: Final = frozenset({Concern.MESSAGE, Concern.FORM, Concern.UNCLEAR})
_SPEAKS_OF_VERSIONS: Final = re.compile(rb'version|"supported', re.IGNORECASE)
_MAX_SHOWN_CHARS: Final = 40
# Of the versions that a server names, so many are looked at.
_MAX_NAMED: Final = 100


class Versions:
    """Which version a server wants of those that the proxy may choose, as far as it has shown."""

    def __init__(self) -> None:
        self._accepted: str | None = None

    def forget(self) -> None:
        """The server was away: what comes back may be another one."""
        self._accepted = None

    def note(self, accepted: str) -> None:
        """A handshake with this version was accepted."""
        self._accepted = accepted

    def in_order(self) -> list[str]:
        """All that are known: the one that it accepted last, then the newest first."""
        return sorted(_NEWEST_FIRST, key=lambda version: version != self._accepted)


class Handshake:
    """One try to open a session.

    ``allocate`` gives ids for requests; the server may be silent for ``silence_seconds``. ``take`` gets what
    it says beside its answer; ``stands`` is told of the channel on which the server has opened a session, to
    be closed by whoever was told if the handshake fails, and of None once that is closed again. All methods
    raise ``UpstreamError`` and ``ConnectionLost``.
    """

    def __init__(
        self,
        transport: Transport,
        caller: Caller,
        *,
        allocate: Callable[[], int],
        take: Callable[[Request | Notification], None],
        stands: Callable[[Channel | None], None],
        silence_seconds: float,
    ) -> None:
        self._transport = transport
        self._caller = caller
        self._allocate = allocate
        self._take = take
        self._stands = stands
        self._silence_seconds = silence_seconds
        self._standing: Channel | None = None

    def _stand(self, channel: Channel | None) -> None:
        self._standing = channel
        self._stands(channel)

    async def initialize(self, params: bytes) -> bytes:
        """The result of ``initialize`` with a client's own parameters, raw."""
        try:
            return await self._initialize(params)
        except Refused as refused:
            raise refused.error from refused

    async def _initialize(self, params: bytes) -> bytes:
        """The same. Raises Refused, too."""
        try:
            return await self._initialize_on(self._transport.connect(), params)
        except Refused as refused:
            # It may have been the wrong way of asking.
            channel = await self._transport.reconsider(refused, self._caller)
            if channel is None:
                raise
            if self._standing is not None:
                await self._standing.close(self._caller.credentials)
                self._stand(None)
        return await self._initialize_on(channel, params)

    async def _initialize_on(self, channel: Channel, params: bytes) -> bytes:
        identifier = b"%d" % self._allocate()
        body = jsonrpc.write_request(identifier, revisions.INITIALIZE, params)
        async with channel.open(
            body, self._caller, identifier, silence_seconds=self._silence_seconds
        ) as reply:
            # The session stands from here on, even if the rest of the answer never comes.
            self._stand(channel)
            answer = await first_response(reply, self._take)
        if answer is None:
            raise UpstreamProtocolError("The MCP server did not answer the handshake in JSON-RPC.")
        if answer.error is not None:
            code = jsonrpc.read_error(answer.error).code
            raise HandshakeRefused(jsonrpc.error_object(answer.error), code)
        # A response with neither was one whose content could not be read.
        if answer.result is None:
            raise UpstreamProtocolError(TOO_DEEP)
        if len(answer.result) > INITIALIZE_RESULT_BYTES:  # it is kept for as long as the session lives
            raise UpstreamProtocolError(
                f"The MCP server's answer to the handshake has more than {INITIALIZE_RESULT_BYTES} bytes."
            )
        version = _version_of(answer.result)
        if version is not None:
            channel.agree(version)
        return answer.result

    async def initialize_in(self, versions: Versions, params: bytes) -> bytes:
        """The same in whichever version the server takes, each asked for once at most.

        Raises:
            UpstreamProtocolError: it goes on in a version that nobody here knows.
        """
        first_error: ProxyError | None = None
        untried = versions.in_order()
        while untried:
            version = untried.pop(0)
            try:
                result = await self._initialize(
                    jsonrpc.replace_members(params, {"protocolVersion": jsonrpc.quote(version)})
                )
            except (Refused, HandshakeRefused) as refusal:
                error = refusal.error if isinstance(refusal, Refused) else refusal
                if not _is_about_the_version(refusal) or _knows_no_handshake(refusal):
                    raise error from refusal
                first_error = first_error or error
                named = refusal.words
                # A stable order: the newest of those that it names is next, then the newest of the others.
                untried.sort(key=lambda each: each.encode() not in named)
                # Some servers make a session even for what they refuse.
                if self._standing is not None:
                    await self._standing.close(self._caller.credentials)
                    self._stand(None)
                continue
            # It is us who have to understand it; a client that chose its own version may know more.
            _check_version(result)
            versions.note(version)
            return result
        assert first_error is not None
        raise first_error


async def open_and_close(
    transport: Transport,
    caller: Caller,
    begin: Callable[[Handshake], Awaitable[bytes]],
    *,
    timeout_seconds: float,
    is_somebodys: Callable[[Channel], bool],
) -> Channel:
    """What a handshake opens for nothing but to see that it can be opened; it is ended at once.

    ``begin`` says with which parameters. Servers that keep one session for each user give the id of one that
    stands already: where ``is_somebodys`` says so, it is not ended.

    Raises:
        UpstreamError, ConnectionLost: as ``Handshake``.
        TimeoutError: it took longer than this.
    """
    numbers = itertools.count(1)
    opened: Channel | None = None

    def stands(channel: Channel | None) -> None:
        nonlocal opened
        opened = channel

    handshake = Handshake(
        transport,
        caller,
        allocate=lambda: next(numbers),
        take=lambda _: None,
        stands=stands,
        silence_seconds=timeout_seconds,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            await begin(handshake)
    finally:
        # Also after a failure: a server may have opened a session before the rest went wrong.
        if opened is not None and not is_somebodys(opened):
            await opened.close(caller)
    assert opened is not None
    return opened


def _is_about_the_version(refusal: Refused | HandshakeRefused) -> bool:
    """Whether another version may help.

    Parameters that are called invalid are ours but for the version, so that is what may be wrong with them;
    and of a refusal without any words nothing better is known.
    """
    if isinstance(refusal, HandshakeRefused):
        code = refusal.upstream_code
    else:
        code = refusal.code
        # An error in JSON-RPC means what it says, whatever status it came with; but that it has failed, a
        # server says in any words.
        is_an_answer = refusal.is_an_answer and code != INTERNAL_ERROR
        if refusal.concern not in _MAY_MEAN_THE_VERSION and not is_an_answer:
            return code == UNSUPPORTED_VERSION
    if code in (UNSUPPORTED_VERSION, INVALID_PARAMS):
        return True
    words = refusal.words
    return not words or _SPEAKS_OF_VERSIONS.search(words) is not None


def _knows_no_handshake(refusal: Refused | HandshakeRefused) -> bool:
    """Whether a server says that it speaks only versions that have no ``initialize``: none of ours helps.

    MCP 2026-07-28, basic/versioning, "Backward Compatibility with Initialization-Based Versions": it names
    its versions in whatever error it answers with, or misses what each request of those has.
    """
    if isinstance(refusal, HandshakeRefused):
        raw_error: bytes | None = refusal.raw_error
    else:
        raw_error = None if refusal.response is None else refusal.response.error
    if raw_error is None:
        return False
    data = jsonrpc.read_object(jsonrpc.read_object(raw_error).get("data"))
    listed = jsonrpc.read_array(data.get("supported") or data.get("supportedVersions") or b"")
    named = {jsonrpc.read_string(item) for item in listed[:_MAX_NAMED]}
    if named.isdisjoint(revisions.MODERN_VERSIONS):
        return revisions.META_VERSION.encode() in refusal.words
    return named.isdisjoint(revisions.LEGACY_VERSIONS)


def _version_of(result: bytes) -> str | None:
    return jsonrpc.read_string(jsonrpc.read_object(result).get("protocolVersion"))


def _check_version(result: bytes) -> None:
    """Refuse a version that nobody here knows. Servers that name none take what they were asked for."""
    if "protocolVersion" not in jsonrpc.read_object(result):
        return
    version = _version_of(result)
    if version not in revisions.LEGACY_VERSIONS:
        shown = "something else" if version is None else repr(version[:_MAX_SHOWN_CHARS])
        raise UpstreamProtocolError(
            f"The MCP server goes on in a protocol version that nobody here knows ({shown}). "
            f"It was offered {', '.join(_NEWEST_FIRST)}."
        )
