"""The other members, as this one talks to them: connections that are kept, and requests that are signed.

A request is written once, on one connection, and one of five things becomes of it::

    an answer           given from its head on; the caller closes it
    PeerRefused         nobody listens, or nobody has read it: nothing was done
    PeerUnreachable     no connection, or no trust: nothing was done
    PeerBroke           it was sent, and no answer has begun
    Misdirected         the member does not have the shard: nothing was done

Nothing here limits how long an answer to a client's request may take: the member that answers it does.
"""

import asyncio
import errno
import math
import ssl
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
from yarl import URL

from ..aio import Tasks
from ..bounds import (
    PEER_ANSWER_SECONDS,
    PEER_BODY_BYTES,
    PEER_CONNECT_SECONDS,
    PEER_KEPT_SECONDS,
    PEER_SILENCE_SECONDS,
)
from ..errors import UpstreamError, UpstreamUnreachable
from ..upstream.http.client import HttpClient
from ..upstream.http.dialing import Silence
from ..upstream.http.http1 import HttpAnswer, ServerConnection
from ..upstream.transport import ConnectionLost, NotTaken
from .card import Card
from .lease import LeaseAnswer
from .outcomes import Misdirected, PeerBroke, PeerFailure, PeerRefused, PeerUnreachable
from .peer_signature import OWN_SCHEME, OWNER, REFUSED, PeerClient, Signer, write_client

UNIX: Final = "unix:"
LEASE_PATH: Final = "/peer/lease"
# Whatever the answer is, it shows that the member is alive.
ALIVE_PATH: Final = "/peer/alive"
_MISDIRECTED: Final = 421
_FORBIDDEN: Final = 403
# HTTP/1.1 wants a host, whatever it is called.
_OWN: Final = write_client(PeerClient(0, OWN_SCHEME, 0, None)) + b"\r\nHost: peer"
# Probes notice a member that is cut off about as soon as one that is gone, however long calls take.
_SILENCE: Final = Silence(2, 1, 3, confirmed_seconds=PEER_SILENCE_SECONDS)
# Of a unix socket, and of a port: nobody is there, or nobody any more. A reset comes before anything is sent.
_NOBODY: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT})


