"""One HTTP request of a client: who sent it."""

from dataclasses import dataclass
from typing import NamedTuple

from multidict import CIMultiDictProxy

from ..sessions.client import ClientSession
from ..sessions.identity import Principal
from ..upstream.transport import Caller


class Sender(NamedTuple):
    """Who sent a request, by the headers that say so, and by the rules of that time.

    Most clients say the same with each request of a connection, so it is kept there for the next one.
    """

    headers: list[tuple[str, str]]
    query: str
    rules: object
    principal: Principal
    caller: Caller
    connection: int


@dataclass(slots=True)
class Call:
    """Who sent one HTTP request, over which connection, and on which client session.

    ``version_served``: the version that it names, if any, is one that a legacy request may name.
    """

    principal: Principal
    caller: Caller
    connection: int
    headers: CIMultiDictProxy[str]
    session_id: str | None
    version: str | None
    version_served: bool
    client: ClientSession | None = None
