"""One HTTP request of a client: who sent it."""

from dataclasses import dataclass

from multidict import CIMultiDictProxy

from ..sessions.directory import ClientSession
from ..sessions.identity import Principal
from ..upstream.transport import Caller


@dataclass(slots=True)
class Call:
    """Who sent one HTTP request, and on which client session."""

    principal: Principal
    caller: Caller
    headers: CIMultiDictProxy[str]
    session_id: str | None
    version: str | None
    client: ClientSession | None = None
