"""How answers are written: JSON or stream, heartbeats, clients that leave, come back, or stop reading."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.test_utils import make_mocked_request
from fakes import settle
from multidict import CIMultiDict

from mcp_session_proxy.downstream.answers import Answer, refuse
from mcp_session_proxy.downstream.following import follow
from mcp_session_proxy.downstream.head import Head
from mcp_session_proxy.downstream.heartbeats import HeartbeatRules, Heartbeats
from mcp_session_proxy.downstream.streams import Responder
from mcp_session_proxy.errors import Draining
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol.inbound import Accepts, HeartbeatFormat
from mcp_session_proxy.sessions.client import ClientSession
from mcp_session_proxy.sessions.kept_stream import EventBudget, Stream
from mcp_session_proxy.sessions.mailbox import Mailbox

pytestmark = pytest.mark.looptime

BOTH = Accepts(json=True, stream=True, prefers_json=False)
JSON_FIRST = Accepts(json=True, stream=True, prefers_json=True)
JSON_ONLY = Accepts(json=True, stream=False, prefers_json=True)
STREAM_ONLY = Accepts(json=False, stream=True, prefers_json=False)
NEWS = b'{"jsonrpc":"2.0","method":"notifications/message"}'
DONE = b'{"jsonrpc":"2.0","id":1,"result":{}}'
BEAT = ": keep-alive"


class Wire(AbstractStreamWriter):
    """The connection to a client: what was written to it, or what is wrong with it."""

    def __init__(self) -> None:
        self.status_line = ""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.text = ""
        self.writes = 0
        self.ended = False
        self.aborted = False
        self.broken = False
        self.flows = asyncio.Event()
        self.flows.set()

    async def _pass(self, chunk: bytes) -> None:
        if self.broken or self.aborted:
            raise ConnectionResetError("Cannot write to closing transport")
        self.text += chunk.decode()
        self.writes += 1
        await self.flows.wait()
        if self.aborted:
            raise ConnectionResetError("Connection lost")

    async def write(self, chunk: Any) -> None:
        await self._pass(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self._pass(chunk)
        self.ended = True

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        if self.broken:
            raise ConnectionResetError("Cannot write to closing transport")
        self.status_line = status_line
        self.headers = headers

    async def drain(self) -> None: ...

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...

    def enable_chunking(self) -> None: ...

    def abort(self) -> None:
        """The transport's way to end the connection at once."""
        self.aborted = True
        self.flows.set()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    @property
    def events(self) -> list[Any]:
        """What was written: comments as text, events as (id, data)."""
        found: list[Any] = []
        for block in self.text.split("\n\n")[:-1]:  # what follows the last blank line is no event
            fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line[0] != ":")
            if fields.get("data"):
                found.append((fields.get("id"), json.loads(fields["data"])))
            else:
                found.append(fields or block)
        return found

    @property
    def data(self) -> list[Any]:
        """The events' data alone."""
        return [event[1] for event in self.events if isinstance(event, tuple)]


def request_on(wire: Wire, method: str = "POST") -> web.BaseRequest:
    return make_mocked_request(method, "/mcp", writer=wire, transport=wire)


def heartbeats_with(**rules: Any) -> Heartbeats:
    """Heartbeats every quarter of a minute."""
    return Heartbeats(HeartbeatRules(interval_seconds=15, **rules))


class Post:
    """One POST of a client, and what is written for it."""

    def __init__(
        self,
        accepts: Accepts = BOTH,
        *,
        batch: bool = False,
        heartbeats: Heartbeats | None = None,
        mailbox: Mailbox | None = None,
        cursors: bool = False,
        reads_streams: bool = False,
    ) -> None:
        self.wire = Wire()
        self.heartbeats = heartbeats or heartbeats_with()
        version = "2025-11-25" if cursors else "2025-06-18"
        head = SimpleNamespace(accepts=accepts, cors={"X-Cors": "yes"}, version=version)
        client = SimpleNamespace(had_stream=reads_streams, record=SimpleNamespace(version=version))
        self.responder = Responder(
            request_on(self.wire),
            cast(Head, head),
            self.heartbeats,
            client=None if mailbox is None else cast(ClientSession, client),
            mailbox_of=lambda _: cast(Mailbox, mailbox),
        )
        self.batch = batch

    async def end(self, *answers: Answer) -> web.StreamResponse:
        if self.batch or len(answers) > 1:
            for answer in answers:
                await self.responder.respond(answer)
            response = await self.responder.finish()
        else:
            response = await self.responder.finish(*answers)
        assert self.heartbeats._responders == {}
        self.heartbeats.close()
        return response


