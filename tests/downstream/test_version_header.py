"""``MCP-Protocol-Version`` on legacy requests of every kind; the id in errors about what cannot be read."""

import asyncio
import json
from typing import Any

import pytest
from messages import INITIALIZE, call, notification
from proxy_bench import BOTH, Answer, Bench
from yarl import URL

LEGACY = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
ODD = ["1999-01-01", "2025-11-24", "2025-11-25x", "latest", "", "1", "2025-11-25, 2025-11-25", "\u2603"]


def names(version: str) -> dict[str, str]:
    return {"MCP-Protocol-Version": version}


def assert_refused(answer: Answer, identifier: object, version: str) -> None:
    assert answer.status == 400
    assert answer.error == (identifier, -32022, "unsupported-version")
    data = answer.json["error"]["data"]
    assert (data["supported"], data["requested"]) == (LEGACY, version)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ODD)
@pytest.mark.parametrize("kind", ["session", "no session"])
async def test_posts(bench: Bench, version: str, kind: str) -> None:
    """Every POST is refused, requests under their own id, before the server hears of them."""
    await bench.start()
    session = await bench.initialize() if kind == "session" else None
    seen = len(bench.server.seen)
    for body, identifier in (
        (call("x"), "x"),
        (call(7, "ping"), 7),
        (call(8, "tools/list"), 8),
        (INITIALIZE, 0),
        (notification("notifications/initialized"), None),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, None),
        ([call(1)], None),
        ([notification("a")], None),
    ):
        assert_refused(await bench.post(body, session=session, headers=names(version)), identifier, version)
    assert len(bench.server.seen) == seen


@pytest.mark.parametrize("version", [*ODD, "2030-01-01"])
@pytest.mark.parametrize("verb", ["GET", "DELETE"])
async def test_other_verbs(bench: Bench, version: str, verb: str) -> None:
    """GET and DELETE are refused, too, with a session or without; the session stays as it was."""
    await bench.start()
    session = await bench.initialize()
    for identifier in (session, None):
        async with bench.request(verb, session=identifier, headers=names(version)) as response:
            answer = await Answer.read(response)
        assert answer.status == 400
        assert answer.json["error"]["data"]["reason"] == "unsupported-version"
    assert (await bench.post(call(), session=session)).json["result"] == {"count": 1}


async def test_a_version_that_is_sent_twice(bench: Bench) -> None:
    """One of them that is not served is enough."""
    await bench.start()
    body = json.dumps(call(7)).encode()
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMCP-Protocol-Version: 2025-11-25\r\n"
        b"MCP-Protocol-Version: 1999-01-01\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(bench.url).port)
    writer.write(head + body)
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_notifications_of_a_version_to_come(bench: Bench) -> None:
    """A modern version that is not served is refused whatever it comes with."""
    await bench.start()
    for version, status in ((MODERN, 202), ("2030-01-01", 400)):
        assert (await bench.post(notification("notifications/x"), headers=names(version))).status == status


# -- what is not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*LEGACY, None])
async def test_other_served_versions(bench: Bench, version: str | None) -> None:
    """A served version other than the agreed one is no reason to refuse; the server gets the agreed one."""
    await bench.start()
    headers = {} if version is None else names(version)
    answer = await bench.post(INITIALIZE, headers=headers)
    session = answer.headers["Mcp-Session-Id"]
    assert (await bench.post(call(), session=session, headers=headers)).status == 200
    assert (await bench.post(notification("x"), session=session, headers=headers)).status == 202
    async with bench.request("GET", session=session, headers=headers) as response:
        assert response.status == 200
    async with bench.request("DELETE", session=session, headers=headers) as response:
        assert response.status == 405
    request, _ = bench.server.posts("tools/call")[0]
    assert request.headers["MCP-Protocol-Version"] == "2025-11-25"


# -- which versions are told -----------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "2025-11-25"])
async def test_a_legacy_version_in_a_modern_request(bench: Bench, header: str | None) -> None:
    """It is told modern versions only: told the one that it used, it would come back with it for ever."""
    await bench.start()
    body = call(
        7, "tools/list", _meta={META + "protocolVersion": "2025-11-25", META + "clientCapabilities": {}}
    )
    answer = await bench.post(body, headers={} if header is None else names(header))
    assert answer.status == 400
    assert answer.error == (7, -32022, "unsupported-version")
    assert answer.json["error"]["data"]["supported"] == [MODERN]


# -- ids of what cannot be read --------------------------------------------------------------------

MODERN_META = json.dumps({META + "protocolVersion": MODERN, META + "clientCapabilities": {}}).encode()


@pytest.mark.parametrize(
    ("headers", "body", "has_id"),
    [
        ({}, b"{", True),
        (names("2025-11-25"), b"{", True),
        (names(MODERN), b"{", False),
        (names("2030-01-01"), b"{", False),
        (names(MODERN), b"17", False),
        (names(MODERN), b"[]", False),
        (names(MODERN), b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}', False),
        (names(MODERN), b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', False),
        ({}, b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', True),
        ({}, b'{"jsonrpc":"2.0","id":null,"method":"tools/list","params":{"_meta":%b}}' % MODERN_META, False),
        (names(MODERN), b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', False),
        (names(MODERN), b'{"jsonrpc":"2.0","id":1,"result":{}}', False),
        (names(MODERN), b" " * 200_000, False),
        ({}, b" " * 200_000, True),
        ({**names(MODERN), "Origin": "https://evil.example"}, b"{}", False),
        ({"Origin": "https://evil.example"}, b"{}", True),
    ],
)
async def test_ids_of_what_cannot_be_read(
    bench: Bench, headers: dict[str, str], body: bytes, has_id: bool
) -> None:
    """JSON-RPC wants a null there, the modern schema wants nothing."""
    await bench.start(max_body_bytes="100KiB")
    answer = await bench.post(body, headers=headers, accept=BOTH)
    assert answer.status in (400, 403, 413)
    found: Any = answer.json
    assert found["jsonrpc"] == "2.0"
    assert found["error"]["message"]
    assert ("id" in found) is has_id
    assert found.get("id") is None


async def test_modern_requests_that_can_be_read(bench: Bench) -> None:
    """Whatever else is wrong with them, they are answered under their own id."""
    await bench.start()
    for version in (MODERN, "2030-01-01"):
        for body in (call(7, "ping"), call(7, "tools/list"), {"jsonrpc": "1.0", "id": 7, "method": "x"}):
            answer = await bench.post(body, headers=names(version))
            assert answer.status in (400, 404)
            assert answer.json["id"] == 7
