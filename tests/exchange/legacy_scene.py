"""One upstream session and the legacy clients behind it: who hears what it says, and what it is answered."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from fakes import FakeServer

from mcp_session_proxy.exchange.delivery import Delivery
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol.jsonrpc import Notification, Request
from mcp_session_proxy.sessions.audience import join
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.client import ClientSession, new_tag
from mcp_session_proxy.sessions.event_ledger import EventRules
from mcp_session_proxy.sessions.identity import ANONYMOUS, Profile, SessionKey
from mcp_session_proxy.sessions.record import ClientRecord
from mcp_session_proxy.upstream.session import UpstreamSession

ROOTS = Request(b'"r-1"', "roots/list")
NEWS = Notification("notifications/tools/list_changed")
NOBODY_THERE = "No client is there to answer this request."


class Scene:
    """One upstream session and the clients behind it."""

    def __init__(self, session: UpstreamSession, server: FakeServer) -> None:
        self.session = session
        self.server = server
        self.room = Share("questions", 1_000_000)
        self.delivery = Delivery(EventRules(max_events=10, linger_seconds=30), questions=self.room)

    def client(self, *, attached: bool = True, listens: bool = False) -> ClientSession:
        now = asyncio.get_running_loop().time()
        client = ClientSession(
            ClientRecord(
                id="id",
                tag=new_tag(),
                principal=ANONYMOUS,
                key=SessionKey("anonymous", None, "p"),
                profile=Profile(digest="p", client_name="t", params=b"{}"),
                usage=Usage.EXCLUSIVE,
                adopted=False,
                created=now,
                last_used=now,
            )
        )
        client.home = cast(Any, SimpleNamespace(session=self.session, usable=True))
        client.lease = cast(Any, object()) if attached else None
        join(self.session, client)
        if listens:
            client.streams = 1
            self.delivery.mailbox(client).standalone.take_over(0)
        return client

    def heard(self, client: ClientSession) -> list[Any]:
        return [json.loads(event.data) for event in self.delivery.mailbox(client).standalone.after(0)]

    @property
    def answers(self) -> list[Any]:
        """What the server was answered: id, and the result or the error's message."""
        answers = self.server.answers
        return [(number, result if error is None else error["message"]) for number, result, error in answers]
