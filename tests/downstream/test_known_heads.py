"""Connections that carry the requests of many callers, as a front proxy's do: each head is judged once."""

from typing import Any

import pytest
from messages import call
from proxy_bench import Bench
from test_same_heads import counted

from mcp_session_proxy.downstream import app, known_heads, senders


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def ask(bench: Bench, name: str, **params: Any) -> int:
    """How many calls its caller's session has had."""
    answer = await bench.post(call(**params), headers=bearer(name))
    assert answer.status == 200
    request, _ = bench.server.posts("tools/call")[-1]
    assert request.headers["Authorization"] == f"Bearer {name}"
    count: int = answer.json["result"]["count"]
    return count


async def test_judged_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callers take turns, their bodies differ, and each has its own session."""
    await bench.start()
    names = ["ada", "bob", "cleo"]
    for turn in (1, 2):  # in the first one nothing shows yet that they will come again
        for name in names:
            assert await ask(bench, name, text="x" * 1000 * turn) == turn
    with (
        counted(monkeypatch, app.FrontDoor, "_admit") as admitted,
        counted(monkeypatch, senders.Senders, "judge") as judged,
    ):
        for turn in range(3):
            for name in names:
                assert await ask(bench, name, text="x" * turn) == turn + 3
    assert (admitted, judged) == ([], [])


async def test_a_connection_belongs_to_whoever_asked_last(bench: Bench) -> None:
    """Also where the head was known: it counts as one of that caller's connections."""
    await bench.start()
    for name in ("ada", "bob", "ada", "bob", "ada"):
        await ask(bench, name)
        (connection,) = bench.listener.connections
        caller, principal = connection.sender.caller, connection.sender.principal
        assert ("Authorization", f"Bearer {name}") in caller.headers
        assert connection.place.principal == principal.digest


async def test_other_rules(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was let in by former ones is judged anew by those of now."""
    await bench.start()
    for name in ("ada", "bob", "ada", "bob"):
        await ask(bench, name)
    with counted(monkeypatch, app.FrontDoor, "_admit") as admitted:
        bench.reload(allowed_origin=["https://page.example"])
        for name in ("ada", "bob", "ada", "bob"):
            await ask(bench, name)
    assert len(admitted) == 2


async def test_as_many_as_there_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are known; who comes again after many others is judged anew, and served like any other."""
    monkeypatch.setattr(known_heads, "KNOWN_HEADS", 3)
    await bench.start()
    for _ in range(2):
        for number in range(6):
            await ask(bench, str(number))
    assert len(bench.listener.request_handler._known) == 3


async def test_a_client_alone(bench: Bench) -> None:
    """However many sessions it has, no head of it is kept: what each of them takes is to stay small."""
    await bench.start()
    for _ in range(3):
        session = await bench.initialize(headers=bearer("ada"))
        await bench.post(call(), session=session, headers=bearer("ada"))
    assert len(bench.listener.request_handler._known) == 0
