"""The Tab key in real shells, on a terminal of their own."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_session_proxy.cli import command
from mcp_session_proxy.cli.completion import Shell

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "PS1": "",
}
# How each shell starts without anybody's own settings, and how it learns the script.
SHELLS = {
    Shell.BASH: (["bash", "--noprofile", "--norc", "-i"], "bind 'set bell-style none'; source {script}"),
    Shell.ZSH: (["zsh", "-f", "-i"], "PROMPT=; autoload -U compinit; compinit -D; source {script}"),
}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell} here")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Writes the script of a shell to a file, as the user would."""

    def write(shell: Shell) -> Path:
        assert command.main(["completion", shell]) == 0
        path = tmp_path / "script"
        path.write_text(capsys.readouterr().out)
        return path

    return write


class Terminal:
    """A terminal with a shell on it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read_until(self, *words: str) -> str:
        """What appears, up to the moment when all these words have."""
        seen, deadline = b"", time.monotonic() + 30
        while not all(word.encode() in seen for word in words):
            ready, _, _ = select.select([self._fd], [], [], deadline - time.monotonic())
            assert ready, f"{words} did not appear in {seen!r}"
            seen += os.read(self._fd, 65536)
        return seen.decode(errors="replace")


@contextmanager
def terminal(shell: Shell, script: Path) -> Iterator[Terminal]:
    """The shell, which has read the script and waits for keys."""
    arguments, setup = SHELLS[shell]
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(arguments[0], arguments, ENVIRONMENT)
    try:
        terminal = Terminal(fd)
        # The word is written in two pieces, so that the echo of the command is not taken for its output.
        terminal.type(f"{setup.format(script=script)}; echo set-''up\n")
        terminal.read_until("set-up")
        yield terminal
    finally:
        os.close(fd)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in SHELLS])
class TestTab:
    def test_completes_an_option(self, shell, script):
        """The beginning of a flag becomes the flag."""
        with terminal(shell, script(shell)) as keys:
            keys.type("mcp-session-proxy serve --sha\t")
            assert "--sharing" in keys.read_until("ring")

    def test_lists_the_words_that_an_option_can_be(self, shell, script):
        """Two taps show all choices."""
        with terminal(shell, script(shell)) as keys:
            keys.type("mcp-session-proxy serve --sharing \t\t")
            keys.read_until("handover", "isolated", "shared", "fresh")

    def test_completes_a_choice_after_an_equals_sign(self, shell, script):
        """Both ways to give a value are understood."""
        with terminal(shell, script(shell)) as keys:
            keys.type("mcp-session-proxy serve --sharing=hand\t")
            keys.read_until("over")

    def test_completes_the_name_of_a_file(self, shell, script, tmp_path):
        """Options that take a file complete its name."""
        (tmp_path / "long-name.toml").touch()
        with terminal(shell, script(shell)) as keys:
            keys.type(f"mcp-session-proxy config check --config {tmp_path}/lo\t")
            keys.read_until("ng-name.toml")


@needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("serve --sha", ["--sharing"]),
        ("serve --log-format ", ["auto", "console", "json"]),
        ("config ", ["check", "show"]),
        ("completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_fish(script, tmp_path, line, offered):
    """What fish would show for a line, without the explanations."""
    command = f"source {script(Shell.FISH)}; complete -C 'mcp-session-proxy {line}'"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    shown = subprocess.run(
        ["fish", "--no-config", "-c", command],
        env={**ENVIRONMENT, **home},
        capture_output=True,
        text=True,
        check=True,
    )
    words = [word.split("\t")[0] for word in shown.stdout.splitlines()]
    assert [word for word in words if word not in ("-h", "--help")] == offered


def test_unknown_shell(capsys):
    """The message names the shells that there are."""
    with pytest.raises(SystemExit):
        command.main(["completion", "tcsh"])
    said = capsys.readouterr().err
    assert all(shell in said for shell in Shell)
