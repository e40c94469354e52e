"""Lowers limits to fit the number of files that the system lets the process open. Pure.

Every connection is an open file. A process that has no more of them can accept nobody, not even an operator
who wants to know what is wrong. So the limits are lowered of whatever opens files: clients' connections, the
connections of calls and of parked calls to the server, and the GET streams of upstream sessions.
"""

from typing import Final

from .config import Settings
from .sources import key_name

# The admin listener's connections, monitors' probes, listening sockets, log files, libraries' own.
_RESERVED: Final = 128
# How the rest is divided, in hundredths, by the option that limits each part.
_PARTS: Final = {"max_connections": 50, "max_sessions": 20, "max_exchanges": 20, "max_parked": 10}
_LEAST: Final = 8
# The open files of a child: its standard input, output and error.
_PIPES: Final = 3


def fit(settings: Settings, open_files: int) -> Settings:
    """The settings, with limits lowered as far as so many open files demand; the same if they do not."""
    room = max(0, open_files - _RESERVED)
    files = dict.fromkeys(_PARTS, 1)
    if settings.command is not None:
        files["max_sessions"] = _PIPES
    if sum(getattr(settings, name) * files[name] for name in _PARTS) <= room:
        return settings
    allowed = {name: max(_LEAST, room * part // 100 // files[name]) for name, part in _PARTS.items()}
    lowered = {name: limit for name, limit in allowed.items() if getattr(settings, name) > limit}
    return settings.model_copy(update=lowered)


def explain(wanted: Settings, fitted: Settings, open_files: int) -> str:
    """A sentence for the operator: which limits were lowered, and how to avoid that."""
    changes = [
        f"--{key_name(name)} {getattr(fitted, name)}"
        for name in _PARTS
        if getattr(fitted, name) != getattr(wanted, name)
    ]
    return (
        f"the system grants {open_files} open files, so the limits are {', '.join(changes)}; "
        "for more, raise it (ulimit -n, LimitNOFILE= in a systemd unit)"
    )
