"""A hand-made server that speaks HTTP+SSE of 2024-11-05, on a real socket.

:class:`SseServer` is small, stateful and well-behaved: each GET opens a session, names its endpoint, and what
is POSTed there is answered on the stream. A test changes what it wants otherwise with a handler in
:attr:`SseServer.on`, by method, and says what it likes on a :class:`Stream`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web
from messages import raw


class Stream:
    """One event stream, which is one session. ``ended`` is set when nobody reads it any more."""

    def __init__(self, number: int, request: web.Request, response: web.StreamResponse) -> None:
        self.name = f"s{number}"
        self.request = request
        self.ended = asyncio.Event()
        self.calls = 0
        self._response = response
        self._over = asyncio.Event()

    async def write(self, piece: bytes) -> None:
        """These bytes, as they are."""
        await self._response.write(piece)

    async def say(self, *messages: object) -> None:
        """These messages, each as an event."""
        await self.write(b"".join(b"event: message\ndata: " + raw(message) + b"\n\n" for message in messages))

    def end(self) -> None:
        """The server ends it."""
        self._over.set()

    async def hold(self) -> None:
        """Until either side ends it."""
        await self._over.wait()


Handler = Callable[[Stream, Any], Awaitable[web.Response | None]]


class SseServer:
    """The server; an asynchronous context manager.

    ``url`` is where streams are opened. ``streams`` are those that stand, by name; ``opened`` are all.
    ``posts`` are the requests that came to the endpoint, with their messages. ``on``: handlers in front of
    the usual answers, by method or ``response``; what they give answers the POST, None is 202. ``endpoint``
    makes of a session's name what the first event says. ``get`` stands in for all that is done on a GET.
    """

    def __init__(self) -> None:
        self.url = ""
        self.streams: dict[str, Stream] = {}
        self.opened: list[Stream] = []
        self.gets: list[web.Request] = []
        self.posts: list[tuple[web.Request, Any]] = []
        self.wrong_posts: list[web.Request] = []
        self.on: dict[str, Handler] = {}
        self.endpoint: Callable[[str], str] = lambda name: f"/messages?session_id={name}"
        self.refusal_status = 405  # of a POST to where streams are opened
        self.get: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.open_stream
        self.port = 0
        self._runner: web.AppRunner

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen: at first on a port that is free, then on the same again."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/sse", self._get)
        app.router.add_post("/sse", self._refuse)
        app.router.add_post("/messages", self._post)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/sse"

    async def stop(self) -> None:
        """Die, with every session."""
        for stream in tuple(self.streams.values()):
            stream.end()
        await self._runner.cleanup()

    def sent(self, method: str) -> list[Any]:
        """The messages with this method that were POSTed."""
        return [message for _, message in self.posts if _method_of(message) == method]

    def forget(self, name: str) -> None:
        """Know this session no more, though its stream may stand."""
        self.streams.pop(name, None)

    def only_stream(self) -> Stream:
        """The one that stands."""
        [stream] = self.streams.values()
        return stream

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        self.wrong_posts.append(request)
        return web.Response(status=self.refusal_status, text="Method Not Allowed")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.gets.append(request)
        return await self.get(request)

    async def open_stream(self, request: web.Request) -> web.StreamResponse:
        """What is usual: a stream, and its endpoint."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream = Stream(len(self.opened) + 1, request, response)
        self.opened.append(stream)
        self.streams[stream.name] = stream
        try:
            await stream.write(b"event: endpoint\ndata: " + self.endpoint(stream.name).encode() + b"\n\n")
            await stream.hold()
        finally:
            self.forget(stream.name)
            stream.ended.set()
        return response

    async def _post(self, request: web.Request) -> web.Response:
        message = await request.json()
        self.posts.append((request, message))
        stream = self.streams.get(request.query.get("session_id", ""))
        if stream is None:
            return web.Response(status=404, text="Could not find session")
        answer = None
        if (handler := self.on.get(_method_of(message))) is not None:
            answer = await handler(stream, message)
        else:
            await self.usual(stream, message)
        return answer or web.Response(status=202, text="Accepted")

    async def usual(self, stream: Stream, message: Any) -> None:
        """What is answered to a message that there is no handler for."""
        if "id" not in message or "method" not in message:
            return
        if message["method"] == "initialize":
            result: Any = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "sse", "version": "1"},
            }
        elif message["method"] == "tools/call":
            stream.calls += 1
            result = {"from": stream.name, "count": stream.calls}
        else:
            result = {}
        await stream.say(answer_to(message, result))


def answer_to(message: Any, result: object) -> dict[str, Any]:
    """A response."""
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def _method_of(message: Any) -> str:
    return str(message.get("method", "response"))
