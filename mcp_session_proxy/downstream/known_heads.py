"""Heads that come again on connections which carry the requests of many callers.

A connection keeps its newest one itself (``Connection.head``). Proxies in front send the requests of
thousands over a few connections: there each head differs from the one before, and to judge it anew, with a
hash over its credentials, costs a third of the whole call.
"""

from collections import OrderedDict
from collections.abc import Hashable

from aiohttp import web

from ..bounds import KNOWN_HEADS
from .connection import Connection
from .head import Head, without_length


class KnownHeads:
    """The newest of them. Two are the same if they are so byte for byte, but for the length of the body, and
    came from the same address by the same scheme, for servers are told of those.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[Hashable, Head] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, http: web.BaseRequest, connection: Connection) -> Head | None:
        """The head of an earlier request that is the same as this one's; it has become its connection's.

        Raises:
            TooManyConnections: its caller has too many.
        """
        if connection.head is None or not connection.carries_many:
            return None
        head = self._heads.get(_key(http, connection.head))
        if head is None:
            return None
        # Where it has to be judged anew, that is found out with it.
        if head.judged_by is not None:
            connection.sent_by(head.sender)
        connection.head = head
        return head

    def keep(self, http: web.BaseRequest, connection: Connection, head: Head, former: Head) -> None:
        """A connection has another head than its ``former`` one: where it carries many, it may come again."""
        if not connection.carries_many:
            return
        self._heads[_key(http, former)] = head
        if len(self._heads) > KNOWN_HEADS:
            self._heads.popitem(last=False)


def _key(http: web.BaseRequest, former: Head) -> Hashable:
    raw = without_length(http.raw_headers, former)
    return http.raw_path, http.version, raw, http.remote, http.scheme
