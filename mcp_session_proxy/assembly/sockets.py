"""Sockets that listen, before a process accepts on them: bound here, or given by another process.

From the moment on at which a socket listens, the system takes connections for it and keeps them in a queue.
The queue belongs to the socket and not to the process, so a socket that goes from one process to the next
refuses nobody, even if for a while none of them accepts.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from ..settings.values import Address, hide_user

# How many connections may wait to be accepted. They wait longer while one process replaces another.
BACKLOG: Final = 1024
_NO_SUCH_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class CannotStart(Exception):
    """The proxy cannot start. The text says why, and which option to change."""

    def __init__(self, text: str) -> None:
        super().__init__(hide_user(text))


class CannotListen(CannotStart):
    """The address of a listener is in use, or is not one of this machine."""


class Role(StrEnum):
    """Whom a listener is for."""

    PUBLIC = "public"
    ADMIN = "admin"


class Bound(msgspec.Struct, frozen=True):
    """The sockets of one listener, and the address that people use, with the port that was chosen."""

    address: Address
    sockets: tuple[socket.socket, ...]

    def origin(self, scheme: str) -> str:
        """The beginning of its URLs; of a unix socket's as nginx and curl write them."""
        return f"{scheme}://{self.address}" if not self.address.is_unix else f"{scheme}://{self.address}:"

    def close(self) -> None:
        """Give the sockets back. Other processes that have them, too, go on."""
        for listening in self.sockets:
            listening.close()


async def bind(address: Address, option: str) -> Bound:
    """Listen on the address that this option names: on all of a host's, or of this machine's.

    Raises:
        CannotListen: the address is taken or not ours.
    """
    try:
        sockets = await _bind(address.host or None, address.port)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {address} ({error.strerror or error}); choose another address with {option}"
        ) from error
    return Bound(Address(address.host or "0.0.0.0", sockets[0].getsockname()[1]), tuple(sockets))


async def _bind(host: str | None, port: int) -> list[socket.socket]:
    """Sockets on the addresses of a host, or on all of this machine's, without families that it lacks.

    Raises:
        OSError: an address is taken, or there is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    with contextlib.ExitStack() as bound:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                # IPv6 alone on a socket of that family, so that both can have the same port.
                listening = socket.create_server(address, family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                missing = error
                continue
            sockets.append(bound.enter_context(listening))
        if not sockets:
            raise missing
        bound.pop_all()
    return sockets


def adopt(sockets: Sequence[socket.socket]) -> Bound:
    """Sockets that listen already. Of several addresses, it goes by one that other machines can reach."""
    addresses = [_address_of(listening) for listening in sockets]
    widest = next((address for address in addresses if not address.is_loopback), addresses[0])
    return Bound(widest, tuple(sockets))


def what_is_wrong(given: socket.socket) -> str | None:
    """Why nobody can connect to this socket as to a server over HTTP; None if all is well."""
    if given.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return f"it is of the address family {given.family!r}, neither TCP nor unix"
    if given.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return "it is no stream socket (in a socket unit: ListenStream=)"
    if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it does not listen (in a socket unit: Accept=no)"
    return None


def _address_of(listening: socket.socket) -> Address:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        # Linux's abstract names begin with a zero byte, which people write as "@".
        text = name if isinstance(name, str) else "@" + os.fsdecode(name[1:])
        return Address(text or "@", 0)
    return Address(name[0], name[1])
