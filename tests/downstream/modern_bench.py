"""A modern client, written by hand, before the whole proxy and a small server that knows only sessions."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import call
from proxy_bench import BOTH, Answer, Bench

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
ALL: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
CHANGING = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
NUMBERS = itertools.count(100)


def modern(
    method: str = "tools/call", identifier: object = 1, *, meta: dict[str, Any] | None = None, **params: Any
) -> dict[str, Any]:
    """A modern request; a None in `meta` leaves a key out."""
    if method == "tools/call":
        params.setdefault("name", "count")
    all_meta = {
        f"{META}protocolVersion": VERSION,
        f"{META}clientCapabilities": ALL,
        f"{META}clientInfo": {"name": "m", "version": "1"},
        **(meta or {}),
    }
    params["_meta"] = {key: value for key, value in all_meta.items() if value is not None}
    return call(identifier, method, **params)


def routing(message: dict[str, Any], more: dict[str, str | None] | None = None) -> dict[str, str]:
    """The headers that go with a message; a None in `more` leaves one out."""
    headers: dict[str, str | None] = {"MCP-Protocol-Version": VERSION, "Mcp-Method": message["method"]}
    name = message["params"].get("uri" if message["method"] == "resources/read" else "name")
    if name is not None:
        headers["Mcp-Name"] = name
    return {key: value for key, value in {**headers, **(more or {})}.items() if value is not None}


class Modern(Bench):
    """A bench whose client is modern."""

    async def ask(self, message: dict[str, Any], **headers: str | None) -> Answer:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post(message, headers=routing(message, more))

    @asynccontextmanager
    async def stream(
        self, message: dict[str, Any], accept: str = BOTH
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.request("POST", message, headers=routing(message), accept=accept) as response:
            yield response

    def offer(self, capabilities: dict[str, Any]) -> None:
        """Let the server declare these capabilities, and hold a GET stream."""

        async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
            return self.server.open_session(message, capabilities=capabilities, instructions="Count.")

        async def get(request: web.Request, _: Any) -> web.StreamResponse:
            self.get_stream = await begin_stream(request)
            await asyncio.Event().wait()
            return self.get_stream

        self.server.on |= {"initialize": initialize, "GET": get}

    async def server_says(self, method: str, **params: object) -> None:
        """The server sends a notification on its GET stream."""
        await write_event(self.get_stream, {"jsonrpc": "2.0", "method": method, "params": params})

    def answer(self, method: str, result: object) -> None:
        """Let the server answer a method with this."""

        async def reply(_: web.Request, message: Any) -> web.StreamResponse:
            return reply_to(message, result)

        self.server.on[method] = reply

    def fail(self, method: str, code: int, text: str, data: object = None) -> None:
        """Let the server answer a method with this error."""
        failure = {"code": code, "message": text} | ({} if data is None else {"data": data})

        async def reply(_: web.Request, message: Any) -> web.StreamResponse:
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": failure})

        self.server.on[method] = reply

    def ask_client(self, question: dict[str, Any], result: object) -> None:
        """Let `tools/call` ask on its stream, and answer when it has been answered."""
        answered = asyncio.Event()

        async def tool(request: web.Request, message: Any) -> web.StreamResponse:
            response = await begin_stream(request)
            await write_event(response, question)
            await answered.wait()
            await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": result})
            return response

        async def response(_: web.Request, message: Any) -> web.StreamResponse:
            answered.set()
            return web.Response(status=202)

        self.server.on |= {"tools/call": tool, "response": response}
