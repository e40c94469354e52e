"""What must hold for the head of any request: used by the Hypothesis tests and by ``make fuzz``.

A head is a line with a path and a query string, and lines with a name, a colon and a value each. As in
``properties``, errors that are the input's own fault are ``ProxyError``, and end here.
"""

import re
from ipaddress import ip_network

from multidict import CIMultiDict

from mcp_session_proxy.downstream import paths
from mcp_session_proxy.downstream.guard import Guard
from mcp_session_proxy.downstream.hops import comes_from_proxy, restate_way
from mcp_session_proxy.errors import ProxyError
from mcp_session_proxy.protocol import headers, inbound, revisions
from mcp_session_proxy.protocol.headers import Pair
from mcp_session_proxy.protocol.hosts import parse_origin
from mcp_session_proxy.sessions import minting
from mcp_session_proxy.sessions.credentials import DEFAULT_PATTERNS, read_credential, sounds_like_identity
from mcp_session_proxy.sessions.identity import ANONYMOUS, Identifier, affinity_of_id

from .effort import count_steps

# Lines and calls for each byte, once the names are known: caches take the rest.
_STEPS_PER_BYTE = 60
_AT_LEAST = 3000
# The HTTP parser lets nothing else in (RFC 9110, section 5.1).
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r]*?)[ \t]*")
_PEER = "192.0.2.7"
_TRUSTED = (ip_network("192.0.2.0/24"),)
_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_ENDPOINT = "/mcp"

_identifier = Identifier(
    credential_headers=DEFAULT_PATTERNS,
    credential_query=True,
    affinity_headers=("x-conversation",),
    affinity_meta=(),
    secret=b"x" * 32,
)
_guards = (
    Guard(listens_on_loopback=True),
    Guard(listens_on_loopback=False),
    Guard(
        listens_on_loopback=False,
        allowed_origins=frozenset({"https://page.example", "null"}),
        allowed_hosts=frozenset({"*.example", "one.test:8080"}),
        public_url="https://public.example/mcp",
    ),
)


def check_head(data: bytes) -> None:
    """The head of a request: judged, told apart and passed on, or refused with an error of ours."""
    target, *lines = data.split(b"\n")
    path, _, query = _text(target).partition("?")
    pairs = [(_text(found[1]), _text(found[2])) for line in lines if (found := _FIELD.fullmatch(line))]
    raw = [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in pairs
    ]
    steps = count_steps(lambda: _check_all(path, query, pairs, raw))
    assert steps <= _AT_LEAST + _STEPS_PER_BYTE * len(data), steps


def _text(raw: bytes) -> str:
    """As the HTTP parser decodes it."""
    return raw.replace(b"\r", b"").replace(b"\0", b"").decode("utf-8", "surrogateescape")


def _check_all(path: str, query: str, pairs: list[Pair], raw: list[tuple[bytes, bytes]]) -> None:
    _check_caller(pairs, query)
    _check_what_travels(pairs, raw)
    _check_kind(CIMultiDict(pairs))
    _check_path(path)
    for guard in _guards:
        _check_guard(guard, CIMultiDict(pairs))


def _check_caller(pairs: list[Pair], query: str) -> None:
    """The order of headers and the case of names say nothing; what says who is calling reaches the server."""
    principal = _identifier.principal(pairs, query)
    assert principal == _identifier.principal(pairs[::-1], query)
    assert principal == _identifier.principal([(name.swapcase(), value) for name, value in pairs], query)
    said = [
        pair for pair in pairs if _identifier.is_credential(pair[0]) and read_credential(*pair) is not None
    ]
    assert principal == _identifier.principal(said, query)
    if not said and not query:
        assert principal is ANONYMOUS
    claimed = headers.names_of_this_hop(pairs)
    if any(_identifier.is_credential(name) for name in claimed):
        return  # refused
    travelling = {name for name, _ in headers.forward_request_headers(pairs)}
    for name, _ in said:
        assert name in travelling, name


def _check_what_travels(pairs: list[Pair], raw: list[tuple[bytes, bytes]]) -> None:
    """Nothing of this hop, nothing that cannot be written, and no claims about the way."""
    forwarded = headers.forward_request_headers(pairs)
    claimed = headers.names_of_this_hop(pairs)
    for name, value in [*forwarded, *headers.own_repetitions(raw)]:
        assert name.lower() not in _HOP
        assert name.lower() not in claimed
        value.encode()
        headers.writable(name)
    stated = restate_way(forwarded, peer=_PEER, scheme="http", trusted=())
    assert restate_way(forwarded, peer=_PEER, scheme="http", trusted=_TRUSTED) == forwarded
    others = [pair for pair in stated if not comes_from_proxy([pair[0]])]
    assert others == [pair for pair in forwarded if not comes_from_proxy([pair[0]])]
    for name, value in stated:
        if name.lower() != "via" and comes_from_proxy([name]):
            assert value in (_PEER, "http")


def _check_kind(fields: "CIMultiDict[str]") -> None:
    """What the client can take, which era it names, and which session."""
    accepts = inbound.read_accept(fields.getall("Accept", []))
    assert accepts.json or accepts.stream
    version = fields.get(revisions.VERSION_HEADER)
    assert inbound.no_id(version) in (b"", b"null")
    if version is not None:
        assert revisions.takes_cursors(version, None) is (version >= "2025-11-25")
    assert len(_identifier.affinity(fields, {}) or "") < 300
    for name in fields:
        sounds_like_identity(name)
    identifier = fields.get(revisions.SESSION_HEADER)
    if identifier is not None:
        written = headers.writable(identifier)
        assert minting.is_ours(written) or not minting.is_of_capable_client(written)
        assert len(affinity_of_id(written)) < 300


def _check_path(path: str) -> None:
    """What some server takes for the endpoint is found however it is written, and passes nothing else."""
    found = paths.is_endpoint(path, _ENDPOINT)
    assert not paths.is_passed(path, paths.Passing.NONE, _ENDPOINT)
    paths.is_passed(path, paths.Passing.OAUTH, _ENDPOINT)
    for variant in (path + "/", "/" + path, path + "/.", path + "/x/.."):
        assert not found or paths.is_endpoint(variant, _ENDPOINT), variant
    assert paths.is_endpoint(path, path)


def _check_guard(guard: Guard, fields: "CIMultiDict[str]") -> None:
    """A verdict; and what is granted can be written into a header."""
    origin = fields.get("Origin")
    try:
        guard.check(host=fields.get("Host"), origin=origin, scheme="http")
    except ProxyError:
        return
    granted = guard.preflight_headers(origin, fields.get("Access-Control-Request-Headers"))
    for value in granted.values():
        assert value.isascii()
        assert value.isprintable()
    if granted:
        assert origin == "null" or parse_origin(origin or "") is not None
