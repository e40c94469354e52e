"""What one caller knows or guesses of another's, such as ids and tokens, is worth nothing to it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import begin_stream, reply_to, write_event
from messages import call, notification
from proxy_bench import Bench, read_events, until

ALICE = {"Authorization": "Bearer alice"}
MALLORY = {"Authorization": "Bearer mallory"}
STREAM = "text/event-stream"


class Working:
    """A server whose tool tells of progress, if it is to, and answers when it may."""

    def __init__(self, bench: Bench) -> None:
        self.may_end = asyncio.Event()
        self.calls: list[tuple[str, Any]] = []  # whose, and the message
        self.heard: list[tuple[str, Any]] = []
        bench.server.on["tools/call"] = self._work
        for method in ("notifications/cancelled", "notifications/progress"):
            bench.server.on[method] = self._hear

    async def _work(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.calls.append((request.headers.get("Authorization", ""), message))
        token = message["params"].get("_meta", {}).get("progressToken")
        if token is None:
            await self.may_end.wait()
            return reply_to(message, {"done": request.headers.get("Authorization", "")})
        response = await begin_stream(request)
        await write_event(response, notification("notifications/progress", progressToken=token, progress=1))
        await self.may_end.wait()
        await write_event(response, {"jsonrpc": "2.0", "id": message["id"], "result": {"done": True}})
        return response

    async def _hear(self, request: web.Request, message: Any) -> web.StreamResponse:
        self.heard.append((request.headers.get("Authorization", ""), message))
        return web.Response(status=202)


@pytest.mark.parametrize("whose", ["own session", "the other's session", "no session"])
async def test_nobody_cancels_anothers_call(bench: Bench, whose: str) -> None:
    """Neither by the id that its client gave it, nor by the one that it has at the server."""
    await bench.start()
    at = Working(bench)
    alice, mallory = await bench.initialize(headers=ALICE), await bench.initialize(headers=MALLORY)
    session = {"own session": mallory, "the other's session": alice, "no session": None}[whose]
    async with bench.asking(call("mine"), session=alice, headers=ALICE) as answer:
        await until(lambda: at.calls)
        for identifier in ("mine", at.calls[0][1]["id"], str(at.calls[0][1]["id"]), *range(20)):
            body = notification("notifications/cancelled", requestId=identifier)
            assert (await bench.post(body, session=session, headers=MALLORY)).status == 202
        at.may_end.set()
        assert (await answer).json["result"] == {"done": "Bearer alice"}
    assert [whose for whose, _ in at.heard if whose != MALLORY["Authorization"]] == []


async def test_nobody_tells_progress_for_another(bench: Bench) -> None:
    """Progress goes to whoever asked for it, also where others use the same token."""
    await bench.start()
    at = Working(bench)
    alice, mallory = await bench.initialize(headers=ALICE), await bench.initialize(headers=MALLORY)
    body = {**call("mine"), "params": {**call("mine")["params"], "_meta": {"progressToken": "t"}}}
    async with (
        bench.request("POST", body, session=alice, headers=ALICE) as hers,
        bench.request("POST", body, session=mallory, headers=MALLORY) as his,
    ):
        for stream in (hers, his):
            [(_, message)] = await read_events(stream.content, 1)
            assert message["params"] == {"progressToken": "t", "progress": 1}
        for token in ("t", *(message["params"]["_meta"]["progressToken"] for _, message in at.calls)):
            forged = notification("notifications/progress", progressToken=token, progress=99)
            for session in (alice, mallory, None):
                assert (await bench.post(forged, session=session, headers=MALLORY)).status == 202
        at.may_end.set()
        for stream in (hers, his):
            [(_, message)] = await read_events(stream.content, 1)
            assert message["result"] == {"done": True}
    assert [whose for whose, _ in at.heard if whose != MALLORY["Authorization"]] == []


@pytest.mark.parametrize("whose", ["own session", "the other's session", "no session"])
async def test_nobody_reads_anothers_events(bench: Bench, whose: str) -> None:
    """An event's id opens its stream for its own caller only, however it was found out."""
    await bench.start()
    at = Working(bench)
    alice, mallory = await bench.initialize(headers=ALICE), await bench.initialize(headers=MALLORY)
    session = {"own session": mallory, "the other's session": alice, "no session": None}[whose]
    body = {**call("mine"), "params": {**call("mine")["params"], "_meta": {"progressToken": "t"}}}
    async with bench.request("POST", body, session=alice, headers=ALICE) as post:
        [(event_id, _)] = await read_events(post.content, 1)
        assert event_id is not None
        at.may_end.set()
        await read_events(post.content, 1)
    before_the_last = {"Last-Event-ID": event_id}
    for accept in (STREAM, "*/*"):
        async with bench.request(
            "GET", session=session, headers={**MALLORY, **before_the_last}, accept=accept
        ) as get:
            assert get.status != 200
            assert "done" not in await get.text()
    async with bench.request(
        "GET", session=alice, headers={**ALICE, **before_the_last}, accept=STREAM
    ) as get:
        [(_, message)] = await read_events(get.content, 1)
        assert message["result"] == {"done": True}


def test_keys_collide_by_chance_only() -> None:
    """Keys, names and ids are kept by Python's keyed hash, and nothing we ship turns the key off."""
    root = Path(__file__).parents[2]
    shipped = [
        root / "pyproject.toml",
        *(root / "deploy").rglob("*"),
        *(root / "mcp_session_proxy").rglob("*.py"),
    ]
    files = [path for path in shipped if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if b"PYTHONHASHSEED" in path.read_bytes()] == []


async def test_numbers_that_collide_cost_nothing(bench: Bench) -> None:
    """Numbers have no keyed hash, so ids and tokens that are numbers are kept as they are written."""
    await bench.start()
    session = await bench.initialize()
    modulus = 2**61 - 1  # equal remainders, equal hashes
    batch = [{**call(), "id": number * modulus} for number in range(1, 101)]
    answer = await bench.post(batch, session=session)
    assert sorted(each["id"] for each in answer.json) == [each["id"] for each in batch]
