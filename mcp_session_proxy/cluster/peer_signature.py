"""Requests between members are signed: by whom, for whom, when, and for once. Pure.

What a member sends to another one looks like this; the first field of the head signs everything else::

    POST /mcp HTTP/1.1
    Msp-Peer: v1 <member> <milliseconds since 1970> <number> <mac>
    Msp-To: <the member that it is for>
    Msp-Body: <a keyed hash of the body, or ->
    Msp-Client: <hops> <scheme> <connection> <address, or ->
    (the fields of the client's own head, as they came)
    Content-Length: ...

The mac is keyed BLAKE2b over the method, the target and every byte of the fields below it. A number is used
once; who receives keeps for each member which of the last ``PEER_WINDOW`` numbers it has seen, as IPsec does
(RFC 4303, section 3.4.3), and takes nothing whose time is ``PEER_SKEW_SECONDS`` away from its own. So what
must be remembered has a bound, and what is sent again is refused, also long afterwards. The address of the
receiver is not signed but its name is: what is caught on the way to one member is good for no other, nor for
the same one after a restart.
"""

import hmac
import itertools
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from ..bounds import PEER_CLIENTS, PEER_SENDERS, PEER_SKEW_SECONDS, PEER_WINDOW

PEER: Final = "Msp-Peer"
TO: Final = "Msp-To"
BODY: Final = "Msp-Body"
CLIENT: Final = "Msp-Client"
# In answers: who has the shard instead (421), and why a request is not believed (403).
OWNER: Final = "Msp-Owner"
REFUSED: Final = "Msp-Refused"
# In the place of a scheme: the request is the member's own, and no client's.
OWN_SCHEME: Final = "peer"

_VERSION: Final = b"v1"
_MAC_BYTES: Final = 32
_DIGEST_BYTES: Final = 16
_NOTHING: Final = "-"
_NAMES: Final = (PEER.encode(), TO.encode(), BODY.encode(), CLIENT.encode())
_NO_BODY: Final = _NOTHING.encode()
# How a signed head is written: formatted at once, for each request has one.
_CLAIM: Final = _VERSION + b" %b %d %d"
_SAID: Final = f"{TO}: %b\r\n{BODY}: %b\r\n%b%b".encode()
_HEAD: Final = f"%b HTTP/1.1\r\n{PEER}: %b %b\r\n%b\r\n\r\n".encode()
_CLAIM_WORDS: Final = 5
_SCHEMES: Final = ("http", "https", OWN_SCHEME)
_DECODING: Final = ("utf-8", "surrogateescape")
_DIGITS: Final = 19

RawFields = Sequence[tuple[bytes, bytes]]


class Disbelief(StrEnum):
    """Why a request is not taken for another member's. The word is told in an event."""

    UNSIGNED = "unsigned"  # or malformed
    OTHER_VERSION = "other-version"
    WRONG_MAC = "wrong-mac"  # another key, or changed on its way
    ITSELF = "itself"  # it is from the member that it has come to
    TOO_OLD = "too-old"  # held up on its way, or a clock is wrong
    TOO_NEW = "too-new"  # a clock is wrong
    REPLAYED = "replayed"
    UNKNOWN_MEMBER = "unknown-member"  # the store has no card of it
    WRONG_BODY = "wrong-body"


