"""The cookies of one upstream session: what is kept of what a server sets, and what goes back."""

import pytest
from yarl import URL

from mcp_session_proxy.upstream.http.cookies import SessionCookies

HTTP = URL("http://10.0.0.5:8000/a/mcp")
HTTPS = URL("https://mcp.example.com/a/mcp")


class Clock:
    """The clock on the wall."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0  # in January 2027

    def __call__(self) -> float:
        return self.seconds


def sent(lines: list[str], url: URL = HTTP, *, to: URL | None = None, own: str | None = None) -> str | None:
    """The Cookie header after an answer with these lines; ``own`` is the client's."""
    cookies = SessionCookies(Clock())
    cookies.take(lines, url)
    headers = [("X-Other", "1")] + ([] if own is None else [("cookie", own)])
    after = dict(cookies.add_to(headers, to or url))
    assert after.pop("X-Other") == "1"
    return after.get("Cookie") or after.get("cookie")


@pytest.mark.parametrize(
    ("line", "back"),
    [
        ("AWSALB=a/b+c==; Expires=Fri, 01 Dec 2028 09:00:00 GMT; Path=/", "AWSALB=a/b+c=="),
        ('q="a b"; HttpOnly', 'q="a b"'),
        ("ARRAffinity=x;Path=/;HttpOnly;SameSite=None;Domain=10.0.0.5", "ARRAffinity=x"),
        ("q=1; Partitioned; Priority=High; SameSite=Odd; x=y;;; =; \t ;Version=1", "q=1"),
        ("  q  =  1  ", "q=1"),
        ("q=", "q="),
        ("q=a=b", "q=a=b"),
        ("path=1; Path=/", "path=1"),
        ("q=1, r=2", "q=1, r=2"),
        ("q=\udcc3\udca9", "q=é"),
        ("q=\udce9", "q=é"),
        # no cookie at all
        ("", None),
        (";", None),
        ("=1", None),
        ("q", None),
        ("; q=1", None),
        ("q=\x01", None),
        ("q=1; Path=/\x7f", None),
        (f"q={'x' * 4096}", None),
    ],
)
def test_what_is_a_cookie(line: str, back: str | None) -> None:
    """A name and "=" make one, its value goes back as it came, whatever is odd about the rest."""
    assert sent([line]) == back