class Peers:
    """Talks to other members in the name of ``member``. ``keys`` are what the cluster signs with, the newest
    first. ``tls`` is how members with an https URL are spoken to.
    """

    def __init__(self, member: str, keys: Sequence[bytes], *, tls: ssl.SSLContext | None = None) -> None:
        self._signer = Signer(member, keys, now=time.time)
        self._tls = tls
        self._ways: dict[str, _Ways] = {}
        self._members: Collection[str] = ()
        self._doubted: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()

    def __repr__(self) -> str:
        return f"<Peers { ({member: ways.clients for member, ways in self._ways.items()}) }>"

    async def send(self, card: Card, start: bytes, fields: bytes, body: bytes) -> HttpAnswer:
        """Send one request to a member; gives its answer from its head on, as the member wrote it.

        ``start`` is the method and the target, ``fields`` are all others of its head, its client first.

        Raises:
            PeerRefused, PeerUnreachable, PeerBroke, Misdirected: see above.
        """
        ways = self._ways.get(card.member)
        connection = None if ways is None else ways.take_idle()
        if connection is not None:
            try:
                return await self._ask(connection, card.member, start, fields, body)
            except NotTaken:
                pass  # the connection was kept for longer than the other end was there
        connection = await self._connect(card)
        try:
            return await self._ask(connection, card.member, start, fields, body)
        except NotTaken as error:
            raise PeerRefused("it has gone before it had read what it was sent") from error

    async def _ask(
        self, connection: ServerConnection, member: str, start: bytes, fields: bytes, body: bytes
    ) -> HttpAnswer:
        """Send one request on a connection; gives its answer from its head on.

        Raises:
            NotTaken: the other end has gone, and had certainly not read all of it.
            PeerUnreachable, PeerBroke, Misdirected: as ``send``.
        """
        answer = connection.ask(self._signer.sign(member, start, fields, body), body, math.inf)
        try:
            await answer.begin()
            if answer.status in (_MISDIRECTED, _FORBIDDEN):
                _check_trust(answer)
        except NotTaken:
            raise  # there is nothing left to close
        except (ConnectionLost, UpstreamError) as error:
            answer.close()
            raise PeerBroke(str(error)) from error
        except BaseException:
            answer.close()
            raise
        answer.keep_coded()
        return answer

    async def ask_lease(self, card: Card, member: str | None, shard: str | None) -> LeaseAnswer:
        """Ask a member what it knows of a shard, and, if a ``member`` is named, what the store says of that.

        Raises:
            PeerRefused, PeerUnreachable, PeerBroke, Misdirected: there is no answer within a second.
        """
        named = {"member": member, "shard": shard}
        query = urlencode({name: value for name, value in named.items() if value is not None})
        status, body = await self.ask(card, f"GET {LEASE_PATH}?{query}".encode(), b"")
        try:
            if status == 200:
                return msgspec.json.decode(body, type=LeaseAnswer)
        except msgspec.MsgspecError:
            pass
        raise PeerBroke(f"it does not understand what it is asked (HTTP {status})")

    async def ask(self, card: Card, start: bytes, body: bytes) -> tuple[int, bytes]:
        """Send a request of this member's own, not of a client; gives the status and the body of the answer.

        Raises:
            PeerRefused, PeerUnreachable, PeerBroke, Misdirected: there is no answer within a second.
        """
        try:
            async with asyncio.timeout(PEER_ANSWER_SECONDS):
                answer = await self.send(card, start, _OWN, body)
                try:
                    return answer.status, await answer.read_beginning(PEER_BODY_BYTES)
                finally:
                    answer.let_end()
        except TimeoutError as error:
            raise PeerBroke("no answer in time") from error

    def keep(self, members: Collection[str]) -> None:
        """Note which members there are. Connections to any other member are closed once it does not answer.

        As long as it answers, requests that are under way there go on: it may only have lost its way to the
        store.
        """
        self._members = members
        for member in [member for member in self._ways if member not in members]:
            if member not in self._doubted:
                self._doubted[member] = self._tasks.spawn(self._doubt(member), "doubted member")

    async def _doubt(self, member: str) -> None:
        """Close the connections to a member once it does not answer, or no request is under way there."""
        try:
            while member not in self._members and (ways := self._ways.get(member)) is not None:
                if ways.card is None or not ways.is_used or not await self._answers(ways.card):
                    self.drop(member)
                    return
                await asyncio.sleep(PEER_ANSWER_SECONDS)
        finally:
            self._doubted.pop(member, None)

    async def _answers(self, card: Card) -> bool:
        try:
            await self.ask(card, b"GET " + ALIVE_PATH.encode(), b"")
        except PeerFailure:
            return False
        return True

    def drop(self, member: str) -> None:
        """Close all connections to a member. Requests that are under way there fail with ``PeerBroke``."""
        ways = self._ways.pop(member, None)
        for client in () if ways is None else ways.clients.values():
            client.close()

    def close(self) -> None:
        """Cut all connections."""
        self._tasks.cancel()
        for member in list(self._ways):
            self.drop(member)

    # -- ways to a member ----------------------------------------------------------------------------

    async def _connect(self, card: Card) -> ServerConnection:
        """A new connection to a member, by the way that was good last, or else by the best that is.

        Raises:
            PeerRefused: nobody listens on any of its addresses.
            PeerUnreachable: there is no connection.
        """
        ways = self._ways.setdefault(card.member, _Ways())
        ways.card = card
        failure: UpstreamError | None = None
        refusals = 0
        addresses = sorted(card.addresses, key=lambda address: address != ways.best)
        for address in addresses:
            client = ways.clients.get(address) or self._open(ways, address)
            try:
                connection = await client.connect(PEER_CONNECT_SECONDS)
            except UpstreamError as error:
                failure = error
                refusals += _is_refusal(error)
                continue
            ways.best, ways.client = address, client
            return connection
        # The path of a unix socket on another machine is refused here, too. So one refusal alone shows
        # nothing.
        if addresses and refusals == len(addresses):
            raise PeerRefused(f"nobody listens on {', '.join(addresses)}") from failure
        raise PeerUnreachable(f"no connection to {', '.join(addresses) or 'no address'}") from failure

    def _open(self, ways: "_Ways", address: str) -> HttpClient:
        # Noted before anything is awaited, so that requests that come meanwhile use the same client.
        to = Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else URL(address)
        client = ways.clients[address] = HttpClient(
            to, self._tls, keep_seconds=PEER_KEPT_SECONDS, silence=_SILENCE
        )
        return client


class _Ways:
    """The connections to one member, by address; and which address was good last."""

    __slots__ = ("best", "card", "client", "clients")

    def __init__(self) -> None:
        self.clients: dict[str, HttpClient] = {}
        self.best: str | None = None
        self.client: HttpClient | None = None
        self.card: Card | None = None

    @property
    def is_used(self) -> bool:
        """Whether something is under way."""
        return any(client.in_use for client in self.clients.values())

    def take_idle(self) -> ServerConnection | None:
        """A connection that is open and unused; None if there is none."""
        client = self.client
        while client is not None and (connection := client.take_idle()) is not None:
            # Writing to a unix socket fails if the other end has closed it. Over a network it does not, and
            # then nobody would know what became of the request.
            if connection.is_local or not connection.was_left:
                return connection
            connection.cut()
        return None


def _is_refusal(error: UpstreamError) -> bool:
    """Whether there is no connection because nobody takes any there: the system says so, or the connection
    was closed before anything was sent on it, as at the end of a process that had not taken it yet.
    """
    cause = error.__cause__
    if cause is None:
        return isinstance(error, UpstreamUnreachable)
    return isinstance(cause, OSError) and cause.errno in _NOBODY


def _check_trust(answer: HttpAnswer) -> None:
    """See whether an answer with such a status is the other member's own, and not one that it passes on.

    Raises:
        Misdirected: it is its own, and it does not have the shard.
        PeerUnreachable: it is its own, and it does not trust this member.
    """
    owner, refused = answer.headers.get(OWNER), answer.headers.get(REFUSED)
    if answer.status == _MISDIRECTED and owner is not None:
        answer.let_end()
        raise Misdirected(owner or None)
    if answer.status == _FORBIDDEN and refused is not None:
        answer.let_end()
        raise PeerUnreachable(f"it does not believe us: {refused}")