class NotBelieved(Exception):
    """A request is not taken for another member's. ``member`` is who it says it is from, if it says so."""

    def __init__(self, why: Disbelief, member: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.member = member


class PeerClient(NamedTuple):
    """The client whose request it is, as the member knows it that has it first hand.

    ``hops`` are the members that it has come through, ``connection`` tells the client's connection from all
    others of that member, and ``remote`` is the client's address; None of a unix socket.
    """

    hops: int
    scheme: str
    connection: int
    remote: str | None


class Signed(NamedTuple):
    """A request that is the member's who it says it is from, and for ``to``; ``key`` is what it goes by."""

    member: str
    to: str
    body: bytes
    client: PeerClient
    key: bytes

    def check_body(self, body: bytes) -> None:
        """Raises NotBelieved for another body than the one that was signed."""
        if not hmac.compare_digest(self.body, _digest(self.key, body)):
            raise NotBelieved(Disbelief.WRONG_BODY, self.member)


def write_client(client: PeerClient) -> bytes:
    """The field that tells of it, without the end of its line."""
    remote = client.remote or _NOTHING
    text = f"{CLIENT}: {client.hops} {client.scheme} {client.connection} {remote}"
    return text.encode(*_DECODING)


class Signer:
    """Signs what ``member`` sends, with the first of the ``keys``. ``now`` gives seconds since 1970."""

    def __init__(self, member: str, keys: Sequence[bytes], *, now: Callable[[], float]) -> None:
        self.member = member
        self._name = member.encode()
        self._key = keys[0]
        self._now = now
        self._numbers = itertools.count(1)

    def sign(self, to: str, start: bytes, fields: bytes, body: bytes) -> bytes:
        """A whole head. ``start`` is its first line without the version, ``fields`` begin with the client.

        It is to be sent at once: its time counts from now on.
        """
        key = self._key
        length = b"\r\nContent-Length: %d" % len(body) if body or start.startswith(b"POST") else b""
        said = _SAID % (to.encode(), _digest(key, body), fields, length)
        claim = _CLAIM % (self._name, int(self._now() * 1000), next(self._numbers))
        return _HEAD % (start, claim, _mac(key, claim, start, said), said)


class Judge:
    """Judges what comes to ``member``. Each of the ``keys`` is good, so that one can follow another."""

    def __init__(self, member: str, keys: Sequence[bytes], *, now: Callable[[], float]) -> None:
        self._member = member
        self._keys = keys
        self._now = now
        self._senders: dict[str, _Numbers] = {}

    def judge(self, method: str, target: str, raw: RawFields) -> Signed:
        """What a request was signed to be, by its head. Its body is judged when it has been read.

        Raises:
            NotBelieved: it is not from another member, or not now.
        """
        # Spelt exactly so: a member writes them no other way, and nobody between may.
        if len(raw) < 4 or (raw[0][0], raw[1][0], raw[2][0], raw[3][0]) != _NAMES:
            raise NotBelieved(Disbelief.UNSIGNED)
        claim = raw[0][1]
        words = claim.split(b" ")
        if words[0] != _VERSION:
            raise NotBelieved(Disbelief.OTHER_VERSION)
        if len(words) != _CLAIM_WORDS or not (_is_number(words[2]) and _is_number(words[3])):
            raise NotBelieved(Disbelief.UNSIGNED)
        _, name, milliseconds, number, mac = words
        member = name.decode(*_DECODING)
        said = b"\r\n".join(map(b": ".join, raw[1:]))
        start = f"{method} {target}".encode(*_DECODING)
        key = self._key_of(mac, claim[: -len(mac) - 1], start, said)
        if key is None:
            raise NotBelieved(Disbelief.WRONG_MAC, member)
        if member == self._member:
            raise NotBelieved(Disbelief.ITSELF, member)
        client = _read_client(raw[3][1])
        if client is None:
            raise NotBelieved(Disbelief.UNSIGNED, member)
        self._check_freshness(member, int(milliseconds), int(number))
        return Signed(member, raw[1][1].decode(*_DECODING), raw[2][1], client, key)

    def _key_of(self, mac: bytes, claim: bytes, start: bytes, said: bytes) -> bytes | None:
        for key in self._keys:
            if hmac.compare_digest(mac, _mac(key, claim, start, said)):
                return key
        return None

    def _check_freshness(self, member: str, milliseconds: int, number: int) -> None:
        late_seconds = self._now() - milliseconds / 1000
        if late_seconds > PEER_SKEW_SECONDS:
            raise NotBelieved(Disbelief.TOO_OLD, member)
        if late_seconds < -PEER_SKEW_SECONDS:
            raise NotBelieved(Disbelief.TOO_NEW, member)
        # The one that was heard of last is the last one: who is silent for longest is forgotten. By then all
        # that it ever sent is too old; members are not so many that one could be forgotten earlier.
        numbers = self._senders.pop(member, None) or _Numbers(number)
        self._senders[member] = numbers
        if len(self._senders) > PEER_SENDERS:
            del self._senders[next(iter(self._senders))]
        if not numbers.take(number):
            raise NotBelieved(Disbelief.REPLAYED, member)


class _Numbers:
    """Which numbers of one member were seen: a bit for each of the last ``PEER_WINDOW``, in a ring."""

    __slots__ = ("_bits", "_newest")

    def __init__(self, first: int) -> None:
        self._bits = bytearray(PEER_WINDOW // 8)
        self._newest = first

    def take(self, number: int) -> bool:
        """Whether it was not seen yet; from now on it was."""
        bits = self._bits
        if number == self._newest + 1:
            # Nearly always. What stood in its place in the ring was the one a whole window before.
            self._newest = number
            bits[number % PEER_WINDOW >> 3] |= 1 << (number & 7)
            return True
        if number > self._newest:
            self._forget(self._newest + 1, number)
            self._newest = number
        elif number <= self._newest - PEER_WINDOW:
            return False  # nobody knows any more
        place, bit = number % PEER_WINDOW >> 3, 1 << (number & 7)
        if bits[place] & bit:
            return False
        bits[place] |= bit
        return True

    def _forget(self, first: int, last: int) -> None:
        """The ring has gone on: these numbers stand where others stood."""
        if last - first >= PEER_WINDOW:
            self._bits = bytearray(PEER_WINDOW // 8)
            return
        number = first
        while number <= last:
            if number & 7 == 0 and last - number >= 7:
                self._bits[number % PEER_WINDOW >> 3] = 0
                number += 8
            else:
                self._bits[number % PEER_WINDOW >> 3] &= ~(1 << (number & 7))
                number += 1


def _mac(key: bytes, claim: bytes, start: bytes, said: bytes) -> bytes:
    # None of the parts has a NUL in it, so no two requests make the same text.
    text = b"\0".join((claim, start, said))
    return blake2b(text, key=key, digest_size=_MAC_BYTES).hexdigest().encode()


def _digest(key: bytes, body: bytes) -> bytes:
    return blake2b(body, key=key, digest_size=_DIGEST_BYTES).hexdigest().encode() if body else _NO_BODY


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= _DIGITS


# It is the same for all that a client sends on one connection.
@lru_cache(maxsize=PEER_CLIENTS)
def _read_client(value: bytes) -> PeerClient | None:
    words = value.split(b" ", 3)
    if len(words) != 4 or not (_is_number(words[0]) and _is_number(words[2])):
        return None
    scheme, remote = words[1].decode(*_DECODING), words[3].decode(*_DECODING)
    if scheme not in _SCHEMES:
        return None
    return PeerClient(int(words[0]), scheme, int(words[2]), None if remote == _NOTHING else remote)
