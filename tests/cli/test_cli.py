import json
import sys
from types import ModuleType

import pytest

from mcp_session_proxy import __version__
from mcp_session_proxy.cli import command
from mcp_session_proxy.ops import logs
from mcp_session_proxy.settings.kinds import Group
from mcp_session_proxy.settings.options import options
from mcp_session_proxy.settings.values import Address

URL = "http://127.0.0.1:8000/mcp"


@pytest.fixture
def served(monkeypatch):
    """Replaces the running of the proxy; holds the settings that it would have run with."""
    runs = []

    def run(settings, load):
        runs.append(settings)
        return 0

    process = ModuleType("mcp_session_proxy.assembly.process")
    vars(process).update(run=run)
    monkeypatch.setitem(sys.modules, "mcp_session_proxy.assembly.process", process)
    monkeypatch.setattr("mcp_session_proxy.assembly.process", process, raising=False)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    return runs


def refused(capsys, *arguments) -> str:
    """What is said about these arguments; the status is always 2."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def shown(capsys, *arguments) -> str:
    """What is printed for arguments that only ask."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 0
    return capsys.readouterr().out


class TestServe:
    def test_runs_the_proxy_with_the_flags(self, served):
        """Flags of every kind arrive in the settings."""
        arguments = [URL, "--listen", ":80", "--no-credential-query", "--linger=5s"]
        arguments += ["--affinity-header", "x-a,x-b", "--affinity-header", "x-c"]
        assert command.main(["serve", *arguments]) == 0
        (settings,) = served
        assert settings.upstream == URL
        assert settings.listen == Address("", 80)
        assert settings.credential_query is False
        assert settings.linger == 5
        assert settings.affinity_header == ("x-a", "x-b", "x-c")

    def test_url_may_come_last(self, served):
        """The order of URL and flags does not matter."""
        command.main(["serve", "--linger", "5s", URL])
        assert served[0].upstream == URL

    def test_url_may_come_from_the_environment(self, served, monkeypatch):
        """A container can be configured without arguments."""
        monkeypatch.setenv("MCP_SESSION_PROXY_UPSTREAM", URL)
        command.main(["serve"])
        assert served[0].upstream == URL

    def test_gives_the_status_of_the_run(self, served, monkeypatch):
        """The exit status is the proxy's own."""
        monkeypatch.setattr("mcp_session_proxy.assembly.process.run", lambda settings, load: 7)
        assert command.main(["serve", URL]) == 7

    def test_can_read_the_configuration_again(self, served, monkeypatch, tmp_path):
        """The file is read anew; flags stay as they were."""
        reload = []

        def run(settings, load):
            reload.append(load)
            return 0

        monkeypatch.setattr("mcp_session_proxy.assembly.process.run", run)
        path = tmp_path / "proxy.toml"
        path.write_text('linger = "1s"\nheartbeat = "1s"\n')
        command.main(["serve", URL, "--config", str(path), "--heartbeat", "2s"])
        path.write_text('linger = "3s"\nheartbeat = "3s"\n')
        settings = reload[0]()
        assert (settings.linger, settings.heartbeat) == (3, 2)


class TestMistakes:
    def test_wrong_value(self, capsys):
        """One message names option, value and what is allowed, and points at the help."""
        text = refused(capsys, "serve", URL, "--linger", "soon")
        assert text.startswith(
            "mcp-session-proxy: error: --linger: 'soon' is not allowed; it must be a duration"
        )
        assert text.endswith("Try: mcp-session-proxy serve --help\n")

    def test_unknown_flag_with_suggestion(self, capsys):
        """A typing error gets the flag that was meant."""
        text = refused(capsys, "serve", URL, "--idle-timout=5")
        assert "unknown argument: --idle-timout; did you mean --idle-timeout?" in text

    def test_abbreviated_flag(self, capsys):
        """Abbreviations are refused: a later option could change their meaning."""
        assert "unknown argument: --anony" in refused(capsys, "serve", URL, "--anony", "pool")

    @pytest.mark.parametrize("arguments", [[], ["serv"], ["serve"], ["serve", URL, "--listen"]])
    def test_wrong_usage(self, capsys, arguments):
        """Whatever is wrong, a line says what, without a traceback and without the whole usage."""
        text = refused(capsys, *arguments)
        assert text.startswith("mcp-session-proxy: error: ")
        assert len(text.splitlines()) == 2

    def test_unknown_key_in_the_file(self, capsys, tmp_path):
        """The file's mistakes are told the same way."""
        path = tmp_path / "proxy.toml"
        path.write_text("speed = 5\n")
        assert "there is no option 'speed'" in refused(capsys, "serve", URL, "--config", str(path))


