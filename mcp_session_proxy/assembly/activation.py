"""Sockets that systemd has opened and passes on to each process that serves on them (``sd_listen_fds(3)``).

They stay open while the service is restarted: clients that connect meanwhile wait, and are not refused.
"""

import os
import socket
import stat
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Final

import msgspec

from ..settings.config import Settings
from .sockets import Bound, CannotStart, Role, adopt, what_is_wrong

# The first one that is passed; the numbers below are standard input, output and error.
_FIRST: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
# What a socket unit names the sockets of operators (FileDescriptorName=); all others are for clients.
_ADMIN_NAMES: Final = ("admin", "admin-listen")
_ADMIN_UNIT: Final = "-admin.socket"


class Inherited(msgspec.Struct, frozen=True):
    """The listeners whose sockets were passed to this process; None for those that it has to bind itself."""

    public: Bound | None = None
    admin: Bound | None = None

    def fit(self, settings: Settings) -> Settings:
        """The settings with the addresses that there are, instead of those that would have been bound."""
        given = {"listen": self.public, "admin_listen": self.admin}
        return settings.model_copy(
            update={field: bound.address for field, bound in given.items() if bound is not None}
        )


def inherit(environment: MutableMapping[str, str], *, first: int = _FIRST) -> Inherited:
    """The sockets that were passed to this process, if any. Its children do not inherit them.

    Raises:
        CannotStart: one is missing, or cannot be served on.
    """
    pid, count, names = (environment.pop(name, None) for name in _VARIABLES)
    # They may be meant for another process, such as the shell that has started this one.
    if count is None or pid != str(os.getpid()):
        return Inherited()
    if not (count.isascii() and count.isdecimal()):
        raise CannotStart(f"LISTEN_FDS is {count!r}, which is no number of sockets")
    found = [_take(number) for number in range(first, first + int(count))]
    by_role: dict[Role, list[socket.socket]] = {role: [] for role in Role}
    for role, given in zip(_roles(len(found), names), found, strict=True):
        by_role[role].append(given)
    public, admin = by_role[Role.PUBLIC], by_role[Role.ADMIN]
    return Inherited(adopt(public) if public else None, adopt(admin) if admin else None)


def _take(number: int) -> socket.socket:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        raise CannotStart(
            f"LISTEN_FDS promises a socket as file descriptor {number}, which is not open"
        ) from None
    if not is_socket:
        raise CannotStart(
            f"LISTEN_FDS promises a socket as file descriptor {number}, which is something else"
        )
    os.set_inheritable(number, False)
    given = socket.socket(fileno=number)
    if (problem := what_is_wrong(given)) is not None:
        raise CannotStart(f"nobody could connect to the socket passed as file descriptor {number}: {problem}")
    return given


def _roles(count: int, names: str | None) -> Iterator[Role]:
    """Whom each socket is for, by its name; without names, the first one is for clients and the second for
    operators."""
    if names is None:
        if count > len(Role):
            raise CannotStart(
                f"{count} sockets were passed without names, and more than two need them "
                "(in a socket unit: FileDescriptorName=public or admin)"
            )
        yield from list(Role)[:count]
        return
    words: Sequence[str] = names.split(":") if names else ()
    if len(words) != count:
        raise CannotStart(f"LISTEN_FDNAMES has {len(words)} names for the {count} sockets of LISTEN_FDS")
    for word in words:
        yield Role.ADMIN if word in _ADMIN_NAMES or word.endswith(_ADMIN_UNIT) else Role.PUBLIC
