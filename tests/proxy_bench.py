"""The whole proxy between a client and a server, all in one process, over real sockets.

The fixture ``bench`` is a :class:`Bench` before the fixture ``server``, an :class:`http_server.HttpServer`.
The test starts the proxy with the options that it is about, and asks as a client would::

    async def test_one_call(bench: Bench) -> None:
        await bench.start(sharing="isolated")
        session = await bench.initialize()
        answer = await bench.post(call(), session=session)
        assert answer.json["result"] == {"count": 1}
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp
from http_server import HttpServer
from messages import INITIALIZE
from yarl import URL

from mcp_session_proxy.assembly.proxy import Proxy
from mcp_session_proxy.events import Event
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.upstream.fleet import Server

# How long a test waits for what must happen. None fails because a busy machine was slow.
PATIENCE_SECONDS = 30.0
BOTH = "application/json, text/event-stream"


class Bench:
    """A client, the proxy, and the server behind it; or ``servers``, if they are set before the start."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.servers: Sequence[Server] | None = None
        self.http: aiohttp.ClientSession
        self.proxy: Proxy
        self._stack = AsyncExitStack()
        self._flags: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, **options: Any) -> None:
        """Start the proxy with these options, by field name."""
        self._flags = {
            "upstream": self.server.url,
            "listen": "127.0.0.1:0",
            "admin_listen": "off",
            "drain_timeout": "0s",
            "log_level": "error",
            **options,
        }
        self.proxy = await self._stack.enter_async_context(Proxy(load(self._flags), servers=self.servers))

    async def stop(self) -> None:
        """Stop the proxy, and the client with it."""
        await self._stack.aclose()

    def reload(self, **options: Any) -> None:
        """Change these options of the proxy that runs; the others are as they were at its start."""
        self.proxy.reload(lambda: load({**self._flags, "upstream": self.server.url, **options}))

    def watch(self, tell: Callable[[Event], None]) -> None:
        """Tell every event from now on, whichever part of the proxy it comes from."""
        tee = self.proxy.watchers.observe
        tee._observers = (*tee._observers, _Everything(tell))
        tee.refresh()

    @property
    def url(self) -> str:
        return self.proxy.listen_url + URL(self.server.url).raw_path

    @property
    def endpoint(self) -> Any:
        return self.proxy.front.endpoint

    @property
    def unfinished(self) -> list[Any]:
        """The answers of POSTs that are under way."""
        return list(self.endpoint.heartbeats._responders)

    @property
    def listener(self) -> Any:
        """What takes the clients' connections."""
        return self.proxy.front.runner.server

    def request(
        self,
        verb: str,
        body: object = None,
        *,
        session: str | None = None,
        headers: dict[str, str] | None = None,
        accept: str | None = BOTH,
    ) -> "aiohttp.client._RequestContextManager":
        sent = {"Content-Type": "application/json"} if verb == "POST" else {}
        if accept is not None:
            sent["Accept"] = accept
        if session is not None:
            sent["Mcp-Session-Id"] = session
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return self.http.request(
            verb, self.url, data=data, headers={**sent, **(headers or {})}, allow_redirects=False
        )

    async def post(self, body: object, **options: Any) -> "Answer":
        async with self.request("POST", body, **options) as response:
            return await Answer.read(response)

    async def initialize(self, **options: Any) -> str:
        answer = await self.post(INITIALIZE, **options)
        assert answer.status == 200
        return answer.headers["Mcp-Session-Id"]

    @asynccontextmanager
    async def asking(self, body: object, **options: Any) -> AsyncIterator["asyncio.Task[Answer]"]:
        """A POST that is under way."""
        task = asyncio.create_task(self.post(body, **options))
        try:
            yield task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class _Everything:
    """An observer of all kinds of events."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell

    def listener(self, _: type[Event], /) -> Callable[[Event], None]:
        return self._tell


class Answer:
    """What a client got for one HTTP request."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @classmethod
    async def read(cls, response: aiohttp.ClientResponse) -> "Answer":
        return cls(response.status, response.headers, await response.read())

    @property
    def json(self) -> Any:
        """The JSON body, or the data of the events in order."""
        if self.headers["Content-Type"] != "text/event-stream":
            return json.loads(self.body)
        return [json.loads(line[6:]) for line in self.body.split(b"\n") if line.startswith(b"data: {")]

    @property
    def error(self) -> tuple[object, int, str | None]:
        """Its id, code, and the reason word of an error of ours."""
        error = self.json["error"]
        return self.json["id"], error["code"], (error.get("data") or {}).get("reason")


async def read_events(content: aiohttp.StreamReader, count: int) -> list[tuple[str | None, Any]]:
    """The next events of a client's stream: their ids and data. Those without data do not count."""
    events: list[tuple[str | None, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(events) < count:
            fields: dict[str, str] = {}
            while line := (await content.readline()).decode().rstrip("\n"):
                if line[0] != ":":
                    name, _, value = line.partition(": ")
                    fields[name] = value
            if fields.get("data"):
                events.append((fields.get("id"), json.loads(fields["data"])))
            elif not fields and content.at_eof():
                raise EOFError(events)
    return events


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until something is so; how long that takes is no matter."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)