class TestHelp:
    def test_version(self, capsys):
        """--version gives name and version."""
        assert shown(capsys, "--version") == f"mcp-session-proxy {__version__}\n"

    def test_teaches_with_examples(self, capsys):
        """The first page names the commands and shows how to use them."""
        text = shown(capsys, "--help")
        assert "mcp-session-proxy serve http://" in text
        assert "demo" in text

    @pytest.mark.parametrize("command", ["serve", "demo", "config show", "config check"])
    def test_has_every_option(self, capsys, command):
        """Every option of the settings model is on the page, but for the demo's own server."""
        text = shown(capsys, *command.split(), "--help")
        for option in options():
            if command != "demo" or not (option.field == "upstream" or option.group is Group.STDIO):
                assert option.flag in text


class TestDemo:
    @pytest.fixture
    def played(self, served, monkeypatch):
        """Replaces the demonstration; holds what it would have run with."""
        runs = []

        def run(settings, *, stay):
            runs.append((settings, stay))
            return 0

        show = ModuleType("mcp_session_proxy.demo.show")
        vars(show).update(PLACEHOLDER_URL="http://127.0.0.1:1/mcp", run=run)
        monkeypatch.setitem(sys.modules, "mcp_session_proxy.demo.show", show)
        monkeypatch.setattr("mcp_session_proxy.demo.show", show, raising=False)
        return runs

    @pytest.mark.parametrize(("arguments", "stay"), [([], False), (["--serve"], True)])
    def test_runs_the_demonstration(self, played, arguments, stay):
        """With --serve it stays up."""
        assert command.main(["demo", *arguments]) == 0
        assert played[0][1] is stay

    def test_takes_options(self, played):
        """The options of serve work for the demonstration, too."""
        command.main(["demo", "--sharing", "fresh"])
        assert played[0][0].sharing == "fresh"

    def test_has_its_own_server(self, capsys, played):
        """A URL is refused: the server is the bundled one."""
        assert "unknown argument" in refused(capsys, "demo", URL)


class TestConfig:
    def test_show(self, capsys):
        """The options of serve, as serve would have them."""
        assert command.main(["config", "show", URL, "http://127.0.0.1:8001/mcp", "--linger", "5s"]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["upstream", "URL", URL] in lines
        assert ["replica", "--replica", "http://127.0.0.1:8001/mcp"] in lines
        assert ["linger", "--linger", "5s"] in lines

    def test_show_as_json(self, capsys):
        """A program can read it."""
        assert command.main(["config", "show", "--json", URL]) == 0
        assert json.loads(capsys.readouterr().out)["upstream"]["value"] == URL

    def test_check(self, capsys):
        """One line when it is right."""
        assert command.main(["config", "check", URL]) == 0
        assert capsys.readouterr().out == "The configuration is right.\n"

    def test_check_says_that_no_file_was_read(self, capsys, tmp_path, monkeypatch):
        """A file is not read for its name: who wrote proxy.toml and does not name it hears so."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "proxy.toml").write_text(f'upstream = "{URL}"\n')
        assert command.main(["config", "check", URL]) == 0
        assert "--config" in capsys.readouterr().err
        assert command.main(["config", "check", "--config", "proxy.toml"]) == 0
        assert capsys.readouterr() == ("The configuration is right.\n", "")

    def test_check_finds_problems(self, capsys):
        """Each in a line, nothing else, and status 2."""
        assert command.main(["config", "check", URL, "--linger", "x", "--sharing", "y"]) == 2
        captured = capsys.readouterr()
        assert [line.partition(":")[0] for line in captured.err.splitlines()] == ["--sharing", "--linger"]
        assert captured.out == ""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "the following arguments are required: ACTION"),
            (["shw"], "invalid choice: 'shw'"),
            (["show", URL, "--linge=5s"], "unknown argument: --linge; did you mean --linger?"),
        ],
    )
    def test_mistakes(self, capsys, arguments, said):
        """The help of the very command is pointed at."""
        text = refused(capsys, "config", *arguments)
        assert said in text
        assert "Try: mcp-session-proxy config" in text


def test_ctrl_c_while_it_starts(served, monkeypatch, capsys):
    """The usual status, and no traceback."""

    def interrupted(settings, load):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mcp_session_proxy.assembly.process"], "run", interrupted)
    assert command.main(["serve", URL]) == 130
    assert capsys.readouterr() == ("", "")
