"""The listener for other members: a unix socket in the directory that they share, an address, or both."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from ..aio import identity_of, unix_name
from ..cluster.lease import LeaseAnswer
from ..cluster.peer_signature import Judge
from ..cluster.peers import LEASE_PATH, UNIX
from ..downstream.peer_door import Answer, PeerDoor, PeerServer, Serve
from ..downstream.tls_site import TlsSite
from ..events import Observer
from ..memory import Share
from ..protocol import revisions
from ..settings.values import Address
from . import rules
from .in_force import InForce
from .sites import open_sites
from .sockets import BACKLOG, Bound, CannotListen, bind

_OURS_ALONE: Final = 0o600
_CLOSE_SECONDS: Final = 1.0
_NONE: Final[Mapping[str, Answer]] = {}

OnLease = Callable[[str | None, str | None], Awaitable[LeaseAnswer]]


class PeerListener:
    """Serves other members from ``open`` to ``close``. They find it at the ``addresses``, the best first."""

    def __init__(self, server: PeerServer, stack: contextlib.AsyncExitStack) -> None:
        self.server = server
        self.addresses: list[str] = []
        self._stack = stack
        self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS)
        self._path: Path | None = None
        self._found: tuple[int, int] | None = None  # the identity of the socket that was made there

    @classmethod
    async def open(
        cls,
        in_force: InForce,
        *,
        member: str,
        keys: Sequence[bytes],
        handle: Serve,
        on_lease: OnLease,
        questions: Mapping[str, Answer] = _NONE,
        knows: Callable[[str], Awaitable[bool]],
        heads: Share,
        observe: Observer,
        directory: Path | None,
        tls: ssl.SSLContext | None,
    ) -> "PeerListener":
        """Listen in the directory, if there is one, and on ``--peer-listen``, if that is given.

        ``handle`` answers what clients have sent, ``on_lease`` and ``questions`` (by their paths) what
        members ask, and ``knows`` tells whether there is a member of this name.

        Raises:
            CannotListen: an address is taken or not ours, or the socket cannot be made.
        """
        settings = in_force.settings
        bare = settings.endpoint_path.rstrip("/")
        door = PeerDoor(
            member,
            Judge(member, keys, now=time.time),
            handle=handle,
            paths=frozenset({bare, bare + "/"} - {""}),
            questions={LEASE_PATH: partial(_answer_lease, on_lease), **questions},
            knows=knows,
            observe=observe,
        )
        server = in_force.build(
            rules.listener_rules,
            lambda limits: PeerServer(
                door,
                rules=limits,
                idle_timeout_seconds=settings.connection_idle_timeout,
                heads=heads,
                user=os.geteuid(),
            ),
        )
        async with contextlib.AsyncExitStack() as stack:
            listener = cls(server, stack)
            runner = listener._runner
            if directory is not None:
                listener._path = path = socket_path(directory, member)
                stack.callback(remove_socket, directory, member)
                await listener._listen_at(path)
                listener.addresses.append(f"{UNIX}{path.absolute()}")
            if settings.peer_listen is not None:
                bound = await bind(settings.peer_listen, "--peer-listen")
                if tls is None:
                    await open_sites(stack, runner, bound)
                else:
                    make_site = partial(TlsSite, listener=server)
                    await open_sites(stack, runner, bound, make_site=make_site, tls=tls)
                listener.addresses.append(settings.peer_address(bound.address))
            listener._stack = stack.pop_all()
        return listener

    async def _listen_at(self, path: Path) -> None:
        bound = _bind_unix(path)
        self._found = identity_of(path)
        await open_sites(self._stack, self._runner, bound)

    async def look_after(self) -> None:
        """Make the socket in the directory anew if it was removed.

        If that fails, the others reach this member at another address, or wait for the end of its lease.
        """
        if self._path is not None and identity_of(self._path) != self._found:
            with contextlib.suppress(CannotListen):
                await self._listen_at(self._path)

    async def close(self) -> None:
        """Stop serving. Requests that are under way are cut off. Idempotent."""
        await self._stack.aclose()


def socket_path(directory: Path, member: str) -> Path:
    """The path of a member's socket in a directory."""
    return directory / f"peer-{member}.sock"


def remove_socket(directory: Path, member: str) -> None:
    """Remove the socket of a member that has ended. If it was killed, another member calls this."""
    with contextlib.suppress(OSError):
        socket_path(directory, member).unlink()


def _bind_unix(path: Path) -> Bound:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        with unix_name(draft) as name:
            listening.bind(name)
        draft.chmod(_OURS_ALONE)
        # Nobody can have connected before: it does not listen yet.
        listening.listen(BACKLOG)
        draft.replace(path)
    except OSError as error:
        listening.close()
        with contextlib.suppress(OSError):
            draft.unlink()
        raise CannotListen(f"cannot listen on {path} ({error.strerror or error})") from error
    return Bound(Address(str(path), 0), (listening,))


async def _answer_lease(on_lease: OnLease, http: web.BaseRequest, _: bytes) -> web.Response:
    query = http.rel_url.query
    answer = await on_lease(query.get("member"), query.get("shard"))
    return web.Response(body=msgspec.json.encode(answer), content_type=revisions.JSON)
