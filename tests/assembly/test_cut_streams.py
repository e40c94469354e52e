"""Clients whose connections are cut at random miss nothing, while the proxy is stopped and killed, too.

FULL_FAULTS=1 cuts the connections of 32 clients for two minutes; without it a few for some seconds.
"""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import BOTH, PATIENCE_SECONDS, until
from restart_bench import Succession, rows
from selection import FULL_FAULTS

CLIENTS = 32 if FULL_FAULTS else 6
SECONDS = 120.0 if FULL_FAULTS else 2.0
SECONDS_BETWEEN_RESTARTS = 10.0 if FULL_FAULTS else 1.0
IN_A_CALL = 3

pytestmark = [pytest.mark.timeout(1800), pytest.mark.share(2), pytest.mark.slow]


class SayingServer(HttpServer):
    """Says things in calls and on its standalone streams, which can be gone on with after an event."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, list[str]] = {}  # on the standalone stream of each session
        self.says = asyncio.Condition()
        self.on["tools/call"] = self._call
        self.on["GET"] = self._listen

    async def _call(self, request: web.Request, message: Any) -> web.StreamResponse:
        session, tag = request.headers["Mcp-Session-Id"], message["params"]["arguments"]["tag"]
        response = await begin_stream(request)
        # Its client is told an id before anything is said, as where every server begins with one.
        await response.write(b"id: begun\ndata: \n\n")
        for number in range(IN_A_CALL):
            await write_event(response, notification("notifications/message", data=f"{tag}/{number}"))
            async with self.says:
                self.said.setdefault(session, []).append(f"{tag}/aside{number}")
                self.says.notify_all()
            await asyncio.sleep(random.uniform(0, 0.02))
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"tag": tag}})
        return response

    async def _listen(self, request: web.Request, _: Any) -> web.StreamResponse:
        session = request.headers["Mcp-Session-Id"]
        number = int(request.headers.get("Last-Event-ID", "0"))
        response = await begin_stream(request)
        while True:
            said = self.said.get(session, [])
            while number < len(said):
                number += 1
                text = notification("notifications/message", data=said[number - 1])
                await write_event(response, text, event_id=str(number))
            async with self.says:
                await self.says.wait()


class CutClient:
    """A client whose connections break whenever they like, and that comes back with its last event id."""

    def __init__(self, number: int) -> None:
        self.name = f"client{number}"
        self.heard: list[str] = []  # on the standalone stream
        self.place: list[str] = []  # its last event id there
        self.answered = 0
        self.lost = 0  # calls of which it was told that nobody knows
        self.cuts = 0
        self.trouble: list[str] = []
        self._refused = False
        self._headers = {"Authorization": f"Bearer {self.name}", "Accept": BOTH}
        self._dice = random.Random(number)

    async def begin(self, url: str) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=INITIALIZE, headers=self._headers) as response,
        ):
            self._headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
        self._headers["MCP-Protocol-Version"] = "2025-11-25"

    async def listen(self, url: str) -> None:
        """The standalone stream, for ever."""
        while True:
            async for message in self._read("GET", url, None, self.place):
                self.heard.append(message["params"]["data"])

    async def work(self, url: str, stop: asyncio.Event) -> None:
        """One call after another."""
        for number in itertools.count(1):
            if stop.is_set():
                return
            await self._call(url, number)

    async def _call(self, url: str, number: int) -> None:
        tag = f"{self.name}/{number}"
        body: Any = call(number, arguments={"tag": tag})
        place: list[str] = []
        found: list[str] = []
        expected = [f"{tag}/{n}" for n in range(IN_A_CALL)]
        while True:
            verb = "GET" if place else "POST"
            async with contextlib.aclosing(self._read(verb, url, None if place else body, place)) as messages:
                async for message in messages:
                    if "method" not in message:
                        self._judge(message, number, tag, found == expected)
                        return
                    found.append(message["params"]["data"])
                    if found != expected[: len(found)]:
                        self.trouble.append(f"{tag}: {found}")
            if not place and self._refused:
                continue
            if not place:
                # Cut off before it had an id: nobody could come back.
                self.lost += 1
                return

    def _judge(self, message: Any, number: int, tag: str, whole: bool) -> None:
        """The end of a call."""
        if message.get("id") == number and "result" in message:
            self.answered += 1
            if message["result"] != {"tag": tag} or not whole:
                self.trouble.append(f"{tag}: {message}, whole: {whole}")
        # The last one: killed before it was written that there is such a call.
        elif message["error"]["data"]["reason"] in ("outcome-unknown", "unknown-event"):
            self.lost += 1
        else:
            self.trouble.append(f"{tag}: {message}")

    async def _read(self, verb: str, url: str, body: Any, place: list[str]) -> AsyncGenerator[Any, None]:
        """The messages of one stream until it is cut or ends; its last event id is in ``place``."""
        headers = {**self._headers, **({"Last-Event-ID": place[-1]} if place else {})}
        if verb == "GET":
            headers["Accept"] = "text/event-stream"
        self._refused = False
        patience = self._dice.choice([0.05, 0.2, 1.0])
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession() as http,
                asyncio.timeout(patience if place or verb == "GET" else PATIENCE_SECONDS) as cut,
                http.request(verb, url, json=body, headers=headers) as response,
            ):
                # One that drains, of which nothing was executed.
                self._refused = response.status == 503
                if self._refused:
                    return
                if not response.content_type.endswith("event-stream"):
                    yield await response.json()
                    return
                async for message in self._events(response.content, place):
                    if cut.when() is not None and verb == "POST":
                        cut.reschedule(asyncio.get_running_loop().time() + patience)
                    yield message
        self.cuts += 1
        await asyncio.sleep(self._dice.uniform(0, 0.03))

    async def _events(self, content: aiohttp.StreamReader, place: list[str]) -> AsyncIterator[Any]:
        event_id = data = ""
        while line := (await content.readline()).decode():
            if line.startswith("id: "):
                event_id = line[4:-1]
            elif line.startswith("data: "):
                data = line[6:-1]
            elif line == "\n":
                if event_id:
                    place[:] = [event_id]
                if data:
                    yield json.loads(data)
                event_id = data = ""


@pytest.mark.parametrize("how", ["SIGTERM", "kill -9"])
async def test_nobody_misses_anything(tmp_path: Path, how: str) -> None:
    """Every event once, in order, none of another stream. What is said in the last moment before a kill may
    come twice, and of calls in flight then it is not known what became of them.
    """
    clients = [CutClient(number) for number in range(CLIENTS)]
    stop = asyncio.Event()
    restarts = 0
    async with SayingServer() as server, contextlib.AsyncExitStack() as stack:
        succession = Succession(tmp_path, server.url, how, stack)
        url = await succession.start()
        await asyncio.gather(*(client.begin(url) for client in clients))
        listening = [asyncio.create_task(client.listen(url)) for client in clients]
        # Who has no id yet cannot say what it has missed.
        await until(lambda: all(client.place for client in clients))
        working = [asyncio.create_task(client.work(url, stop)) for client in clients]
        await until(lambda: all(client.answered > 2 for client in clients))
        await until(lambda: rows(succession.state, "records") >= 2 * CLIENTS)
        loop = asyncio.get_running_loop()
        end = loop.time() + SECONDS
        while loop.time() < end:
            await asyncio.sleep(SECONDS_BETWEEN_RESTARTS)
            await succession.succeed()
            restarts += 1
        stop.set()
        await asyncio.gather(*working)

        def expected(client: CutClient) -> list[str]:
            [said] = [said for said in server.said.values() if said[0].startswith(f"{client.name}/")]
            return said

        def has_all(client: CutClient) -> bool:
            return set(client.heard) >= set(expected(client))

        await until(lambda: all(map(has_all, clients)))
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        repeated = 0
        for client in clients:
            once = list(dict.fromkeys(client.heard))
            assert once == expected(client)
            repeated += len(client.heard) - len(once)
    assert list(itertools.chain.from_iterable(client.trouble for client in clients)) == []
    if how == "SIGTERM":
        assert repeated == 0
        assert sum(client.lost for client in clients) == 0
    events = sum(len(client.heard) for client in clients)
    print(
        f"{restarts} x {how}, {CLIENTS} clients, {sum(client.cuts for client in clients)} streams cut: "
        f"{events} events, {repeated} again; {sum(client.answered for client in clients)} answers, "
        f"{sum(client.lost for client in clients)} unknown"
    )
