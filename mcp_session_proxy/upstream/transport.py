"""What a transport to the server does, and what can go wrong below the protocol.

Only Streamable HTTP exists so far; tests put others in its place.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from ..errors import UpstreamUnreachable
from ..protocol import revisions
from ..protocol.jsonrpc import Message, Notification, Request, Response
from .cookies import SessionCookies


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The headers and the raw query string of one request of a client's that travel upstream with it.

    ``reduced`` is the same with the headers that say who is calling, and no others; None where there are no
    others. They hold credentials: they stay in memory, and neither ``repr`` nor a log shows them.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    reduced: "Caller | None" = None

    @property
    def credentials(self) -> "Caller":
        """What travels with requests that the proxy sends by itself: nothing that belongs to one call."""
        return self if self.reduced is None else self.reduced

    def with_more(self, headers: Iterable[tuple[str, str]]) -> "Caller":
        """The same for one request that has more headers, which do not say who is calling."""
        return Caller(headers=(*self.headers, *headers), query=self.query, reduced=self.credentials)

    def __repr__(self) -> str:
        return "Caller()"


NOBODY: Final = Caller()


@dataclass(frozen=True, slots=True)
class SessionRef:
    """How a request names its session upstream: the server's id, if it gave one, and the version.

    ``cookies`` are those that the server has set on the session; with None, what it sets is not kept.
    """

    session_id: str | None
    version: str | None
    cookies: SessionCookies | None = field(default=None, repr=False, compare=False)
    headers: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """``headers`` say the same to the server, with each request."""
        pairs = ((revisions.SESSION_HEADER, self.session_id), (revisions.VERSION_HEADER, self.version))
        object.__setattr__(
            self, "headers", tuple((name, value) for name, value in pairs if value is not None)
        )


NO_SESSION: Final = SessionRef(None, None)


TOO_DEEP: Final = "The MCP server's answer is nested deeper than --max-json-depth allows."


class ConnectionLost(Exception):
    """The connection broke after the request was, or may have been, sent."""


class Reply(Protocol):
    """The server's answer to one POST or GET, from its HTTP status on."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def session_id(self) -> str | None:
        """The session id of a 2xx answer. Others may carry a throwaway id, which is not given."""
        ...

    @property
    def stray_session_id(self) -> str | None:
        """The session id of an answer outside 2xx: never to be used, but to be let go of."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether the body is an event stream."""
        ...

    @property
    def content_type(self) -> str | None:
        """The bare content type."""
        ...

    @property
    def last_event_id(self) -> str | None:
        """The newest event id of the stream, to resume it with."""
        ...

    @property
    def retry_seconds(self) -> float | None:
        """How long the stream asks to wait before it is resumed."""
        ...

    def explanation(self) -> Mapping[str, str]:
        """The headers that explain a refusal."""
        ...

    async def read(self) -> list[Message] | None:
        """The JSON-RPC messages that arrived next, possibly none; None at the end of the body.

        Raises:
            ConnectionLost: the body broke off.
            UpstreamTimeout: nothing came for too long.
        """
        ...

    async def text(self) -> bytes:
        """The beginning of a body that is not JSON-RPC: at most 64 KiB."""
        ...


async def first_response(
    reply: Reply, take: Callable[[Request | Notification], None] = lambda _: None
) -> Response | None:
    """The first response that a body brings. ``take`` gets what the server asks or tells before it."""
    while (messages := await reply.read()) is not None:
        for message in messages:
            if isinstance(message, Response):
                return message
            take(message)
    return None


class Transport(Protocol):
    """A way to the server. All methods raise UpstreamUnreachable when nothing was sent."""

    @property
    def silence_seconds(self) -> float:
        """How long a server that works on a request may say nothing."""
        ...

    def post(
        self, body: bytes, session: SessionRef, caller: Caller, *, silence_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """Send one message. The server may be silent for ``silence_seconds``, by default as for any request.

        Raises:
            UpstreamUnreachable: no connection: nothing was sent.
            ConnectionLost: it broke after that.
            UpstreamTimeout: no answer for too long.
        """
        ...

    def listen(
        self,
        session: SessionRef,
        caller: Caller,
        last_event_id: str | None,
        *,
        for_answer: bool = False,
    ) -> AbstractAsyncContextManager[Reply]:
        """Open the stream for messages of the server's own accord, or resume a broken one.

        With ``for_answer`` a response is to come on it, so that silence is bounded as in ``post``.
        """
        ...

    async def delete(self, session: SessionRef, caller: Caller) -> int:
        """End the session at the server; gives the HTTP status."""
        ...


class _Nowhere:
    """The transport of a session that has no server yet: nothing can be sent, nothing was."""

    silence_seconds = 0.0

    def post(self, *_: object, **__: object) -> AbstractAsyncContextManager[Reply]:
        """Nobody to send to."""
        raise UpstreamUnreachable("The session has no server.")

    listen = post

    async def delete(self, *_: object) -> int:
        """Nobody to say goodbye to."""
        raise UpstreamUnreachable("The session has no server.")


NOWHERE: Final = _Nowhere()