def answer(number: int = 1, **more: Any) -> Answer:
    return Answer(body=b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number, **more)


def body_of(response: web.StreamResponse) -> Any:
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


# -- JSON or stream --------------------------------------------------------------------------------


@pytest.mark.parametrize("accepts", [BOTH, JSON_ONLY])
async def test_answer_that_comes_first_is_json(accepts: Accepts) -> None:
    """A response before anything else is a JSON body, with the answer's headers."""
    response = await Post(accepts).end(answer(headers={"Mcp-Session-Id": "x"}))
    assert body_of(response) == json.loads(DONE)
    assert response.status == 200
    assert dict(response.headers) == {
        "X-Cors": "yes",
        "Mcp-Session-Id": "x",
        "Content-Type": "application/json",
    }


async def test_message_before_the_answer_makes_a_stream() -> None:
    """From the first message on, everything is an event of one stream."""
    post = Post()
    assert await post.responder.send(NEWS)
    assert post.wire.status_line == "HTTP/1.1 200 OK"
    await post.end(answer())
    assert post.wire.data == [json.loads(NEWS), json.loads(DONE)]
    assert post.wire.ended
    headers = post.wire.headers
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-cache, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Cors"] == "yes"


async def test_client_that_takes_json_only() -> None:
    """It hears nothing in between, and whoever wanted to say something knows."""
    post = Post(JSON_ONLY)
    assert not await post.responder.send(NEWS)
    assert not post.responder.head.accepts.stream
    assert body_of(await post.end(answer())) == json.loads(DONE)
    assert post.wire.text == ""


async def test_client_that_takes_streams_only() -> None:
    """It gets a stream, with the answer's headers, also for a lone response."""
    post = Post(STREAM_ONLY)
    await post.end(answer(headers={"Mcp-Session-Id": "x"}))
    assert post.wire.data == [json.loads(DONE)]
    assert post.wire.headers["Mcp-Session-Id"] == "x"


@pytest.mark.parametrize("accepts", [BOTH, JSON_ONLY, STREAM_ONLY])
async def test_errors_are_json_with_their_status(accepts: Accepts) -> None:
    """As long as nothing was written, an error has its own HTTP status, whatever the client takes."""
    response = await Post(accepts).end(answer(status=503, headers={"Retry-After": "1"}))
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert body_of(response) == json.loads(DONE)


async def test_error_in_a_stream() -> None:
    """A stream that has begun ends with the error as an event."""
    post = Post()
    await post.responder.send(NEWS)
    await post.end(answer(status=502))
    assert post.wire.data == [json.loads(NEWS), json.loads(DONE)]
    assert post.wire.status_line == "HTTP/1.1 200 OK"


async def test_plain_refusal() -> None:
    """A refusal that is no JSON-RPC goes out as it came, if it is the whole answer."""
    plain = answer(status=401, plain=b"who?", content_type="text/plain")
    response = await Post().end(plain)
    assert isinstance(response, web.Response)
    assert (response.body, response.content_type, response.status) == (b"who?", "text/plain", 401)


async def test_plain_refusal_in_a_stream_or_batch() -> None:
    """Inside a stream or a batch only JSON-RPC has a place."""
    plain = answer(status=401, plain=b"who?", content_type="text/plain")
    post = Post()
    await post.responder.beat()
    await post.end(plain)
    assert post.wire.data == [json.loads(DONE)]
    assert body_of(await Post(batch=True).end(plain, answer(2))) == [
        {"jsonrpc": "2.0", "id": n, "result": {}} for n in (1, 2)
    ]


