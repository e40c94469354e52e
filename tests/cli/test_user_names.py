"""A user name and a password that somebody wrote into a URL, or where a URL should be, are never repeated."""

import contextlib
from pathlib import Path

import pytest

from mcp_session_proxy.cli.command import main
from mcp_session_proxy.settings.config import Settings
from mcp_session_proxy.settings.sources import key_name

GOOD = "http://127.0.0.1:1/mcp"
SECRET = "hunter2"
WRITTEN = [
    f"http://user:{SECRET}@127.0.0.1:1/mcp",
    f"http://user:{SECRET}/{SECRET}@h/mcp",
    f"http://user:{SECRET}#{SECRET}@h/mcp",
    f"//user:{SECRET}@h:1/mcp",
    f"user:{SECRET}@h:1",
]
OPTIONS = [field for field in Settings.model_fields if field != "upstream"]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the program prints."""
    with contextlib.suppress(SystemExit):
        main(argv)
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("text", WRITTEN)
@pytest.mark.parametrize("command", ["serve", "check", "config show", "config check", "demo"])
def test_as_the_server(text: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command refuses it without it, as an argument and as another's name."""
    assert SECRET not in said(capsys, *command.split(), text)
    assert SECRET not in said(capsys, *command.split(), GOOD, "--config", text)


@pytest.mark.parametrize("text", [WRITTEN[0], WRITTEN[-1]])
@pytest.mark.parametrize("field", OPTIONS)
@pytest.mark.slow
def test_in_any_option(
    field: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wherever it was written: as a flag, in a variable, in the file."""
    name = key_name(field)
    for command in ("show", "check"):
        assert SECRET not in said(capsys, "config", command, GOOD, f"--{name}={text}")
    path = tmp_path / "proxy.toml"
    path.write_text(f'upstream = "{GOOD}"\n{name} = "{text}"\n')
    assert SECRET not in said(capsys, "config", "show", "--config", str(path))
    monkeypatch.setenv(f"MCP_SESSION_PROXY_{field.upper()}", text)
    assert SECRET not in said(capsys, "config", "show", GOOD)


def test_in_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with the file is told without its lines."""
    path = tmp_path / "proxy.toml"
    for content in (WRITTEN[0], f'upstream = "{WRITTEN[0]}', f'"{WRITTEN[0]}" = 1'):
        path.write_text(content + "\n")
        assert SECRET not in said(capsys, "config", "check", "--config", str(path))


@pytest.mark.parametrize("option", ["--announce", "--upstream-ca", "--tls-client-ca"])
def test_in_a_path(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is not called by that name."""
    more = ["--upstream-ca", "/nonexistent"] if option == "--announce" else []
    output = said(capsys, "serve", GOOD, "--listen", "127.0.0.1:0", *more, option, WRITTEN[0])
    assert SECRET not in output
