"""What clients may ask for again outlives the proxy, too: their streams go on where they were."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, TellingTool, begin_stream, write_event
from messages import call, notification
from proxy_bench import PATIENCE_SECONDS, Bench, read_events, until
from restart_bench import ME, YOU, Restarts, rows

from mcp_session_proxy import events
from mcp_session_proxy.assembly.sockets import CannotStart
from mcp_session_proxy.bounds import KEPT_STREAM_BYTES
from mcp_session_proxy.sessions.mailbox import Mailbox
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.sources import ConfigError

STREAM = "text/event-stream"
HOW = pytest.mark.parametrize("how", ["restart", "crash"])


class Talker(HttpServer):
    """A server that says what it is told to: on its standalone streams, and in calls before their answers."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[web.StreamResponse] = []
        self.in_calls = TellingTool(self).says
        self.on["GET"] = self._listen

    async def _listen(self, request: web.Request, _: Any) -> web.StreamResponse:
        response = await begin_stream(request)
        self.streams.append(response)
        try:
            await asyncio.Event().wait()
        finally:
            self.streams.remove(response)
        return response

    async def say(self, *texts: str) -> None:
        """On the stream that is open, or will be."""
        await until(lambda: self.streams)
        for text in texts:
            await write_event(self.streams[-1], notification("notifications/message", data=text))


@pytest.fixture
async def server() -> AsyncIterator[Talker]:
    async with Talker() as running:
        yield running


def get(
    bench: Bench, session: str, event_id: str | None, headers: dict[str, str] = ME
) -> "aiohttp.client._RequestContextManager":
    """A GET that goes on after an event."""
    sent = headers if event_id is None else {**headers, "Last-Event-ID": event_id}
    return bench.request("GET", session=session, headers=sent, accept=STREAM)


async def hear(response: aiohttp.ClientResponse, count: int) -> list[tuple[str | None, Any]]:
    """The next events: their ids, and what the server said."""
    return [(name, message["params"]["data"]) for name, message in await read_events(response.content, count)]


async def rest(response: aiohttp.ClientResponse) -> list[Any]:
    """What comes until the end: what the server said, and the answers."""
    found: list[Any] = []
    assert response.status == 200
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                [(_, message)] = await read_events(response.content, 1)
            except EOFError:
                return found
            found.append(message["params"]["data"] if "params" in message else message)


def mailbox_of(bench: Bench, session: str) -> Mailbox:
    [client] = [client for client in bench.proxy.core.binder.directory if client.id == session]
    return bench.proxy.core.delivery.mailbox(client)


async def until_left(bench: Bench, session: str) -> None:
    """Until nobody reads the client's standalone stream."""
    await until(lambda: not mailbox_of(bench, session).standalone.followed)


async def until_kept(bench: Bench, session: str, count: int) -> None:
    """Until there were so many events in the client's standalone stream."""
    await until(lambda: mailbox_of(bench, session).standalone._next > count)


async def cut_off_post(bench: Bench, session: str, server: Talker, *texts: str) -> str:
    """A call whose client is cut off when it has heard the first of these texts; the id of that."""
    for text in texts:
        server.in_calls.put_nowait(text)
    async with bench.request("POST", call("mine"), session=session, headers=ME) as post:
        [(event_id, _)] = await hear(post, 1)
        post.close()
    await until(lambda: not any(responder.is_open for responder in bench.unfinished))
    assert event_id is not None
    return event_id


# -- standalone streams --------------------------------------------------------------------------------


@HOW
async def test_a_stream_goes_on_where_it_was(restarts: Restarts, server: Talker, how: str) -> None:
    """What was said while its client was away, before and after: once, and in order."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one", "two")
        [_, (event_id, _)] = await hear(response, 2)
    await server.say("three", "four")
    await until_kept(bench, session, 4)
    bench = await getattr(restarts, how)()
    async with get(bench, session, event_id) as response:
        await server.say("five")
        found = await hear(response, 3)
        assert [text for _, text in found] == ["three", "four", "five"]
    # The numbers of the new process are behind those of the one before.
    bench = await getattr(restarts, how)()
    async with get(bench, session, found[0][0]) as response:
        await server.say("six")
        assert [text for _, text in await hear(response, 3)] == ["four", "five", "six"]


async def test_a_client_without_an_id(restarts: Restarts, server: Talker) -> None:
    """One that has never had the id of an event gets what has come since it was there last."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one")
        await hear(response, 1)
    await server.say("two")
    await until_kept(bench, session, 2)
    bench = await restarts.restart()
    async with get(bench, session, None) as response:
        await server.say("three")
        assert [text for _, text in await hear(response, 2)] == ["two", "three"]


@HOW
async def test_what_is_kept_no_longer(restarts: Restarts, server: Talker, how: str) -> None:
    """The client is told that something is missing, and gets what there is; never another stream's."""
    bench = await restarts.start(max_buffered_events=2)
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("0")
        [(event_id, _)] = await hear(response, 1)
    await until_left(bench, session)
    await server.say(*map(str, range(1, 6)))
    await until_kept(bench, session, 6)
    for again in range(2):
        async with get(bench, session, event_id) as response:
            head = b""
            while b"data: {" not in head:
                head += await response.content.readuntil(b"\n\n")
            assert b": what came before this is kept no longer\n\n" in head
            assert [text for _, text in await hear(response, 1)] == ["5"]
            assert b'"4"' in head
        if not again:
            bench = await getattr(restarts, how)(max_buffered_events=2)


