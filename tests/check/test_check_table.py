import io
from dataclasses import replace

import pytest
from check_samples import URL, hello, play, proxied, refused, stateful, with_plays
from rich.console import Console

from mcp_session_proxy.check.problems import Diagnosis
from mcp_session_proxy.check.report import judge_side, write_report
from mcp_session_proxy.check.table import print_report

PROXY_URL = "http://127.0.0.1:8080/mcp"
DEAD = Diagnosis(key="unreachable", text="There is no connection to [here].", hint="Is it running?")


def printed(direct, through=None, *, width=80, **console) -> str:
    file = io.StringIO()
    side = None if through is None else judge_side(through, PROXY_URL)
    report = write_report(judge_side(direct, URL), side, has_credentials=False)
    print_report(Console(file=file, width=width, highlight=False, **console), report)
    return file.getvalue()


@pytest.mark.parametrize("through", [None, proxied()])
def test_fits_a_narrow_terminal(through):
    """Nothing is wider than 80 columns."""
    assert all(len(line) <= 80 for line in printed(stateful(), through).splitlines())


def test_the_command_can_be_copied():
    """It stays in one line, however narrow the terminal."""
    lines = printed(stateful(), width=40).splitlines()
    assert any(line.strip() == f"mcp-session-proxy serve {URL}" for line in lines)


def test_shows_both_sides():
    """What fails directly and what works through the proxy stand in one line."""
    lines = printed(stateful(), proxied(), width=160).splitlines()
    (openai,) = [line for line in lines if "OpenAI" in line]
    assert openai.index("fails") < openai.index("works")
    assert "404 Session not found" in openai


def test_has_no_colours_outside_of_a_terminal():
    """A file or a pipe gets plain text."""
    assert "\x1b" not in printed(stateful(), proxied())


def test_has_colours_on_a_terminal():
    """A failure is red."""
    assert "\x1b[1;31mfails" in printed(stateful(), force_terminal=True, color_system="standard")


def test_a_servers_text_is_neither_markup_nor_control():
    """A hostile server cannot write to the terminal."""
    nasty = refused(500, "[bold red]boom[/] \x1b]0;title\x07\x1b[2J", -32000)
    seen = replace(stateful(hello=hello(name="[blink]x[/blink]\x1b[5m")), unknown=nasty)
    text = printed(with_plays(seen, openai=(play(nasty),)), width=200)
    assert "500 [bold red]boom[/]" in text
    assert "[blink]x[/blink] 1.2.3" in text
    assert "\x1b" not in text


def test_what_was_not_measured_is_marked():
    """Nobody takes what is known in general for what was seen here."""
    text = " ".join(printed(stateful(), width=300).split())
    assert "none before (known of this family, not measured)" in text


def test_a_problem_and_what_to_do():
    """Without tables, as there is nothing to show."""
    text = printed(DEAD)
    assert "There is no connection to [here]." in text
    assert "Is it running?" in text
    assert "How clients fare" not in text


def test_a_problem_with_one_side():
    """The other side is shown, and it is said which one it is about."""
    text = printed(DEAD, proxied())
    assert f"{URL}: There is no connection" in " ".join(text.split())
    assert "How clients fare" in text
