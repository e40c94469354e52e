"""The server if the settings name a command: how it is started, and what becomes of its children."""

import asyncio
import os
import signal
from typing import Final

from .. import events
from ..events import Observer
from ..memory import Share
from ..settings.stdio import check_command
from ..upstream.fleet import Server
from ..upstream.monitor import always_there
from ..upstream.stdio.children import Program
from ..upstream.stdio.leftovers import Ledger, bury_orphans, keep_descriptors, own_directory
from ..upstream.stdio.transport import Stdio, StdioRules
from . import rules
from .in_force import InForce

_TERMINATES_SECONDS: Final = 3.0


class CommandServer:
    """A server that is a command: each session has a child of its own.

    Raises:
        ConfigError: the command cannot be started here.
    """

    def __init__(self, in_force: InForce, observe: Observer, answers: Share) -> None:
        settings = in_force.settings
        assert settings.command is not None
        check_command(settings)
        keep_descriptors()
        self._observe = observe
        self._ledger = Ledger(own_directory())
        program = Program(
            words=settings.command.words,
            environment=settings.environment(),
            cwd=settings.stdio_cwd,
            stderr=settings.stdio_stderr,
        )

        def make(stdio_rules: StdioRules) -> Stdio:
            return Stdio(program, rules=stdio_rules, ledger=self._ledger, observe=observe, answers=answers)

        self.transport = in_force.build(rules.stdio_rules, make)
        self.servers = [Server(name=settings.upstream_shown, transport=self.transport, probe=always_there)]

    def maintain(self) -> None:
        """Wait for processes that have ended and have no parent but this one. To be called now and then."""
        if os.getpid() == 1:
            bury_orphans(self.transport.children)

    async def sweep(self) -> None:
        """End the children of a former proxy that was killed. Most of them have ended by themselves."""
        count = self._ledger.sweep(signal.SIGTERM)
        if not count:
            return
        self._observe(events.ChildrenSwept(count=count))
        await asyncio.sleep(_TERMINATES_SECONDS)
        if self._ledger.sweep(signal.SIGKILL):
            await asyncio.sleep(_TERMINATES_SECONDS)
            self._ledger.sweep(signal.SIGKILL)  # finds none, and notes that

    async def close(self) -> None:
        """End all children that are left."""
        await self.transport.close()
