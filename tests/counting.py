"""Clients of eight kinds that count without pause, and the server that counts: whatever happens in between,
no count may begin anew, no call may be executed twice, and no caller may meet another one.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from counting_programs import CountingProgram
from http_server import HttpServer, begin_stream, reply_to
from messages import INITIALIZE, call
from proxy_bench import BOTH, PATIENCE_SECONDS

CAPABLE = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": {"elicitation": {}}}}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "m", "version": "1"},
}
KINDS = ["kept", "new", "listening", "capable", "platform", "sessionless", "conversation", "modern"]
# These hold ids of client sessions.
WITH_IDS = 5
# What the program needs to know of the conversations of one of the kinds.
OPTIONS = ("--affinity-header", "X-Talk")
# What a client may be told of a call of which nobody knows whether it was executed, and of one that was not.
UNKNOWN = {"outcome-unknown"}
UNEXECUTED = {"draining", "overloaded", "shutting-down"}
# pytest's ``record_property``: what it is told is in the table of figures (``figures.py``).
Note = Callable[[str, object], None]
# Longer than anything that is waited for, busy machine or not.
HANGS_SECONDS = 120.0


class CountingServer(HttpServer):
    """Counts, and knows each call by its tag, and each session by who has used it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host=host)
        self.executed: Counter[str] = Counter()
        self.users: defaultdict[str, set[str]] = defaultdict(set)
        self.on["tools/call"] = self._count
        self.on["tools/list"] = self._list
        self.on["GET"] = self._listen

    async def _count(self, request: web.Request, message: Any) -> web.StreamResponse:
        session = request.headers["Mcp-Session-Id"]
        self.users[session].add(request.headers["Authorization"])
        if session not in self.sessions:
            return web.json_response({"error": "Session not found"}, status=404)
        self.sessions[session] += 1
        self.executed[message["params"]["arguments"]["tag"]] += 1
        count = self.sessions[session]
        await asyncio.sleep(0.002 * (count % 5))
        return reply_to(message, {"content": [{"type": "text", "text": str(count)}]})

    async def _list(self, _: web.Request, message: Any) -> web.StreamResponse:
        schema = {"type": "object", "properties": {"tag": {"type": "string"}}}
        return reply_to(
            message, {"tools": [{"name": "count", "description": "Counts", "inputSchema": schema}]}
        )

    async def _listen(self, request: web.Request, _: Any) -> web.StreamResponse:
        await begin_stream(request)
        await asyncio.Event().wait()
        raise AssertionError

    @property
    def opened(self) -> Counter[str]:
        """How many sessions each caller has opened, by what it shows."""
        return Counter(request.headers["Authorization"] for request, _ in self.posts("initialize"))

    @property
    def twice(self) -> dict[str, int]:
        """The calls that were executed more than once."""
        return {tag: times for tag, times in self.executed.items() if times > 1}

    @property
    def mixed(self) -> dict[str, set[str]]:
        """The sessions that more than one caller has used."""
        return {session: users for session, users in self.users.items() if len(users) > 1}


