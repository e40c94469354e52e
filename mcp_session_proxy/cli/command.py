"""The command line. Its flags are the settings model's options; it checks nothing itself but their names."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from .. import __version__
from ..events import Level
from ..ops import logs
from ..settings.config import Settings, load
from ..settings.kinds import Group
from ..settings.options import Option, options
from ..settings.sources import ConfigError, suggest
from ..settings.values import hide_user
from .completion import Shell, answer, is_asked, script, teach
from .loading import uncollected
from .texts import (
    CHECK_DESCRIPTION,
    CHECK_EXAMPLES,
    COMPLETION_DESCRIPTION,
    CONFIG_CHECK_DESCRIPTION,
    CONFIG_DESCRIPTION,
    CONFIG_SHOW_DESCRIPTION,
    DEMO_DESCRIPTION,
    DESCRIPTION,
    EXAMPLES,
    SERVE_DESCRIPTION,
    SERVE_EXAMPLES,
    STATE_CHECK_DESCRIPTION,
    STATE_DESCRIPTION,
)

PROGRAM: Final = "mcp-session-proxy"
# What check needs to reach a server, beside the options of one that is a command.
_FOR_THE_CHECK: Final = ("config", "upstream_ca", "upstream_cert", "upstream_key")
_STDIO_EXAMPLE: Final = "as in serve --stdio -- npx -y @modelcontextprotocol/server-memory"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Options have long texts, which are read when somebody wants to see them."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        option = getattr(action, "option", None)
        return action.help if option is None else _help_of(option)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints fit on one line and point at the help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=_Formatter,
            # An abbreviation would change its meaning when an option is added.
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and this message, without a password that was given in a URL."""
        self.exit(2, f"{PROGRAM}: error: {hide_user(message)}\nTry: {self.prog} --help\n")

    def take_words(
        self, arguments: argparse.Namespace, words: list[str] | None, unknown: Sequence[str]
    ) -> None:
        """Take the words after ``--`` as the command; end the program when one is without the other."""
        is_wanted = getattr(arguments, "stdio", False)
        if words is not None and not is_wanted:
            self.error("what follows -- is a server's command; it needs --stdio, " + _STDIO_EXAMPLE)
        if words is not None:
            arguments.command = words
        elif is_wanted and (unknown or getattr(arguments, "upstream", [])):
            self.error("--stdio: there must be -- before the server's command, " + _STDIO_EXAMPLE)

    def refuse_unknown(self, arguments: Sequence[str]) -> None:
        """End the program when there are arguments that it does not know, naming what may be meant."""
        if arguments:
            word = arguments[0].partition("=")[0]
            self.error(f"unknown argument: {word}{suggest(word, self._option_string_actions)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own); gives its exit status.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (status 0) and on wrong usage (status 2).
    """
    own, words = _split(sys.argv[1:] if argv is None else argv)
    parser = build_parser(None if is_asked() else _command_in(own))
    answer(parser)
    arguments, unknown = parser.parse_known_args(own)
    command: Parser = arguments.parser
    command.take_words(arguments, words, unknown)
    command.refuse_unknown(unknown)
    try:
        status: int = arguments.run(arguments)
    except ConfigError as error:
        command.error(str(error))
    except KeyboardInterrupt:
        # While it was still starting: whatever runs has an answer of its own to Ctrl-C.
        return 128 + signal.SIGINT
    return status


def _split(argv: Sequence[str]) -> tuple[Sequence[str], list[str] | None]:
    """The program's own arguments, and the words of a command after ``--``; None if there is no ``--``."""
    if "--" not in argv:
        return argv, None
    place = list(argv).index("--")
    return argv[:place], list(argv[place + 1 :])


def _command_in(argv: Sequence[str]) -> str:
    """The command that these arguments name; before it there are flags at most."""
    return next((word for word in argv if not word.startswith("-")), "")


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by field. The first URL is the server, further ones are its replicas."""
    flags = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    urls = flags.pop("upstream", [])
    if urls:
        flags["upstream"] = urls[0]
    if urls[1:]:
        flags["replica"] = [*urls[1:], *flags.get("replica", [])]
    return flags


# -- what each command does ------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    flags = _flags(arguments)
    settings = load(flags)
    if getattr(arguments, "stdio", False) and settings.command is None:
        raise ConfigError("--stdio: the server's command is missing, " + _STDIO_EXAMPLE)
    logs.configure(settings.log_level, settings.log_format)
    # Imported late so that --help and complaints do not wait for the HTTP machinery.
    with uncollected():
        from ..assembly import process

    return process.run(settings, lambda: load(flags))


def _demo(arguments: argparse.Namespace) -> int:
    from ..demo import show

    # The server's port is known when it runs; a placeholder lets everything else be checked before.
    settings = load({"upstream": show.PLACEHOLDER_URL, **_flags(arguments)})
    if "log_level" not in settings.model_fields_set:
        # Its tables are what it has to say.
        settings = settings.model_copy(update={"log_level": Level.WARNING})
    logs.configure(settings.log_level, settings.log_format)
    return show.run(settings, stay=arguments.serve)


def _check_server(arguments: argparse.Namespace) -> int:
    from ..check import plan, run

    if getattr(arguments, "stdio", False):
        from ..check import command

        return command.run(
            _flags(arguments),
            plan.read_headers(arguments.header),
            plan.read_duration("--timeout", arguments.timeout),
            as_json=arguments.json,
        )
    return run.run(
        plan.read_plan(
            _flags(arguments),
            through=arguments.through,
            headers=arguments.header,
            tokens=arguments.token,
            timeout=arguments.timeout,
            idle=arguments.idle,
            call=arguments.call,
            arguments=arguments.arguments,
            as_json=arguments.json,
        )
    )


def _show_config(arguments: argparse.Namespace) -> int:
    from ..settings import effective

    rows = effective.collect(_flags(arguments))
    effective.write(rows, sys.stdout, as_json=arguments.json)
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    from ..settings import effective

    problems = effective.problems(_flags(arguments))
    if problems:
        sys.stderr.write("".join(f"{problem}\n" for problem in problems))
        return 2
    if "config" not in load(_flags(arguments)).model_fields_set:
        sys.stderr.write("No file was read; --config FILE names one.\n")
    sys.stdout.write("The configuration is right.\n")
    return 0


def _check_state(arguments: argparse.Namespace) -> int:
    from ..assembly import state_check

    return state_check.run(Path(arguments.directory))


def _complete(arguments: argparse.Namespace) -> int:
    sys.stdout.write(script(PROGRAM, Shell(arguments.shell)))
    return 0


# -- the parsers -----------------------------------------------------------------------------------


def build_parser(command: str | None = None) -> Parser:
    """The parser of the whole command line. Each command's has ``run``, which gives the exit status.

    There are a hundred options, so only the ``command`` that is asked for gets its own; without one, all do.
    """

    def choose(name: str, is_meant: Callable[[Option], bool] = lambda _: True) -> list[Option]:
        return [option for option in options() if is_meant(option)] if command in (None, name) else []

    parser = Parser(prog=PROGRAM, description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=Parser)
    serve = commands.add_parser(
        "serve",
        help="put the proxy in front of a server",
        usage=f"{PROGRAM} serve URL [options]\n       {PROGRAM} serve --stdio [options] -- COMMAND ARGS...",
        description=SERVE_DESCRIPTION,
        epilog=SERVE_EXAMPLES,
    )
    demo = commands.add_parser(
        "demo",
        help="see what it does, with a bundled server",
        usage=f"{PROGRAM} demo [--serve] [options]",
        description=DEMO_DESCRIPTION,
    )
    demo.add_argument(
        "--serve", action="store_true", help="stay up afterwards, to be tried by hand, until Ctrl-C"
    )
    _add_options(serve, choose("serve"))
    # It brings its own server.
    others = choose("demo", lambda option: option.group is not Group.STDIO and option.field != "upstream")
    _add_options(demo, others)
    serve.set_defaults(run=_serve, parser=serve)
    demo.set_defaults(run=_demo, parser=demo)
    needed = choose("check", lambda option: option.group is Group.STDIO or option.field in _FOR_THE_CHECK)
    _add_check(commands, needed)
    _add_config(commands, choose("config"))
    _add_state(commands)
    _add_completion(commands)
    return parser


def _add_check(commands: Any, choice: Sequence[Option]) -> None:
    check = commands.add_parser(
        "check",
        help="see what stateless clients would suffer from a server",
        usage=f"{PROGRAM} check URL [--through PROXY_URL] [options]\n"
        f"       {PROGRAM} check --stdio [options] -- COMMAND ARGS...",
        description=CHECK_DESCRIPTION,
        epilog=CHECK_EXAMPLES,
    )
    check.add_argument(
        "upstream", nargs="*", metavar="URL", default=argparse.SUPPRESS, help="the server's MCP endpoint"
    )
    check.add_argument(
        "--through",
        metavar="PROXY_URL",
        help="repeat it through a running proxy, side by side; without a path, it is that of the URL",
    )
    check.add_argument("--json", action="store_true", help="write JSON, for programs")
    check.add_argument(
        "--header",
        metavar="NAME: VALUE",
        action="append",
        default=[],
        help="a header to send with every request, such as a credential; @FILE reads them from a file, a "
        "line each, and @- from standard input; can be repeated; values are never shown",
    )
    check.add_argument(
        "--token",
        metavar="TOKEN",
        action="append",
        default=[],
        help="a bearer token to show; given twice, it is seen what becomes of a session whose client has "
        "another token, as after a refresh; @FILE and @- as for --header",
    )
    check.add_argument(
        "--timeout",
        metavar="DURATION",
        default="15s",
        help="how long each request may take, initialize four times as long (default: 15s)",
    )
    check.add_argument(
        "--idle",
        metavar="DURATION",
        help="leave a session alone for this long and see whether the server still has it; without it, what "
        "is known of such servers is told",
    )
    check.add_argument(
        "--call", metavar="NAME", help="a harmless tool to call, whose answers show whether state survives"
    )
    check.add_argument("--arguments", metavar="JSON", help="the arguments of that tool (default: {})")
    _add_options(check, choice)
    check.set_defaults(run=_check_server, parser=check)


def _add_config(commands: Any, choice: Sequence[Option]) -> None:
    config = commands.add_parser(
        "config", help="see or check the configuration", description=CONFIG_DESCRIPTION
    )
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    show = actions.add_parser(
        "show",
        help="what is in force, and where it comes from",
        usage=f"{PROGRAM} config show [--json] [URL] [options]",
        description=CONFIG_SHOW_DESCRIPTION,
    )
    show.add_argument("--json", action="store_true", help="write JSON, for programs")
    check = actions.add_parser(
        "check",
        help="whether serve would start with it",
        usage=f"{PROGRAM} config check [URL] [options]",
        description=CONFIG_CHECK_DESCRIPTION,
    )
    _add_options(show, choice)
    _add_options(check, choice)
    show.set_defaults(run=_show_config, parser=show)
    check.set_defaults(run=_check_config, parser=check)


def _add_state(commands: Any) -> None:
    state = commands.add_parser("state", help="look at what --state-dir keeps", description=STATE_DESCRIPTION)
    actions = state.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    check = actions.add_parser(
        "check",
        help="whether a proxy could go on with it",
        usage=f"{PROGRAM} state check DIR",
        description=STATE_CHECK_DESCRIPTION,
    )
    check.add_argument("directory", metavar="DIR", help="the directory that --state-dir names")
    check.set_defaults(run=_check_state, parser=check)


def _add_completion(commands: Any) -> None:
    complete = commands.add_parser(
        "completion",
        help="print a script for the Tab key of your shell",
        description=COMPLETION_DESCRIPTION,
    )
    complete.add_argument("shell", choices=[shell.value for shell in Shell], help="your shell")
    complete.set_defaults(run=_complete, parser=complete)


def _add_options(parser: Parser, choice: Sequence[Option]) -> None:
    for group in Group:
        section = parser.add_argument_group(group)
        for option in choice:
            if option.group is group:
                _add_option(section, option)


def _add_option(section: Any, option: Option) -> None:
    """Absent flags leave no trace in the result, so that the environment and the file can speak."""
    action: Any
    if option.field == "upstream":
        # Not required here: it may come from the environment or the file.
        action = section.add_argument(
            "upstream", nargs="*", metavar=option.metavar, help=option.flag, default=argparse.SUPPRESS
        )
    elif option.field == "command":
        # The words after -- are split off beforehand: some of them may look like options of ours.
        action = section.add_argument(
            option.flag, dest="stdio", action="store_true", help=option.flag, default=argparse.SUPPRESS
        )
    elif option.is_switch:
        action = section.add_argument(
            option.flag,
            action=argparse.BooleanOptionalAction,
            help=option.flag,
            default=argparse.SUPPRESS,
        )
    else:
        action = section.add_argument(
            option.flag,
            action="append" if option.is_list else "store",
            metavar=option.metavar,
            help=option.flag,
            default=argparse.SUPPRESS,
        )
        teach(action, option.choices, is_file=option.metavar == "FILE")
    action.option = option


def _help_of(option: Option) -> str:
    text = option.text.replace("%", "%%")
    notes = [] if option.default in (None, "none") else [f"default: {option.default}"]
    notes += ["live"] if option.is_live else []
    return f"{text} ({', '.join(notes)})" if notes else text
