"""Sessions whose messages all travel on one way: whose each is, how it ends, how long anybody waits."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import settle
from messages import raw

from mcp_session_proxy.bounds import CALL_UNREAD_BYTES, UNHEARD_BYTES, UNHEARD_MESSAGES
from mcp_session_proxy.errors import (
    ProxyError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_session_proxy.protocol.lost import Verdict
from mcp_session_proxy.upstream.duplex import DuplexReply, DuplexSession, Link
from mcp_session_proxy.upstream.inbox import Sweeper
from mcp_session_proxy.upstream.transport import (
    NOBODY,
    Caller,
    ConnectionLost,
    NoStream,
    Refused,
    Reply,
    StreamRefused,
)

pytestmark = pytest.mark.looptime

SILENCE_SECONDS = 600.0


class FakeLink:
    """Keeps what it is given. Implements ``duplex.Link``.

    ``refuses`` is raised by the next ``send``; with ``gives_word``, each gives a future, kept in ``words``.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.did: list[str] = []
        self.refuses: Exception | None = None
        self.gives_word = False
        self.words: list[asyncio.Future[None]] = []

    def send(self, body: bytes, caller: Caller) -> asyncio.Future[None] | None:
        if self.refuses is not None:
            refusal, self.refuses = self.refuses, None
            raise refusal
        self.sent.append(json.loads(body))
        if not self.gives_word:
            return None
        self.words.append(asyncio.get_running_loop().create_future())
        return self.words[-1]

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")

    async def close(self, caller: Caller) -> None:
        self.did.append("close")

    def drop(self) -> None:
        self.did.append("drop")


class Scene:
    """An open session and its link."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.sweeper = Sweeper(SILENCE_SECONDS)
        self.session = DuplexSession(self._open_link, self.sweeper)
        self.opens: Callable[[], None] = lambda: None

    async def _open_link(self, session: DuplexSession, caller: Caller) -> Link:
        self.opens()
        return self.link

    def says(self, *messages: object) -> None:
        """The server says these, given as JSON values."""
        for message in messages:
            parsed = jsonrpc.parse_upstream(raw(message))
            assert parsed is not None
            self.session.take(parsed)

    def call(self, number: int, method: str = "tools/call", **options: Any) -> DuplexReply:
        """A request on its way."""
        body = jsonrpc.write_request(b"%d" % number, method, None)
        return self.session.send(body, NOBODY, b"%d" % number, **options)

    def tell(self) -> DuplexReply:
        """A notification on its way."""
        return self.session.send(jsonrpc.write_notification("notifications/x", None), NOBODY)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Reply]:
        """The standalone stream."""
        async with self.session.open_stream(NOBODY, None) as stream:
            yield stream


@pytest.fixture
async def at() -> Scene:
    """Behind the handshake."""
    scene = Scene()
    initialize = jsonrpc.write_request(b"0", "initialize", b"{}")
    async with scene.session.open(initialize, NOBODY, b"0", silence_seconds=30.0) as reply:
        scene.says(answer(0))
        assert await said(reply) == [0]
    scene.link.sent.clear()
    return scene


def answer(number: object, **result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def note(method: str = "notifications/message", **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def progress(token: object, number: int = 0) -> dict[str, Any]:
    return note("notifications/progress", progressToken=token, progress=number)


def question(identifier: object, method: str = "elicitation/create") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": {}}


def shown(message: Message) -> Any:
    """A response by its id, anything else by its method; progress with its number."""
    if isinstance(message, Response):
        return json.loads(message.id)
    if message.method == "notifications/progress":
        return json.loads(message.params or b"{}")["progress"]
    return message.method


async def said(reply: Reply) -> list[Any] | None:
    """What came next, as ``shown``."""
    messages = await reply.read()
    return None if messages is None else [shown(message) for message in messages]


async def whole(reply: Reply) -> list[Any]:
    """All that comes, to the end."""
    found: list[Any] = []
    while (messages := await said(reply)) is not None:
        found += messages
    return found


def waits(reply: Reply) -> "asyncio.Task[list[Message] | None]":
    """Somebody who reads."""

    async def read() -> list[Message] | None:
        return await reply.read()

    return asyncio.get_running_loop().create_task(read())


# -- whose a message is ----------------------------------------------------------------------------


async def test_each_answer_goes_to_its_call(at: Scene) -> None:
    """By its id, in whatever order they come."""
    async with at.call(1) as first, at.call(2) as second:
        at.says(answer(2), answer(1))
        assert await whole(first) == [1]
        assert await whole(second) == [2]


async def test_a_thousand_at_once(at: Scene) -> None:
    """Nothing is dropped for want of room: a thousand calls have a thousand answers."""

    async def call(number: int) -> list[Any]:
        async with at.call(number) as reply:
            return await whole(reply)

    calls = [asyncio.create_task(call(number)) for number in range(1000)]
    await settle()
    assert len(at.link.sent) == 1000
    at.says(*(answer(number, text="x" * 5000) for number in reversed(range(1000))))
    assert await asyncio.gather(*calls) == [[number] for number in range(1000)]
    assert at.link.did == []


@pytest.mark.parametrize("identifier", ["1", 1.0])
async def test_a_number_that_comes_back_otherwise(at: Scene, identifier: object) -> None:
    """Some servers give ids back as strings, some as what their language makes of all numbers."""
    async with at.call(1) as reply, at.call(2):
        at.says(answer(identifier))
        assert await whole(reply) == [identifier]


@pytest.mark.parametrize("identifier", [2, "x", None])
async def test_an_answer_that_nobody_waits_for(at: Scene, identifier: object) -> None:
    """It is dropped and counted, and is nobody else's."""
    async with at.call(1) as reply, at.listening() as stream:
        at.says(answer(identifier), answer(1))
        assert await whole(reply) == [1]
        reading = waits(stream)
        await settle()
        assert not reading.done()
        reading.cancel()
    assert at.session.strays == 1


