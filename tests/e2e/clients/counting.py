"""Clients that call without pause, whatever happens to their connection. Usage: counting.py URL TOKEN PLAN.

The plan is JSON: ``kind`` (v1, v2, fastmcp or langchain), the SDK's ``mode`` where it has one, and
``seconds``, how long a call may take. Until standard input ends, the tool `count` is called under one tag
after the other, and a line of JSON tells what came of each: ``tag`` with the ``count``, or with the
``error``. After two failures in a row the client connects anew, as an application would.
"""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from plan import text_of

URL, TOKEN, PLAN = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
FAILURES = 2
Call = Callable[[str], Awaitable[Any]]


@asynccontextmanager
async def v1() -> AsyncIterator[Call]:
    """The official SDK, 1.x."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(URL, headers=HEADERS) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield lambda tag: session.call_tool("count", {"tag": tag})


@asynccontextmanager
async def v2() -> AsyncIterator[Call]:
    """The official SDK, 2.x."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(headers=HEADERS, timeout=httpx2.Timeout(30, read=300)) as http,
        Client(streamable_http_client(URL, http_client=http), mode=PLAN["mode"], cache=None) as client,
    ):
        yield lambda tag: client.call_tool("count", {"tag": tag})


@asynccontextmanager
async def fastmcp() -> AsyncIterator[Call]:
    """FastMCP's client."""
    from fastmcp import Client

    async with Client(URL, auth=TOKEN, mode=PLAN["mode"]) as client:
        yield lambda tag: client.call_tool("count", {"tag": tag})


@asynccontextmanager
async def langchain() -> AsyncIterator[Call]:
    """LangChain's adapters, which open a session for every call."""
    from langchain_mcp_adapters.client import MultiServerMCPClient

    client = MultiServerMCPClient({"it": {"transport": "streamable_http", "url": URL, "headers": HEADERS}})
    [tool] = await client.get_tools()
    yield lambda tag: tool.ainvoke({"tag": tag})


KINDS = {"v1": v1, "v2": v2, "fastmcp": fastmcp, "langchain": langchain}


def say(tag: str | None, **what: str) -> None:
    """One line."""
    print(json.dumps({"tag": tag, **what}), flush=True)


def told(answer: Any) -> str:
    """The text of an answer."""
    if isinstance(answer, str):
        return answer
    return "".join(part["text"] for part in answer) if isinstance(answer, list) else text_of(answer)


def name_of(error: BaseException) -> str:
    """What went wrong at the bottom of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class Counter:
    """Counts until it is told to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.calls = 0
        self.tag: str | None = None  # of the call that is under way
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        sys.stdin.read()
        self.stopped = True

    async def run(self) -> None:
        """One connection after the other, of which each is kept for as long as it works."""
        while not self.stopped:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(PLAN["seconds"]):
                        call = await stack.enter_async_context(KINDS[PLAN["kind"]]())
                    await self._use(call)
            except Exception as error:  # an SDK's task group brings it down with itself
                say(self.tag, error=name_of(error))
                self.tag = None
                await asyncio.sleep(0.05)

    async def _use(self, call: Call) -> None:
        failures = 0
        while not self.stopped and failures < FAILURES:
            self.calls += 1
            self.tag = f"{TOKEN}/{self.calls}"
            try:
                async with asyncio.timeout(PLAN["seconds"]):
                    answer = told(await call(self.tag))
            except Exception as error:
                failures += 1
                say(self.tag, error=name_of(error))
            else:
                failures = 0
                say(self.tag, count=answer)
            self.tag = None
            await asyncio.sleep(0.05)


asyncio.run(Counter().run())
