"""The Tab key: scripts for bash, zsh and fish, and the answers that those scripts ask the program for.

``argcomplete`` reads the same parser as the command line itself, so nothing here lists a command or an
option. It is imported only when a shell asks.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

# How the shell's script tells that it wants completions rather than a run of the program.
_ASKED: Final = "_ARGCOMPLETE"


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def script(program: str, shell: Shell) -> str:
    """The text for a shell to read, so that it asks ``program`` what may come next."""
    from argcomplete.shell_integration import shellcode

    # bash is not to offer file names of its own where no file is meant.
    return shellcode([program], shell=shell, complete_arguments=["-o", "nospace"])


def is_asked() -> bool:
    """Whether it is a shell that runs the program, to learn what may come next."""
    return _ASKED in os.environ


def answer(parser: argparse.ArgumentParser) -> None:
    """Write what may come next and end the process, if it is a shell that asks; otherwise do nothing."""
    if is_asked():
        import argcomplete
        from argcomplete.completers import ChoicesCompleter

        argcomplete.autocomplete(parser, default_completer=ChoicesCompleter({}))


def teach(action: argparse.Action, choices: Sequence[str], *, is_file: bool) -> None:
    """Say what an option's value may be: one of ``choices``, the name of a file, or nothing known."""
    if choices:
        # Not argparse's own `choices`: wrong values are the settings model's business.
        action.completer = lambda **_: choices  # type: ignore[attr-defined]
    elif is_file:
        action.completer = _files  # type: ignore[attr-defined]


def _files(**asked: Any) -> Iterable[str]:
    from argcomplete.completers import FilesCompleter

    return FilesCompleter()(**asked)