def test_refuse() -> None:
    """An error without a responder has all its headers."""
    error = Draining("no", retry_after_seconds=2)
    response = refuse(error, b"1", {"A": "1", "Retry-After": "1"})
    assert response.status == 503
    assert (response.headers["A"], response.headers["Retry-After"]) == ("1", "2")
    assert response.content_type == "application/json"


# -- batches ---------------------------------------------------------------------------------------


async def test_batch_is_one_json_array() -> None:
    """The responses of a batch are joined, errors among them, under HTTP 200."""
    response = await Post(batch=True).end(answer(1), answer(2, status=503))
    assert [entry["id"] for entry in body_of(response)] == [1, 2]
    assert response.status == 200


async def test_batch_of_one_is_an_array() -> None:
    """A batch is answered with a batch, whatever its size."""
    assert isinstance(body_of(await Post(batch=True).end(answer())), list)


async def test_batch_as_a_stream() -> None:
    """Once a stream, responses are events, also those that had come before."""
    post = Post(batch=True)
    await post.responder.respond(answer(1))
    await post.responder.send(NEWS)
    await post.end(answer(2))
    assert [entry.get("id") for entry in post.wire.data] == [None, 1, 2]


async def test_responses_before_a_heartbeat_are_not_lost() -> None:
    """A batch that became a stream by a heartbeat alone has all its responses."""
    post = Post(batch=True)
    await post.responder.respond(answer(1))
    await post.responder.beat()
    await post.end()
    assert [entry.get("id") for entry in post.wire.data] == [1]


async def test_batch_with_an_error_first_for_a_client_of_streams() -> None:
    """An error that was held back goes into the stream that the next response begins."""
    post = Post(STREAM_ONLY, batch=True)
    await post.end(answer(1, status=503), answer(2))
    assert [entry["id"] for entry in post.wire.data] == [1, 2]


# -- heartbeats ------------------------------------------------------------------------------------


async def test_silence_makes_a_stream() -> None:
    """After the interval a silent POST becomes a stream with a comment, and another one follows."""
    post = Post()
    await asyncio.sleep(14)
    assert post.wire.text == ""
    await asyncio.sleep(7)
    assert post.wire.events == [BEAT]
    await asyncio.sleep(20)
    assert post.wire.events == [BEAT, BEAT]
    await post.end(answer())
    assert post.wire.data == [json.loads(DONE)]


@pytest.mark.parametrize(
    ("accepts", "heartbeat_format", "silence"),
    [
        (JSON_FIRST, HeartbeatFormat.AUTO, 55),
        (BOTH, HeartbeatFormat.AUTO, 15),
        (STREAM_ONLY, HeartbeatFormat.AUTO, 15),
        (JSON_FIRST, HeartbeatFormat.SSE, 15),
        (JSON_FIRST, HeartbeatFormat.JSON, 55),
        (BOTH, HeartbeatFormat.JSON, 55),
        (STREAM_ONLY, HeartbeatFormat.JSON, 15),
    ],
)
async def test_patience_for_json(accepts: Accepts, heartbeat_format: HeartbeatFormat, silence: float) -> None:
    """Whoever may read only JSON is waited for, but not for ever: the stream begins before the time is up."""
    post = Post(
        accepts,
        heartbeats=heartbeats_with(json_patience_seconds=60, heartbeat_format=heartbeat_format),
    )
    await asyncio.sleep(silence - 1)
    assert post.wire.text == ""
    await asyncio.sleep(6)
    assert post.wire.events == [BEAT]
    await asyncio.sleep(20)
    assert post.wire.events == [BEAT, BEAT]
    await post.end(answer())
    assert post.wire.data == [json.loads(DONE)]


async def test_answer_within_the_patience_is_json() -> None:
    """With its own status and headers."""
    post = Post(JSON_FIRST, heartbeats=heartbeats_with(json_patience_seconds=60))
    await asyncio.sleep(54)
    response = await post.end(answer(status=401, headers={"WWW-Authenticate": "Bearer"}))
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert post.wire.text == ""


