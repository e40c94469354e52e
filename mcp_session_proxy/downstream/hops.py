"""What a request says of the way it came: believed from trusted proxies only. Pure.

Servers believe ``X-Forwarded-For`` and its like when they come from a proxy beside them (uvicorn trusts
loopback without being told to), and to the server that proxy is us. So what anybody may write there must
not arrive as if it were our word (RFC 7239, section 8.1).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, TypeAlias

from ..protocol.headers import Pair, as_servers_may_read

Network: TypeAlias = IPv4Network | IPv6Network

_CLIENT_ADDRESS: Final = frozenset({"x-forwarded-for", "x-real-ip"})
_SCHEME: Final = frozenset({"x-forwarded-proto", "x-forwarded-scheme"})
# What else proxies and delivery networks say of their client, of the URL it asked for, and of themselves.
_OTHERS: Final = frozenset(
    {
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-visitor",
        "client-ip",
        "cloudfront-viewer-address",
        "do-connecting-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "forwarded-for",
        "front-end-https",
        "true-client-ip",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "x-azure-socketip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-forwarded",
        "x-host",
        "x-nf-client-connection-ip",
        "x-original-host",
        "x-original-uri",
        "x-original-url",
        "x-originating-ip",
        "x-real-port",
        "x-remote-addr",
        "x-remote-ip",
        "x-rewrite-url",
        "x-scheme",
        "x-url-scheme",
        "x-vercel-forwarded-for",
    }
)
_VIA: Final = "via"
_FORWARDED: Final = "x-forwarded-"
# Not about the way but about who is calling: a gateway's word, which tells callers apart.
_ABOUT_CALLERS: Final = (
    "user",
    "email",
    "groups",
    "preferred-username",
    "access-token",
    "client-cert",
    "roles",
)
_CACHED_NAMES: Final = 2048  # names are the callers' choice, so the cache has a bound


@lru_cache(maxsize=_CACHED_NAMES)
def _tells_of_the_way(name: str) -> bool:
    name = as_servers_may_read(name)
    if name.startswith(_FORWARDED):
        return not name.removeprefix(_FORWARDED).startswith(_ABOUT_CALLERS)
    return name in _CLIENT_ADDRESS or name in _OTHERS


def comes_from_proxy(names: Iterable[str]) -> bool:
    """Whether headers of these names say that the connection is another proxy's, and not the client's own."""
    # ``Via`` names proxies, and says nothing of the client (RFC 9110, section 7.6.3).
    return any(name.lower() == _VIA or _tells_of_the_way(name) for name in names)


def restate_way(
    headers: Iterable[Pair], *, peer: str | None, scheme: str, trusted: Sequence[Network]
) -> list[Pair]:
    """The headers as the server may believe them.

    From a ``trusted`` peer they are left alone. From anybody else, what they say of the client's address
    and of the scheme becomes what we know, and the rest of that kind goes. ``peer`` is the address that
    the request came from; None or nothing where there is none, as with unix sockets.
    """
    pairs = list(headers)
    if not any(_tells_of_the_way(name) for name, _ in pairs) or _is_among(peer, trusted):
        return pairs
    kept = [pair for pair in pairs if not _tells_of_the_way(pair[0])]
    # Once each, however often it was said: a server may read the first or the last.
    for name in dict.fromkeys(as_servers_may_read(name) for name, _ in pairs if _tells_of_the_way(name)):
        if name in _SCHEME:
            kept.append((name, scheme))
        elif name in _CLIENT_ADDRESS and peer:
            kept.append((name, peer))
    return kept


def _is_among(peer: str | None, networks: Sequence[Network]) -> bool:
    if peer is None or not networks:
        return False
    try:
        # Without the zone of a link-local address (RFC 4007, section 11), which no network has.
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    # On a socket for both families, IPv4 peers have such an address.
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
