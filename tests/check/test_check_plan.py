import io
from typing import Any

import pytest
from certificates import Authority

from mcp_session_proxy.check.plan import read_plan
from mcp_session_proxy.settings.sources import ConfigError

URL = "http://127.0.0.1:8000/mcp"
NOTHING: dict[str, Any] = {
    "through": None,
    "headers": [],
    "timeout": "15s",
    "idle": None,
    "call": None,
    "arguments": None,
    "as_json": False,
}


def plan(url=URL, *, flags=None, **options):
    return read_plan({"upstream": url, **(flags or {})}, **{**NOTHING, **options})


def refused(url=URL, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(url, **options)
    return str(caught.value)


def test_the_least():
    """A URL is enough."""
    found = plan()
    assert found.direct.url == URL
    assert found.through is None
    assert found.timeout_seconds == 15
    assert found.idle_seconds is None
    assert found.call is None


def test_the_url_may_come_from_the_environment(monkeypatch):
    """As for serve."""
    monkeypatch.setenv("MCP_SESSION_PROXY_UPSTREAM", URL)
    assert read_plan({}, **NOTHING).direct.url == URL


def test_options_of_serve_do_not_disturb(monkeypatch):
    """Replicas and listeners in the environment are not the check's business."""
    monkeypatch.setenv("MCP_SESSION_PROXY_REPLICA", "http://127.0.0.1:8001/mcp")
    monkeypatch.setenv("MCP_SESSION_PROXY_LISTEN", ":80")
    assert plan(through="http://127.0.0.1:8080/other").through.url == "http://127.0.0.1:8080/other"


def test_two_servers_are_refused():
    """The second one may have been meant for --through."""
    assert "--through" in refused(flags={"replica": ["http://127.0.0.1:8001/mcp"]})


class TestThrough:
    @pytest.mark.parametrize("text", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/"])
    def test_without_a_path_has_that_of_the_server(self, text):
        """As the proxy's endpoint has."""
        assert plan("http://a.example/x/mcp", through=text).through.url == "http://127.0.0.1:8080/x/mcp"

    def test_that_is_no_url(self):
        """The complaint names the option."""
        assert refused(through="8080").startswith("--through: '8080' is not allowed; it must be")


class TestHeaders:
    def test_are_names_and_values(self):
        """Blanks around them do not matter."""
        found = plan(headers=["Authorization:  Bearer abcdefgh ", "X-Tenant: a:b"])
        assert found.headers == (("Authorization", "Bearer abcdefgh"), ("X-Tenant", "a:b"))

    def test_are_secret(self):
        """Neither the plan's own text nor what is printed has them."""
        found = plan(f"{URL}?key=secret-key", headers=["Authorization: Bearer abcdefgh"])
        assert set(found.secrets) == {"Bearer abcdefgh", "abcdefgh", "secret-key"}
        assert "abcdefgh" not in repr(found)
        assert found.direct.shown == f"{URL}?***"

    def test_come_from_a_file(self, tmp_path):
        """A line each, so that they do not appear in the list of processes."""
        path = tmp_path / "headers"
        path.write_text("Authorization: Bearer abcdefgh\n\nX-Tenant: t\n")
        assert plan(headers=[f"@{path}"]).headers == (("Authorization", "Bearer abcdefgh"), ("X-Tenant", "t"))

    def test_come_from_standard_input(self, monkeypatch):
        """The same, from a pipe."""
        monkeypatch.setattr("sys.stdin", io.StringIO("X-Tenant: t"))
        assert plan(headers=["@-"]).headers == (("X-Tenant", "t"),)

    @pytest.mark.parametrize("text", ["abcdefgh", "two words: x", ": x", "X-Y: a\nZ: b", "X-Y: a\x00b"])
    def test_that_are_none(self, text):
        """Refused without being repeated: a secret may have been put in the wrong place."""
        message = refused(headers=[text])
        assert message.startswith("--header: a header must be written NAME: VALUE")
        assert "abcdefgh" not in message

    @pytest.mark.parametrize("name", ["Mcp-Session-Id", "host", "Accept"])
    def test_that_the_check_sets_itself(self, name):
        """Another value would check something else."""
        assert "is set by the check itself" in refused(headers=[f"{name}: x"])

    def test_from_a_file_that_is_not_there(self):
        """Named."""
        assert refused(headers=["@/no/such/file"]).startswith("--header: /no/such/file cannot be read")


class TestCall:
    def test_has_arguments(self):
        """They are sent as they were written."""
        found = plan(call="add", arguments='{"a": 1.0}')
        assert found.call.params == {"name": b'"add"', "arguments": b'{"a": 1.0}'}

    def test_may_have_none(self):
        """An empty object, then."""
        assert plan(call="add").call.params["arguments"] == b"{}"

    @pytest.mark.parametrize("arguments", ["[1]", "a=1", "{", '"x"'])
    def test_with_wrong_arguments(self, arguments):
        """Only an object will do."""
        assert "must be a JSON object" in refused(call="add", arguments=arguments)

    def test_that_is_missing(self):
        """Arguments alone mean nothing."""
        assert "needs --call" in refused(arguments="{}")


@pytest.mark.parametrize("option", ["timeout", "idle"])
@pytest.mark.parametrize("text", ["soon", "0", "-1s"])
def test_wrong_durations(option, text):
    """The complaint names the option and the value."""
    assert refused(**{option: text}).startswith(f"--{option}: '{text}' is not allowed; it must be")


class TestTls:
    def test_is_for_the_server(self, tmp_path):
        """And repeated in the advice."""
        authority = Authority(tmp_path)
        found = plan("https://a.example/mcp", flags={"upstream_ca": str(authority.file)})
        assert found.direct.context is not None
        assert found.upstream_flags == ("--upstream-ca", str(authority.file))

    def test_is_for_the_proxy_alone(self, tmp_path):
        """A proxy with TLS before a server without."""
        authority = Authority(tmp_path)
        found = plan(through="https://a.example", flags={"upstream_ca": str(authority.file)})
        assert found.direct.context is None
        assert found.through.context is not None
        assert found.upstream_flags == ()

    def test_is_for_nobody(self, tmp_path):
        """Said as serve says it."""
        assert "https" in refused(flags={"upstream_ca": str(Authority(tmp_path).file)})
