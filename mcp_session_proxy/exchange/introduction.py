"""A client is introduced to a server that knew another one on the same session, before its call is sent."""

from collections.abc import Hashable
from typing import Final

from ..protocol import jsonrpc, revisions
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller

_ROOTS_CHANGED: Final = jsonrpc.write_notification(revisions.ROOTS_CHANGED, None)


async def introduce(session: UpstreamSession, client: Hashable, caller: Caller) -> None:
    """Have the server ask this client for its roots, if it has those of another.

    Only for profiles that tell of changes. The client is asked in the course of the call that waits here,
    which counts as running. The server is told by the proxy itself, with the credentials of ``caller`` alone.
    """
    if session.record.roots.respondent != client:
        said_by = caller.credentials
        await session.record.roots.pass_to(client, lambda: session.incarnation.tell(_ROOTS_CHANGED, said_by))
    else:
        # Another call of this client's may be introducing it just now.
        await session.record.roots.settled()