async def test_what_memory_has_no_room_for(restarts: Restarts, server: Talker) -> None:
    """It is read again, by the same process."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one")
        [(event_id, _)] = await hear(response, 1)
    await server.say("two", "three")
    await until_kept(bench, session, 3)
    await written(bench)
    await until_left(bench, session)
    mailbox_of(bench, session).standalone.empty()
    for _ in range(2):
        async with get(bench, session, event_id) as response:
            assert [text for _, text in await hear(response, 2)] == ["two", "three"]


async def written(bench: Bench) -> None:
    ledger = bench.proxy.core.delivery.ledger
    assert ledger is not None
    await until(lambda: not ledger.pending and not ledger._turn.locked())


@pytest.mark.parametrize("goes", ["elsewhere", "nowhere"])
async def test_a_client_session_that_is_here_no_longer(restarts: Restarts, server: Talker, goes: str) -> None:
    """What is kept for it is left to the process that goes on with it; if nobody does, it goes."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one")
        await hear(response, 1)
    await written(bench)
    binder = bench.proxy.core.binder
    [client] = binder.directory
    if goes == "elsewhere":
        binder.let_go(client)
    else:
        binder.forget(client, "age")
    await written(bench)
    await until(lambda: rows(restarts.path, "events") == (goes == "elsewhere"))


# -- answers -------------------------------------------------------------------------------------------


@HOW
async def test_an_answer_goes_on(restarts: Restarts, server: Talker, how: str) -> None:
    """A client that was cut off in a call gets the rest of it from the next process, and once."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    event_id = await cut_off_post(bench, session, server, "half", "more")
    server.in_calls.put_nowait(None)
    await until(lambda: not bench.endpoint.posts)
    bench = await getattr(restarts, how)()
    answer = {"jsonrpc": "2.0", "id": "mine", "result": {"done": 1}}
    async with get(bench, session, event_id) as response:
        assert await rest(response) == ["more", answer]
    # Written is not received.
    async with get(bench, session, event_id) as response:
        assert await rest(response) == ["more", answer]


async def test_two_callers(restarts: Restarts, server: Talker) -> None:
    """Whoever has the session id and the event ids of another caller gets nothing of it, now or later."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("secret", "secret")
        [(standalone, _), _] = await hear(response, 2)
    post = await cut_off_post(bench, session, server, "secret", "secret")
    server.in_calls.put_nowait(None)
    await until(lambda: not bench.endpoint.posts)
    for again in range(2):
        async with get(bench, session, post, YOU) as response:
            assert (await response.json())["error"]["data"]["reason"] == "unknown-event"
        async with get(bench, session, standalone, YOU) as response:
            # It waits for a client session of its own to begin under this id.
            server.in_calls.put_nowait("mine")
            server.in_calls.put_nowait(None)
            await bench.post(call(), session=session, headers=YOU)
            await server.say("mine")
            assert [text for _, text in await hear(response, 1)] == ["mine"]
        if not again:
            bench = await restarts.crash()
    async with get(bench, session, standalone) as response:
        assert [text for _, text in await hear(response, 1)] == ["secret"]


@pytest.mark.slow
async def test_an_answer_that_never_came(restarts: Restarts, server: Talker) -> None:
    """The process was killed amid a call: its client gets what was said, and hears that nobody knows more."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    event_id = await cut_off_post(bench, session, server, "half", "more")
    await until(lambda: mailbox_of(bench, session).streams[1]._next > 2)
    bench = await restarts.crash()
    for _ in range(2):
        async with get(bench, session, event_id) as response:
            more, answer = await rest(response)
            assert more == "more"
            assert (answer["id"], answer["error"]["data"]["reason"]) == ("mine", "outcome-unknown")


async def test_the_end_lingers(restarts: Restarts, server: Talker) -> None:
    """What was written to its end is there for a while, and then nowhere."""
    bench = await restarts.start(event_linger="1h")
    session = await bench.initialize(headers=ME)
    server.in_calls.put_nowait("half")
    server.in_calls.put_nowait(None)
    async with bench.request("POST", call("mine"), session=session, headers=ME) as post:
        [(event_id, _)] = await hear(post, 1)
        await post.read()
    assert event_id is not None
    await written(bench)
    bench = await restarts.restart(event_linger="0s")
    async with get(bench, session, event_id) as response:
        assert len(await rest(response)) == 1
    bench.proxy.core.delivery.maintain()
    await written(bench)
    async with get(bench, session, event_id) as response:
        assert (await response.json())["error"]["data"]["reason"] == "unknown-event"
    await until(lambda: rows(restarts.path, "events") == 0)


async def test_other_answers_are_not_kept(restarts: Restarts, server: Talker) -> None:
    """Nobody was given an id of an answer in JSON, so nobody can ask for it."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    server.in_calls.put_nowait(None)
    await bench.post(call(), session=session, headers=ME)
    assert rows(restarts.path, "events") == 0


