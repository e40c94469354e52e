from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mcp_session_proxy.events import Level
from mcp_session_proxy.sessions.modes import Anonymous, Sharing, UnknownSessionRule
from mcp_session_proxy.settings.config import LogFormat, Settings, load
from mcp_session_proxy.settings.kinds import Group
from mcp_session_proxy.settings.options import options
from mcp_session_proxy.settings.sources import ConfigError
from mcp_session_proxy.settings.values import Address

UPSTREAM = {"upstream": "http://127.0.0.1:8000/mcp"}


def problem(flags=None, **values) -> str:
    """What is said about these flags."""
    with pytest.raises(ConfigError) as caught:
        load({**UPSTREAM, **(flags or {}), **values})
    return str(caught.value)


@pytest.fixture
def write_file(tmp_path):
    """Writes a TOML file; gives its path as text."""

    def write(text: str) -> str:
        path = tmp_path / "proxy.toml"
        path.write_text(text)
        return str(path)

    return write


class TestSources:
    def test_defaults_need_only_the_upstream(self):
        """One URL is a whole configuration."""
        settings = load(UPSTREAM)
        assert settings.listen == Address("127.0.0.1", 8080)
        assert settings.sharing is Sharing.HANDOVER
        assert settings.anonymous is Anonymous.POOL
        assert settings.unknown_session is UnknownSessionRule.ADOPT
        assert settings.log_level is Level.INFO
        assert settings.log_format is LogFormat.AUTO
        assert "authorization" in settings.credential_header

    def test_flag_beats_variable_beats_file_beats_default(self, monkeypatch, write_file):
        """The nearer to the user, the stronger."""
        path = write_file('linger = "1s"\nidle-timeout = "1s"\nkeepalive = "1s"\n')
        monkeypatch.setenv("MCP_SESSION_PROXY_LINGER", "2s")
        monkeypatch.setenv("MCP_SESSION_PROXY_IDLE_TIMEOUT", "2s")
        settings = load({**UPSTREAM, "config": path, "linger": "3s"})
        given = (settings.linger, settings.idle_timeout, settings.keepalive, settings.heartbeat)
        assert given == (3, 2, 1, 15)

    def test_variable_may_name_the_file(self, monkeypatch, write_file):
        """A container needs no flag at all."""
        monkeypatch.setenv("MCP_SESSION_PROXY_CONFIG", write_file('upstream = "http://h/mcp"\n'))
        assert load({}).upstream == "http://h/mcp"

    def test_variables_may_have_small_letters(self, monkeypatch):
        """A variable is the option's however it is written, and is named so in complaints."""
        monkeypatch.setenv("mcp_session_proxy_linger", "2s")
        assert load(UPSTREAM).linger == 2
        monkeypatch.setenv("mcp_session_proxy_linger", "soon")
        assert problem().startswith("mcp_session_proxy_linger: 'soon' is not allowed")

    def test_file_keys_may_have_underscores(self, write_file):
        """Both spellings of a key are understood."""
        settings = load({**UPSTREAM, "config": write_file("max_sessions = 5\nmax-waiters = 6\n")})
        assert (settings.max_sessions, settings.max_waiters) == (5, 6)

    def test_every_option_can_come_from_the_environment(self, monkeypatch):
        """Texts from the environment become the same values as those of the file."""
        texts = {
            "UPSTREAM": "http://h/mcp",
            "LISTEN": ":80",
            "ADMIN_LISTEN": "off",
            "DELETE_STATUS": "204",
            "CREDENTIAL_HEADER": "authorization, x-tenant",
            "CREDENTIAL_QUERY": "false",
            "MAX_BODY_BYTES": "1MiB",
            "ANNOUNCE": "/run/proxy.json",
        }
        for name, text in texts.items():
            monkeypatch.setenv(f"MCP_SESSION_PROXY_{name}", text)
        settings = load({})
        assert settings.listen == Address("", 80)
        assert settings.admin_listen is None
        assert settings.delete_status == 204
        assert settings.credential_header == ("authorization", "x-tenant")
        assert settings.credential_query is False
        assert settings.max_body_bytes == 1 << 20
        assert settings.announce == Path("/run/proxy.json")

    def test_variables_of_a_kubernetes_service_do_no_harm(self, monkeypatch):
        """A Service called mcp-session-proxy puts variables with our prefix into every pod."""
        monkeypatch.setenv("MCP_SESSION_PROXY_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv("MCP_SESSION_PROXY_SERVICE_HOST", "10.0.0.1")
        load(UPSTREAM)

    @pytest.mark.parametrize("text", ["", "off"])
    def test_admin_listener_can_be_turned_off(self, text):
        """Both ways to say no are understood."""
        assert load({**UPSTREAM, "admin_listen": text}).admin_listen is None

    def test_settings_cannot_change(self):
        """What was checked stays as it was."""
        with pytest.raises(ValidationError):
            load(UPSTREAM).linger = 5


class TestComplaints:
    def test_names_the_flag(self):
        """A wrong flag is named as a flag, with its value and what is allowed."""
        assert problem(idle_timeout="soon") == (
            "--idle-timeout: 'soon' is not allowed; it must be a duration, such as 500ms, 30s, 5m, 2h, "
            "or a number of seconds"
        )

    def test_names_the_variable(self, monkeypatch):
        """A wrong variable is named as a variable."""
        monkeypatch.setenv("MCP_SESSION_PROXY_SHARING", "all")
        text = problem()
        assert text.startswith(
            "MCP_SESSION_PROXY_SHARING: 'all' is not allowed; it must be 'handover', 'isolated'"
        )

    def test_names_the_key_and_the_file(self, write_file):
        """A wrong key is named with its file."""
        path = write_file('listen = "8080"\n')
        assert problem(config=path).startswith(
            f"listen in {path}: '8080' is not allowed; it must be HOST:PORT"
        )

    def test_names_the_file_that_a_variable_named(self, monkeypatch, write_file):
        """The file is found again, whoever named it."""
        path = write_file("max-sessions = 0\n")
        monkeypatch.setenv("MCP_SESSION_PROXY_CONFIG", path)
        assert problem() == f"max-sessions in {path}: 0 is not allowed; it must be greater than or equal to 1"

    def test_tells_all_problems_at_once(self):
        """Two mistakes take one attempt to learn of, not two."""
        assert len(problem(linger="x", max_sessions="y").splitlines()) == 2

    @pytest.mark.parametrize(
        ("option", "value", "allowed"),
        [
            ("max_sessions", "0", "greater than or equal to 1"),
            ("max_sessions", "many", "a whole number"),
            ("max_sessions", True, "a whole number"),
            ("min_idle", "-1", "greater than or equal to 0"),
            ("delete_status", "404", "405, 200 or 204"),
            ("credential_query", "perhaps", "true or false"),
            ("keepalive", "0", "greater than 0"),
            ("max_body_bytes", "0", "greater than 0"),
            ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
            ("upstream", "localhost:8000", "http or https URL"),
            ("allowed_origin", ["h"], "must be origins"),
            ("credential_header", 5, "a list of texts"),
        ],
    )
    def test_says_what_is_allowed(self, option, value, allowed):
        """Every kind of option explains itself."""
        text = problem({option: value})
        assert " is not allowed; it must " in text
        assert allowed in text

    def test_missing_upstream(self):
        """Without a server to stand in front of, the example shows how to name one."""
        with pytest.raises(ConfigError, match=r"URL: .* missing; write it as in serve http://"):
            load({})

    def test_never_quotes_a_password(self):
        """A URL is quoted without the parts in which secrets travel."""
        text = problem({"upstream": "http://me:hunter2@h/mcp?key=hunter3"})
        assert "hunter" not in text

    def test_quotes_no_more_than_a_line(self):
        """An absurdly long value is cut."""
        assert len(problem(linger="x" * 10_000)) < 500


class TestFile:
    def test_unknown_key_is_an_error_with_a_suggestion(self, write_file):
        """A typing error in the file cannot go unnoticed."""
        path = write_file("idle-timout = 5\n")
        assert problem(config=path) == f"{path}: there is no option 'idle-timout'; did you mean idle-timeout?"

    def test_file_cannot_name_another_file(self, write_file):
        """Files do not chain."""
        assert "no option 'config'" in problem(config=write_file('config = "other.toml"\n'))

    def test_key_in_both_spellings_is_an_error(self, write_file):
        """Which of the two should win?"""
        assert "given twice" in problem(config=write_file("max-sessions = 5\nmax_sessions = 6\n"))

    def test_broken_file(self, write_file):
        """The parser's own words say where the file is broken."""
        assert "is not valid TOML" in problem(config=write_file("listen = \n"))

    def test_unreadable_file(self, tmp_path):
        """A missing file is not taken for an empty one."""
        assert "cannot be read: No such file" in problem(config=str(tmp_path / "none.toml"))


class TestTogether:
    def test_reserve_must_fit_under_the_limit(self):
        """Pre-warming more sessions than one caller may have can never work."""
        text = problem(min_idle="5", max_sessions_per_principal="4")
        assert (
            text
            == "--min-idle: '5' is not allowed; it must not be over --max-sessions-per-principal, which is 4"
        )

    def test_limit_per_principal_may_exceed_the_total(self):
        """A total below the default per caller is plain enough, and clamps it."""
        load({**UPSTREAM, "max_sessions": "5"})

    @pytest.mark.parametrize(
        ("flags", "blamed"),
        [
            ({"listen": "127.0.0.1:9090"}, "--listen"),
            ({"admin_listen": "127.0.0.1:8080"}, "--admin-listen"),
            ({"listen": ":9090"}, "--listen"),
        ],
    )
    def test_listeners_must_differ(self, flags, blamed):
        """One port cannot serve two listeners; the option that the user gave is to blame."""
        assert problem(flags).startswith(f"{blamed}: ")

    def test_listeners_may_both_take_any_port(self):
        """Port 0 twice is two ports."""
        load({**UPSTREAM, "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"})


class TestAdminToken:
    """A secret: nobody is shown it, not even whoever gave a wrong one."""

    def test_is_read_from_everywhere(self, monkeypatch, write_file):
        """A variable and the file are the better places."""
        assert load({**UPSTREAM, "admin_token": "flag"}).admin_token == SecretStr("flag")
        path = write_file('admin-token = "file"')
        assert load({**UPSTREAM, "config": path}).admin_token == SecretStr("file")
        monkeypatch.setenv("MCP_SESSION_PROXY_ADMIN_TOKEN", "variable")
        assert load({**UPSTREAM, "config": path}).admin_token == SecretStr("variable")
        assert "variable" not in repr(load(UPSTREAM))

    @pytest.mark.parametrize("token", ["", "hunter2 hunter2", "hunter2\n", "hünter2"])
    def test_wrong_ones_are_not_quoted(self, token):
        """An empty one would be no protection, and the rest cannot travel in a header."""
        said = problem(admin_token=token)
        assert said.startswith("--admin-token: *** is not allowed; it must be visible ASCII characters")
        assert "nter2" not in said

    def test_is_not_quoted_when_something_else_is_wrong(self):
        """Neither by complaints about other options nor by those about options that do not fit."""
        assert "hunter2" not in problem(admin_token="hunter2", linger="soon")
        assert "hunter2" not in problem(admin_token="hunter2", min_idle="1000")


def test_every_option_is_described_and_grouped():
    """The help page has a place and a text for every option."""
    for option in options():
        assert option.text, option.field
    for name, field in Settings.model_fields.items():
        assert any(isinstance(item, Group) for item in field.metadata), name


def test_upstream_is_shown_without_its_query():
    """A key in the server's URL stays out of logs and banners."""
    assert load({"upstream": "http://h/mcp?key=secret"}).upstream_shown == "http://h/mcp?***"
