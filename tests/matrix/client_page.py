"""What was seen of the clients, as a page. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .clients import CLIENTS
from .table import line

HEAD: Final = """\
# Clients

What `make matrix` saw of every client that it could install, in the version that was the newest on the day,
in front of a server of the official Python SDK whose tool counts: two connections one after the other, two
calls in each. With its state kept, it counts 1, 2 and then 3, 4.

| client | version | speaks | directly | through the proxy | its sessions | with the proxy | tried |
|---|---|---|---|---|---|---|---|
"""
FOOT: Final = """
*Speaks* is what the client spoke to the server, and, if that is another revision, what it speaks to the
proxy: clients that can do both
[become modern through the proxy](quickstart.md#sdks-that-speak-both-revisions). *Its sessions* are those that
the client opened at the server directly, and how many of them it left behind when it had ended: a server
without an idle timeout keeps such sessions for good. The proxy closes its own after `--idle-timeout`.

Services that call from the internet cannot be run here; how they behave stands in [the quick
start](quickstart.md). What servers do is on [another page](servers.md).
"""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to the server: what the client was told, or why it failed, and the sessions that it made."""

    answers: Sequence[Sequence[str]] = ()
    trouble: str = ""
    protocol: str = ""
    opened: int = 0
    left: int = 0

    @property
    def counts(self) -> str:
        """The counts of each connection."""
        if self.trouble:
            return f"fails: {self.trouble}"
        return " and ".join(", ".join(connection) for connection in self.answers)

    @property
    def sessions(self) -> str:
        """How many sessions the server had."""
        if not self.opened:
            return "none"
        return (
            f"{self.opened}, all left behind"
            if self.left == self.opened
            else f"{self.opened}, {self.left} left"
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A client, and both ways."""

    name: str
    version: str
    direct: Side
    proxied: Side

    @property
    def speaks(self) -> str:
        """The revisions that it speaks."""
        spoken = [version for version in (self.direct.protocol, self.proxied.protocol) if version]
        return ", then ".join(dict.fromkeys(spoken))

    @property
    def trouble(self) -> str:
        """Why it does not work through the proxy; nothing if it does."""
        return self.proxied.trouble

    @property
    def told(self) -> str:
        """In a few words, for whoever waits."""
        return f"{self.direct.counts} -> {self.proxied.counts}"

    def line(self, day: str) -> str:
        """Its row on the page."""
        direct, proxied = self.direct, self.proxied
        cells = [self.name, self.version, self.speaks, direct.counts, proxied.counts]
        return line([*cells, direct.sessions, str(proxied.opened or "none"), day])


def page(rows: Mapping[str, str]) -> str:
    """The whole page; each row by its client's name."""
    notes = [f"- {client.name}: {client.note}\n" for client in CLIENTS if client.note and client.name in rows]
    return HEAD + "".join(rows.values()) + ("\n" + "".join(notes) if notes else "") + FOOT