async def test_the_answer_to_a_call_that_was_given_up(at: Scene) -> None:
    """It comes too late for anybody."""
    async with at.call(1):
        pass
    at.says(answer(1))
    assert at.session.strays == 1


@pytest.mark.parametrize("token", [2, "2", 2.0])
async def test_progress_goes_to_its_call(at: Scene, token: object) -> None:
    """By its token, however many calls run."""
    async with at.call(1) as first, at.call(2) as second:
        at.says(progress(token, 7), answer(1), answer(2))
        assert await whole(first) == [1]
        assert await whole(second) == [7, 2]


async def test_progress_of_what_is_over(at: Scene) -> None:
    """It is not the running call's: its client may have given the same token to another request."""
    async with at.call(1) as reply, at.listening() as stream:
        at.says(progress(99, 5), answer(1))
        assert await whole(reply) == [1]
        assert await said(stream) == [5]


async def test_nothing_of_a_call_is_lost_at_its_edges(at: Scene) -> None:
    """What comes with the request's own step, and just before the answer, is the call's, in order."""
    async with at.call(1) as reply:
        at.says(progress(1, 0), *(progress(1, number) for number in range(1, 99)), progress(1, 99), answer(1))
        assert await whole(reply) == [*range(100), 1]


@pytest.mark.parametrize(
    "message", [note(), question("q"), note("notifications/tools/list_changed"), note("x/own")]
)
async def test_what_names_no_call_while_one_runs(at: Scene, message: object) -> None:
    """It is that call's, even while somebody listens to the stream."""
    async with at.listening(), at.call(1) as reply:
        at.says(message, answer(1))
        assert len(await whole(reply)) == 2