async def test_large_events(restarts: Restarts, server: Talker) -> None:
    """One that is larger than what is kept of a stream is in memory alone; the others are there."""
    bench = await restarts.start()
    session = await bench.initialize(headers=ME)
    event_id = await cut_off_post(bench, session, server, "half", "x" * KEPT_STREAM_BYTES)
    server.in_calls.put_nowait(None)
    await until(lambda: not bench.endpoint.posts)
    bench = await restarts.crash()
    async with get(bench, session, event_id) as response:
        assert [message["id"] for message in await rest(response)] == ["mine"]


# -- where ---------------------------------------------------------------------------------------------


async def test_in_memory_only(restarts: Restarts, server: Talker) -> None:
    """With --events memory nothing is written; a stream from before a restart goes on with what is new."""
    bench = await restarts.start(events="memory")
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one", "two")
        [(event_id, _), _] = await hear(response, 2)
    bench = await restarts.restart(events="memory")
    async with get(bench, session, event_id) as response:
        await server.say("three")
        assert [text for _, text in await hear(response, 1)] == ["three"]
    assert rows(restarts.path, "events") == 0


_OWN = """
import asyncio
places, gate = {}, asyncio.Event()
class Own:
    async def append(self, place, events, keep, ttl_seconds):
        if not gate.is_set():
            await asyncio.sleep(3600)
        if gate.broken:
            raise OSError("no space left")
        places.setdefault(place, {}).update(events)
    async def after(self, place, number):
        if not gate.is_set():
            await asyncio.sleep(3600)
        return [event for event in sorted(places.get(place, {}).items()) if event[0] > number]
    async def drop(self, place):
        places.pop(place, None)
gate.set()
gate.broken = False
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a store of one's own."""
    (tmp_path / f"own_store_{tmp_path.name}.py").write_text(_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(f"own_store_{tmp_path.name}")


async def test_in_a_store_of_ones_own(restarts: Restarts, server: Talker, own: Any) -> None:
    """Everything is there, and nothing of it can be read there."""
    options = {"events": f"{own.__name__}:Own"}
    bench = await restarts.start(**options)
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("one", "two")
        [(event_id, _), _] = await hear(response, 2)
    bench = await restarts.restart(**options)
    async with get(bench, session, event_id) as response:
        assert [text for _, text in await hear(response, 1)] == ["two"]
    assert rows(restarts.path, "events") == 0
    [[place, events]] = own.places.items()
    assert len(events) == 2
    assert session not in place
    assert not any(b"notifications" in data for data in events.values())


@pytest.mark.parametrize("trouble", ["slow", "full"])
async def test_nobody_waits_for_a_store(
    restarts: Restarts, server: Talker, own: Any, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers nothing, or can write nothing: streams and calls go on as from memory. When it works
    again, it gets what is in memory.
    """
    monkeypatch.setattr("mcp_session_proxy.sessions.event_ledger._WRITE_SECONDS", 0.1)
    monkeypatch.setattr("mcp_session_proxy.sessions.event_ledger._READ_SECONDS", 0.1)
    monkeypatch.setattr("mcp_session_proxy.sessions.store_trouble._RETRY_SECONDS", 0.05)
    bench = await restarts.start(events=f"{own.__name__}:Own", max_buffered_events=3)
    if trouble == "slow":
        own.gate.clear()
    own.gate.broken = True
    session = await bench.initialize(headers=ME)
    async with get(bench, session, None) as response:
        await server.say("1", "2")
        (first, _), (event_id, _) = await hear(response, 2)
    await server.say("3", "4")
    await until_kept(bench, session, 4)
    await until(lambda: restarts.told_of(events.StoreFailed))
    # What is in memory, at once; what is not there any more is asked for in vain.
    for name, found in ((event_id, ["3", "4"]), (first, ["2", "3", "4"])):
        async with get(bench, session, name) as response:
            assert [text for _, text in await hear(response, len(found))] == found
    assert len(restarts.told_of(events.StoreFailed)) == 1
    own.gate.set()
    own.gate.broken = False
    await until(lambda: restarts.told_of(events.StoreRecovered))
    await written(bench)
    [kept_events] = own.places.values()
    assert len(kept_events) == 3


async def test_a_store_that_is_none(restarts: Restarts, server: Talker, tmp_path: Path) -> None:
    """It is said at the start, and what is wrong with it."""
    with pytest.raises(CannotStart, match="--events nowhere:store: ModuleNotFoundError"):
        await restarts.start(events="nowhere:store")
    await restarts.bench.stop()
    await restarts.start()
    with pytest.raises(ConfigError, match="it needs --state-dir"):
        load({"upstream": server.url, "events": "nowhere:store"})
    with pytest.raises(ConfigError, match="must be store, memory, or MODULE:NAME"):
        load({"upstream": server.url, "events": "somewhere", "state_dir": str(tmp_path)})
