import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.downstream.guard import Guard
from mcp_session_proxy.settings import values
from mcp_session_proxy.settings.values import Address


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            ("127.0.0.1:8080", "127.0.0.1", 8080),
            ("localhost:0", "localhost", 0),
            ("[::1]:9090", "::1", 9090),
            (":8080", "", 8080),
            (" 10.0.0.1:1 ", "10.0.0.1", 1),
        ],
    )
    def test_reads(self, text, host, port):
        """HOST:PORT, [IPV6]:PORT and :PORT are understood."""
        assert Address.parse(text) == Address(host, port)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "8080",
            "localhost",
            "localhost:",
            "localhost:http",
            "localhost:70000",
            "::1:8080",
            "[localhost]:80",
            "http://localhost:80",
            "user@localhost:80",
            "local host:80",
            "localhost:-1",
            "localhost:٣",
            8080,
            None,
        ],
    )
    def test_refuses(self, text):
        """Everything else is refused with a sentence about what is allowed."""
        with pytest.raises(ValueError, match="must "):
            Address.parse(text)

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("127.0.0.1", True),
            ("127.1.2.3", True),
            ("::1", True),
            ("localhost", True),
            ("LOCALHOST", True),
            ("", False),
            ("0.0.0.0", False),
            ("::", False),
            ("10.0.0.1", False),
            ("example.com", False),
        ],
    )
    def test_knows_loopback(self, host, expected):
        """Only what surely is this machine counts as loopback."""
        assert Address(host, 80).is_loopback is expected

    @pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:9090", ":80"])
    def test_writes_what_it_reads(self, text):
        """An address is written in the form in which it can be given."""
        assert str(Address.parse(text)) == text


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("500ms", 0.5),
            ("30s", 30),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86400),
            ("1.5 h", 5400),
            ("7", 7),
            ("0", 0),
            (7, 7),
            (0.25, 0.25),
        ],
    )
    def test_reads(self, text, seconds):
        """Numbers are seconds; units run from ms to d."""
        assert values.parse_duration(text) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "text",
        ["", "soon", "5 minutes", "-5", "1e3", "5M", "inf", "nan", "400d", "1h30m", True, None, float("inf")],
    )
    def test_refuses(self, text):
        """Unknown units, signs, infinities, truth values and more than a year are refused."""
        with pytest.raises(ValueError, match="must be"):
            values.parse_duration(text)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0s"), (0.25, "250ms"), (90, "90s"), (300, "5m"), (7200, "2h"), (86400, "1d")],
    )
    def test_is_shown_in_its_largest_whole_unit(self, seconds, text):
        """Help texts say 5m, not 300.0."""
        assert values.show_duration(seconds) == text

    @given(st.integers(min_value=0, max_value=10**9))
    def test_shown_durations_can_be_read(self, milliseconds):
        """What help texts show can be given as a value."""
        seconds = milliseconds / 1000
        assert values.parse_duration(values.show_duration(seconds)) == pytest.approx(seconds, rel=1e-4)


class TestSize:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("4MiB", 4 << 20),
            ("512KiB", 512 << 10),
            ("1GB", 10**9),
            ("2 kb", 2000),
            ("100", 100),
            ("5B", 5),
            (100, 100),
        ],
    )
    def test_reads(self, text, size):
        """Numbers are bytes; units are binary or decimal, in any case."""
        assert values.parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "big", "-1", "4 megabytes", "4m", True, None, float("nan")])
    def test_refuses(self, text):
        """Everything else is refused."""
        with pytest.raises(ValueError, match="must be a size"):
            values.parse_size(text)

    @given(st.integers(min_value=0, max_value=2**40))
    def test_shown_sizes_can_be_read(self, size):
        """What help texts show can be given as a value."""
        assert values.parse_size(values.show_size(size)) == size


class TestWords:
    def test_splits_commas_in_every_item(self):
        """A repeated flag and commas add up; blanks and empty items do not count."""
        assert values.parse_words(["a, b", "c", ",", ""]) == ("a", "b", "c")

    @pytest.mark.parametrize("value", [1, {"a": 1}, [1], None])
    def test_refuses_what_is_not_text(self, value):
        """A TOML number or table is no list of texts."""
        with pytest.raises(ValueError, match="list of texts"):
            values.parse_words(value)


