"""What can become of an HTTP request that has no answer, and what that is called above."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from ...errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from ..transport import ConnectionLost, NotTaken


class Trouble(Enum):
    """What became of a request that has no answer."""

    UNREACHABLE = "unreachable"  # no connection: nothing was sent
    NO_TLS = "no-tls"  # a connection, but no TLS on it: nothing was sent
    UNSENDABLE = "unsendable"  # it cannot be written as HTTP: nothing was sent
    SILENT = "silent"  # sent, and no sign of an answer for too long
    BAD_HEAD = "bad-head"  # sent, and what came back is no HTTP, or its head is too large
    BROKEN = "broken"  # it was, or may have been, sent, and the connection ended
    NOT_TAKEN = "not-taken"  # the connection ended, and the other side certainly had not read all of it


_TOLD: Final[Mapping[Trouble, tuple[type[UpstreamError], str]]] = {
    Trouble.UNREACHABLE: (
        UpstreamUnreachable,
        "The MCP server cannot be reached. Is it running, and is its address right?",
    ),
    Trouble.NO_TLS: (
        UpstreamProtocolError,
        "There is no TLS connection to the MCP server: its certificate is not one that the proxy trusts "
        "(--upstream-ca), or it wants one of the proxy (--upstream-cert), or it speaks no TLS.",
    ),
    Trouble.UNSENDABLE: (UpstreamProtocolError, "The request cannot be sent to the MCP server."),
    Trouble.SILENT: (UpstreamTimeout, "The MCP server accepted the request and then fell silent."),
    Trouble.BAD_HEAD: (
        UpstreamProtocolError,
        "The head of the MCP server's answer cannot be read: it is malformed or over 64 KiB. "
        "What was asked of the server may have been done, and was not asked again.",
    ),
}


def told(trouble: Trouble) -> Exception:
    """The same in the words of ``transport``."""
    if trouble is Trouble.BROKEN:
        return ConnectionLost()
    if trouble is Trouble.NOT_TAKEN:
        return NotTaken()
    kind, text = _TOLD[trouble]
    return kind(text)
