"""What is in force, and what is wrong: `config show` and `config check`."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

from mcp_session_proxy.settings import effective
from mcp_session_proxy.settings.config import Settings
from mcp_session_proxy.settings.sources import ConfigError, Provenance, Source

URL = "http://127.0.0.1:8000/mcp"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One option from each place: a flag, a variable, the file."""
    path = tmp_path / "proxy.toml"
    path.write_text('idle-timeout = "5m"\nlinger = "1s"\nheartbeat = "1s"\n')
    monkeypatch.setenv("MCP_SESSION_PROXY_LINGER", "2s")
    monkeypatch.setenv("MCP_SESSION_PROXY_HEARTBEAT", "2s")
    return {"upstream": URL, "config": str(path), "heartbeat": "3s"}


def rows(flags: dict[str, Any]) -> dict[str, effective.Row]:
    return {row.option.field: row for row in effective.collect(flags)}


def written(flags: dict[str, Any], stream: io.StringIO | None = None, *, as_json: bool = False) -> str:
    stream = stream or io.StringIO()
    effective.write(effective.collect(flags), stream, as_json=as_json)
    return stream.getvalue()


class TestCollect:
    def test_has_every_option(self, flags):
        """Nothing is left out, whether it was given or not."""
        assert sorted(rows(flags)) == sorted(Settings.model_fields)

    def test_tells_where_values_come_from(self, flags):
        """The strongest place is named, by the name that its user would look for."""
        found = rows(flags)
        assert (found["heartbeat"].text, found["heartbeat"].origin) == (
            "3s",
            Provenance(Source.FLAG, "--heartbeat"),
        )
        assert (found["linger"].text, found["linger"].origin) == (
            "2s",
            Provenance(Source.ENVIRONMENT, "MCP_SESSION_PROXY_LINGER"),
        )
        assert (found["idle_timeout"].text, found["idle_timeout"].origin) == (
            "5m",
            Provenance(Source.FILE, flags["config"]),
        )
        assert (found["keepalive"].text, found["keepalive"].origin) == ("2m", Provenance(Source.DEFAULT))

    def test_wrong_configuration(self, flags):
        """There is nothing to show of a configuration that nobody can run with."""
        with pytest.raises(ConfigError, match="--linger"):
            effective.collect({**flags, "linger": "soon"})


class TestWrite:
    def test_lines(self, flags):
        """One line for each option, in columns: name, origin, value."""
        lines = written(flags).splitlines()
        assert len(lines) == len(Settings.model_fields)
        cells = {line.split()[0]: line.split()[1:] for line in lines}
        assert cells["linger"] == ["MCP_SESSION_PROXY_LINGER", "2s"]
        assert cells["keepalive"] == ["default", "2m"]
        assert len({line.index(" 2m") for line in lines if line.endswith(" 2m")}) == 1

    def test_json(self, flags):
        """Numbers, switches and lists stay what they are; nothing is null."""
        document = json.loads(written({**flags, "allowed_host": "a,b"}, as_json=True))
        assert document["idle-timeout"] == {"value": "5m", "source": "file", "name": flags["config"]}
        values = {key: entry["value"] for key, entry in document.items()}
        assert values["max-sessions"] == 1000
        assert values["credential-query"] is True
        assert values["allowed-host"] == ["a", "b"]
        assert values["max-body-bytes"] == "4MiB"
        assert values["tls-cert"] is None
        assert document["keepalive"]["source"] == "default"

    def test_values_in_json_can_be_given_again(self, flags):
        """A program may write what it read into a file, and gets the same settings."""
        document = json.loads(written(flags, as_json=True))
        again = {key.replace("-", "_"): entry["value"] for key, entry in document.items()}
        assert {row.text for row in effective.collect(again)} == {
            row.text for row in effective.collect(flags)
        }

    def test_table_on_a_terminal(self, flags, monkeypatch):
        """People get a table, with brackets as they are."""
        monkeypatch.setenv("COLUMNS", "160")
        text = written({**flags, "listen": "[::1]:8080"}, Terminal())
        assert "[::1]:8080" in text
        assert "MCP_SESSION_PROXY_LINGER" in text
        assert "┃" in text

    @pytest.mark.parametrize("as_json", [True, False])
    def test_secrets_are_masked(self, flags, as_json):
        """What travels in a URL's query is not shown, of any server."""
        urls = {"upstream": f"{URL}?key=hunter1", "replica": [f"{URL}?key=hunter2"]}
        text = written({**flags, **urls}, as_json=as_json)
        assert "hunter" not in text
        assert text.count("?***") == 2


class TestProblems:
    def test_none(self, flags):
        """A configuration that serve would start with."""
        assert effective.problems(flags) == []

    def test_all_of_them(self, flags, monkeypatch):
        """Flags, variables, values of the file and its unknown keys are told together, a line each."""
        Path(flags["config"]).write_text('idle-timout = 5\nkeepalive = "soon"\nspeed = 5\n')
        monkeypatch.setenv("MCP_SESSION_PROXY_SHARING", "all")
        found = effective.problems({**flags, "linger": "x"})
        assert sorted(line.partition(":")[0] for line in found) == sorted(
            [
                "--linger",
                "MCP_SESSION_PROXY_SHARING",
                f"keepalive in {flags['config']}",
                flags["config"],
                flags["config"],
            ]
        )
        assert any(
            line.endswith("there is no option 'idle-timout'; did you mean idle-timeout?") for line in found
        )

    def test_options_that_do_not_go_together(self, flags):
        """Every conflict is told, not only the first one."""
        found = effective.problems({**flags, "tls_cert": "/c.pem", "listen": ":1", "admin_listen": ":1"})
        assert found == [
            "--admin-listen: ':1' is not allowed; it must differ from --listen",
            "--tls-cert: '/c.pem' is not allowed; it needs --tls-key",
        ]

    def test_files_of_tls_are_read(self, flags, tmp_path):
        """Files that cannot be used are found before the start, on both sides."""
        cert, key = Authority(tmp_path).issue("proxy.example")
        tls = {"upstream": "https://h/mcp", "tls_cert": str(cert), "tls_key": str(key)}
        assert effective.problems({**flags, **tls}) == []
        key.write_text("no key")
        found = effective.problems({**flags, **tls, "upstream_ca": str(tmp_path / "none.pem")})
        assert [line.partition(":")[0] for line in found] == ["--tls-cert, --tls-key", "--upstream-ca"]