@pytest.mark.parametrize(
    ("attribute", "kept"),
    [
        ("Max-Age=1", True),
        ("Max-Age=0", False),
        ("Max-Age=-1", False),
        (f"Max-Age={'9' * 5000}", True),
        (f"Max-Age=-{'9' * 5000}", False),
        ("Max-Age=1e3", True),  # no number: as if it were not there
        ("Max-Age=", True),
        ("Max-Age", True),
        ("Max-Age=\u0661", True),
        ("Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("Expires=Thursday, 01-Jan-70 00:00:00 GMT", False),
        ("Expires=Thu Jan  1 00:00:00 1970", False),
        ("Expires=Wed, 21 Oct 2065 07:28:00 GMT", True),
        ("Expires=Thu, 01 Jan 99999 00:00:00 GMT", True),
        ("Expires=0", True),
        ("Expires=tomorrow", True),
        ("Expires", True),
        ("Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("Max-Age=0; Expires=Wed, 21 Oct 2065 07:28:00 GMT", False),
        ("Max-Age=0; Max-Age=60", True),
    ],
)
def test_expiry(attribute: str, kept: bool) -> None:
    """Max-Age wins over Expires, and what cannot be read says nothing."""
    assert sent([f"q=1; {attribute}"]) == ("q=1" if kept else None)


def test_a_cookie_expires() -> None:
    """In its own time, and another value with another time takes its place."""
    clock = Clock()
    cookies = SessionCookies(clock)
    cookies.take(["q=1; Max-Age=10", "r=1"], HTTP)
    clock.seconds += 9
    assert cookies.add_to([], HTTP) == [("Cookie", "q=1; r=1")]
    clock.seconds += 1
    assert cookies.add_to([], HTTP) == [("Cookie", "r=1")]
    assert len(cookies.kept or {}) == 1
    cookies.take(["r=2; Max-Age=10"], HTTP)
    cookies.take(["r=; Max-Age=0"], HTTP)
    assert cookies.add_to([], HTTP) == []


@pytest.mark.parametrize(
    ("path", "asked", "goes"),
    [
        ("/", "/a/mcp", True),
        ("/a", "/a/mcp", True),
        ("/a/", "/a/mcp", True),
        ("/a/mcp", "/a/mcp", True),
        ("/a/mcp/", "/a/mcp", False),
        ("/a/mc", "/a/mcp", False),
        ("/b", "/a/mcp", False),
        ("", "/a/mcp", True),
        ("", "/b", False),
        ("a", "/a/mcp", True),
        ('"/b"', "/a/mcp", True),
        ("/b; Path=/", "/a/mcp", True),
        ("/; Path=/b", "/a/mcp", False),
    ],
)
def test_paths(path: str, asked: str, goes: bool) -> None:
    """A cookie goes to its path and below; without one that is a path, to where it was set and below."""
    assert sent([f"q=1; Path={path}"], to=HTTP.with_path(asked)) == ("q=1" if goes else None)


@pytest.mark.parametrize(
    ("domain", "url", "kept"),
    [
        ("example.com", HTTPS, True),
        (".example.com", HTTPS, True),
        ("MCP.Example.COM", HTTPS, True),
        ("ample.com", HTTPS, False),
        ("other.example.com", HTTPS, False),
        ("evil.com", HTTPS, False),
        ("", HTTPS, True),
        ("10.0.0.5", HTTP, True),
        ("0.0.5", HTTP, False),
        ("localhost", URL("http://localhost/mcp"), True),
        ("backend", URL("http://backend:8000/mcp"), True),
        ("::1", URL("http://[::1]:8000/mcp"), True),
    ],
)
def test_domains(domain: str, url: URL, kept: bool) -> None:
    """Nobody sets a cookie for a host that is not its own or one above it; an address has none above it."""
    assert sent([f"q=1; Domain={domain}"], url) == ("q=1" if kept else None)


def test_secure_cookies_stay_off_plain_connections() -> None:
    """Whatever the attribute's value is."""
    assert sent(["q=1; Secure"], HTTPS) == "q=1"
    assert sent(["q=1; secure=false"], HTTP) is None


def test_the_more_special_path_comes_first() -> None:
    """And of one name and path, the newest counts."""
    assert sent(["q=1; Path=/", "q=2; Path=/a", "r=1; Path=/", "r=2; Path=/"]) == "q=2; q=1; r=2"


def test_a_clients_own_cookies() -> None:
    """They travel as they are, but for those whose names the server has set on the session."""
    assert sent([], own="a=1; b = 2;c") == "a=1; b = 2;c"
    assert sent(["q=new"], own="a=1; q=old; b=2; Q=other") == "a=1; b=2; Q=other; q=new"
    assert sent(["q=new"], own=" ; q=old; ;") == "q=new"
    assert sent(["q=new; Path=/elsewhere"], own="q=old") is None


def test_several_cookie_headers_become_one() -> None:
    """HTTP/2 clients may send one header for each cookie."""
    cookies = SessionCookies()
    cookies.take(["q=1"], HTTP)
    assert cookies.add_to([("Cookie", "a=1"), ("X", "y"), ("COOKIE", "q=2")], HTTP) == [
        ("X", "y"),
        ("Cookie", "a=1; q=1"),
    ]


def test_a_thousand_cookies() -> None:
    """They are bounded in number; what was set first stays, and can still be changed."""
    cookies = SessionCookies()
    cookies.take([f"c{number}=1" for number in range(1000)], HTTP)
    cookies.take([*(f"d{number}=1" for number in range(1000)), "c0=2"], HTTP)
    cookies.take(["c0=3"], HTTP)
    ((_, text),) = cookies.add_to([], HTTP)
    assert text.split("; ") == ["c0=3", *(f"c{number}=1" for number in range(1, 50))]


def test_large_cookies() -> None:
    """They are bounded in bytes, also when one that is there grows."""
    cookies = SessionCookies()
    cookies.take([f"c{number}={'x' * 2000}" for number in range(100)] + ["small=1"], HTTP)
    for number in range(100):
        cookies.take([f"small={'y' * number * 40}"], HTTP)
    ((_, text),) = cookies.add_to([], HTTP)
    assert 7_900 < len(text) <= 8_000
    assert "small=y" in text


def test_expired_cookies_make_room() -> None:
    """A full jar takes new names again when old cookies have expired."""
    clock = Clock()
    cookies = SessionCookies(clock)
    cookies.take([f"c{number}=1; Max-Age=5" for number in range(50)], HTTP)
    cookies.take(["new=1"], HTTP)
    assert len(cookies.kept or {}) == 50
    clock.seconds += 5
    cookies.take(["new=1"], HTTP)
    assert cookies.add_to([], HTTP) == [("Cookie", "new=1")]


def test_what_balancers_stick_by_can_be_kept() -> None:
    """By the names that they are known by; nothing else, which may stand for whoever is calling."""
    cookies = SessionCookies(Clock())
    cookies.take(
        [
            "AWSALB=a/b+c==; Path=/; Max-Age=60",
            "Route=\u00fc; Path=/a",
            "BIGipServer~Common~pool=1.2.0000",
            "sid=secret",
        ],
        HTTP,
    )
    route = cookies.route()
    assert route is not None
    clock = Clock()
    again = SessionCookies(clock)
    again.take_route(route)
    assert again.names == ("AWSALB", "BIGipServer~Common~pool", "Route")
    assert (
        dict(again.add_to([], HTTP))["Cookie"]
        == "Route=\u00fc; BIGipServer~Common~pool=1.2.0000; AWSALB=a/b+c=="
    )
    clock.seconds += 61
    assert again.route() == route
    assert "AWSALB" not in dict(again.add_to([], HTTP))["Cookie"]
    assert SessionCookies(clock).route() is None


@pytest.mark.parametrize(
    "route",
    [
        b"",
        b"{}",
        b"[1]",
        b'[["bA==","MQ==","Lw==","no",null]]',
        b'[["bGI=","MQ0KWDogMQ==","Lw==",false,null]]',
    ],
)
def test_a_route_that_is_none(route: bytes) -> None:
    """It is passed over, and nothing of it gets into a head."""
    cookies = SessionCookies(Clock())
    cookies.take_route(route)
    assert not cookies.kept
    assert list(cookies.add_to([("X-Other", "1")], HTTP)) == [("X-Other", "1")]
