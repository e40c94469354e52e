"""Raw clients of every era, and how their answers are read."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from e2e.modern_wire import ModernCaller
from e2e.wire import PROTOCOL, Caller, Reply

ERAS = ("session", "sessionless", "modern")
# Errors that promise that the server has not executed the request.
UNEXECUTED = frozenset(
    {
        "upstream-unreachable",
        "session-lost",
        "acquire-timeout",
        "too-many-waiters",
        "draining",
    }
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a client was told: ``outcome`` is "result", "tool-error", or the reason of an error."""

    outcome: str
    status: int
    reply: Reply


def read(reply: Reply, identifier: object) -> Told:
    """Read the one answer to a request; fails if there is not exactly one, with this id."""
    if reply.status in (401, 403) and "error" not in _messages(reply):
        return Told(outcome="upstream-rejected", status=reply.status, reply=reply)  # OAuth's, as it came
    answer = reply.response
    assert answer["id"] == identifier, answer
    if "error" in answer:
        data = answer["error"].get("data")
        outcome = data.get("reason", "?") if isinstance(data, dict) else "server-error"
    else:
        outcome = "tool-error" if answer["result"].get("isError") else "result"
    if outcome in ("result", "tool-error"):
        assert reply.status == 200, reply
    elif outcome != "server-error" and reply.content_type != "text/event-stream":
        assert reply.status >= 400, reply
    return Told(outcome=outcome, status=reply.status, reply=reply)


def _messages(reply: Reply) -> Any:
    try:
        found = json.loads(reply.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "jsonrpc" in found else {}


class Client:
    """A client of one era that calls tools."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, era: str, *, token: str | None = "", name: str = "raw"
    ) -> None:
        self.era = era
        self.name = name
        self.session: str | None = None
        # Without roots: clients that have some, and share a session, wait for one another's calls.
        self.caller: Caller = (
            ModernCaller(http, url, token=token, capabilities={"elicitation": {}})
            if era == "modern"
            else Caller(http, url, token=token)
        )

    async def open(self) -> Told | None:
        """Get a session where this era has one; what was told if that failed."""
        if self.era != "session":
            return None
        message = self.caller.request(
            "initialize",
            {
                "protocolVersion": PROTOCOL,
                "capabilities": {},
                "clientInfo": {"name": self.name, "version": "1"},
            },
        )
        reply = await self.caller.post(message)
        told = read(reply, message["id"])
        if told.outcome != "result":
            return told
        self.session = reply.session
        assert self.session
        told_of = await self.caller.notify("notifications/initialized", session=self.session)
        assert (told_of.status, told_of.body) == (202, b"")
        return None

    async def ask(self, method: str, params: dict[str, Any] | None, identifier: object) -> Told:
        """One request and its one answer."""
        if isinstance(self.caller, ModernCaller):
            reply = await self.caller.ask_modern(method, params, request_id=identifier)
        else:
            reply = await self.caller.ask(method, params, session=self.session, request_id=identifier)
        return read(reply, identifier)

    async def call(self, tool: str, identifier: object, **arguments: object) -> Told:
        """One tools/call."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments}, identifier)