async def test_message_ends_the_patience() -> None:
    """What has to be said before the answer makes a stream of it at once, and that one beats as usual."""
    post = Post(JSON_FIRST, heartbeats=heartbeats_with(json_patience_seconds=60))
    await asyncio.sleep(1)
    assert await post.responder.send(NEWS)
    assert post.wire.data == [json.loads(NEWS)]
    await asyncio.sleep(20)
    assert post.wire.events[-1] == BEAT
    await post.end(answer())


async def test_patience_below_a_heartbeat() -> None:
    """No answer becomes a stream sooner than others do."""
    for patience in (0, 3):
        post = Post(JSON_FIRST, heartbeats=heartbeats_with(json_patience_seconds=patience))
        await asyncio.sleep(14)
        assert post.wire.text == ""
        await asyncio.sleep(7)
        assert post.wire.events == [BEAT]
        await post.end(answer())


async def test_clients_that_have_shown_that_they_read_streams() -> None:
    """Whoever reads a stream already needs no patience."""
    post = Post(
        JSON_FIRST,
        heartbeats=heartbeats_with(json_patience_seconds=60),
        mailbox=Mailbox(EventBudget(10)),
        reads_streams=True,
    )
    await asyncio.sleep(21)
    assert post.wire.events == [BEAT]
    await post.end(answer())


async def test_messages_count_as_heartbeats() -> None:
    """Only silence is filled."""
    post = Post()
    for _ in range(10):
        await asyncio.sleep(10)
        await post.responder.send(NEWS)
    assert BEAT not in post.wire.events
    await post.end(answer())


async def test_no_heartbeats_for_json() -> None:
    """A client that takes JSON only waits in silence."""
    post = Post(JSON_ONLY)
    await asyncio.sleep(100)
    assert post.wire.text == ""
    await post.end(answer())


@pytest.mark.slow
async def test_one_timer_for_all() -> None:
    """A hundred silent POSTs beat together; the timer stops with the last."""
    heartbeats = heartbeats_with()
    posts = [Post(heartbeats=heartbeats) for _ in range(100)]
    before = len(asyncio.all_tasks())
    await asyncio.sleep(21)
    assert all(post.wire.events == [BEAT] for post in posts)
    assert len(asyncio.all_tasks()) == before
    for post in posts:
        post.responder.close()
    await asyncio.sleep(21)
    assert heartbeats._timer is None
    Post(heartbeats=heartbeats)
    assert heartbeats._timer is not None
    heartbeats.close()


async def test_no_beat_after_the_end() -> None:
    """A beat that crosses the answer writes nothing behind it."""
    post = Post()
    await post.responder.send(NEWS)
    await post.end(answer())
    await post.responder.beat()
    assert not await post.responder.send(NEWS)
    assert len(post.wire.events) == 2


async def test_stuck_reader_is_not_beaten() -> None:
    """While a write hangs, heartbeats do not queue up behind it."""
    post = Post()
    post.wire.flows.clear()
    sending = asyncio.create_task(post.responder.send(NEWS))
    await asyncio.sleep(50)
    await settle()
    assert post.wire.text.count(BEAT) == 0
    assert len(post.heartbeats._beats) == 0
    post.wire.flows.set()
    await sending
    await post.end(answer())


# -- clients that leave or stop reading ------------------------------------------------------------


async def test_client_leaves_before_the_answer() -> None:
    """What comes then is worked off without an error, with or without a stream."""
    for accepts in (BOTH, JSON_ONLY, STREAM_ONLY):
        for mailbox in (None, Mailbox(EventBudget(10))):
            post = Post(accepts, mailbox=mailbox)
            post.responder.client_left()
            await post.responder.send(NEWS)
            await post.responder.beat()
            await post.end(answer())
            assert post.wire.text == ""
            assert mailbox is None or list(mailbox.streams) == [0]


