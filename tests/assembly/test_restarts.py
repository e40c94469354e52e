"""Sessions that outlive the proxy: it is stopped, or killed, and another one goes on in its directory."""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import HttpServer, begin_stream, write_event
from messages import INITIALIZE, call, notification
from proxy_bench import Bench, read_events, until
from restart_bench import ME, YOU, Restarts, rows
from token_server import TokenServer, bearer, token

from mcp_session_proxy import events
from mcp_session_proxy.assembly import state_check
from mcp_session_proxy.assembly.proxy import Proxy
from mcp_session_proxy.assembly.sockets import CannotStart
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.store.sqlite import SqliteEngine
from mcp_session_proxy.upstream.life import Life

pytestmark = pytest.mark.slow

CAPABLE = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": {"elicitation": {}}}}


async def count(bench: Bench, **options: Any) -> int:
    """What the server's counter of this session says after one more call."""
    answer = await bench.post(call(), **options)
    assert answer.status == 200, answer.body
    return int(answer.json["result"]["count"])


@pytest.mark.parametrize("how", ["restart", "crash"])
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_a_client_goes_on(restarts: Restarts, server: HttpServer, how: str, sharing: str) -> None:
    """With its id, in its session, state included: the server is told neither good-bye nor hello."""
    bench = await restarts.start(sharing=sharing)
    session = await bench.initialize(headers=ME)
    assert await count(bench, session=session, headers=ME) == 1
    bench = await getattr(restarts, how)(sharing=sharing)
    assert await count(bench, session=session, headers=ME) == 2
    assert len(server.posts("initialize")) == 1
    assert server.deleted == []


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_everybody_finds_their_own(restarts: Restarts, server: HttpServer, how: str) -> None:
    """Clients with capabilities, foreign ids, callers without a session, conversations: each its count."""
    bench = await restarts.start(affinity_header="X-Talk")
    capable = (await bench.post(CAPABLE, headers=ME)).headers["Mcp-Session-Id"]
    who: list[dict[str, Any]] = [
        {"session": capable, "headers": ME},
        {"session": await bench.initialize(headers=ME), "headers": ME},
        {"session": "platform-17", "headers": ME},
        {"headers": ME},
        {"headers": YOU},
        {},
        {"headers": {**ME, "X-Talk": "one"}},
        {"headers": {**ME, "X-Talk": "two"}},
    ]
    for times, options in enumerate(who, 1):
        for n in range(1, times + 1):
            assert await count(bench, **options) == n
    bench = await getattr(restarts, how)(affinity_header="X-Talk")
    opened = len(server.posts("initialize"))
    assert [await count(bench, **options) for options in who] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert len(server.posts("initialize")) == opened


async def test_sessions_sleep_until_their_callers_come(restarts: Restarts, server: HttpServer) -> None:
    """Nothing is said in a caller's name without its credentials; who has none is gone on with at once."""
    bench = await restarts.start(keepalive="1s", check_after="0s")
    for headers in (ME, {}):
        await count(bench, headers=headers)
    bench = await restarts.restart(keepalive="1s", check_after="0s")
    seen = len(server.seen)
    lives = lambda: {slot.session.life for slot in bench.proxy.core.pool.books.slots()}  # noqa: E731
    await until(lambda: Life.OPEN in lives())
    # Time for keep-alive pings, too.
    pinged = len(server.posts("ping"))
    await until(lambda: len(server.posts("ping")) > pinged)
    assert not any("Authorization" in request.headers for request, _ in server.seen[seen:])
    assert lives() == {Life.ASLEEP, Life.OPEN}
    # Of those since: on a slow machine, the process before has pinged both.
    since = {id(request) for request, _ in server.seen[seen:]}
    pings = [request for request, _ in server.posts("ping") if id(request) in since]
    assert {request.headers["Mcp-Session-Id"] for request in pings} == {"upstream-2"}
    seen = len(server.seen)
    assert await count(bench, headers=ME) == 2
    own = [request for request, _ in server.seen[seen:] if request.headers["Mcp-Session-Id"] == "upstream-1"]
    assert {request.headers["Authorization"] for request in own} == {"Bearer me"}


