"""The command line. Its flags are the settings model's options; it checks nothing itself but their names."""

import argparse
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from . import __version__
from .config import Group, load
from .events import Level
from .ops import logs
from .options import ConfigError, suggest
from .reference import Option, options

PROGRAM: Final = "mcp-session-proxy"

_DESCRIPTION: Final = """\
A reverse proxy that lets stateless MCP clients use an unmodified stateful MCP server.

It keeps the server's sessions alive while clients come and go: their DELETEs are absorbed, their
forgotten or outdated session ids still work, and the next client gets the session back, state included.
"""

_EXAMPLES: Final = """\
examples:
  See the problem and its solution on this machine:
    mcp-session-proxy demo

  Put the proxy in front of a server, and point the clients at http://127.0.0.1:8080/mcp:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp

  See all options:
    mcp-session-proxy serve --help
"""

_SERVE_DESCRIPTION: Final = """\
Put the proxy in front of one MCP server.

Clients are pointed at the proxy instead of the server: same path, other port. Nothing changes at the
server. Every option is also an environment variable (--idle-timeout is MCP_SESSION_PROXY_IDLE_TIMEOUT)
and a key of the TOML file given with --config; a flag wins over a variable, a variable over the file.

Durations are written 500ms, 30s, 5m, 2h, 1d or as seconds; sizes 512KiB, 4MiB or as bytes. Flags that
take a NAME, an ORIGIN or a HOST can be repeated.
"""

_SERVE_EXAMPLES: Final = """\
examples:
  A sidecar: same machine as the server, every caller one party (the defaults):
    mcp-session-proxy serve http://127.0.0.1:8000/mcp

  For many users, told apart by their Authorization header; the rest get nothing to share:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --listen :8080 --anonymous isolate

  Behind a public name with OAuth:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --listen :8080 \\
        --public-url https://mcp.example.com --allowed-host mcp.example.com

  A clean session for every call, three kept ready:
    mcp-session-proxy serve http://127.0.0.1:8000/mcp --sharing fresh --min-idle 3
"""

_DEMO_DESCRIPTION: Final = """\
Start a bundled stateful MCP server and show what a client like OpenAI's Responses API, which ends its
session before it calls a tool, gets from it: directly, and through the proxy.

Takes the options of serve, too.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints fit on one line and point at the help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # An abbreviation would change its meaning when an option is added.
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and this message."""
        self.exit(2, f"{PROGRAM}: error: {message}\nTry: {self.prog} --help\n")

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
    parser, commands = _build_parsers()
    arguments, unknown = parser.parse_known_args(argv)
    command = commands[arguments.command]
    command.refuse_unknown(unknown)
    flags = {name: value for name, value in vars(arguments).items() if name not in ("command", "serve")}
    _name_replicas(flags)
    try:
        if arguments.command == "serve":
            return _serve(flags)
        return _demo(flags, stay=arguments.serve)
    except ConfigError as error:
        command.error(str(error))


def _name_replicas(flags: dict[str, Any]) -> None:
    """The first URL is the server, further ones are its replicas."""
    urls = flags.pop("upstream", [])
    if urls:
        flags["upstream"] = urls[0]
    if urls[1:]:
        flags["replica"] = [*urls[1:], *flags.get("replica", [])]


def _serve(flags: dict[str, Any]) -> int:
    settings = load(flags)
    logs.configure(settings.log_level, settings.log_format)
    # Imported late so that --help and complaints do not wait for the HTTP machinery.
    from . import lifecycle

    return lifecycle.run(settings)


def _demo(flags: dict[str, Any], *, stay: bool) -> int:
    from .demo import show

    # The server's port is known when it runs; a placeholder lets everything else be checked before.
    settings = load({"upstream": show.PLACEHOLDER_URL, **flags})
    quiet = "log_level" not in settings.model_fields_set
    logs.configure(Level.WARNING if quiet else settings.log_level, settings.log_format)
    return show.run(settings, stay=stay)


def _build_parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog=PROGRAM, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    serve = commands.add_parser(
        "serve",
        help="put the proxy in front of a server",
        usage=f"{PROGRAM} serve URL [options]",
        description=_SERVE_DESCRIPTION,
        epilog=_SERVE_EXAMPLES,
    )
    demo = commands.add_parser(
        "demo",
        help="see what it does, with a bundled server",
        usage=f"{PROGRAM} demo [--serve] [options]",
        description=_DEMO_DESCRIPTION,
    )
    demo.add_argument(
        "--serve", action="store_true", help="stay up afterwards, to be tried by hand, until Ctrl-C"
    )
    _add_options(serve, options())
    _add_options(demo, [option for option in options() if option.field != "upstream"])
    return parser, {"serve": serve, "demo": demo}


def _add_options(parser: Parser, choice: Sequence[Option]) -> None:
    for group in Group:
        section = parser.add_argument_group(group)
        for option in choice:
            if option.group is group:
                _add_option(section, option)


def _add_option(section: Any, option: Option) -> None:
    """Absent flags leave no trace in the result, so that the environment and the file can speak."""
    text = option.text.replace("%", "%%")
    if option.default not in (None, "none"):
        text += f" (default: {option.default})"
    if option.field == "upstream":
        # Not required here: it may come from the environment or the file.
        section.add_argument(
            "upstream", nargs="*", metavar=option.metavar, help=text, default=argparse.SUPPRESS
        )
    elif option.is_switch:
        section.add_argument(
            option.flag, action=argparse.BooleanOptionalAction, help=text, default=argparse.SUPPRESS
        )
    else:
        action = "append" if option.is_list else "store"
        section.add_argument(
            option.flag, action=action, metavar=option.metavar, help=text, default=argparse.SUPPRESS
        )
