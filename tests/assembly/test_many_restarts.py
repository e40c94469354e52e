"""Clients of all kinds that count without pause, while the proxy is stopped, replaced and killed.

FULL_FAULTS=1 runs the whole number of restarts and of clients, real ones among them; without it a share.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from counting_programs import KINDS as PROGRAMS
from counting_programs import CountingProgram
from http_server import HttpServer, begin_stream, reply_to
from messages import INITIALIZE, call
from proxy_bench import BOTH, PATIENCE_SECONDS, until
from restart_bench import Succession, rows
from selection import FULL_FAULTS

RESTARTS = 50 if FULL_FAULTS else 2
OF_EACH_KIND = 3 if FULL_FAULTS else 1
REAL = list(PROGRAMS) if FULL_FAULTS else []
# How long those wait for an answer: one to a call that was in flight at a kill never comes.
REAL_SECONDS = {"kill -9": 3.0}
# Eight of them start at the same time.
START_SECONDS = 120.0
CAPABLE = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": {"elicitation": {}}}}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "count"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "m", "version": "1"},
}
KINDS = ["kept", "new", "listening", "capable", "platform", "sessionless", "conversation", "modern"]
# What a client may be told of a call of which nobody knows whether it was executed, and of one that was not.
UNKNOWN = {"outcome-unknown"}
UNEXECUTED = {"draining", "overloaded", "shutting-down"}

pytestmark = [pytest.mark.timeout(3600), pytest.mark.share(2)]


class CountingServer(HttpServer):
    """Counts, and knows each call by its tag."""

    def __init__(self) -> None:
        super().__init__()
        self.executed: Counter[str] = Counter()
        self.on["tools/call"] = self._count
        self.on["tools/list"] = self._list
        self.on["GET"] = self._listen

    async def _count(self, request: web.Request, message: Any) -> web.StreamResponse:
        session = request.headers["Mcp-Session-Id"]
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


class CountingClient:
    """A caller of its own, of one of the kinds, and what it has been told."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.name = f"{kind}-{number}"
        self.calls = 0
        self.answered = 0
        self.refused: Counter[str] = Counter()  # connections
        self.unknown: list[str] = []  # the tags of calls of which nobody knows
        self.trouble: list[str] = []
        self.seen = 0  # the count that was told last
        self._since = 0  # calls of which nobody knows whether they count
        self._headers = {"Authorization": f"Bearer {self.name}", "Accept": BOTH}
        if kind == "conversation":
            self._headers["X-Talk"] = "one"
        if kind == "platform":
            self._headers["Mcp-Session-Id"] = f"platform-{number}"

    async def run(self, url: str, stop: asyncio.Event) -> None:
        """Count until it is told to stop."""
        connector = aiohttp.TCPConnector(force_close=self.kind == "new")
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
            if self.kind in ("kept", "new", "listening", "capable"):
                body = CAPABLE if self.kind == "capable" else INITIALIZE
                async with http.post(url, json=body, headers=self._headers) as response:
                    self._headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
            listening = None
            if self.kind == "listening":
                listening = tasks.create_task(self._listen(http, url))
            while not stop.is_set():
                await self._count(http, url)
                await asyncio.sleep(0.01)
            if listening is not None:
                listening.cancel()

    async def _listen(self, http: aiohttp.ClientSession, url: str) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url, headers={**self._headers, "Accept": "text/event-stream"}) as stream:
                    # One that drains opens no stream.
                    assert stream.status in (200, 503)
                    await stream.content.read()
            await asyncio.sleep(0.01)

    async def _count(self, http: aiohttp.ClientSession, url: str) -> None:
        self.calls += 1
        arguments = {"tag": f"{self.name}/{self.calls}"}
        headers, body = self._headers, call(self.calls, name="count", arguments=arguments)
        if self.kind == "modern":
            body = call(self.calls, name="count", arguments=arguments, _meta=META)
            headers = {**headers, **MODERN}
        try:
            async with http.post(url, json=body, headers=headers) as response:
                answer = await response.json()
        except aiohttp.ClientConnectorError as error:
            self.refused[repr(error.os_error)] += 1
            await asyncio.sleep(0.01)
            return
        except aiohttp.ClientError:
            self._nobody_knows()
            return
        if "error" in answer:
            reason = answer["error"].get("data", {}).get("reason")
            if reason in UNKNOWN:
                self._nobody_knows()
            elif reason not in UNEXECUTED:
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


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    async with CountingServer() as running_server:
        yield running_server


@pytest.mark.parametrize("how", ["SIGTERM", "replace", "kill -9"])
async def test_everybody_counts_on(server: CountingServer, tmp_path: Path, how: str) -> None:
    """No count begins anew, no call is executed twice, no connection is refused; only of what was in flight
    when the process was killed is it not known whether it was executed.
    """
    clients: list[CountingClient | CountingProgram] = [
        *(CountingClient(kind, number) for number in range(OF_EACH_KIND) for kind in KINDS),
        *(CountingProgram(kind, tmp_path, REAL_SECONDS.get(how, 20.0)) for kind in REAL),
    ]
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        succession = Succession(tmp_path, server.url, how, stack, "--affinity-header", "X-Talk")
        url = await succession.start()
        running_clients = [asyncio.create_task(client.run(url, stop)) for client in clients]

        async def until_all_count_on(times: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
            before = [client.answered for client in clients]
            async with asyncio.timeout(patience_seconds):
                while not all(c.answered >= n + times for c, n in zip(clients, before, strict=True)):
                    for ended in (task for task in running_clients if task.done()):
                        ended.result()
                    await asyncio.sleep(0.01)

        await until_all_count_on(2, START_SECONDS)
        # A session at the server for each, and the ids that five of the kinds hold.
        await until(lambda: rows(succession.state, "records") >= len(clients) + 5 * OF_EACH_KIND)
        for _ in range(RESTARTS):
            await succession.succeed()
            await until_all_count_on(2)
        stop.set()
        await asyncio.gather(*running_clients)
    assert list(itertools.chain.from_iterable(client.trouble for client in clients)) == []
    assert {tag: times for tag, times in server.executed.items() if times > 1} == {}
    assert sum((client.refused for client in clients), Counter[str]()) == Counter()
    unknown = [tag for client in clients for tag in client.unknown]
    # One that was sent in the very moment in which its connection was closed for its silence has not begun.
    assert how == "kill -9" or [tag for tag in unknown if server.executed[tag]] == []
    opened = Counter(request.headers["Authorization"] for request, _ in server.posts("initialize"))
    assert opened == {f"Bearer {client.name}": 1 for client in clients}
    calls = sum(client.answered for client in clients)
    print(
        f"{RESTARTS} x {how}, {len(clients)} clients: {calls} answered, {len(unknown)} not, 0 lost, 0 twice"
    )
    for client in clients:
        if isinstance(client, CountingProgram):
            said = Counter(line.partition(": ")[2] for line in client.said)
            print(f"{client.name}: {client.answered} answered, {len(client.unknown)} not: {dict(said)}")
