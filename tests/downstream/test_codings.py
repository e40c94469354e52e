"""Servers that compress their answers though nobody asks for it: what comes to the client."""

import gzip
import json
import zlib

import pytest
from aiohttp import web
from http_server import HttpServer
from messages import call
from proxy_bench import Bench

UNREADABLE = "\x8b\x02\x80 no JSON".encode("latin-1")


def answer_with(server: HttpServer, coding: str, body: bytes | None, *, stream: bool) -> None:
    """Have calls answered so; a body of None is the answer as it is."""
    kind = "text/event-stream" if stream else "application/json"

    async def answer(_: web.Request, message: dict[str, object]) -> web.Response:
        text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"count": 7}}).encode()
        text = b"data: %b\n\n" % text if stream else text
        sent = {"twice": gzip.compress(zlib.compress(text)), "": text}.get(
            (body or b"").decode("latin-1"), body
        )
        return web.Response(body=sent, headers={"Content-Encoding": coding, "Content-Type": kind})

    server.on["tools/call"] = answer


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "a stream"])
@pytest.mark.parametrize(
    ("coding", "body"), [("deflate, identity, GZIP", b"twice"), ("br", None), ("none", None)]
)
async def test_what_can_be_read_is_read(
    bench: Bench, server: HttpServer, coding: str, body: bytes | None, stream: bool
) -> None:
    """Also where it was compressed twice, or where the header names what nobody has used."""
    answer_with(server, coding, body, stream=stream)
    await bench.start()
    answer = await bench.post(call(), session=await bench.initialize())
    told = answer.json[0] if stream and isinstance(answer.json, list) else answer.json
    assert told["result"] == {"count": 7}
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "a stream"])
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "gzip, gzip, gzip, gzip, gzip"])
async def test_what_cannot_be_read_is_told(
    bench: Bench, server: HttpServer, coding: str, stream: bool
) -> None:
    """The error names the coding, and does not pretend that a connection has broken."""
    body = UNREADABLE
    for _ in range(3 if coding.endswith("gzip") else 0):
        body = gzip.compress(body)
    answer_with(server, coding, body, stream=stream)
    await bench.start()
    answer = await bench.post(call(), session=await bench.initialize())
    assert (answer.status, answer.error[2]) == (502, "upstream-protocol-error")
    assert "Content-Encoding: " in answer.json["error"]["message"]
    assert len(server.posts("tools/call")) == 1


async def test_what_is_not_compressed_at_all_is_told(bench: Bench, server: HttpServer) -> None:
    """Whether the call was executed is not known, and why, the error says."""
    answer_with(server, "gzip", b'{"jsonrpc":"2.0"}', stream=False)
    await bench.start()
    answer = await bench.post(call(), session=await bench.initialize())
    assert (answer.status, answer.error[2]) == (502, "outcome-unknown")
    assert "not compressed as its Content-Encoding says" in answer.json["error"]["message"]
