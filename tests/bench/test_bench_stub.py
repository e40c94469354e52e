"""The benchmark's stub server, as real clients see it: a stateful MCP server."""

from collections.abc import Iterator
from datetime import timedelta

import aiohttp
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from bench.contenders import Stage
from bench.messages import BIG, ECHO, INITIALIZE, LIST, MEBIBYTE, PROGRESS, Client, check_work, legacy

NAME = "Mcp-Session-Id"


@pytest.fixture(scope="module", params=["stub", "stub-sse"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running stub."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    try:
        yield stage.server(request.param).url
    finally:
        stage.stop_all()


@pytest.mark.slow
async def test_the_official_client_is_served(url: str) -> None:
    """Handshake, list, call, progress, a large result."""
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with (
        streamablehttp_client(url) as (read, write, _),
        ClientSession(read, write, timedelta(seconds=10)) as session,
    ):
        assert (await session.initialize()).serverInfo.name == "stub"
        assert len((await session.list_tools()).tools) == 10
        echo = await session.call_tool("echo", {"message": 'é "quoted"'})
        assert echo.content[0].text == 'Echo: é "quoted"'  # type: ignore[union-attr]
        await session.call_tool("progress", {"n": 3}, progress_callback=note)
        assert steps == [1, 2, 3]
        big = await session.call_tool("big", {"size": MEBIBYTE})
        assert len(big.content[0].text) == MEBIBYTE  # type: ignore[union-attr]


def test_requests_need_a_session(url: str) -> None:
    """400 without one, 404 with one that is unknown or over; each handshake gives another."""
    with Client(url) as client:
        assert client.send(legacy(ECHO))[0] == 400
        assert client.send(legacy(ECHO, "unknown"))[0] == 404
        session = client.open_session()
        assert client.open_session() != session
        for work in (ECHO, LIST, BIG, PROGRESS):
            check_work(url, legacy(work, session), work)


async def test_a_session_has_one_stream_and_both_end_with_delete(url: str) -> None:
    """A second GET is refused; DELETE ends the stream, and the session is unknown afterwards."""
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=INITIALIZE.body, headers=INITIALIZE.headers) as answer:
            headers = {NAME: answer.headers[NAME]}
            await answer.read()
        async with http.get(url, headers=headers) as stream:
            assert stream.status == 200
            async with http.get(url, headers=headers) as second:
                assert second.status == 409
            async with http.delete(url, headers=headers) as deleted:
                assert deleted.status == 200
            assert await stream.content.read() == b""
        async with http.delete(url, headers=headers) as again:
            assert again.status == 404


async def test_sessions_and_streams_are_counted(url: str) -> None:
    """A stream counts until its connection is closed."""
    stats = url.removesuffix("/mcp") + "/stats"

    async def streams(http: aiohttp.ClientSession) -> int:
        async with http.get(stats) as answer:
            return int((await answer.json())["streams"])

    async with aiohttp.ClientSession() as http:
        before = await streams(http)
        async with http.post(url, data=INITIALIZE.body, headers=INITIALIZE.headers) as answer:
            headers = {NAME: answer.headers[NAME]}
        async with http.get(url, headers=headers):
            assert await streams(http) == before + 1
        while await streams(http) != before:
            pass
