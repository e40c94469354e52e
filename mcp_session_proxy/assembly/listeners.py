"""The sockets that listen for clients and operators: where they come from, and where they go in the end.

They come from systemd, or from the process that this one replaces, or they are bound here. Sockets *outlive*
this process if another one goes on with them. Clients then need only connect again.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from .. import events
from ..events import Observer
from ..settings.config import Settings
from ..settings.values import Address
from .activation import Inherited
from .replacing import Predecessor, Replaceable, place
from .sockets import Bound, CannotStart, Role, bind


class Listeners:
    """The public listener's sockets, and the admin listener's if there is one, until ``stack`` is closed."""

    public: Bound
    admin: Bound | None

    def __init__(
        self,
        settings: Settings,
        stack: contextlib.AsyncExitStack,
        *,
        inherited: Inherited,
        observe: Observer,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.outlive = inherited.public is not None
        self._settings = settings
        self._stack = stack
        self._inherited = inherited
        self._observe = observe
        self._meeting_place = _meeting_place(settings, environment)
        self.listen_url = self.endpoint_url = ""  # until it serves
        self.admin_url: str | None = None
        self._predecessor: Predecessor | None = None
        self._replaceable: Replaceable | None = None

    async def find(self) -> None:
        """Get the sockets, which listen from then on. A process that is to be replaced still serves.

        Raises:
            CannotListen: an address is in use, or is not one of this machine.
            CannotStart: the process that is to be replaced does not give its sockets.
        """
        settings = self._settings
        if settings.replace:
            self._predecessor = await self._find_predecessor()
        self.public = await self._obtain(Role.PUBLIC, settings.listen, "--listen")
        self.admin = None
        if settings.admin_listen is not None:
            self.admin = await self._obtain(Role.ADMIN, settings.admin_listen, "--admin-listen")

    async def _find_predecessor(self) -> Predecessor | None:
        if self._inherited != Inherited():
            raise CannotStart(
                "--replace: systemd has passed the sockets to this process, and keeps them for the next one "
                "without it; leave it out"
            )
        if self._meeting_place is None:
            raise CannotStart(
                "--replace: the two processes need a directory to meet in; name it for both, "
                "with --state-dir or the variable RUNTIME_DIRECTORY"
            )
        found = await Predecessor.find(self._meeting_place)
        if found is not None:
            self._stack.callback(found.close)
        return found

    async def _obtain(self, role: Role, address: Address, option: str) -> Bound:
        bound = self._inherited.public if role is Role.PUBLIC else self._inherited.admin
        if bound is None and self._predecessor is not None:
            bound = self._predecessor.sockets(role, address)
        if bound is None:
            bound = await bind(address, option)
        self._stack.callback(bound.close)
        return bound

    async def take_over(self) -> None:
        """End the serving of the process that is to be replaced, if there is one.

        From then on no other process accepts on the sockets, or uses the directory of state.

        Raises:
            CannotStart: that process goes on.
        """
        if self._predecessor is not None:
            await self._predecessor.replace()
            # Its sockets that this process does not serve on are closed, so that connections there are
            # refused.
            self._predecessor.close()
            self._observe(events.TookOver(pid=self._predecessor.pid))

    def offer(
        self,
        *,
        cease: Callable[[], Awaitable[None]],
        replaced: Callable[[], None],
        wait_seconds: Callable[[], float | None],
    ) -> None:
        """Let a newer process have the sockets, unless systemd keeps them for it.

        ``cease`` stops accepting, and ``replaced`` has this process end. If it keeps state, that takes
        ``wait_seconds`` at most.
        """
        if self._meeting_place is None or self._inherited != Inherited():
            return

        def on_replaced() -> None:
            self.outlive = True
            replaced()

        settings = self._settings
        sockets = {(Role.PUBLIC, settings.listen): self.public.sockets}
        if self.admin is not None and settings.admin_listen is not None:
            sockets[Role.ADMIN, settings.admin_listen] = self.admin.sockets
        replaceable = Replaceable(
            self._meeting_place,
            sockets,
            cease=cease,
            replaced=on_replaced,
            wait_seconds=wait_seconds,
            observe=self._observe,
        )
        try:
            replaceable.open()
        except OSError as error:
            self._observe(events.NotReplaceable(problem=f"{self._meeting_place}: {error.strerror or error}"))
            return
        self._replaceable = replaceable

    def withdraw(self) -> None:
        """Stop offering the sockets. Nothing may accept on them any more. Idempotent."""
        if self._replaceable is not None:
            self._replaceable.close()

    def leave(self) -> None:
        """Tell a newer process that waits for it that this one has let go of everything."""
        if self._replaceable is not None:
            self._replaceable.close()
            self._replaceable.leave()


def _meeting_place(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """The socket by which a process and its successor find each other; None if no directory is named."""
    directory = settings.state_directory
    if directory is None:
        # systemd names several directories with colons in between.
        given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        directory = Path(given) if given else None
    return None if directory is None else place(directory, settings.listen)
