"""Which Host and Origin headers get through, and what CORS headers allowed pages see."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.downstream.guard import Guard
from mcp_session_proxy.errors import ForbiddenHost, ForbiddenOrigin

LOCAL = Guard(listens_on_loopback=True)
OPEN = Guard(listens_on_loopback=False)


def with_origins(*origins: str) -> Guard:
    return Guard(listens_on_loopback=False, allowed_origins=frozenset(origins))


def with_hosts(*hosts: str, loopback: bool = False) -> Guard:
    return Guard(listens_on_loopback=loopback, allowed_hosts=frozenset(hosts))


def lets_in(guard: Guard, *, host: str | None = "localhost:8080", origin: str | None = None) -> bool:
    try:
        guard.check(host=host, origin=origin, scheme="http")
    except (ForbiddenHost, ForbiddenOrigin):
        return False
    return True


# -- Host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1",
        "127.1.2.3:1",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_a_loopback_listener_goes_by_loopback_names(host: str) -> None:
    """On loopback every way to write this machine's name is fine, with any port."""
    assert lets_in(LOCAL, host=host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]:8080",
        "127.1",
        "0.0.0.0",
        None,
    ],
)
def test_a_loopback_listener_refuses_foreign_names(host: str | None) -> None:
    """A page that was rebound to loopback comes under its own name, and is refused."""
    with pytest.raises(ForbiddenHost):
        LOCAL.check(host=host, origin=None, scheme="http")


@pytest.mark.parametrize("host", ["mcp.example", "10.0.0.1:8080", "my_service:80", "[2001:db8::1]", None])
def test_an_open_listener_goes_by_any_name(host: str | None) -> None:
    """Beyond loopback nobody knows the names, so none is refused unless some were configured."""
    assert lets_in(OPEN, host=host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "a b",
        "a:b",
        "a:99999999",
        "a:65536",
        "[::1",
        "[::1]x",
        "[:::]",
        "a/b",
        "user@a",
        "a\r\nb",
        "ä",
        "a,b",
        ".",
    ],
)
@pytest.mark.parametrize("guard", [LOCAL, OPEN, with_hosts("a")])
def test_malformed_hosts_are_refused_everywhere(guard: Guard, host: str) -> None:
    """A Host header that is not a host is refused by every rule."""
    with pytest.raises(ForbiddenHost):
        guard.check(host=host, origin=None, scheme="http")


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("mcp.example", "mcp.example", True),
        ("MCP.example", "mcp.EXAMPLE:8443", True),
        ("mcp.example:8443", "mcp.example:8443", True),
        ("mcp.example:8443", "mcp.example:8444", False),
        ("mcp.example:8443", "mcp.example", False),
        ("mcp.example", "notmcp.example", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com:80", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com:81", "a.example.com:80", False),
        ("*", "anything.example:80", True),
        ("[2001:db8::1]", "[2001:DB8:0::1]:80", True),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("[2001:db8::1]:81", "[2001:db8::1]:80", False),
    ],
)
def test_allowed_hosts(allowed: str, host: str, expected: bool) -> None:
    """An allowed host matches by name, by port where it has one, and below a star."""
    assert lets_in(with_hosts(allowed), host=host) is expected


def test_allowed_hosts_do_not_admit_loopback_names_on_an_open_listener() -> None:
    """With names configured, an open listener goes by these alone."""
    assert not lets_in(with_hosts("mcp.example"), host="localhost")


def test_allowed_hosts_add_to_loopback_names() -> None:
    """A loopback listener with names configured goes by these and by its own."""
    guard = with_hosts("mcp.example", loopback=True)
    assert lets_in(guard, host="localhost")
    assert lets_in(guard, host="mcp.example")
    assert not lets_in(guard, host="other.example")


def test_the_public_name_is_our_own() -> None:
    """A loopback listener behind a load balancer is called by its public name."""
    guard = Guard(listens_on_loopback=True, public_url="https://mcp.example/tools")
    assert lets_in(guard, host="mcp.example")
    assert lets_in(guard, host="mcp.example", origin="https://mcp.example")
    assert not lets_in(guard, host="mcp.example", origin="https://evil.example")


def test_the_public_name_alone_does_not_close_an_open_listener() -> None:
    """Naming the public URL is not a request to refuse all other names."""
    assert lets_in(Guard(listens_on_loopback=False, public_url="https://mcp.example"), host="10.0.0.1")


def test_a_wrong_allowed_host_is_told_at_start() -> None:
    """An entry that could never match is an error, not a silent hole."""
    with pytest.raises(ValueError, match="not a host name"):
        with_hosts("a b")


# -- Origin --------------------------------------------------------------------------------------


def test_no_origin_is_fine() -> None:
    """Callers that are not browsers send no Origin."""
    assert lets_in(OPEN, host="mcp.example")


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("mcp.example", "http://mcp.example", True),
        ("mcp.example:80", "http://mcp.example", True),
        ("mcp.example", "http://MCP.example:80", True),
        ("mcp.example:8080", "http://mcp.example:8080", True),
        ("[2001:db8::1]:8080", "http://[2001:db8:0::1]:8080", True),
        ("mcp.example:8080", "http://mcp.example", False),
        ("mcp.example", "https://mcp.example", False),
        ("mcp.example", "http://evil.example", False),
        ("mcp.example", "http://mcp.example.evil.example", False),
        (None, "http://mcp.example", False),
    ],
)
def test_own_origin(host: str | None, origin: str, expected: bool) -> None:
    """A page of the request's own host is fine when scheme, name and port agree."""
    assert lets_in(OPEN, host=host, origin=origin) is expected


