"""The servers behind us where the settings name URLs: what leads to each, and how it is looked at.

One that is a command is made in ``command``.
"""

import ssl
from functools import partial

from yarl import URL

from ..memory import Share
from ..upstream.fleet import Server
from ..upstream.monitor import probe_of
from ..upstream.streamable_http import HttpRules, StreamableHttp
from . import rules
from .in_force import InForce


class HttpServers:
    """The servers that speak Streamable HTTP."""

    def __init__(self, in_force: InForce, *, tls: ssl.SSLContext | None, answers: Share) -> None:
        settings = in_force.settings
        self.transports: list[StreamableHttp] = []
        self.servers: list[Server] = []
        for url in map(URL, settings.urls):
            transport = in_force.build(rules.http_rules, partial(_open, url, tls, answers))
            self.transports.append(transport)
            self.servers.append(
                Server(name=str(url.origin()), transport=transport, probe=probe_of(url, tls), url=url)
            )

    def close(self) -> None:
        """Close the transports; nothing may be under way any more."""
        for transport in self.transports:
            transport.close()


def _open(url: URL, tls: ssl.SSLContext | None, answers: Share, http_rules: HttpRules) -> StreamableHttp:
    return StreamableHttp(url, rules=http_rules, tls=tls, answers=answers)
