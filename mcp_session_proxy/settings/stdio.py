"""The options of a server that is a command: what is started, and with what. Part of ``config.Settings``."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict
from yarl import URL

from ..protocol.headers import is_forwarded
from ..upstream.stdio.environment import HIDDEN, INHERITED, PRIVATE, Environment, Stderr
from .kinds import LIVE, Count, Duration, Group
from .sources import ConfigError
from .values import Form, show

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_PATH: Final = re.compile(r"/[^\s?#]*")


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments. They may hold secrets: none of them is shown."""

    words: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, value: object) -> Self | None:
        """Read a list of words, or a line of them as a shell has it."""
        if value is None or isinstance(value, cls):
            return value
        problem = 'must be a program and its arguments, such as ["npx", "-y", "some-server"]'
        if isinstance(value, str):
            try:
                value = shlex.split(value)
            except ValueError:  # quotes that do not end
                raise ValueError(problem) from None
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise ValueError(problem)
        if not value or not value[0]:
            raise ValueError(problem)
        if any("\0" in word for word in value):
            raise ValueError("must not hold a NUL")
        return cls(tuple(value))

    @property
    def name(self) -> str:
        """The program, without its directory."""
        return Path(self.words[0]).name

    def __str__(self) -> str:
        return self.name if len(self.words) == 1 else f"{self.name} {HIDDEN}"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable for children: with this value, or with the proxy's own if that is None."""

    name: str
    value: str | None = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME`` or ``NAME=VALUE``."""
        name, equals, value = text.partition("=")
        if _VARIABLE.fullmatch(name) is None or "\0" in value:
            raise ValueError("must be NAME or NAME=VALUE, such as API_KEY=secret")
        return cls(name, value if equals else None)

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={HIDDEN}"


class HeaderVariable(msgspec.Struct, frozen=True):
    """A header of callers' requests that becomes a variable of their own children."""

    header: str
    variable: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HEADER=NAME``."""
        header, _, variable = text.partition("=")
        if _HEADER.fullmatch(header) is None or _VARIABLE.fullmatch(variable) is None:
            raise ValueError("must be HEADER=NAME, such as X-GitHub-Token=GITHUB_TOKEN")
        if not is_forwarded(header) or header.lower() == "connection":
            raise ValueError("must name a header that is between clients and the server; this one is not")
        return cls(header, variable)

    def __str__(self) -> str:
        return f"{self.header}={self.variable}"


def _parse_each(kind: Any, value: object) -> tuple[Any, ...]:
    """A list: values may hold commas, so only in the one text of an environment variable these part them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of texts")
    return tuple(item if isinstance(item, kind) else kind.parse(str(item).strip()) for item in items)


def _parse_path(value: object) -> str:
    if not isinstance(value, str) or _PATH.fullmatch(value) is None:
        raise ValueError("must be a path, such as /mcp")
    return URL(value).raw_path


def _show_command(value: Command | None) -> str:
    return show(value if value is None else str(value))


OptionalCommand = Annotated[
    Command | None, BeforeValidator(Command.parse), Form("-- COMMAND ARGS...", _show_command)
]
Variables = Annotated[
    tuple[Variable, ...],
    BeforeValidator(lambda value: _parse_each(Variable, value)),
    Form("NAME[=VALUE]", show),
]
HeaderVariables = Annotated[
    tuple[HeaderVariable, ...],
    BeforeValidator(lambda value: _parse_each(HeaderVariable, value)),
    Form("HEADER=NAME", show),
]
EndpointPath = Annotated[str, BeforeValidator(_parse_path), Form("PATH", show)]
OptionalDirectory = Annotated[
    Path | None, BeforeValidator(lambda value: None if value == "" else value), Form("DIR", show)
]