async def test_a_server_that_has_forgotten_it(restarts: Restarts, server: HttpServer) -> None:
    """The session is opened anew, and the call is made once."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    await count(bench, session=session, headers=ME)
    server.sessions.clear()
    bench = await restarts.restart()
    assert await count(bench, session=session, headers=ME) == 1
    assert [event.outcome for event in restarts.told_of(events.SessionWoken)] == ["gone"]


async def test_a_handover_that_was(restarts: Restarts, server: HttpServer) -> None:
    """Who had the session last has it; the one before finds its own again, as without a restart."""
    bench = await restarts.start(detach_after="0.2s")
    first = await bench.initialize(headers=ME)
    await count(bench, session=first, headers=ME)
    await until(lambda: not any(client.lease for client in bench.proxy.core.binder.directory))
    second = await bench.initialize(headers=ME)
    assert await count(bench, session=second, headers=ME) == 2
    bench = await restarts.restart()
    third = await bench.initialize(headers=ME)
    assert await count(bench, session=third, headers=ME) == 1, "the second one may come back"
    assert await count(bench, session=second, headers=ME) == 3
    assert await count(bench, session=first, headers=ME) == 4


async def test_a_client_that_dies_with_the_process(restarts: Restarts, server: HttpServer) -> None:
    """Many do, of the broken connection, and begin anew: in their session, state included. One that lives
    comes back to it, and whoever has shown itself is left alone.
    """
    bench = await restarts.start()
    first = await bench.initialize(headers=ME)
    assert await count(bench, session=first, headers=ME) == 1
    bench = await restarts.crash()
    second = await bench.initialize(headers=ME)
    assert await count(bench, session=second, headers=ME) == 2
    assert await count(bench, session=first, headers=ME) == 3
    bench = await restarts.crash()
    assert await count(bench, session=second, headers=ME) == 4
    third = await bench.initialize(headers=ME)
    assert await count(bench, session=third, headers=ME) == 1


async def test_the_stream_goes_on(restarts: Restarts, server: HttpServer) -> None:
    """It is asked for behind the last event, and what comes is heard by the client that was there before."""
    asked: list[str | None] = []

    async def stream(request: Any, _: Any) -> Any:
        asked.append(request.headers.get("Last-Event-ID"))
        response = await begin_stream(request)
        message = notification("notifications/message", level="info", data=f"after {asked[-1]}")
        await write_event(response, message, event_id=f"e{len(asked)}")
        await asyncio.Event().wait()

    server.on["GET"] = stream
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with bench.request("GET", session=session, headers=ME, accept="text/event-stream") as response:
        [(_, message)] = await read_events(response.content, 1)
        assert message["params"]["data"] == "after None"
    bench = await restarts.restart()
    async with bench.request("GET", session=session, headers=ME, accept="text/event-stream") as response:
        [(_, message)] = await read_events(response.content, 1)
        assert message["params"]["data"] == "after e1"
    assert asked == [None, "e1"]


async def test_ids_of_requests_are_new(restarts: Restarts, server: HttpServer) -> None:
    """No request of the new process has the id of one that may still be under way from the old one."""
    bench = await restarts.start()
    await count(bench)
    bench = await restarts.restart()
    await count(bench)
    ids = [message["id"] for _, message in server.seen if message and "id" in message]
    assert len(ids) == len(set(ids))
    assert max(ids) < 2**31


async def test_sessions_are_ended_on_request(restarts: Restarts, server: HttpServer) -> None:
    """With --on-stop end the server is told, and clients keep their ids."""
    bench = await restarts.start(on_stop="end")
    session = (await bench.post(CAPABLE, headers=ME)).headers["Mcp-Session-Id"]
    await count(bench, session=session, headers=ME)
    bench = await restarts.restart()
    assert server.deleted == ["upstream-1"]
    assert await count(bench, session=session, headers=ME) == 1


async def test_what_has_gone_is_not_restored(restarts: Restarts, server: HttpServer) -> None:
    """A session that was closed leaves nothing behind."""
    bench = await restarts.start(idle_timeout="0.1s")
    await count(bench)
    await until(lambda: server.deleted)
    bench = await restarts.restart()
    assert not list(bench.proxy.core.pool.books.slots())
    assert await count(bench) == 1


async def test_nothing_is_left_in_the_end(restarts: Restarts, server: HttpServer) -> None:
    """When all who came have left for good, so have their records, and whose they were."""
    bench = await restarts.start(idle_timeout="0.1s", client_session_timeout="0.1s")
    for headers in (ME, YOU, {}):
        await bench.initialize(headers=headers)
        await count(bench, headers=headers)
    await bench.proxy._state.ledger.flush()  # type: ignore[union-attr]
    assert rows(restarts.path, "records")
    assert rows(restarts.path, "shards") == 3
    await until(lambda: not rows(restarts.path, "records") and not rows(restarts.path, "shards"))
    assert not server.sessions


async def test_a_new_token_after_a_restart(tmp_path: Path) -> None:
    """A token that was refreshed meanwhile counts as its caller's still, once the server has taken it."""
    async with TokenServer() as server, Restarts(server, tmp_path / "state") as restarts:
        bench = await restarts.start(token_identity="server")
        session = await bench.initialize(headers=bearer(token()))
        assert await count(bench, session=session, headers=bearer(token())) == 1
        bench = await restarts.restart(token_identity="server")
        assert await count(bench, session=session, headers=bearer(token())) == 2
        bob = await bench.post(call(), session=session, headers=bearer(token("bob")))
        assert bob.json["result"]["count"] == 1


