"""The parts of aiohttp that are not public, and that the requests of a connection are answered with.

aiohttp has no public way to answer them in the connection's own task, so ``downstream/request_loop.py`` does
what these methods do. Which names there are, mypy sees; what they mean, only somebody who reads them.
"""

import hashlib
import inspect

import aiohttp
import pytest
from aiohttp.web_protocol import RequestHandler

# The version that was read last.
KNOWN_VERSION = "3.14.5"
# What ours stand for, or share their state with; the beginning of the SHA-256 of each one's source.
KNOWN = {
    "_handle_request": "a88a34ee65a2714c",
    "_process_keepalive": "b472e0fb8445ce42",
    "_resume_reading_if_drained": "27f2a6fbbb3a790e",
    "connection_lost": "df2fe6e95fd04c7c",
    "data_received": "1ee57ebe052e6c80",
    "finish_response": "b7eb53db8f4b30ca",
    "resume_reading": "21dee847a31af724",
    "shutdown": "5eb4bd473db61e84",
    "start": "2e565fd40c8e04fb",
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_followed_method_is_as_it_was(name: str) -> None:
    """aiohttp has not changed it since ours was written after it."""
    source = inspect.getsource(getattr(RequestHandler, name))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert digest == KNOWN[name], (
        f"aiohttp {aiohttp.__version__} has another RequestHandler.{name} than {KNOWN_VERSION}. "
        f"Read https://github.com/aio-libs/aiohttp/compare/v{KNOWN_VERSION}...v{aiohttp.__version__} "
        "(aiohttp/web_protocol.py), have downstream/request_loop.py and connection.py do the same, "
        f"run tests/downstream, and write {digest!r} and the version here."
    )