class StdioSettings(BaseModel):
    """The part of the settings that is about a server that is a command; other defaults depend on it."""

    # Only the whole is ever made.
    model_config = ConfigDict(defer_build=True)

    command: Annotated[OptionalCommand, Group.STDIO] = None
    """The server is a command that speaks MCP over its standard input and output, instead of a URL. Each
    upstream session has a child of its own, started when it is needed. On the command line, what follows --
    is the command; in the file, it is a list, command = ["npx", "-y", "some-server"]."""

    path: Annotated[EndpointPath, Group.STDIO] = "/mcp"
    """The path of the MCP endpoint, for a server that is a command and has no URL to take it from."""

    stdio_env: Annotated[Variables, Group.STDIO] = ()
    """A variable in the children's environment: NAME with the proxy's own value, or NAME=VALUE. They get
    no others but HOME, LANG, LOGNAME, PATH, SHELL, TERM, TMPDIR and USER."""

    stdio_env_from_header: Annotated[HeaderVariables, Group.STDIO] = ()
    """A header of a caller's requests that becomes a variable of that caller's own children. It counts as a
    credential, so callers that differ in it share nothing. Other users of the machine cannot read a process's
    variables, but other programs of the same user can."""

    stdio_cwd: Annotated[OptionalDirectory, Group.STDIO] = None
    """The children's working directory. {session} in it stands for a new private directory of each child's
    own, which is removed with it."""

    stdio_start_timeout: Annotated[Duration, Group.STDIO, LIVE] = 120.0
    """How long the first child may take to answer its handshake: commands such as npx fetch the server then.
    Once one has answered, --handshake-timeout is for the others."""

    stdio_stderr: Annotated[Stderr, Group.STDIO] = Stderr.LOG
    """What becomes of what children write to standard error. log: each line is an event server.said, without
    the values of variables that sound secret. inherit: it goes to the proxy's own. discard: nothing."""

    stdio_spawns: Annotated[Count, Group.STDIO, LIVE] = 4
    """Children that may be at their start at the same time; the next ones wait. Twenty at once on a small
    machine keep each other from answering in time."""

    def environment(self) -> Environment:
        """What children find in theirs."""
        given = {name: os.environ[name] for name in INHERITED if name in os.environ}
        for variable in self.stdio_env:
            value = os.environ.get(variable.name) if variable.value is None else variable.value
            if value is not None:
                given[variable.name] = value
        pairs = ((each.header.lower(), each.variable) for each in self.stdio_env_from_header)
        return Environment(given=given, from_headers=tuple(pairs))

    def stdio_conflicts(self) -> Iterator[tuple[str, str]]:
        """Options that mean nothing for a URL, each with the end of a sentence that says so."""
        if self.command is None:
            for name in StdioSettings.model_fields:
                if name != "command" and getattr(self, name) != StdioSettings.model_fields[name].default:
                    yield name, "needs a server that is a command (serve --stdio -- COMMAND)"


def check_command(settings: StdioSettings) -> None:
    """Whether the command can be started here, as far as that shows without starting it.

    Raises:
        ConfigError: it cannot.
    """
    if settings.command is None:
        return
    program, cwd = settings.command.words[0], settings.stdio_cwd
    is_private = cwd is not None and PRIVATE in str(cwd)
    if cwd is not None and not is_private and not cwd.is_dir():
        raise ConfigError(f"--stdio-cwd: {cwd} is no directory")
    if "/" in program and cwd is not None:
        if is_private:
            return  # where the program is to be, is not made yet
        program = str(cwd / program)
    # As the system looks for it: where it says, else in the children's PATH.
    if which(program, path=settings.environment().given.get("PATH")) is None:
        raise ConfigError(f"--stdio: {_why_not(program)}")


def _why_not(program: str) -> str:
    place = Path(program)
    if len(place.parts) == 1:
        return (
            f"there is no program {program!r} in the PATH; is it installed for the user that runs the proxy?"
        )
    if place.is_dir():
        return f"{program!r} is a directory, not a program"
    if place.exists():
        return f"{program!r} is no program that this user may execute (chmod +x?)"
    return f"there is no program {program!r}"
