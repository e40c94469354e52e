"""Ordinary answers, as they are written: what aiohttp would write, without its detours."""

import asyncio
import json

import pytest
from messages import call
from proxy_bench import Bench


async def exchange(bench: Bench, head: str, *, times: int = 1) -> tuple[list[bytes], bool]:
    """The answers to a call on one connection, and whether the proxy closes it then."""
    host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(call()).encode()
    answers = []
    for _ in range(times):
        writer.write(f"POST /mcp {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        answers.append(answer + await reader.readexactly(length))
    writer.write_eof()
    closes = await reader.read() == b""
    writer.close()
    return answers, closes


def names(answer: bytes) -> list[bytes]:
    """The names of its headers."""
    return sorted(line.partition(b":")[0] for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])


USUAL = [b"Content-Length", b"Content-Type", b"Date", b"Server"]
LOCAL = "HTTP/1.1\r\nHost: localhost\r\nAccept: application/json"


async def test_the_usual_one(bench: Bench) -> None:
    """A status, four headers, the body; and the connection goes on."""
    await bench.start()
    answers, _ = await exchange(bench, LOCAL, times=3)
    for number, answer in enumerate(answers, 1):
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert names(answer) == USUAL
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["result"] == {"count": number}


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (LOCAL + "\r\nConnection: close", [b"Connection"]),
        ("HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive", [b"Connection"]),
        (LOCAL + "\r\nOrigin: http://localhost", [b"Access-Control-Allow-Origin", b"Vary"]),
    ],
)
async def test_what_has_more_to_say(bench: Bench, head: str, more: list[bytes]) -> None:
    """Of the connection, or to a page of another origin."""
    await bench.start()
    (answer,), _ = await exchange(bench, head)
    assert set(names(answer)) >= {*USUAL, *more}


async def test_a_client_that_leaves_before_its_answer(bench: Bench) -> None:
    """Takes nothing along: the next client is answered."""
    await bench.start()
    for _ in range(3):
        host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(call()).encode()
        writer.write(f"POST /mcp {LOCAL}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.transport.abort()
    assert (await bench.post(call())).status == 200
