"""A hand-made MCP server on a real socket, for every test that wants the wire but no SDK.

:class:`HttpServer` is small, stateful and well-behaved: it opens a session for each ``initialize``, knows its
sessions, counts the calls of each, and forgets those that are deleted. A test changes what it wants otherwise
with a handler in :attr:`HttpServer.on`, and looks afterwards at what it has ``seen``. Handlers are built of
:func:`reply_to`, :func:`begin_stream` and :func:`write_event`::

    async def slow(request, message):
        await go_on.wait()
        return reply_to(message, {"count": 0})

    server.on["tools/call"] = slow
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web
from messages import GONE, notification, raw

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


class HttpServer:
    """A small stateful MCP server on a real socket, with hooks; an asynchronous context manager.

    ``url``: where it listens. ``sessions``: how many tool calls each living session has had, by id.
    ``deleted``: the sessions that were ended by DELETE, in order. ``seen``: every request with its message.
    ``on``: handlers in front of the usual answers, by method, ``response``, GET or DELETE; each gets the
    request and the message.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, name: str = "upstream", host: str = "127.0.0.1"
    ) -> None:
        self.name = name  # which its session ids begin with
        self.url = ""
        self._tls = tls
        self._host = host
        self.sessions: dict[str, int] = {}
        self.deleted: list[str] = []
        self.seen: list[tuple[web.Request, Any]] = []
        self.on: dict[str, Handler] = {}
        self._opened = 0
        self._runner = web.AppRunner(
            self._app(),
            handler_cancellation=True,
            shutdown_timeout=0,
            max_field_size=65536,
            max_line_size=65536,
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, 0, ssl_context=self._tls).start()
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://{self._host}:{self._runner.addresses[0][1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    def posts(self, method: str) -> list[tuple[web.Request, Any]]:
        """The POSTs with this method; ``response`` for responses."""
        return [(r, m) for r, m in self.seen if r.method == "POST" and _method_of(m) == method]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Whatever is asked."""
        message = json.loads(await request.read()) if request.method == "POST" else None
        self.seen.append((request, message))
        what = request.method if message is None else _method_of(message)
        if (handler := self.on.get(what)) is not None:
            return await handler(request, message)
        if what == "initialize":
            return self.open_session(message)
        session = request.headers.get("Mcp-Session-Id", "")
        if session not in self.sessions:
            return web.json_response({**GONE, "id": None}, status=404)
        if request.method == "DELETE":
            del self.sessions[session]
            self.deleted.append(session)
            return web.Response()
        if request.method == "GET":
            return web.Response(status=405)
        if message is None or "id" not in message or "method" not in message:
            return web.Response(status=202)
        if what == "tools/call":
            self.sessions[session] += 1
        return reply_to(message, {"count": self.sessions[session]})

    def hold_up_handshakes(self) -> asyncio.Event:
        """Answer no ``initialize`` from now on before the event that this gives is set."""
        go_on = asyncio.Event()

        async def initialize(_: web.Request, message: Any) -> web.StreamResponse:
            await go_on.wait()
            return self.open_session(message)

        self.on["initialize"] = initialize
        return go_on

    def open_session(self, message: Any, *, identifier: str | None = None, **result: object) -> web.Response:
        """The usual answer to ``initialize``; with an id, or keys of its result, as the test wants them."""
        self._opened += 1
        session = identifier or f"{self.name}-{self._opened}"
        self.sessions.setdefault(session, 0)
        usual = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }
        return reply_to(message, {**usual, **result}, headers={"Mcp-Session-Id": session})


def _method_of(message: Any) -> str:
    return str(message.get("method", "response"))


def reply_to(message: Any, result: object, **options: Any) -> web.Response:
    """A JSON answer with a result."""
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, **options)


async def begin_stream(request: web.Request) -> web.StreamResponse:
    """Begin an event stream."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def write_event(response: web.StreamResponse, message: object, *, event_id: str | None = None) -> None:
    """Write one event."""
    head = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    await response.write(head + b"data: " + raw(message) + b"\n\n")


class TellingTool:
    """A tool that says what it is told to in the course of its call, and answers when it is told None."""

    def __init__(self, server: HttpServer) -> None:
        self.says: asyncio.Queue[str | None] = asyncio.Queue()
        server.on["tools/call"] = self._work

    async def _work(self, request: web.Request, message: Any) -> web.StreamResponse:
        response = None
        while (news := await self.says.get()) is not None:
            response = response or await begin_stream(request)
            await write_event(response, notification("notifications/message", data=news))
        if response is None:
            return reply_to(message, {"done": 1})
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"done": 1}})
        return response
