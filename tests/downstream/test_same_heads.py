"""What a head says is judged once for requests that have the same one, and anew for any other."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11
from messages import call
from proxy_bench import Bench

from mcp_session_proxy.downstream import app, senders
from mcp_session_proxy.downstream.head import Head

# -- which heads are the same ----------------------------------------------------------------------

HEAD = ((b"Host", b"a"), (b"Content-Length", b"10"), (b"Authorization", b"Bearer alice"))


def request(
    *headers: tuple[bytes, bytes], path: str = "/mcp?a=1", version: HttpVersion = HttpVersion11
) -> web.BaseRequest:
    return cast(web.BaseRequest, SimpleNamespace(raw_path=path, raw_headers=headers, version=version))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (request(*HEAD), True),
        (request(HEAD[0], (b"Content-Length", b"999"), HEAD[2]), True),
        (request(*HEAD, path="/mcp?a=2"), False),
        (request(*HEAD, path="/other?a=1"), False),
        (request(*HEAD, version=HttpVersion10), False),
        (request(*HEAD[:2], (b"Authorization", b"Bearer bob")), False),
        (request(*HEAD[:2], (b"authorization", b"Bearer alice")), False),
        (request((b"Host", b"b"), *HEAD[1:]), False),
        (request(HEAD[0], (b"Content-Lengths", b"10"), HEAD[2]), False),
        (request(HEAD[0], HEAD[2], HEAD[1]), False),
        (request(HEAD[0], HEAD[2]), False),
        (request(*HEAD, (b"X-User", b"bob")), False),
        (request(*HEAD[:2]), False),
        (request(), False),
    ],
)
def test_same_head(other: web.BaseRequest, *, same: bool) -> None:
    """The length of the body may differ; nothing else may, not even in spelling or order."""
    assert Head(request(*HEAD)).is_of(other) is same


def test_same_head_without_a_length() -> None:
    """A chunked body has no length."""
    head = Head(request(HEAD[0], (b"Transfer-Encoding", b"chunked")))
    assert head.is_of(request(HEAD[0], (b"Transfer-Encoding", b"chunked")))
    assert not head.is_of(request(*HEAD[:2]))


# -- over one connection ---------------------------------------------------------------------------


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, of: type, name: str) -> Iterator[list[None]]:
    """How often a method is called."""
    calls: list[None] = []
    real = getattr(of, name)

    def count(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(of, name, count)
        yield calls


async def test_judged_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that differ in their bodies alone."""
    await bench.start()
    with (
        counted(monkeypatch, app.FrontDoor, "_admit") as admitted,
        counted(monkeypatch, senders.Senders, "judge") as judged,
    ):
        for number in (1, 22, 333):
            assert (await bench.post(call(number))).status == 200
    assert (len(admitted), len(judged)) == (1, 1)


async def test_large_heads_are_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection holds on to little."""
    await bench.start()
    with counted(monkeypatch, app.FrontDoor, "_admit") as admitted:
        for _ in range(2):
            assert (await bench.post(call(), headers={"X-Fat": "x" * 5000})).status == 200
    assert len(admitted) == 2


async def test_callers_that_share_a_connection(bench: Bench) -> None:
    """Each is itself, though every request but the first finds another's head."""
    await bench.start()
    counts = {}
    for name in ("alice", "bob", "alice", "bob"):
        answer = await bench.post(call(), headers={"Authorization": f"Bearer {name}"})
        counts[name] = answer.json["result"]["count"]
        request, _ = bench.server.posts("tools/call")[-1]
        assert request.headers["Authorization"] == f"Bearer {name}"
    assert counts == {"alice": 2, "bob": 2}


async def test_what_else_changes_from_one_request_to_the_next(bench: Bench) -> None:
    """Session, version, Accept, query and what a legacy client repeats are those of each request."""
    await bench.start()
    one, other = await bench.initialize(), await bench.initialize()
    for session, count in ((one, 1), (other, 1), (one, 2), (other, 2)):
        assert (await bench.post(call(), session=session)).json["result"]["count"] == count
    for version, status in (("2025-06-18", 200), ("1999-01-01", 400), ("2025-06-18", 200)):
        headers = {"MCP-Protocol-Version": version}
        assert (await bench.post(call(), session=one, headers=headers)).status == status
    for accept in ("application/json", "text/event-stream", "application/json"):
        answer = await bench.post(call(), session=one, accept=accept)
        assert answer.headers["Content-Type"] == accept
    for value in ("a", "b", None):
        headers = {} if value is None else {"Mcp-Param-Region": value}
        await bench.post(call(), session=one, headers=headers)
        request, _ = bench.server.posts("tools/call")[-1]
        assert request.headers.get("Mcp-Param-Region") == value


async def test_a_refusal_is_not_remembered_as_leave(bench: Bench) -> None:
    """Whoever was let in before is refused by another Origin or Host, and the next one is let in again."""
    await bench.start()
    for headers, status in (
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({}, 200),
    ):
        assert (await bench.post(call(), headers=headers)).status == status
