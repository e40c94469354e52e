"""aiohttp's client, for what does not go to an MCP endpoint, and where its exceptions end.

The pass-through of other paths streams bodies both ways, and ``check`` looks at pages of a server's: both use
aiohttp by themselves, and ask here what its exceptions mean. What goes to the endpoint is sent by
``client``.
"""

import ssl

import aiohttp

from ...bounds import SERVER_FIELDS, SERVER_HEAD_BYTES
from .head import USUAL_FIELDS
from .trouble import Trouble


def http_session(*, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """A client for single requests, which keeps no cookies; whoever opens it closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=True if tls is None else tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=USUAL_FIELDS,
        max_line_size=SERVER_HEAD_BYTES,
        max_field_size=SERVER_HEAD_BYTES,
        max_headers=SERVER_FIELDS,
    )


def trouble_of(error: BaseException) -> Trouble:
    """What an exception before the head of an answer means. The order counts: most are of several kinds."""
    if isinstance(error, aiohttp.ClientSSLError):
        return Trouble.NO_TLS
    if isinstance(error, aiohttp.ClientResponseError):  # not of a status: none of those is an error here
        # In a chunk: the head was fine, and a broken body came with it.
        return Trouble.BROKEN if "in chunk" in error.message else Trouble.BAD_HEAD
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Trouble.UNREACHABLE
    if isinstance(error, TimeoutError):
        return Trouble.SILENT
    if isinstance(error, ValueError):  # aiohttp.InvalidURL is one, too
        return Trouble.UNSENDABLE
    return Trouble.BROKEN
