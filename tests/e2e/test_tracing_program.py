"""Tracing in the program itself: a real client, a real server, and a collector that takes the spans."""

import asyncio
from collections.abc import Callable

import aiohttp
import httpx
import pytest
from collector import Collector
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from .conftest import Desk
from .launch import Fleet
from .wire import Caller

pytestmark = pytest.mark.e2e

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
MakeDesk = Callable[..., Desk]


def traced_desk(owned: Fleet, http: aiohttp.ClientSession, collector: Collector, kind: str) -> Desk:
    """A desk at a proxy that sends its traces to a collector."""
    server = owned.server(kind)
    proxy = owned.new_proxy(server.url, "--tracing", "--log-level", "debug", start=False)
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "e2e"}
    variables["OTEL_EXPORTER_OTLP_TIMEOUT"] = "3600"  # the patience of the exporter, not of anybody else
    proxy.program.environment = {**proxy.program.environment, **variables}
    proxy.start()
    return Desk(http, server, proxy)


async def call_with_sdk(caller: Caller, tool: str, **headers: str) -> None:
    """Call a tool as the Python SDK does."""
    assert caller.authorization is not None
    headers |= {"Authorization": caller.authorization}
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False) as http,
        streamable_http_client(caller.url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        assert not (await session.call_tool(tool)).isError


async def test_a_trace_from_end_to_end(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """The SDK's trace goes through the proxy's spans to the server; SIGTERM sends what is left."""
    async with Collector() as collector:
        at = traced_desk(owned, http, collector, "mcp-1.30")
        await call_with_sdk(at.caller, "increment", traceparent=PARENT)
        [seen] = [record for record in await at.seen() if record["method"] == "tools/call"]
        assert await asyncio.to_thread(at.proxy.stop) == 0
        server, client = sorted(collector.named("tools/call"), key=lambda span: span.kind)
        assert server.parent_span_id.hex() == "b7ad6b7169203331"
        assert client.parent_span_id == server.span_id
        assert seen["headers"]["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
        assert collector.resources[0]["service.name"] == "e2e"
    assert f'"trace_id":"{TRACE}"' in at.proxy.program.log.read_text()


async def test_without_tracing(desk: MakeDesk) -> None:
    """A proxy that does not trace hands the client's context on as it is."""
    at = desk("mcp-1.30")
    await call_with_sdk(at.caller, "increment", traceparent=PARENT)
    [seen] = [record for record in await at.seen() if record["method"] == "tools/call"]
    assert seen["headers"]["traceparent"] == PARENT


async def test_a_collector_that_hangs(owned: Fleet, http: aiohttp.ClientSession) -> None:
    """Nobody waits for it: calls are answered, and SIGTERM ends the program in time, with status 0."""
    async with Collector(deaf=True) as collector:
        at = traced_desk(owned, http, collector, "mcp-1.30")
        assert (await at.caller.call("increment")).text == "1"
        assert await asyncio.to_thread(at.proxy.stop) == 0
        assert collector.requests > 0
