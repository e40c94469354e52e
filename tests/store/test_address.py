"""Where a store is, as its URL says; passwords are shown by nothing."""

from typing import Any

import pytest

from mcp_session_proxy.store.address import StoreAddress


@pytest.mark.parametrize(
    ("text", "shown", "found"),
    [
        ("valkey://host", "valkey://host:6379", {"hosts": (("host", 6379),), "tls": False}),
        ("redis://host:1/2", "redis://host:1/2", {"hosts": (("host", 1),), "database": 2}),
        ("rediss://[::1]", "rediss://[::1]:6379", {"hosts": (("::1", 6379),), "tls": True}),
        (
            "valkeys://me:p%40ss@host?ssl_ca_certs=/ca.pem",
            "valkeys://host:6379",
            {"username": "me", "password": "p@ss", "ca_file": "/ca.pem"},
        ),
        ("redis://:pass@host", "redis://host:6379", {"username": None, "password": "pass"}),
        ("redis://me@host", "redis://host:6379", {"username": "me", "password": None}),
        ("redis://me:a@b@host", "redis://host:6379", {"username": "me", "password": "a@b"}),
        ("unix:///run/v.sock?db=3", "unix:///run/v.sock", {"path": "/run/v.sock", "database": 3}),
        ("unix://me:pass@/v.sock", "unix:///v.sock", {"username": "me", "password": "pass"}),
        (
            "sentinel://me:pass@one,two:1/main/4?sentinel_password=s",
            "sentinel://one:26379,two:1/main/4",
            {
                "hosts": (("one", 26379), ("two", 1)),
                "primary": "main",
                "database": 4,
                "password": "pass",
                "sentinel_password": "s",
            },
        ),
    ],
)
def test_urls(text: str, shown: str, found: dict[str, Any]) -> None:
    """Each part is found; what is shown has neither user nor password."""
    address = StoreAddress.parse(text)
    assert str(address) == shown
    assert {name: getattr(address, name) for name in found} == found
    assert "pass" not in repr(address).replace("password", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host:6379", "must be the URL"),
        ("http://host", "must be the URL"),
        ("redis://", "must be the URL"),
        ("redis://host:0", "must be the URL"),
        ("redis://host:99999", "must be the URL"),
        ("redis://ho st", "must be the URL"),
        ("redis://host#x", "must be the URL"),
        ("redis://host/zero", "number of a database"),
        ("redis://one,two", "one host"),
        ("redis://host?timeout=1", "no parameter 'timeout'"),
        ("redis://host?ssl_ca_certs=/ca", "must begin with valkeys://"),
        ("rediss://host?sentinel_password=x", "must begin with sentinel://"),
        ("sentinel://one,two", "/NAME"),
        ("unix://host/path", "unix:///run"),
        ("unix://relative", "unix:///run"),
        (7, "must be the URL"),
    ],
)
def test_what_is_none(text: object, problem: str) -> None:
    """The complaint says what is allowed."""
    with pytest.raises(ValueError, match=problem):
        StoreAddress.parse(text)