def test_own_origin_over_tls() -> None:
    """The scheme of the request decides its default port."""
    OPEN.check(host="mcp.example", origin="https://mcp.example:443", scheme="https")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "https://127.0.0.1:6274",
        "http://[::1]:1",
        "tauri://localhost",
    ],
)
def test_local_pages_may_call_a_local_proxy(origin: str) -> None:
    """On loopback pages of this machine are fine, whatever their port; beyond it they are not."""
    assert lets_in(LOCAL, origin=origin)
    assert not lets_in(OPEN, host="mcp.example", origin=origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://evil.example:80@localhost",
        "null",
        "",
        "localhost",
        "http://",
        "http://localhost/",
        "http://localhost, http://evil.example",
        "http://localhost http://evil.example",
        "http://localhost\r\nX: y",
        "http://localhost:99999",
        "file://",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    """Foreign and malformed origins are refused, however close they come to a local one."""
    with pytest.raises(ForbiddenOrigin):
        LOCAL.check(host="localhost", origin=origin, scheme="http")


@pytest.mark.parametrize(
    ("allowed", "origin", "expected"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://APP.example:443", "https://app.example", True),
        ("https://app.example", "https://app.example:443", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://sub.app.example", False),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        ("https://[2001:db8::1]", "https://[2001:db8:0:0::1]", True),
        ("null", "null", True),
        ("https://app.example", "null", False),
        ("*", "https://anything.example", True),
        ("*", "null", True),
        ("*", "not an origin", False),
    ],
)
def test_allowed_origins(allowed: str, origin: str, expected: bool) -> None:
    """An allowed origin matches exactly, but for case and default ports; a star matches any."""
    assert lets_in(with_origins(allowed), host="mcp.example", origin=origin) is expected


def test_a_bad_host_is_refused_before_a_good_origin() -> None:
    """An allowed origin does not excuse a foreign Host."""
    guard = Guard(listens_on_loopback=True, allowed_origins=frozenset({"*"}))
    with pytest.raises(ForbiddenHost):
        guard.check(host="evil.example", origin="http://evil.example", scheme="http")


def test_refusals_do_not_quote() -> None:
    """Texts of refusals never repeat what the caller sent."""
    with pytest.raises(ForbiddenOrigin) as refusal:
        LOCAL.check(host="localhost", origin="http://evil.example", scheme="http")
    assert "evil" not in refusal.value.message


# -- CORS ----------------------------------------------------------------------------------------


def test_allowed_pages_can_read_the_answer() -> None:
    """The page's origin is echoed as it was sent, and the headers that clients need are exposed."""
    headers = LOCAL.cors_headers("http://LOCALHOST:3000")
    assert headers == {
        "Access-Control-Allow-Origin": "http://LOCALHOST:3000",
        "Access-Control-Expose-Headers": (
            "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"
        ),
        "Vary": "Origin",
    }


def test_other_callers_get_no_cors() -> None:
    """Callers that are not browsers see no CORS headers."""
    assert LOCAL.cors_headers(None) == {}
    assert LOCAL.preflight_headers(None, "x") == {}


def test_preflight_grants_what_was_asked() -> None:
    """A preflight names the methods, and grants the headers that the page asked for."""
    headers = LOCAL.preflight_headers("http://localhost:3000", "content-type,  x-api-key")
    assert headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE, OPTIONS"
    assert headers["Access-Control-Allow-Headers"] == "content-type, x-api-key"
    assert headers["Access-Control-Max-Age"] == "7200"
    assert headers["Vary"] == "Origin, Access-Control-Request-Headers"


@pytest.mark.parametrize("requested", [None, "", " , ", "a b", "x\r\nSet-Cookie: y"])
def test_preflight_names_the_usual_headers_when_asked_for_none(requested: str | None) -> None:
    """Nothing valid asked for: what MCP clients usually send is granted."""
    granted = LOCAL.preflight_headers("http://localhost", requested)["Access-Control-Allow-Headers"]
    assert granted.startswith("Accept, Authorization, Content-Type, Mcp-Session-Id")


def test_preflight_is_bounded() -> None:
    """A flood of header names is cut off."""
    granted = LOCAL.preflight_headers("http://localhost", ",".join(f"x-{i}" for i in range(5000)))
    assert granted["Access-Control-Allow-Headers"].count(",") == 63


# -- anything ------------------------------------------------------------------------------------

texts = st.text(max_size=40) | st.text("htpslocahe:/.[]*01\r\n ,", max_size=30)


@given(host=st.none() | texts, origin=st.none() | texts, requested=texts)
def test_anything_is_judged_cleanly(host: str | None, origin: str | None, requested: str) -> None:
    """Any input is let in or refused, and no header value it leads to can break out of its line."""
    for guard in (LOCAL, OPEN, with_origins("*"), with_hosts("*.example.com", "a:1")):
        lets_in(guard, host=host, origin=origin)
        for value in guard.preflight_headers(origin, requested).values():
            assert re.fullmatch(r"[\x21-\x7e ]+", value)
