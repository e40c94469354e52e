"""Idle `subscriptions/listen` streams: opened, left alone, closed."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from .messages import LISTEN, Request, WrongAnswer

_TIMEOUT_SECONDS = 10.0
_ACKNOWLEDGED = b"notifications/subscriptions/acknowledged"


def _write(request: Request, host: str, path: str) -> bytes:
    headers = {"Host": host, "Content-Length": str(len(request.body)), **request.headers}
    lines = [f"{request.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + request.body).encode()


def _open(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    stream = socket.create_connection((parts.hostname, parts.port), _TIMEOUT_SECONDS)
    stream.sendall(_write(LISTEN, parts.netloc, parts.path))
    received = b""
    while _ACKNOWLEDGED not in received:
        more = stream.recv(65536)
        received += more
        if not more or (b"\r\n\r\n" in received and not received.startswith(b"HTTP/1.1 200")):
            stream.close()
            raise WrongAnswer(f"subscriptions/listen: {received[:500]!r}")
    return stream


@contextmanager
def hold_listeners(url: str, count: int) -> Iterator[None]:
    """That many streams, acknowledged and open until the end. Raises WrongAnswer."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(_open(url))
        yield
