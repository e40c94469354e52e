"""The whole proxy before a command: a toy server, started anew for each session."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from http_server import HttpServer
from messages import call
from proxy_bench import Answer, Bench, until

from mcp_session_proxy.events import Event
from mcp_session_proxy.settings.config import load

SERVER = str(Path(__file__).parent / "servers" / "stdio_server.py")


TOY = [sys.executable, "-I", "-S", SERVER]


class StdioBench(Bench):
    """A client, the proxy, and a command behind it. All events are kept."""

    def __init__(self, nobody: HttpServer) -> None:
        super().__init__(nobody)
        self.events: list[Event] = []

    async def start(self, *arguments: str, command: list[str] | None = None, **options: Any) -> None:
        """Start the proxy before the toy server with these arguments, or before another command."""
        words = command or [*TOY, *arguments]
        await super().start(upstream=None, command=words, **options)
        self.watch(self.events.append)

    def reload(self, **options: Any) -> None:
        """Change these options of the proxy that runs."""
        self.proxy.reload(lambda: load({**self._flags, **options}))

    @property
    def url(self) -> str:
        return self.proxy.endpoint_url

    @property
    def children(self) -> int:
        """How many children there are."""
        assert self.proxy.command is not None
        return len(self.proxy.command.transport.children)

    def told(self, name: str) -> list[Any]:
        """The events of this name, in their order."""
        return [event for event in self.events if event.name == name]

    async def use(self, name: str, headers: dict[str, str] | None = None, **arguments: Any) -> Answer:
        """Call a tool, as a client without a session."""
        return await self.post(call(1, name=name, arguments=arguments), headers=headers)

    async def read(self, name: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
        """The same; gives what the tool says."""
        answer = await self.use(name, headers, **arguments)
        said = answer.json["result"]["content"][0]["text"]
        return json.loads(said) if said[:1] in "{[0123456789" else said

    async def all_gone(self) -> None:
        """Wait until there is no child any more."""
        await until(lambda: self.children == 0)


def is_there(pid: int) -> bool:
    """Whether a process or a group of this number is left, zombies apart."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