async def test_nobody_takes_what_cannot_be_kept() -> None:
    """Without a session a client that left takes nothing more, and that is said."""
    post = Post()
    post.responder.client_left()
    assert not await post.responder.send(NEWS)
    post.responder.close()
    post.heartbeats.close()


async def test_client_leaves_in_the_middle() -> None:
    """What it misses is kept for its return; the stream is closed at the end."""
    mailbox = Mailbox(EventBudget(10))
    post = Post(mailbox=mailbox)
    await post.responder.send(NEWS)
    seen_id = post.wire.events[0][0]
    post.responder.client_left()
    assert await post.responder.send(NEWS)
    await post.end(answer())
    found = mailbox.find(seen_id)
    assert found is not None
    stream, number = found
    assert [event.data for event in stream.after(number)] == [NEWS, DONE]
    assert stream.closed


async def test_broken_connection_is_noticed() -> None:
    """A write that fails is the same as a client that left, also on the very first one."""
    for broken_first in (True, False):
        mailbox = Mailbox(EventBudget(10))
        post = Post(mailbox=mailbox)
        post.wire.broken = broken_first
        await post.responder.send(NEWS)
        post.wire.broken = True
        await post.responder.send(NEWS)
        await post.end(answer())
        assert [len(stream.after(0)) for stream in mailbox.streams.values()] == [0, 3]


async def test_stream_that_was_written_whole_is_kept_in_case() -> None:
    """Written is not received: the end of a stream can be asked for, until it is let go of."""
    share = Share("events", 1000)
    budget = EventBudget(10, share)
    mailbox = Mailbox(budget)
    post = Post(mailbox=mailbox)
    await post.responder.send(NEWS)
    await post.end(answer())
    seen_id = post.wire.events[0][0]
    found = mailbox.find(seen_id)
    assert found is not None
    get = Get(found[0], after=found[1])
    await ended(get.task)
    assert get.wire.data == [json.loads(DONE)]
    assert get.wire.ended
    budget.expire(asyncio.get_running_loop().time())
    assert mailbox.find(seen_id) is None
    assert share.used_bytes == 0


async def test_what_was_missed_is_kept_in_case_once_it_was_written() -> None:
    """The rest of a stream that a client has come back for goes after a while, and not before."""
    budget = EventBudget(10, Share("events", 1000))
    mailbox = Mailbox(budget)
    post = Post(mailbox=mailbox)
    await post.responder.send(NEWS)
    post.responder.client_left()
    await post.end(answer())
    budget.expire(1000)
    found = mailbox.find(post.wire.events[0][0])
    assert found is not None
    await ended(Get(found[0], after=found[1]).task)
    assert mailbox.find(post.wire.events[0][0]) is not None
    budget.expire(1000)
    assert list(mailbox.streams) == [0]


# -- clients that can read events without data -----------------------------------------------------


async def test_stream_begins_with_an_id() -> None:
    """Before its first message, a stream tells the id under which it can be had again."""
    mailbox = Mailbox(EventBudget(10))
    post = Post(mailbox=mailbox, cursors=True)
    await post.responder.send(NEWS)
    first = post.wire.events[0]
    assert first["data"] == ""
    assert mailbox.find(first["id"]) == (mailbox.streams[1], 0)
    await post.end(answer())
    assert post.wire.data == [json.loads(NEWS), json.loads(DONE)]
    assert [event["id"] for event in post.wire.events if isinstance(event, dict)] == [first["id"]]


async def test_silent_stream_begins_with_an_id() -> None:
    """A client that is cut off before anything has happened gets the answer when it comes back."""
    mailbox = Mailbox(EventBudget(10))
    post = Post(mailbox=mailbox, cursors=True)
    await asyncio.sleep(21)
    first, beat = post.wire.events
    assert beat == BEAT
    post.responder.client_left()
    found = mailbox.find(first["id"])
    assert found is not None
    get = Get(found[0], after=found[1], cursors=True)
    await post.end(answer())
    await ended(get.task)
    assert get.wire.data == [json.loads(DONE)]