class TestUrls:
    @pytest.mark.parametrize(
        "text", ["http://127.0.0.1:8000/mcp", "https://example.com", "http://[::1]:80/a?b=c", "http://h/mcp/"]
    )
    def test_reads_upstreams(self, text):
        """http and https URLs are kept as they are, path and query included."""
        assert values.parse_upstream(text) == text.replace(":80/", "/")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "127.0.0.1:8000/mcp",
            "localhost:8000",
            "ftp://h/",
            "http://",
            "http://h:0/",
            "http://h:99999/",
            "http://a b/",
            "http://[::1/",
            "http://user@h/",
            "http://user:secret@h/",
            "http://h/#x",
            5,
            None,
        ],
    )
    def test_refuses_upstreams(self, text):
        """No scheme, no host, odd ports, credentials and fragments are refused."""
        with pytest.raises(ValueError, match="must"):
            values.parse_upstream(text)

    def test_reads_public_urls(self):
        """A public URL may have a path; its last slash does not matter."""
        assert values.parse_public_url("https://mcp.example.com/") == "https://mcp.example.com"
        assert values.parse_public_url("https://example.com/mcp/") == "https://example.com/mcp"
        assert values.parse_public_url(None) is None

    @pytest.mark.parametrize("text", ["mcp.example.com", "https://h/?a=b", "https://u@h/", "https://h/#x"])
    def test_refuses_public_urls(self, text):
        """Query, fragment and credentials have no meaning in a public URL."""
        with pytest.raises(ValueError, match="must be"):
            values.parse_public_url(text)

    def test_masks_where_secrets_travel(self):
        """User, password and query of a URL never show."""
        assert values.mask("http://user:secret@h/mcp?key=secret") == "http://***@h/mcp?***"
        assert values.mask("http://h/mcp") == "http://h/mcp"


class TestOriginsAndHosts:
    @pytest.mark.parametrize(
        ("text", "origin"),
        [
            ("https://App.example.com/", "https://app.example.com"),
            ("https://h:443", "https://h"),
            ("*", "*"),
            ("http://h:3000", "http://h:3000"),
            ("vscode-webview://abc", "vscode-webview://abc"),
            ("null", "null"),
        ],
    )
    def test_reads_origins(self, text, origin):
        """Origins come out as browsers send them: lower case, no default port, no slash."""
        assert values.parse_origins(text) == (origin,)

    @pytest.mark.parametrize(
        "text", ["app.example.com", "https://h/path", "https://h?x=1", "https://u@h", "https://"]
    )
    def test_refuses_origins(self, text):
        """A host alone, and anything beyond scheme, host and port, is no origin."""
        with pytest.raises(ValueError, match="must be origins"):
            values.parse_origins(text)

    @pytest.mark.parametrize(
        "text",
        ["mcp.example.com", "*.example.com", "example.com:8443", "10.0.0.1", "[::1]:80", "my_host", "[::1]"],
    )
    def test_reads_hosts(self, text):
        """Names, wildcards and addresses, with and without a port."""
        assert values.parse_hosts(text.upper()) == (text,)

    @pytest.mark.parametrize(
        "text", ["http://h", "h/path", "a b", "h:99999", "h:x", "*", ".", "::1", "[:::]", "a@b"]
    )
    def test_refuses_hosts(self, text):
        """URLs, odd ports and malformed addresses are refused."""
        with pytest.raises(ValueError, match="must be host names"):
            values.parse_hosts(text)

    @given(st.from_regex(re.compile(r"[-*.\[\]:a-f0-9~_]{1,12}", re.ASCII), fullmatch=True))
    def test_every_host_that_is_read_can_be_guarded(self, text):
        """The guard never stumbles over a host that the configuration let pass."""
        try:
            hosts = values.parse_hosts(text)
        except ValueError:
            return
        Guard(listens_on_loopback=True, allowed_hosts=frozenset(hosts))


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), (True, "true"), (("a", "b"), "a, b"), ((), "none"), (5, "5")]
)
def test_show(value, text):
    """Values without a form of their own are written plainly."""
    assert values.show(value) == text