@pytest.mark.parametrize("calls", [0, 2])
async def test_what_names_no_call_otherwise(at: Scene, calls: int) -> None:
    """It goes to the stream, where it is found out above whose it is."""
    replies = [at.call(number) for number in range(calls)]
    for reply in replies:
        await reply.__aenter__()
    async with at.listening() as stream:
        at.says(note(), question("q"))
        assert await said(stream) == ["notifications/message", "elicitation/create"]
    for reply in replies:
        await reply.__aexit__()


async def test_what_comes_behind_an_answer_that_nobody_has_read_yet(at: Scene) -> None:
    """It is not that call's: with the answer, the call is over."""
    async with at.call(1) as first, at.call(2) as second, at.listening() as stream:
        at.says(answer(1), note(), answer(2), question("q"))
        assert await whole(first) == [1]
        assert await whole(second) == ["notifications/message", 2]
        assert await said(stream) == ["elicitation/create"]


async def test_a_ping_of_ours_is_no_call(at: Scene) -> None:
    """Whoever asks whether the session lives hears the answer and nothing else."""
    async with at.call(1) as call, at.call(2, "ping") as ping, at.listening() as stream:
        at.says(note(), answer(1))
        assert await whole(call) == ["notifications/message", 1]
        at.says(question("q"), answer(2))
        assert await whole(ping) == [2]
        assert await said(stream) == ["elicitation/create"]


async def test_a_servers_ping_is_answered_whoever_is_slow(at: Scene) -> None:
    """It goes to the stream, which somebody always reads; before there is one, to the call."""
    async with at.call(1) as call:
        at.says(question("p", "ping"))
        assert await said(call) == ["ping"]
        async with at.listening() as stream:
            at.says(question("p", "ping"))
            assert await said(stream) == ["ping"]


async def test_what_a_call_has_not_read(at: Scene) -> None:
    """A question that is left by who gave up is somebody else's; progress is nobody's."""
    async with at.call(1):
        at.says(progress(1), question("q"))
    async with at.listening() as stream:
        assert await said(stream) == ["elicitation/create"]


async def test_what_comes_before_anybody_listens(at: Scene) -> None:
    """It is kept for the first who does, in order."""
    at.says(question(1, "roots/list"), note())
    async with at.listening() as stream:
        at.says(note("later"))
        assert await said(stream) == ["roots/list", "notifications/message", "later"]