class CountingClient:
    """A caller of its own, of one of the kinds, and what it has been told.

    ``unexecuted`` are the reasons after which a call was certainly not executed; any other error but an
    unknown outcome is trouble.
    """

    def __init__(self, kind: str, number: int, unexecuted: Collection[str] = UNEXECUTED) -> None:
        self.kind = kind
        self.name = f"{kind}-{number}"
        self.calls = 0
        self.answered = 0
        self.refused: Counter[str] = Counter()  # connections
        self.told: Counter[str] = Counter()  # the reasons of errors
        self.unknown: list[str] = []  # the tags of calls of which nobody knows
        self.trouble: list[str] = []
        self.seen = 0  # the count that was told last
        self.longest = 0.0  # how long an answer took at most, in seconds
        self.pause_seconds = 0.01
        self._unexecuted = unexecuted
        self._since = 0  # calls of which nobody knows whether they count
        self._headers = {"Authorization": f"Bearer {self.name}", "Accept": BOTH}
        if kind == "conversation":
            self._headers["X-Talk"] = "one"
        if kind == "platform":
            self._headers["Mcp-Session-Id"] = f"platform-{number}"

    async def run(self, urls: Sequence[str], stop: asyncio.Event) -> None:
        """Count until it is told to stop, at each of the URLs in turn."""
        turns = itertools.cycle(urls)
        connector = aiohttp.TCPConnector(force_close=self.kind == "new")
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
            if self.kind in ("kept", "new", "listening", "capable"):
                body = CAPABLE if self.kind == "capable" else INITIALIZE
                async with http.post(next(turns), json=body, headers=self._headers) as response:
                    self._headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
            listening = None
            if self.kind == "listening":
                listening = tasks.create_task(self._listen(http, next(turns)))
            while not stop.is_set():
                await self.count(http, next(turns))
                await asyncio.sleep(self.pause_seconds)
            if listening is not None:
                listening.cancel()

    async def _listen(self, http: aiohttp.ClientSession, url: str) -> None:
        patience = aiohttp.ClientTimeout(total=None)
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                headers = {**self._headers, "Accept": "text/event-stream"}
                async with http.get(url, headers=headers, timeout=patience) as stream:
                    # One that drains opens no stream, and a balancer may know of nobody who does.
                    assert stream.status in (200, 502, 503, 504)
                    await stream.content.read()
            await asyncio.sleep(0.01)

    async def count(self, http: aiohttp.ClientSession, url: str) -> None:
        """Make one call, and see what it says."""
        self.calls += 1
        arguments = {"tag": f"{self.name}/{self.calls}"}
        headers, body = self._headers, call(self.calls, name="count", arguments=arguments)
        if self.kind == "modern":
            body = call(self.calls, name="count", arguments=arguments, _meta=META)
            headers = {**headers, **MODERN}
        began = time.monotonic()
        try:
            async with asyncio.timeout(HANGS_SECONDS), http.post(url, json=body, headers=headers) as response:
                answer = await response.json()
        except aiohttp.ClientConnectorError as error:
            self.refused[repr(error.os_error)] += 1
            await asyncio.sleep(0.01)
            return
        except aiohttp.ConnectionTimeoutError:
            self.refused["no connection in time"] += 1
            return
        except TimeoutError:
            self.trouble.append(f"{self.name}: no answer within {HANGS_SECONDS} s")
            self._nobody_knows()
            return
        except aiohttp.ClientError:
            self._nobody_knows()
            return
        self.longest = max(self.longest, time.monotonic() - began)
        if "error" in answer:
            reason = answer["error"].get("data", {}).get("reason")
            self.told[reason] += 1
            if reason in UNKNOWN:
                self._nobody_knows()
            elif reason not in self._unexecuted:
                self.trouble.append(f"{self.name}: {answer}")
            return
        count = int(answer["result"]["content"][0]["text"])
        if not self.seen + 1 <= count <= self.seen + 1 + self._since:
            self.trouble.append(f"{self.name}: {count} after {self.seen} and {self._since} unknown")
        self.seen, self._since = count, 0
        self.answered += 1

    def _nobody_knows(self) -> None:
        self.unknown.append(f"{self.name}/{self.calls}")
        self._since += 1


class Crowd:
    """Clients of all kinds, several of each, at work for a while; ``programs`` are real ones."""

    def __init__(
        self,
        of_each_kind: int,
        unexecuted: Collection[str] = UNEXECUTED,
        pause_seconds: float = 0.01,
        programs: Sequence[CountingProgram] = (),
    ) -> None:
        self.clients = [
            CountingClient(kind, number, unexecuted) for number in range(of_each_kind) for kind in KINDS
        ]
        for client in self.clients:
            client.pause_seconds = pause_seconds
        self.programs = list(programs)
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    @property
    def everybody(self) -> Sequence[CountingClient | CountingProgram]:
        """All of them."""
        return [*self.clients, *self.programs]

    @contextlib.asynccontextmanager
    async def counting(self, *urls: str) -> AsyncIterator[None]:
        """Have them count, at each of the URLs in turn; real ones keep to the first."""
        working = [
            *(client.run(urls, self._stop) for client in self.clients),
            *(program.run(urls[0], self._stop) for program in self.programs),
        ]
        self._running = [asyncio.create_task(work) for work in working]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*self._running)

    async def until_all_count_on(self, times: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until each of them has had so many answers more."""
        everybody = self.everybody
        before = [client.answered for client in everybody]
        async with asyncio.timeout(seconds):
            while not all(c.answered >= n + times for c, n in zip(everybody, before, strict=True)):
                for ended in (task for task in self._running if task.done()):
                    ended.result()
                await asyncio.sleep(0.01)

    @property
    def trouble(self) -> list[str]:
        """Counts that began anew or have gaps, and errors that nobody should see."""
        return list(itertools.chain.from_iterable(client.trouble for client in self.everybody))

    @property
    def refused(self) -> Counter[str]:
        """The connections that were refused."""
        return sum((client.refused for client in self.everybody), Counter[str]())

    @property
    def told(self) -> Counter[str]:
        """The reasons of errors, each with how often it was told."""
        return sum((client.told for client in self.clients), Counter[str]())

    @property
    def unknown(self) -> list[str]:
        """The calls of which nobody knows whether they were executed."""
        return [tag for client in self.everybody for tag in client.unknown]

    @property
    def answered(self) -> int:
        """How many calls were."""
        return sum(client.answered for client in self.everybody)

    @property
    def longest(self) -> float:
        """How long somebody waited for an answer at most, in seconds."""
        return max(client.longest for client in self.clients)


def note(tell: Note, text: str, crowd: Crowd, server: CountingServer, *, count: int) -> None:
    """Tell, and print, what became of a crowd over which so many things have happened."""
    tell("count", count)
    tell("longest", f"{crowd.longest:.2f}")
    tell("lost", len(crowd.trouble))
    tell("twice", len(server.twice))
    tell("mixed", len(server.mixed))
    tell("figures", text)
    print(text)
