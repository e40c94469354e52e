"""``check --stdio``: a command looked at."""

import json
from typing import Any

import pytest
from stdio_bench import SERVER, TOY

from mcp_session_proxy.cli.command import main


def checked(capsys: pytest.CaptureFixture[str], *arguments: str, command: list[str] | None = None) -> Any:
    """The JSON that a check of the toy server with these arguments prints, or of another command."""
    words = command or [*TOY, *arguments]
    status = main(["check", "--json", "--stdio", "--stdio-stderr", "discard", "--", *words])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_status"] == status
    return document


def test_a_server_that_behaves(capsys: pytest.CaptureFixture[str]) -> None:
    """What it is, how long it takes to start, and that it leaves."""
    document = checked(capsys)
    facts = document["facts"]
    assert (document["outcome"], document["problem"], document["advice"]) == ("works", None, [])
    assert (facts["name"], facts["protocol"], facts["tools"]) == ("toy 1", "2025-11-25", 1)
    assert (facts["two_at_once"], facts["noise_lines"], facts["leaves"]) == (True, 0, "left")


@pytest.mark.slow
def test_a_server_that_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told what to do about it."""
    document = checked(capsys, "--stubborn", "--banner", "Hello!\\n")
    assert (document["facts"]["leaves"], document["facts"]["noise_lines"]) == ("killed", 3)
    assert len(document["advice"]) == 2


def test_a_command_that_is_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """The status says that nothing could be checked, and the text how it ended."""
    document = checked(capsys, command=["sh", "-c", "exit 7"])
    assert (document["outcome"], document["exit_status"]) == ("unchecked", 3)
    assert "exit status 7" in document["problem"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A table, without the command's words, which may be secret."""
    assert main(["check", "--stdio", "--", *TOY]) == 0
    text = capsys.readouterr().out
    assert "when its standard input is closed" in text
    assert SERVER not in text


@pytest.mark.parametrize("arguments", [["--stdio"], ["--stdio", "--", "no-such-program"]])
def test_no_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Wrong usage, told in one line."""
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments])
    assert ended.value.code == 2
    assert "--stdio" in capsys.readouterr().err
