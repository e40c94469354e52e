"""Hosts and origins: what they are, which are the same, which are this machine."""

import pytest

from mcp_session_proxy.protocol.hosts import (
    Authority,
    Origin,
    is_ip_address,
    is_loopback,
    make_origin,
    matches,
    parse_host,
    parse_origin,
    parse_pattern,
    split_url,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("MCP.Example.com", "mcp.example.com", None),
        ("mcp.example.com.", "mcp.example.com", None),
        ("h:8080", "h", 8080),
        ("[0:0::1]:80", "::1", 80),
        ("127.0.0.1", "127.0.0.1", None),
    ],
)
def test_one_host_is_written_in_many_ways(text: str, host: str, port: int | None) -> None:
    """Case, a dot at the end and long forms of IPv6 make no other host."""
    assert parse_host(text) == Authority(host, port)


@pytest.mark.parametrize(
    "text", ["", ".", "h:99999", "h:", "::1", "[:::]", "u@h", "h/path", "a b", "h\n", "ä"]
)
def test_what_is_no_host(text: str) -> None:
    """Odd ports, paths, users, bare IPv6 and anything beyond ASCII are no ``Host``."""
    assert parse_host(text) is None


def test_an_origin_has_its_scheme_s_port() -> None:
    """With the default port or without it is the same origin; of another scheme it is not."""
    assert (
        parse_origin("https://h")
        == parse_origin("HTTPS://H:443")
        == make_origin("https", Authority("h", None))
    )
    assert parse_origin("http://h:443") != parse_origin("https://h:443")
    assert parse_origin("app://h") == Origin("app", Authority("h", None))


@pytest.mark.parametrize(
    "text", ["null", "h", "https://", "https://h/", "https://h:99999", "https://[x]", "*"]
)
def test_what_is_no_single_origin(text: str) -> None:
    """``null`` is many, and a URL with a path is none."""
    assert parse_origin(text) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host: str) -> None:
    """Its name and all of its loopback addresses."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "localhost.example.com", "0.0.0.0", "::", "10.0.0.1", "[::1]", "127.1"])
def test_perhaps_another_machine(host: str) -> None:
    """Other names may mean anything, and unspecified addresses every interface."""
    assert not is_loopback(host)


def test_addresses_are_no_names() -> None:
    """IPv6 comes without brackets."""
    assert [is_ip_address(host) for host in ("10.0.0.1", "::1", "[::1]", "h", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("*", "anything:1", True),
        ("example.com", "example.com:8080", True),
        ("example.com:80", "example.com:8080", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com", ".example.com", False),
        ("::1", "[::1]:80", True),
    ],
)
def test_patterns_of_hosts(pattern: str, host: str, fits: bool) -> None:
    """A name, all names below one, or all; a port counts where the pattern has one."""
    own = parse_host(host)
    assert own is not None
    assert matches(own, parse_pattern(pattern)) is fits


def test_a_pattern_that_is_none_is_refused() -> None:
    """A mistake in it would open or close a door unseen."""
    with pytest.raises(ValueError, match="not a host name"):
        parse_pattern("http://h")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://h:1/a?b#c", ("https://h:1", "/a?b#c")),
        ("https://h?x", ("https://h", "?x")),
        ("HTTP://h", ("HTTP://h", "")),
        ("//h/a", ("", "")),
        ("/a", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_url_is_its_origin_and_the_rest(url: str, parts: tuple[str, str]) -> None:
    """As it is written, for whoever wants to put another origin in front."""
    assert split_url(url) == parts