async def test_answer_that_comes_first_has_no_id() -> None:
    """JSON cannot be resumed, and needs not be: nothing is kept."""
    mailbox = Mailbox(EventBudget(10))
    assert body_of(await Post(mailbox=mailbox, cursors=True).end(answer())) == json.loads(DONE)
    assert list(mailbox.streams) == [0]


async def test_without_a_session_there_is_no_id() -> None:
    """Nobody could come back for a stream that belongs to no session."""
    post = Post(cursors=True)
    await post.responder.send(NEWS)
    await post.end(answer())
    assert post.wire.events == [(None, json.loads(NEWS)), (None, json.loads(DONE))]


async def test_get_begins_with_an_id() -> None:
    """It names the place where the stream goes on, and the next GET can begin there."""
    mailbox = Mailbox(EventBudget(10))
    stream = mailbox.standalone
    stream.append(b"1")
    stream.taken = 1
    get = Get(stream, cursors=True)
    await settle()
    assert get.wire.events == [BEAT, {"id": stream.event_id(1), "data": ""}]
    stream.close()
    await ended(get.task)


async def test_reader_that_stops_is_cut_off() -> None:
    """After a minute of not reading, the connection is cut, and the call goes on for its return."""
    mailbox = Mailbox(EventBudget(10))
    post = Post(mailbox=mailbox)
    await post.responder.send(NEWS)
    post.wire.flows.clear()
    await post.responder.send(NEWS)
    assert asyncio.get_running_loop().time() == pytest.approx(60)
    assert post.wire.aborted
    await post.end(answer())
    assert asyncio.get_running_loop().time() == pytest.approx(60)
    assert len(mailbox.streams[1].after(0)) == 3


async def test_reader_that_stops_at_the_end_is_cut_off() -> None:
    """The end of a stream does not wait for ever either."""
    post = Post()
    await post.responder.send(NEWS)
    await post.responder.respond(answer())
    post.wire.flows.clear()
    await post.end()
    assert asyncio.get_running_loop().time() == pytest.approx(60)
    assert post.wire.aborted


async def test_messages_that_come_together_are_one_write() -> None:
    """However many they are, they go out in one piece, each as an event of its own."""
    post = Post()
    await post.responder.send(NEWS)
    before = post.wire.writes
    await post.responder.send(NEWS, NEWS, NEWS)
    assert post.wire.writes == before + 1
    assert post.wire.data == [json.loads(NEWS)] * 4


async def test_the_answer_goes_out_with_the_end() -> None:
    """Of a stream that has begun, they are one piece."""
    post = Post()
    await post.responder.send(NEWS)
    before = post.wire.writes
    await post.end(answer())
    assert post.wire.writes == before + 1
    assert post.wire.ended
    assert [message.get("id") for message in post.wire.data] == [None, 1]


async def test_cancelled_write_lets_the_next_one_go_on() -> None:
    """Whoever is cancelled while writing leaves the responder usable."""
    post = Post()
    await post.responder.send(NEWS)
    post.wire.flows.clear()
    sending = asyncio.create_task(post.responder.send(NEWS))
    await settle()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    post.wire.flows.set()
    await post.end(answer())
    assert post.wire.data[-1] == json.loads(DONE)


# -- the GET stream --------------------------------------------------------------------------------