async def test_nothing_secret_is_written(restarts: Restarts, server: HttpServer) -> None:
    """Neither credentials nor ids nor names nor arguments are to be found in any file."""
    bench = await restarts.start()
    session = await bench.initialize(headers={"Authorization": "Bearer s3cret-credential"})
    await bench.post(
        call(name="t", arguments={"a": "s3cret-argument"}),
        session=session,
        headers={"Authorization": "Bearer s3cret-credential"},
    )
    await restarts.bench.stop()
    told = b"".join(file.read_bytes() for file in restarts.path.iterdir())
    for secret in ("s3cret", session, "upstream-1", "clientInfo", "Bearer"):
        assert secret.encode() not in told
    assert {oct(file.stat().st_mode & 0o777) for file in restarts.path.iterdir()} == {"0o600"}
    assert oct(restarts.path.stat().st_mode & 0o777) == "0o700"


# -- directories that are of no use --------------------------------------------------------------------


async def refused(restarts: Restarts, server: HttpServer, **options: Any) -> str:
    flags = {
        "upstream": server.url,
        "listen": "127.0.0.1:0",
        "admin_listen": "off",
        "state_dir": str(restarts.path),
        "log_level": "error",
        **options,
    }
    with pytest.raises(CannotStart) as error:
        async with Proxy(load(flags)):
            pass
    return str(error.value)


async def test_the_sessions_of_another_server(restarts: Restarts, server: HttpServer) -> None:
    """They are left as they are, and the message says whose they are."""
    bench = await restarts.start()
    await count(bench)
    await bench.stop()
    async with HttpServer() as other:
        problem = await refused(restarts, other)
    assert server.url.removesuffix("/mcp") in problem
    assert "a directory of its own" in problem
    bench = await restarts.start()
    assert await count(bench) == 2


