"""``initialize``, in a version that the server takes.

Where the version is the proxy's own choice (for requests without a session, and for modern ones), a server
that refuses it is asked again with one that it names, or else with the others that are known, newest first.
A client's own version is never changed.

MCP 2025-11-25: basic/lifecycle, "Initialization" and "Version Negotiation".
"""

import re
from collections.abc import Callable
from typing import Final

from ..errors import (
    INVALID_PARAMS,
    UNSUPPORTED_VERSION,
    HandshakeRefused,
    ProxyError,
    UpstreamProtocolError,
    UpstreamRejected,
)
from ..protocol import jsonrpc, revisions
from ..protocol.jsonrpc import Notification, Request
from .cookies import SessionCookies
from .refusal import read_refusal
from .transport import NO_SESSION, TOO_DEEP, Caller, ConnectionLost, SessionRef, Transport, first_response

_GOODBYES: Final = 2
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]{1,64}")
_NEWEST_FIRST: Final = tuple(reversed(revisions.LEGACY_VERSIONS))
# Refusals that are about the caller, the place or the moment, whatever words they use.
_OTHER_STATUSES: Final = frozenset({401, 403, 404, 405, 407, 408, 429})
_SPEAKS_OF_VERSIONS: Final = re.compile(rb'version|"supported', re.IGNORECASE)
_MAX_SHOWN_CHARS: Final = 40


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
    it says beside its answer; ``stands`` is told what there is at the server from that moment on, to be ended
    if the handshake fails. All methods raise ``UpstreamError`` and ``ConnectionLost``.
    """

    def __init__(
        self,
        transport: Transport,
        caller: Caller,
        *,
        allocate: Callable[[], int],
        take: Callable[[Request | Notification], None],
        stands: Callable[[SessionRef], None],
        silence_seconds: float,
    ) -> None:
        self._transport = transport
        self._caller = caller
        self._allocate = allocate
        self._take = take
        self._stands = stands
        self._ref = NO_SESSION
        self._silence_seconds = silence_seconds

    def _stand(self, ref: SessionRef) -> None:
        self._ref = ref
        self._stands(ref)

    async def initialize(self, params: bytes) -> bytes:
        """The result of ``initialize`` with a client's own parameters, raw."""
        body = jsonrpc.write_request(b"%d" % self._allocate(), revisions.INITIALIZE, params)
        cookies = SessionCookies()
        async with self._transport.post(
            body, SessionRef(None, None, cookies), self._caller, silence_seconds=self._silence_seconds
        ) as reply:
            if not 200 <= reply.status < 300:
                raise (await read_refusal(reply)).error()
            # The session stands from here on, even if the rest of the answer never comes.
            self._stand(SessionRef(reply.session_id, None, cookies))
            answer = await first_response(reply, self._take)
            if answer is None:
                raise UpstreamProtocolError("The MCP server did not answer the handshake in JSON-RPC.")
            if answer.error is not None:
                code = jsonrpc.read_error(answer.error).code
                raise HandshakeRefused(jsonrpc.error_object(answer.error), code)
            if answer.result is None:
                raise UpstreamProtocolError(TOO_DEEP)
            version = _version_of(answer.result)
            if version is not None and _HEADER_SAFE.fullmatch(version):
                self._stand(SessionRef(reply.session_id, version, cookies))
            return answer.result

    async def initialize_in(self, versions: Versions, params: bytes) -> bytes:
        """The same in whichever version the server takes, each asked for once at most.

        Raises:
            UpstreamProtocolError: it goes on in a version that nobody here knows.
        """
        first_refusal: ProxyError | None = None
        untried = versions.in_order()
        while untried:
            version = untried.pop(0)
            try:
                result = await self.initialize(
                    jsonrpc.replace_members(params, {"protocolVersion": jsonrpc.quote(version)})
                )
            except (UpstreamRejected, HandshakeRefused) as refusal:
                if not _is_about_the_version(refusal):
                    raise
                first_refusal = first_refusal or refusal
                named = refusal.words
                untried.sort(key=lambda each: each.encode() not in named)
                await say_goodbye(self._transport, self._ref, self._caller.credentials)
                self._stand(NO_SESSION)
                continue
            _check_version(result)
            versions.note(version)
            return result
        assert first_refusal is not None
        raise first_refusal


async def say_goodbye(transport: Transport, session: SessionRef, credentials: Caller) -> None:
    """DELETE a session at the server, which may not offer that (405) or be gone: no matter."""
    if session.session_id is None:
        return
    for _ in range(_GOODBYES):
        try:
            await transport.delete(session, credentials)
        except (ConnectionLost, TimeoutError):
            continue  # it may not have arrived, and a second one does no harm
        except ProxyError:
            return
        return


def _is_about_the_version(refusal: UpstreamRejected | HandshakeRefused) -> bool:
    """Whether another version may help.

    Parameters that are called invalid are ours but for the version, so that is what may be wrong with them;
    and of a refusal without any words nothing better is known.
    """
    if isinstance(refusal, HandshakeRefused):
        code = refusal.upstream_code
    else:
        code = jsonrpc.read_error(refusal.raw_error or b"{}").code
        if not 400 <= refusal.upstream_status < 500 or refusal.upstream_status in _OTHER_STATUSES:
            return code == UNSUPPORTED_VERSION
    if code in (UNSUPPORTED_VERSION, INVALID_PARAMS):
        return True
    words = refusal.words
    return not words or _SPEAKS_OF_VERSIONS.search(words) is not None


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
