"""What was seen of the servers, as a page. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .servers import SERVERS
from .table import line

HEAD: Final = """\
# Servers

What `make matrix` saw of every server that it could install, in the version that was the newest on the day:
two calls by a client that has no session, each a POST of its own, to the server and to the proxy.

| server | version | transport | speaks | directly | through the proxy | `check` | tried |
|---|---|---|---|---|---|---|---|
"""
FOOT: Final = """
*goes on*: the second call finds what the first has left (a count, a page that was opened, a file). *forgets*:
it is answered, and does not. *answers*: there is nothing to remember. Otherwise, the server's own words. What
the server *speaks* are the revision that it agrees on, and the one without sessions where it knows that.

Under [`check`](check.md) is how many kinds of clients suffer from a server, and how many from the proxy in
front of it; for a server that is a command, whether two can run at a time, and how it leaves.

What clients do is on [another page](clients.md).
"""
COMMAND: Final = "a command: nobody can reach it"
GOES_ON: Final = "goes on"
FORGETS: Final = "forgets"
ANSWERS: Final = "answers"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A server, and both ways to it."""

    name: str
    version: str
    transport: str
    speaks: str
    direct: str
    proxied: str
    checked: str

    @property
    def trouble(self) -> str:
        """Why it does not work through the proxy; nothing if it does."""
        return "" if self.proxied in (GOES_ON, ANSWERS) else self.proxied

    @property
    def told(self) -> str:
        """In a few words, for whoever waits."""
        return f"{self.direct} -> {self.proxied}; {self.checked}"

    def line(self, day: str) -> str:
        """Its row on the page."""
        cells = [self.name, self.version, self.transport, self.speaks, self.direct, self.proxied]
        return line([*cells, self.checked, day])


def page(rows: Mapping[str, str]) -> str:
    """The whole page; each row by its server's name."""
    notes = [f"- {server.name}: {server.note}\n" for server in SERVERS if server.note and server.name in rows]
    return HEAD + "".join(rows.values()) + ("\n" + "".join(notes) if notes else "") + FOOT