class Get:
    """One GET of a client that follows a stream."""

    def __init__(
        self,
        stream: Stream,
        *,
        after: int | None = None,
        cursors: bool = False,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self.wire = Wire()
        self.task = asyncio.create_task(
            follow(
                request_on(self.wire, "GET"),
                stream,
                after=stream.taken if after is None else after,
                heartbeats=heartbeats or heartbeats_with(),
                cors={"X-Cors": "yes"},
                cursors=cursors,
            )
        )


async def ended(awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(1):
        await awaitable


async def test_stream_begins_at_once() -> None:
    """The client sees the beginning of its stream before anything has happened."""
    mailbox = Mailbox(EventBudget(10))
    get = Get(mailbox.standalone)
    await settle()
    assert get.wire.status_line == "HTTP/1.1 200 OK"
    assert get.wire.headers["Content-Type"] == "text/event-stream"
    assert get.wire.headers["X-Accel-Buffering"] == "no"
    assert get.wire.headers["X-Cors"] == "yes"
    assert get.wire.events == [BEAT]
    assert mailbox.standalone.followed
    mailbox.close()
    await ended(get.task)


async def test_events_arrive_with_their_ids() -> None:
    """What was kept comes first, then what happens, in order."""
    stream = Mailbox(EventBudget(10)).standalone
    first = stream.append(b"1")
    get = Get(stream)
    await settle()
    second = stream.append(b"2")
    third = stream.append(b"3")
    stream.close()
    await ended(get.task)
    assert get.wire.events == [BEAT, (first, 1), (second, 2), (third, 3)]
    assert get.wire.ended
    assert not stream.followed


async def test_stream_beats() -> None:
    """A silent stream carries a comment every interval."""
    stream = Mailbox(EventBudget(10)).standalone
    get = Get(stream)
    await asyncio.sleep(50)
    assert get.wire.events == [BEAT] * 4
    stream.close()
    await ended(get.task)


async def test_reopened_stream_misses_nothing() -> None:
    """Without a Last-Event-ID the next GET begins behind what the last one was given."""
    stream = Mailbox(EventBudget(10)).standalone
    get = Get(stream)
    stream.append(b"1")
    await settle()
    get.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await get.task
    assert not stream.followed
    stream.append(b"2")
    again = Get(stream)
    await settle()
    assert again.wire.data == [2]
    from_the_start = Get(stream, after=0)
    await settle()
    assert from_the_start.wire.data == [1, 2]
    stream.close()
    await ended(asyncio.gather(again.task, from_the_start.task))


@pytest.mark.parametrize("cursors", [True, False])
async def test_the_newest_get_wins(cursors: bool) -> None:
    """An older GET ends gracefully when a newer one comes, hears nothing more, and is told to stay away."""
    stream = Mailbox(EventBudget(10)).standalone
    older = Get(stream, cursors=cursors)
    await settle()
    newer = Get(stream, cursors=cursors)
    await ended(older.task)
    stream.append(b"1")
    await settle()
    assert older.wire.ended
    assert older.wire.data == []
    farewell = older.wire.text.split("\n\n", 2 if cursors else 1)[-1]
    assert farewell == (f"id: {stream.event_id(0)}\nretry: 1000\ndata: \n\n" if cursors else "retry: 1000\n")
    assert newer.wire.data == [1]
    stream.close()
    await ended(newer.task)
    assert "retry" not in newer.wire.text


async def test_two_that_come_back_as_they_are_told() -> None:
    """Two tabs with one session take their stream from each other less and less often."""
    stream = Mailbox(EventBudget(10)).standalone
    gets = [Get(stream, cursors=True)]
    while asyncio.get_running_loop().time() < 300:
        await settle()
        gets.append(Get(stream, cursors=True))
        await ended(gets[-2].task)
        told = int(gets[-2].wire.text.rpartition("retry: ")[2].partition("\n")[0])
        await asyncio.sleep(told / 1000)
    assert len(gets) == 11
    stream.close()
    await ended(gets[-1].task)


async def test_peace_is_told() -> None:
    """A client that was told to stay away for long hears the usual time when it has the stream to itself."""
    stream = Mailbox(EventBudget(10)).standalone
    for expected in (None, None, {"id": stream.event_id(0), "retry": "1000", "data": ""}):
        get = Get(stream, cursors=True)
        await settle()
        assert expected is None or get.wire.events[1] == expected
        if expected is None:
            rival = Get(stream)
            await settle()
            rival.task.cancel()
            await asyncio.gather(rival.task, return_exceptions=True)
            await asyncio.sleep(0 if stream.followed else 100)
    stream.close()
    await ended(get.task)


async def test_replaced_get_does_not_go_on_with_its_backlog() -> None:
    """An older GET that hung in a write leaves the rest to the newer one."""
    stream = Mailbox(EventBudget(10)).standalone
    older = Get(stream)
    await settle()
    older.wire.flows.clear()
    for number in range(5):
        stream.append(b"%d" % number)
    await settle()
    newer = Get(stream)
    await settle()
    older.wire.flows.set()
    await ended(older.task)
    assert older.wire.data == [0]
    assert newer.wire.data == [0, 1, 2, 3, 4]
    stream.close()
    await ended(newer.task)


@pytest.mark.parametrize("message", [True, False], ids=["event", "heartbeat"])
async def test_stuck_get_is_cut_off(message: bool) -> None:
    """A client that stops reading does not hold its stream: events and heartbeats have a time limit."""
    stream = Mailbox(EventBudget(10)).standalone
    get = Get(stream)
    await settle()
    get.wire.flows.clear()
    if message:
        stream.append(b"1")
    await asyncio.sleep(80)
    assert get.task.done()
    await get.task
    assert get.wire.aborted
    assert not stream.followed


async def test_stuck_end_is_cut_off() -> None:
    """A client that stops reading does not hold up the end of its stream either."""
    stream = Mailbox(EventBudget(10)).standalone
    get = Get(stream)
    await settle()
    get.wire.flows.clear()
    stream.close()
    await asyncio.sleep(66)
    assert get.task.done()
    assert get.wire.aborted


async def test_clients_that_read_nothing_are_cut_off_however_seldom_streams_beat() -> None:
    """POSTs and GETs go after a minute, with heartbeats of an hour as with those of 15 seconds."""
    heartbeats = Heartbeats(HeartbeatRules(interval_seconds=3600))
    stream = Mailbox(EventBudget(10)).standalone
    get, post = Get(stream, heartbeats=heartbeats), Post(heartbeats=heartbeats)
    await post.responder.send(NEWS)
    await settle()
    get.wire.flows.clear()
    post.wire.flows.clear()
    stream.append(b"1")
    await asyncio.gather(post.responder.send(NEWS), get.task)
    assert asyncio.get_running_loop().time() <= 66
    assert get.wire.aborted
    assert post.wire.aborted
    await post.end(answer())


async def test_get_on_a_broken_connection() -> None:
    """A connection that is gone ends the GET without an error."""
    for when in ("before", "after"):
        stream = Mailbox(EventBudget(10)).standalone
        get = Get(stream)
        get.wire.broken = when == "before"
        await settle()
        get.wire.broken = True
        stream.append(b"1")
        await ended(get.task)
        assert not stream.followed


async def test_resumed_post() -> None:
    """A client that lost its POST hears the rest of it on a GET, which ends with the response."""
    mailbox = Mailbox(EventBudget(10))
    post = Post(mailbox=mailbox)
    await post.responder.send(NEWS)
    post.responder.client_left()
    await post.responder.send(NEWS)
    found = mailbox.find(post.wire.events[0][0])
    assert found is not None
    get = Get(found[0], after=found[1])
    await settle()
    assert get.wire.data == [json.loads(NEWS)]
    await post.end(answer())
    await ended(get.task)
    assert get.wire.data == [json.loads(NEWS), json.loads(DONE)]
    assert get.wire.ended


async def test_burst_over_the_bounds_reaches_a_reader() -> None:
    """Events that come faster than they are written are not lost for a client that reads."""
    stream = Mailbox(EventBudget(0)).standalone
    get = Get(stream)
    await settle()
    for number in range(300):
        stream.append(b"%d" % number)
    await settle()
    assert get.wire.data == list(range(300))
    stream.close()
    await ended(get.task)


@pytest.mark.parametrize(
    "what", [lambda post: post.responder.send(NEWS), lambda post: post.responder.respond(answer())]
)
async def test_two_at_once(what: Callable[[Post], Awaitable[object]]) -> None:
    """Messages and responses that are written at the same time do not mix."""
    post = Post(STREAM_ONLY, batch=True)
    await asyncio.gather(*(what(post) for _ in range(20)), *(post.responder.beat() for _ in range(20)))
    await post.end()
    assert len(post.wire.data) == 20