async def test_a_newer_version_was_here(restarts: Restarts, server: HttpServer) -> None:
    """Its file is left as it is."""
    bench = await restarts.start()
    await bench.stop()
    with sqlite3.connect(restarts.path / "state.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    assert "newer version" in await refused(restarts, server)
    with sqlite3.connect(restarts.path / "state.db") as db:
        db.execute("PRAGMA user_version=1")
    db.close()
    await restarts.start()


async def test_a_damaged_file_is_set_aside(restarts: Restarts, server: HttpServer) -> None:
    """The proxy starts without the sessions of before, and keeps the file for whoever wants to look at it."""
    bench = await restarts.start()
    await count(bench)
    await bench.stop()
    (restarts.path / "state.db").write_bytes(b"no database at all" * 100)
    bench = await restarts.start()
    assert await count(bench) == 1
    assert len(list(restarts.path.glob("state.db.damaged-*"))) == 1
    bench = await restarts.restart()
    assert await count(bench) == 2


async def test_another_key(restarts: Restarts, server: HttpServer) -> None:
    """Without the key that it was sealed with, a file is no use: the proxy starts without its sessions."""
    bench = await restarts.start()
    await count(bench)
    await bench.stop()
    (restarts.path / "key").unlink()
    bench = await restarts.start()
    assert await count(bench) == 1
    await bench.stop()
    (restarts.path / "key").write_text("what is this\n")
    assert "holds no key" in await refused(restarts, server)
    (restarts.path / "key").unlink()
    await restarts.start()


async def test_a_disk_that_is_full(restarts: Restarts, server: HttpServer) -> None:
    """Nobody notices but the operator; when there is room again, all is written."""
    bench = await restarts.start()
    state = bench.proxy._state
    assert state is not None
    engine = state._store.engine
    assert isinstance(engine, SqliteEngine)
    await engine.file.run(lambda: engine._db.execute("PRAGMA max_page_count=1").fetchone())
    sessions = [await bench.initialize(headers={"Authorization": f"Bearer {n}" * 50}) for n in range(20)]
    await until(lambda: restarts.told_of(events.StoreFailed))
    await until(lambda: not state.membership.up)
    for n, session in enumerate(sessions):
        headers = {"Authorization": f"Bearer {n}" * 50}
        assert await count(bench, session=session, headers=headers) == 1
    await engine.file.run(lambda: engine._db.execute("PRAGMA max_page_count=100000").fetchone())
    await until(lambda: restarts.told_of(events.StoreRecovered))
    bench = await restarts.restart()
    for n, session in enumerate(sessions):
        headers = {"Authorization": f"Bearer {n}" * 50}
        assert await count(bench, session=session, headers=headers) == 2


async def test_a_disk_that_stays_full(restarts: Restarts, server: HttpServer) -> None:
    """What could not be written nobody will find again, so it is ended at the server."""
    bench = await restarts.start()
    state = bench.proxy._state
    assert state is not None
    engine = state._store.engine
    assert isinstance(engine, SqliteEngine)
    await engine.file.run(lambda: engine._db.execute("PRAGMA max_page_count=1").fetchone())
    for n in range(20):
        await count(bench, headers={"Authorization": f"Bearer {n}" * 50})
    await bench.stop()
    assert len(server.deleted) == 20
    restarts.bench = await restarts.start()


# -- to be seen ----------------------------------------------------------------------------------------


async def test_operators_see_it(restarts: Restarts, server: HttpServer) -> None:
    """The status tells where sessions are kept; metrics, that it works, and what came of those of before."""
    bench = await restarts.start(admin_listen="127.0.0.1:0")
    await count(bench, headers=ME)
    bench = await restarts.restart(admin_listen="127.0.0.1:0")
    await count(bench, headers=ME)
    async with bench.http.get(f"{bench.proxy.admin_url}/api/v1/status") as response:
        status = await response.json()
    assert (status["state"]["kept"], status["state"]["up"]) == ("disk", True)
    async with bench.http.get(f"{bench.proxy.admin_url}/metrics") as response:
        text = await response.text()
    assert "mcp_session_proxy_store_up 1.0" in text
    assert 'mcp_session_proxy_restored_sessions_total{outcome="resumed"} 1.0' in text
    assert 'mcp_session_proxy_store_seconds_count{verb="claim"} 1.0' in text


async def test_a_directory_is_looked_at(restarts: Restarts, server: HttpServer) -> None:
    """``state check`` says what is there, also beside a proxy that is at work, and what is wrong."""
    assert "no proxy has kept its state there" in state_check.inspect(restarts.path).problems[0]
    bench = await restarts.start()
    await count(bench, headers=ME)
    await bench.initialize(headers=YOU)
    ledger = bench.proxy._state.ledger  # type: ignore[union-attr]
    await until(lambda: not ledger.pending and not ledger._turn.locked())
    origin = server.url.removesuffix("/mcp")
    assert state_check.inspect(restarts.path) == (
        [
            "2 upstream sessions and 1 client sessions of 2 callers",
            f"2 sessions at {origin}",
            f"in use by process {os.getpid()}",
        ],
        [],
    )
    await bench.stop()
    assert len(state_check.inspect(restarts.path).facts) == 2
    assert state_check.run(restarts.path) == 0
    (restarts.path / "key").write_text("0" * 64)
    assert state_check.inspect(restarts.path).problems == ["3 records that were sealed with another key"]
    (restarts.path / "state.db").write_bytes(b"garbage" * 1000)
    assert state_check.run(restarts.path) == 1
    await restarts.start()


# -- what was asked ------------------------------------------------------------------------------------


class Asking:
    """A server whose tool asks its caller's name, and then waits for it; what it was answered."""

    def __init__(self, server: HttpServer) -> None:
        self.answers: list[Any] = []
        self.asked = 0
        server.on |= {"tools/call": self._ask, "response": self._hear}

    async def _ask(self, request: web.Request, _: Any) -> web.StreamResponse:
        self.asked += 1
        response = await begin_stream(request)
        params = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
        await write_event(
            response,
            {"jsonrpc": "2.0", "id": f"q{self.asked}", "method": "elicitation/create", "params": params},
        )
        await asyncio.Event().wait()
        return response

    async def _hear(self, _: web.Request, message: Any) -> web.StreamResponse:
        self.answers.append(message)
        return web.Response(status=202)


async def test_a_parked_call_of_a_killed_process(restarts: Restarts, server: HttpServer) -> None:
    """The next process refuses its question at the server, so that no tool hangs; its client is told."""
    asking = Asking(server)
    bench = await restarts.start()
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        "io.modelcontextprotocol/clientInfo": {"name": "m", "version": "1"},
    }
    headers = {
        **ME,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "ask",
    }
    asked = await bench.post(call(name="ask", arguments={}, _meta=meta), headers=headers)
    assert asked.json["result"]["resultType"] == "input_required"
    state, [key] = asked.json["result"]["requestState"], asked.json["result"]["inputRequests"]
    bench = await restarts.crash()
    asking.answers.clear()
    answers = {key: {"action": "accept", "content": {}}}
    again = call(name="ask", arguments={}, _meta=meta, requestState=state, inputResponses=answers)
    assert (await bench.post(again, headers=headers)).error[2] == "request-state-refused"
    assert asking.asked == 1
    anew = await bench.post(call(name="ask", arguments={}, _meta=meta), headers=headers)
    assert anew.json["result"]["resultType"] == "input_required"
    await until(lambda: asking.answers)
    assert [(answer["id"], "error" in answer) for answer in asking.answers] == [("q1", True)]
    assert asking.asked == 2


async def test_a_question_to_a_client_of_a_process_that_was_stopped(
    restarts: Restarts, server: HttpServer
) -> None:
    """It is refused as well: its client's answer would name a question that nobody has any more."""
    asking = Asking(server)
    bench = await restarts.start(drain_timeout="0s")
    session = (await bench.post(CAPABLE, headers=ME)).headers["Mcp-Session-Id"]
    async with bench.request("POST", call(), session=session, headers=ME) as response:
        [(_, question)] = await read_events(response.content, 1)
        assert question["method"] == "elicitation/create"
        bench = await restarts.restart()
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {}}}
    asking.answers.clear()
    await bench.post(answer, session=session, headers=ME)
    await bench.post(call(method="tools/list"), session=session, headers=ME)
    await until(lambda: asking.answers)
    assert [(answer["id"], "error" in answer) for answer in asking.answers] == [("q1", True)]
