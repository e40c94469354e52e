"""A modern client (2026-07-28) that writes on the wire by hand: every request for itself, no session."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from .wire import ANSWER_SECONDS, Caller, Message, Reply, Stream

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
EVERYTHING: Message = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
TASKS_EXTENSION: Message = {"extensions": {f"{META}tasks": {}}}
_NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


def header_value(text: str) -> str:
    """A value as a header can carry it."""
    if text.isascii() and text.isprintable() and text == text.strip():
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


class ModernCaller(Caller):
    """Somebody who calls an MCP endpoint in the modern way; told apart by a bearer token of its own.

    `capabilities` and `info` go with every request, as the revision wants it.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        token: str | None = "",
        capabilities: Message | None = None,
    ) -> None:
        super().__init__(http, url, token=token)
        self.capabilities = EVERYTHING if capabilities is None else capabilities
        self.info = {"name": "modern-wire", "version": "1.0.0"}

    def modern(
        self,
        method: str,
        params: Message | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        request_id: Any = None,
    ) -> Message:
        """A request with everything that the revision asks for; a None in `meta` leaves a key out."""
        all_meta: dict[str, Any] = {
            f"{META}protocolVersion": VERSION,
            f"{META}clientCapabilities": self.capabilities,
            f"{META}clientInfo": self.info,
            f"{META}logLevel": log_level,
            **(meta or {}),
        }
        kept = {key: value for key, value in all_meta.items() if value is not None}
        return self.request(method, {**(params or {}), "_meta": kept}, request_id=request_id)

    def routing(
        self, message: Message, more: Mapping[str, str | None] | None = None
    ) -> dict[str, str | None]:
        """The headers that repeat what the message says."""
        method = message["method"]
        headers: dict[str, str | None] = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method}
        if method in _NAMED_BY:
            headers["Mcp-Name"] = header_value(str(message["params"].get(_NAMED_BY[method])))
        return headers | dict(more or {})

    async def ask_modern(
        self,
        method: str,
        params: Message | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        **options: Any,
    ) -> Reply:
        """One request and its whole answer."""
        message = self.modern(method, params, **options)
        return await self.post(message, headers=self.routing(message, headers))

    async def call_modern(
        self, tool: str, arguments: Mapping[str, object] | None = None, **options: Any
    ) -> Reply:
        """One tools/call and its whole answer."""
        return await self.ask_modern(
            "tools/call", {"name": tool, "arguments": dict(arguments or {})}, **options
        )

    async def resume(
        self,
        asked: Message,
        answers: Mapping[str, object],
        method: str,
        params: Message,
        **options: Any,
    ) -> Reply:
        """Make a call again, with answers to what its result asked."""
        again = {**params, "inputResponses": dict(answers), "requestState": asked["requestState"]}
        return await self.ask_modern(method, again, **options)

    async def resume_call(
        self,
        asked: Message,
        answers: Mapping[str, object],
        tool: str,
        arguments: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Reply:
        """Make a tools/call again, with answers."""
        params: Message = {"name": tool, "arguments": dict(arguments or {})}
        return await self.resume(asked, answers, "tools/call", params, **options)

    @asynccontextmanager
    async def open_modern(
        self, method: str, params: Message | None = None, **options: Any
    ) -> AsyncIterator[Stream]:
        """A request whose answer is read as it comes; leaving closes the stream."""
        message = self.modern(method, params, **options)
        async with self.http.post(
            self.url,
            data=json.dumps(message).encode(),
            headers=self.headers(None, self.routing(message)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=ANSWER_SECONDS),
        ) as response:
            yield Stream(response)

    @asynccontextmanager
    async def listen_modern(self, **wanted: object) -> AsyncIterator[Stream]:
        """A subscriptions/listen stream."""
        async with self.open_modern("subscriptions/listen", {"notifications": wanted}) as stream:
            yield stream


def accept(**content: object) -> Message:
    """The user fills the form in."""
    return {"action": "accept", "content": content}


def model_says(text: str) -> Message:
    """The model answers."""
    return {"role": "assistant", "model": "none", "content": {"type": "text", "text": text}}
