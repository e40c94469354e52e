"""What is believed of the way a request came."""

from ipaddress import ip_network

import pytest

from mcp_session_proxy.downstream.hops import restate_way

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def restate(*headers, peer="192.0.2.9", scheme="http", trusted=()):
    return restate_way(headers, peer=peer, scheme=scheme, trusted=trusted)


@pytest.mark.parametrize(
    ("name", "restated"),
    [
        ("X-Forwarded-For", [("x-forwarded-for", "192.0.2.9")]),
        ("x-real-ip", [("x-real-ip", "192.0.2.9")]),
        ("X-Forwarded-Proto", [("x-forwarded-proto", "http")]),
        ("X-Forwarded-Host", []),
        ("X-Forwarded-Prefix", []),
        ("X-Forwarded-Whatever", []),
        ("Forwarded", []),
        ("CF-Connecting-IP", []),
        ("X-Original-URL", []),
        ("X_Forwarded_For", [("x-forwarded-for", "192.0.2.9")]),
        ("X_Forwarded_Host", []),
        ("X-Originating-IP", []),
        ("Client-IP", []),
    ],
)
def test_strangers_say_nothing_of_their_way(name, restated):
    """What anybody can write becomes what we know, or goes; other headers stay."""
    assert restate(("Accept-Language", "de"), (name, "1.2.3.4")) == [("Accept-Language", "de"), *restated]


def test_nothing_is_added():
    """A request that says nothing of its way reaches the server as it is."""
    assert restate(("A", "b")) == [("A", "b")]


def test_repetitions_become_one():
    """However often it was said."""
    assert restate(("X-Forwarded-For", "a"), ("x-forwarded-for", "b")) == [("x-forwarded-for", "192.0.2.9")]


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_trusted_proxies_are_believed(peer):
    """Their headers go through untouched."""
    headers = [("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=1.2.3.4")]
    assert restate(*headers, peer=peer, trusted=TRUSTED) == headers


@pytest.mark.parametrize("peer", ["11.0.0.1", "fe80::1%eth0", "", None, "unix"])
def test_others_are_not(peer):
    """An address outside of the networks, or none at all."""
    restated = restate(("X-Real-IP", "1.2.3.4"), peer=peer, trusted=TRUSTED)
    assert ("X-Real-IP", "1.2.3.4") not in restated


@pytest.mark.parametrize("name", ["X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Client-Cert"])
def test_who_is_calling_is_another_matter(name):
    """Names of callers are no part of the way."""
    assert restate((name, "alice")) == [(name, "alice")]
