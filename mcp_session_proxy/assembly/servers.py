"""The servers that the settings name by URL: the transport to each, and how it is probed.

A server that is a command is made in ``command``.
"""

import ssl
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from yarl import URL

from .. import events
from ..events import Observer
from ..memory import Share
from ..protocol.revisions import HttpTransport
from ..upstream.fleet import Server
from ..upstream.http.auto_http import AutoHttp, Speaks
from ..upstream.http.http_sse import HttpSse
from ..upstream.http.streamable_http import HttpRules, StreamableHttp
from ..upstream.monitor import probe_of
from . import rules
from .in_force import InForce

_ToUrl: TypeAlias = StreamableHttp | HttpSse | AutoHttp


class HttpServers:
    """The servers that have a URL, and the transports to them."""

    def __init__(
        self,
        in_force: InForce,
        *,
        tls: ssl.SSLContext | None,
        answers: Share,
        observe: Observer,
    ) -> None:
        settings = in_force.settings
        self.transports: list[_ToUrl] = []
        self.servers: list[Server] = []
        for url in map(URL, settings.urls):
            name = str(url.origin())
            choice, tell = settings.upstream_transport, partial(_tell, observe, name)
            transport = in_force.build(rules.http_rules, partial(_open, url, tls, answers, choice, tell))
            self.transports.append(transport)
            self.servers.append(Server(name=name, transport=transport, probe=probe_of(url, tls), url=url))

    def close(self) -> None:
        """Close the transports. No request may be under way any more."""
        for transport in self.transports:
            transport.close()


def _open(
    url: URL,
    tls: ssl.SSLContext | None,
    answers: Share,
    choice: HttpTransport,
    tell: Callable[[Speaks], None],
    http_rules: HttpRules,
) -> _ToUrl:
    """The transport to this server, as the operator chose it."""
    streamable = StreamableHttp(url, rules=http_rules, tls=tls, answers=answers)
    if choice is HttpTransport.HTTP:
        return streamable
    sse = HttpSse(streamable, url)
    return sse if choice is HttpTransport.SSE else AutoHttp(streamable, sse, tell)


def _tell(observe: Observer, name: str, speaks: Speaks) -> None:
    observe(events.TransportFound(upstream=name, transport=speaks.value))