@pytest.mark.parametrize("size", [1, UNHEARD_BYTES // 10])
async def test_what_is_kept_for_nobody_has_a_bound(at: Scene, size: int) -> None:
    """In number and in bytes; what is over it is dropped and counted."""
    at.says(*[note(text="x" * size)] * 200)
    async with at.listening() as stream:
        kept = await said(stream)
    assert kept is not None
    assert 10 <= len(kept) <= UNHEARD_MESSAGES
    assert at.session.strays == 200 - len(kept)


async def test_who_listens_takes_as_much_as_comes(at: Scene) -> None:
    """The bound is for what nobody takes."""
    async with at.listening() as stream:
        at.says(*[note()] * 1000)
        assert len(await said(stream) or []) == 1000


# -- the end ---------------------------------------------------------------------------------------


async def test_a_link_that_had_ended(at: Scene) -> None:
    """Nothing is sent on it, and the session is gone for certain."""
    at.session.end("exit status 1")
    with pytest.raises(Refused) as refused:
        await at.call(1).__aenter__()
    assert (refused.value.session, refused.value.confirms_loss, refused.value.how) == (
        Verdict.GONE,
        True,
        "ended",
    )
    assert "exit status 1" in refused.value.error.message
    assert at.link.sent == []


async def test_a_link_that_ends_amid_a_call(at: Scene) -> None:
    """What came before is read first; the call may have been carried out."""
    async with at.call(1) as reply, at.call(2) as other:
        at.says(progress(1, 3), answer(2))
        at.session.end("killed")
        assert await said(reply) == [3]
        with pytest.raises(ConnectionLost):
            await reply.read()
        assert await whole(other) == [2]


async def test_whoever_waits_is_woken(at: Scene) -> None:
    """The end is told at once, and not with the next message."""
    async with at.call(1) as reply, at.listening() as stream:
        readers = [waits(reply), waits(stream)]
        await settle()
        at.session.end("killed")
        with pytest.raises(ConnectionLost):
            await readers[0]
        assert await readers[1] is None


async def test_what_was_never_written(at: Scene) -> None:
    """A call of which the server cannot have had a byte is not lost: it was certainly not carried out."""
    async with at.call(1) as first, at.call(2) as second, at.tell(), at.call(3) as third:
        last = jsonrpc.write_request(b"3", "tools/call", None)
        told = jsonrpc.write_notification("notifications/x", None)
        # The second one had begun to be written.
        at.session.end("killed", unwritten_bytes=len(last) + 1 + len(told) + 1 + 5)
        for reply in (first, second):
            with pytest.raises(ConnectionLost):
                await reply.read()
        with pytest.raises(Refused) as refused:
            await third.read()
        assert refused.value.session is Verdict.GONE


async def test_an_end_of_which_more_is_known(at: Scene) -> None:
    """Calls hear that."""
    async with at.call(1) as reply:
        at.session.end("too much", error=UpstreamProtocolError("too much"))
        with pytest.raises(UpstreamProtocolError):
            await reply.read()


async def test_it_ends_once(at: Scene) -> None:
    """What is told later counts for nothing, and what comes later is nobody's."""
    async with at.call(1) as reply:
        at.session.end("first", error=UpstreamProtocolError("first"))
        at.session.end("second")
        at.says(answer(1), note())
        with pytest.raises(UpstreamProtocolError):
            await reply.read()
    assert at.session.ended == "first"


async def test_the_stream_of_what_has_ended(at: Scene) -> None:
    """It brings what had come, ends, and is refused from then on: there is no session."""
    async with at.listening() as stream:
        at.says(note())
        at.session.end("killed")
        assert await whole(stream) == ["notifications/message"]
    with pytest.raises(StreamRefused) as refused:
        async with at.listening():
            pass
    assert refused.value.why is NoStream.NO_SESSION


async def test_nothing_can_be_resumed(at: Scene) -> None:
    """There are no places to go on from."""
    async with at.call(1) as reply:
        assert (reply.last_event_id, reply.retry_seconds) == (None, None)
    with pytest.raises(StreamRefused) as refused:
        at.session.resume(NOBODY, "e1")
    assert refused.value.why is NoStream.NOT_OFFERED


async def test_goodbye(at: Scene) -> None:
    """It is the link's to say; whoever still waits is told at once."""
    async with at.call(1) as reply:
        await at.session.close(NOBODY)
        with pytest.raises(ConnectionLost):
            await reply.read()
    assert at.link.did == ["close"]


async def test_goodbye_to_what_has_ended(at: Scene) -> None:
    """The link hears it all the same: there may be something left to clear away."""
    at.session.end("exit status 0")
    await at.session.close(NOBODY)
    assert at.link.did == ["close"]


async def test_drop(at: Scene) -> None:
    """No goodbye, and nothing is sent any more."""
    at.session.drop()
    assert at.link.did == ["drop"]
    with pytest.raises(Refused):
        await at.tell().__aenter__()


async def test_goodbye_before_anything_was_opened() -> None:
    """There is nobody to say it to."""
    scene = Scene()
    await scene.session.close(NOBODY)
    scene.session.drop()
    assert scene.link.did == []


# -- the beginning ---------------------------------------------------------------------------------


def opening(scene: Scene) -> Any:
    body = jsonrpc.write_request(b"0", "initialize", b"{}")
    return scene.session.open(body, NOBODY, b"0", silence_seconds=30.0)


async def test_a_link_that_cannot_be_opened() -> None:
    """The error is told as it is; there is nothing to clear away."""
    scene = Scene()

    def fail() -> None:
        raise UpstreamUnreachable("no")

    scene.opens = fail
    with pytest.raises(UpstreamUnreachable):
        await opening(scene).__aenter__()
    assert scene.link.did == []


async def test_a_link_that_does_not_take_the_handshake() -> None:
    """It is let go of."""
    scene = Scene()
    scene.link.refuses = UpstreamUnreachable("no")
    with pytest.raises(UpstreamUnreachable):
        await opening(scene).__aenter__()
    assert scene.link.did == ["drop"]
    assert scene.session.ended is not None


async def test_opening_ends_with_the_first_answer() -> None:
    """Until then, an end is a handshake's."""
    scene = Scene()
    async with opening(scene) as reply:
        assert scene.session.opening
        scene.says(note(), answer(0))
        assert await whole(reply) == ["notifications/message", 0]
    assert not scene.session.opening
    assert scene.link.did == []


async def test_it_knows_its_version(at: Scene) -> None:
    """As the handshake has agreed on it; it has no other name."""
    at.session.agree("2025-06-18")
    assert (at.session.version, at.session.session_id) == ("2025-06-18", None)


# -- sending ---------------------------------------------------------------------------------------


async def test_a_message_without_an_answer(at: Scene) -> None:
    """It is over as soon as it is sent, and hears nothing."""
    async with at.tell() as reply:
        at.says(note())
        assert await whole(reply) == []
    assert [message["method"] for message in at.link.sent] == ["notifications/x"]


async def test_a_link_that_takes_nothing_now(at: Scene) -> None:
    """Nothing is left of the call."""
    at.link.refuses = UpstreamUnreachable("full")
    with pytest.raises(UpstreamUnreachable):
        await at.call(1).__aenter__()
    async with at.call(2) as reply:
        at.says(note(), answer(2))
        assert await whole(reply) == ["notifications/message", 2]


async def test_a_word_that_comes_late(at: Scene) -> None:
    """Whoever sends waits for it."""
    at.link.gives_word = True
    for sending in (at.call(1), at.tell()):
        entering = asyncio.create_task(sending.__aenter__())
        await settle()
        assert not entering.done()
        at.link.words.pop().set_result(None)
        await entering
        await sending.__aexit__()


async def test_an_answer_before_the_word(at: Scene) -> None:
    """It counts; the word is nobody's any more."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.says(progress(1, 4))
    reply = await entering
    assert await said(reply) == [4]
    at.says(answer(1))
    at.link.words[0].set_result(None)
    assert await whole(reply) == [1]
    await reply.__aexit__()


async def test_a_word_behind_the_first_message(at: Scene) -> None:
    """It is no end, and no message: whoever reads goes on waiting."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.says(progress(1, 4))
    reply = await entering
    assert await said(reply) == [4]
    reading = waits(reply)
    await settle()
    at.link.words[0].set_result(None)
    await settle()
    assert not reading.done()
    at.says(answer(1))
    assert [shown(message) for message in await reading or []] == [1]
    await reply.__aexit__()


async def test_a_word_that_says_no(at: Scene) -> None:
    """Whoever sends hears it, of a call and of a message without an answer."""
    at.link.gives_word = True
    for sending in (at.call(1), at.tell()):
        entering = asyncio.create_task(sending.__aenter__())
        await settle()
        at.link.words.pop().set_exception(refusal())
        with pytest.raises(Refused):
            await entering
    at.says(note())
    async with at.listening() as stream:
        assert await said(stream) == ["notifications/message"]


async def test_a_word_that_says_no_after_all(at: Scene) -> None:
    """Behind what the server has said of the call before, it is the call's end."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.says(progress(1, 4))
    reply = await entering
    at.link.words[0].set_exception(ConnectionLost())
    await settle()
    assert await said(reply) == [4]
    with pytest.raises(ConnectionLost):
        await reply.read()
    await reply.__aexit__()


async def test_a_word_that_says_no_behind_the_answer(at: Scene) -> None:
    """The answer counts."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.says(answer(1))
    at.link.words[0].set_exception(ConnectionLost())
    reply = await entering
    assert await whole(reply) == [1]
    await reply.__aexit__()


async def test_a_word_that_never_comes(at: Scene) -> None:
    """The end of the link is word enough."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.session.end("killed")
    with pytest.raises(ConnectionLost):
        await entering


async def test_who_leaves_before_the_word(at: Scene) -> None:
    """Nothing waits for that call any more, and nothing more of it is sent."""
    at.link.gives_word = True
    for sending in (at.call(1), at.tell()):
        entering = asyncio.create_task(sending.__aenter__())
        await settle()
        entering.cancel()
        await asyncio.wait([entering])
        await asyncio.sleep(0.001)
        assert at.link.words.pop().cancelled()
    at.says(answer(1))
    assert at.session.strays == 1


async def test_a_word_that_does_not_come_behind_the_answer(at: Scene) -> None:
    """It is not waited for: a moment later, what was sent is cut."""
    at.link.gives_word = True
    entering = asyncio.create_task(at.call(1).__aenter__())
    await settle()
    at.says(answer(1))
    reply = await entering
    assert await whole(reply) == [1]
    await reply.__aexit__()
    assert not at.link.words[0].done()
    await asyncio.sleep(2)
    assert at.link.words[0].cancelled()


async def test_a_link_that_calls_off_what_was_sent(at: Scene) -> None:
    """Nobody knows what became of it, and that is no end of the task that sent it."""
    at.link.gives_word = True
    for sending in (at.call(1), at.tell()):
        entering = asyncio.create_task(sending.__aenter__())
        await settle()
        at.link.words.pop().cancel()
        with pytest.raises(ConnectionLost):
            await entering


# -- silence ---------------------------------------------------------------------------------------


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_silence(at: Scene) -> None:
    """To the second; the session and its other calls go on."""
    async with at.call(1) as reply, at.call(2, silence_seconds=1000.0) as other:
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(SILENCE_SECONDS)
        at.says(answer(2))
        assert await whole(other) == [2]


async def test_a_shorter_patience_comes_first(at: Scene) -> None:
    """Although the timer stood for a longer one."""
    async with at.call(1), at.call(2, silence_seconds=5.0) as short:
        with pytest.raises(UpstreamTimeout):
            await short.read()
        assert now() == pytest.approx(5)


async def test_what_is_said_of_a_call_breaks_its_silence(at: Scene) -> None:
    """And not that of another one."""
    async with at.call(1) as talked_of, at.call(2) as other:
        await asyncio.sleep(400)
        at.says(progress(1))
        assert await said(talked_of) == [0]
        with pytest.raises(UpstreamTimeout):
            await other.read()
        assert now() == pytest.approx(600)
        with pytest.raises(UpstreamTimeout):
            await talked_of.read()
        assert now() == pytest.approx(1000)


async def test_a_sign_of_life_counts_for_all(at: Scene) -> None:
    """A link that the server keeps alive is not silent."""
    async with at.call(1) as reply:
        await asyncio.sleep(599)
        at.session.heard()
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(1199)


async def test_signs_of_life_alone_count_for_a_while(at: Scene) -> None:
    """Of a call of which nothing is said, ten times its patience is the end; of others it is not."""

    async def keep_alive() -> None:
        while True:
            await asyncio.sleep(300)
            at.session.heard()

    alive = asyncio.create_task(keep_alive())
    async with at.call(1) as reply, at.call(2) as other:
        await asyncio.sleep(5000)
        at.says(progress(2))
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(10 * SILENCE_SECONDS)
        assert await said(other) == [0]
        with pytest.raises(UpstreamTimeout):
            await other.read()
        assert now() == pytest.approx(5000 + 10 * SILENCE_SECONDS)
    alive.cancel()


async def test_a_slow_reader_is_no_silent_server(at: Scene) -> None:
    """What has come can be read however late."""
    async with at.call(1) as reply:
        at.says(progress(1, 1))
        await asyncio.sleep(5000)
        assert await said(reply) == [1]
        at.says(answer(1))
        await asyncio.sleep(5000)
        assert await whole(reply) == [1]


async def test_a_call_that_is_over_is_not_looked_at(at: Scene) -> None:
    """Nor is one whose client gave up."""
    async with at.call(1) as reply:
        at.says(answer(1))
        assert await whole(reply) == [1]
    async with at.call(2):
        pass
    await asyncio.sleep(2 * SILENCE_SECONDS)
    assert await whole(reply) == []


async def test_one_timer_for_all(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand calls of the usual patience cost one timer, and not one each."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *arguments, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    for number in range(10_000):
        async with at.call(number):
            pass
    assert len(timers) <= 1


async def test_another_patience(at: Scene) -> None:
    """It may change; calls from then on go by it."""
    at.sweeper.silence_seconds = 7.0
    assert at.session.silence_seconds == 7.0
    async with at.call(1) as reply:
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(7)


async def test_a_handshake_has_its_own_patience() -> None:
    """That of ``open``."""
    scene = Scene()
    async with opening(scene) as reply:
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(30)


# -- who reads slowly --------------------------------------------------------------------------------


def flood(token: int) -> list[dict[str, Any]]:
    """Rather more than is kept for one call."""
    text = "x" * 10_000
    return [
        note("notifications/progress", progressToken=token, progress=number, message=text)
        for number in range(2 * CALL_UNREAD_BYTES // 10_000)
    ]


async def test_a_call_whose_client_reads_slowly(at: Scene) -> None:
    """Where nobody else waits, the server is slowed down, and nothing is lost."""
    async with at.call(1) as reply:
        at.says(*flood(1))
        assert at.link.did == ["pause"]
        assert len(await said(reply) or []) == len(flood(1))
        assert at.link.did == ["pause", "resume"]
    assert at.session.strays == 0


async def test_others_do_not_wait_for_a_slow_reader(at: Scene) -> None:
    """With the next call the server is read again; then progress is dropped over the bound, and no answer."""
    async with at.call(1) as slow:
        at.says(*flood(1))
        async with at.call(2) as other:
            assert at.link.did == ["pause", "resume"]
            at.says(*flood(1), answer(1), answer(2))
            assert await whole(other) == [2]
            assert at.link.did == ["pause", "resume"]
        assert at.session.strays == len(flood(1))
        assert (await whole(slow))[-1] == 1


async def test_a_slow_reader_who_leaves(at: Scene) -> None:
    """The server is read again."""
    async with at.call(1):
        at.says(*flood(1))
    assert at.link.did == ["pause", "resume"]


async def test_nobody_hears_a_server_that_is_not_read(at: Scene) -> None:
    """So its silence counts from when it is read again."""
    async with at.call(1) as reply:
        at.says(*flood(1))
        await asyncio.sleep(599)
        await reply.read()
        with pytest.raises(UpstreamTimeout):
            await reply.read()
        assert now() == pytest.approx(1199)


# -- the messages themselves -----------------------------------------------------------------------


async def test_they_arrive_as_they_are(at: Scene) -> None:
    """With their parameters, results and errors, byte for byte."""
    async with at.call(1) as reply:
        messages: list[Message] = [
            Notification("notifications/message", b'{ "n": 1.50 }'),
            Request(b'"q"', "sampling/createMessage", b"{}"),
            Response(b"1", error=b'{"code":-1,"message":"no"}'),
        ]
        for message in messages:
            at.session.take(message)
        assert await reply.read() == messages


def refusal() -> Refused:
    error: ProxyError = UpstreamRejected(403, b"", None, {}, None)
    return Refused(error, how=403)
