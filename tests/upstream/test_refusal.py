"""A refusal, read once: what it means for the session, and what the client is told."""

import json

import pytest
from fakes import FakeReply, refusal
from messages import GONE
from multidict import CIMultiDict

from mcp_session_proxy.errors import UpstreamRejected
from mcp_session_proxy.protocol.lost import Verdict
from mcp_session_proxy.upstream.http.refusal import Refusal, read_refusal


class Answered:
    """An answer over HTTP, as far as a refusal is found."""

    def __init__(self, reply: FakeReply) -> None:
        kind = {} if reply.content_type is None else {"Content-Type": reply.content_type}
        self.status = reply.status
        self.headers = CIMultiDict({**reply.headers, **kind})
        self._body = reply.body

    async def read_beginning(self, size_bytes: int) -> bytes:
        return self._body[:size_bytes]


async def read(reply: FakeReply) -> Refusal:
    """What is read of a refusal."""
    return await read_refusal(Answered(reply))  # type: ignore[arg-type]


async def test_json_rpc_error_is_found() -> None:
    """The error of a JSON body decides, and reaches the client as it came."""
    found = await read(refusal(404, GONE))
    assert found.refused(sent_session_id=True).session is Verdict.GONE
    assert found.refused(sent_session_id=True).confirms_loss
    error = found.error()
    assert isinstance(error, UpstreamRejected)
    assert error.http_status == 404
    assert json.loads(error.raw_error or b"") == GONE["error"]


async def test_json_rpc_error_in_a_stream_is_found() -> None:
    """Some servers refuse in an event stream."""
    data = b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Server not initialized"}}'
    found = await read(FakeReply(status=400, body=b"event: message\r\ndata: " + data))
    assert found.response is not None
    assert found.refused(sent_session_id=True).session is Verdict.GONE


@pytest.mark.parametrize("body", [b"", b": nothing\n\n", b"data:\n\n"])
async def test_empty_stream(body: bytes) -> None:
    """A refusing stream without an event is a refusal all the same."""
    found = await read(FakeReply(status=500, body=body))
    assert found.response is None
    assert found.error().http_status == 502


@pytest.mark.parametrize(
    ("status", "told"), [(307, 502), (400, 400), (401, 401), (403, 403), (429, 429), (500, 502), (503, 503)]
)
async def test_status_for_the_client(status: int, told: int) -> None:
    """The client sees the server's status where it says something to it, else 502."""
    assert (await read(refusal(status, b"no"))).error().http_status == told


async def test_explaining_headers_are_kept() -> None:
    """What tells the client how to go on stays with the refusal."""
    found = await read(refusal(401, b"who?", headers={"WWW-Authenticate": "Bearer"}))
    assert found.error().headers() == {"WWW-Authenticate": "Bearer"}
    assert found.content_type == "text/plain"
    assert found.body == b"who?"


@pytest.mark.parametrize("body", [b"<html>", b"[" * 5000, b"\xff\xfe", b'{"jsonrpc":"2.0","method":"x"}'])
async def test_other_bodies_are_no_response(body: bytes) -> None:
    """Whatever a server sends along, a refusal can be found."""
    found = await read(refusal(418, body))
    assert found.response is None
    assert found.refused(sent_session_id=True).session is Verdict.ALIVE


@pytest.mark.parametrize(
    ("status", "body", "confirmed"),
    [
        (401, b"No session for this token", False),
        (503, b"Session store unavailable", False),
        (404, b"", True),
        (400, b"Bad Request: some session problem", True),
        (403, b"Session not found", False),
    ],
)
async def test_what_confirms_a_loss(status: int, body: bytes, confirmed: bool) -> None:
    """A ping refused over the credential or the load does not confirm that the session is gone."""
    found = await read(refusal(status, body))
    assert found.refused(sent_session_id=True).confirms_loss is confirmed


def rpc(code: int = -32002, **more: object) -> dict[str, object]:
    """A JSON-RPC error as a server may send it along with a status."""
    return {"jsonrpc": "2.0", "error": {"code": code, "message": "no"}, **more}


@pytest.mark.parametrize(
    ("status", "body", "answers"),
    [
        *((status, rpc(), True) for status in (400, 404, 405, 409, 413, 422, 451, 500, 501, 502, 503)),
        *((status, rpc(), False) for status in (401, 403, 429)),
        (400, b"no", False),
        (400, {"error": "invalid_token"}, False),
        (400, {"jsonrpc": "2.0", "id": 1, "result": {}}, False),
        (302, rpc(), False),
    ],
)
async def test_what_answers_the_request(status: int, body: object, answers: bool) -> None:
    """A JSON-RPC error does, unless it is about the caller or the moment; nothing else does."""
    assert (await read(refusal(status, body))).is_an_answer is answers


async def test_an_answer_after_other_events_and_in_a_batch() -> None:
    """The error is found behind what a stream begins with, and in a list of one."""
    stream = b"id: 1\ndata:\n\ndata: " + json.dumps(rpc()).encode()
    assert (await read(FakeReply(status=400, body=stream))).is_an_answer
    assert (await read(refusal(400, [rpc()]))).is_an_answer
