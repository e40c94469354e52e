"""GET streams that are opened under an id before anything else is known of it.

Platforms that bring an id of their own may open the stream first, and after a restart clients re-open theirs.
Such a stream stands and waits: it joins its client session when that begins, by a POST. Until then there is
nothing of it but the connection itself, so a stranger who opens many displaces nobody.
"""

from ..sessions.binding import Binder
from ..sessions.client import ClientSession
from ..sessions.identity import Principal
from ..sessions.mailbox import Mailbox
from ..upstream.transport import Caller
from .delivery import Delivery


class EarlyStreams:
    """The streams that wait for their client session, by principal and id."""

    def __init__(self, *, binder: Binder, delivery: Delivery) -> None:
        self._binder = binder
        self._delivery = delivery
        self._waiting: dict[str, dict[str, EarlyStream]] = {}  # by principal and id

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def open(self, principal: Principal, identifier: str, caller: Caller) -> "EarlyStream | None":
        """A stream under an unknown id; ``close`` it when it is over. A second one takes over.

        None if the principal has as many as it may have client sessions.
        """
        own = self._waiting.setdefault(principal.digest, {})
        early = own.get(identifier)
        if early is None:
            if len(own) >= self._binder.directory.rules.max_sessions_per_principal:
                return None
            mailbox = self._delivery.make_mailbox(principal, identifier)
            early = own[identifier] = EarlyStream(principal, identifier, caller, mailbox)
        early.streams += 1
        return early

    def close(self, early: "EarlyStream") -> None:
        """One of its streams is over."""
        early.streams -= 1
        if early.client is not None:
            self._binder.stream_closed(early.client)
        elif not early.streams:
            self._take(early.principal, early.identifier)

    def _take(self, principal: Principal, identifier: str) -> "EarlyStream | None":
        own = self._waiting.get(principal.digest, {})
        early = own.pop(identifier, None)
        if early is not None and not own:
            del self._waiting[principal.digest]
        return early

    def end_of(self, principal: str) -> None:
        """End those of one principal gracefully: another process goes on with what is its."""
        for early in self._waiting.get(principal, {}).values():
            early.mailbox.part()

    def end(self) -> None:
        """End all of them gracefully (the proxy is shutting down)."""
        for principal in self._waiting:
            self.end_of(principal)

    def arrived(self, client: ClientSession) -> None:
        """A client session has begun: what waits for it joins it."""
        early = self._take(client.principal, client.id)
        if early is None:
            return
        early.client = client
        # Its streams follow this mailbox already, so it is the client session's before they count.
        self._delivery.take_mailbox(client, early.mailbox)
        for _ in range(early.streams):
            self._binder.stream_opened(client, early.caller)


class EarlyStream:
    """What waits under one id: ``mailbox`` is that of its client session once there is one."""

    __slots__ = ("caller", "client", "identifier", "mailbox", "principal", "streams")

    def __init__(self, principal: Principal, identifier: str, caller: Caller, mailbox: Mailbox) -> None:
        self.principal = principal
        self.identifier = identifier
        self.caller = caller
        self.mailbox = mailbox
        self.streams = 0
        self.client: ClientSession | None = None
