"""What servers list: kept while it is certainly right, per caller, and never for ever."""

import asyncio
import json
from collections.abc import Generator
from typing import Any, cast

import pytest
from fakes import FakeReply, FakeServer, Recorder, answer, make_session, refusal, settle, stream
from messages import error, result
from modern_fakes import Visit

from mcp_session_proxy.exchange.catalog import AskedList, Catalog, Owner
from mcp_session_proxy.memory import Share
from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.mirroring import MirroredParam
from mcp_session_proxy.protocol.tool_lists import ToolList
from mcp_session_proxy.sessions.identity import SessionKey
from mcp_session_proxy.upstream.session import UpstreamSession
from mcp_session_proxy.upstream.transport import NOBODY, Caller, ConnectionLost

pytestmark = pytest.mark.looptime

KEY = SessionKey("ada", None, "p")
OTHER = SessionKey("bob", None, "p")
LIST = "tools/list"
RESULT = b'{"tools":[]}'
CHANGING = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True},
}
MARKED = {"type": "object", "properties": {"r": {"type": "string", "x-mcp-header": "R"}}}
MARK = MirroredParam("mcp-param-r", ("r",), "string")


class Scene:
    """A catalogue, and a session that would tell of changes."""

    def __init__(self, server: FakeServer, session: UpstreamSession) -> None:
        self.server = server
        self.session = session
        self.share = Share("lists", 64 * 1024 * 1024)
        self.catalog = Catalog(Recorder(), self.share)

    def keep(
        self,
        data: bytes = RESULT,
        *,
        key: Owner = KEY,
        method: str = LIST,
        params: bytes | None = None,
        generation: int | None = None,
        asked: AskedList | None = None,
        caller: Caller = NOBODY,
    ) -> None:
        asked = asked or self.catalog.ask(method, self.session)
        if asked is not None and generation is not None:
            asked = asked._replace(generation=generation)
        if asked is not None:
            self.catalog.keep(key, params, data, asked, caller)

    def find(
        self,
        *,
        key: Owner = KEY,
        method: str = LIST,
        params: bytes | None = None,
        caller: Caller = NOBODY,
    ) -> bytes | None:
        entry = self.catalog.find(key, method, params, caller)
        return None if entry is None else entry.result

    def call(self, method: str = "tools/call") -> None:
        """A call on the session, from its beginning to its end."""
        calls = self.session.incarnation.calls
        calls.end(calls.begin(cast(Any, None)), method)

    async def marks(self, tool: str, *, key: SessionKey = KEY) -> tuple[MirroredParam, ...]:
        marks = self.catalog.known_marks(key)
        if marks is None:
            marks = await self.catalog.marks(key, cast(Any, Visit(self.session)))
        found = marks.get(tool)
        return () if found is None else found.mirrored


async def scene(capabilities: object = CHANGING, *streams: FakeReply | Exception) -> Scene:
    server = FakeServer()
    server.initialize_result = {**server.initialize_result, "capabilities": capabilities}
    server.script("GET", *streams or [stream(asyncio.Event())])
    session = make_session(server)
    await session.open(NOBODY)
    server.seen.clear()
    return Scene(server, session)


# -- lists -----------------------------------------------------------------------------------------


async def test_a_list_is_kept() -> None:
    """A list of a server that promised to tell of changes, and can, is kept as it came."""
    at = await scene()
    assert at.find() is None
    at.keep()
    assert at.find() == RESULT


@pytest.mark.parametrize(
    ("method", "feature"),
    [
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resources"),
    ],
)
async def test_only_where_changes_are_promised(method: str, feature: str) -> None:
    """Each list depends on the promise of its own feature."""
    promising = await scene({feature: {"listChanged": True}})
    promising.keep(method=method)
    assert promising.find(method=method) == RESULT
    others = {name: {"listChanged": True} for name in ("tools", "prompts", "resources") if name != feature}
    unfit: list[object] = [{}, {feature: {}}, {feature: {"listChanged": False}}, others]
    for capabilities in unfit:
        at = await scene(capabilities)
        at.keep(method=method)
        assert at.find(method=method) is None


@pytest.mark.parametrize("method", ["tools/call", "resources/read", "prompts/get", "server/discover"])
async def test_only_lists(method: str) -> None:
    """Nothing else is kept."""
    at = await scene()
    at.keep(method=method)
    assert at.find(method=method) is None


async def test_only_with_a_stream() -> None:
    """Without a GET stream nobody would hear of a change, so nothing is kept, and nothing kept is served."""
    deaf = await scene(CHANGING, refusal(405))
    deaf.keep()
    assert deaf.find() is None
    breaks = asyncio.Event()
    at = await scene(CHANGING, stream(breaks, ConnectionLost()), ConnectionLost(), stream(asyncio.Event()))
    at.keep()
    assert at.find() == RESULT
    breaks.set()
    await settle()
    assert not at.session.streaming
    assert at.find() is None
    await asyncio.sleep(10.0)
    assert at.session.streaming
    assert at.find() is None  # something may have been missed


async def test_only_of_a_living_session() -> None:
    """What a session listed that was closed or opened anew since is not certain."""
    at = await scene()
    at.keep()
    await at.session.revive(at.session.incarnation, "test", NOBODY)
    assert at.find() is None
    at.keep()
    at.session.abandon()
    assert at.find() is None


async def test_callers_do_not_share() -> None:
    """Each key has lists of its own."""
    at = await scene()
    at.keep(b'{"tools":[1]}')
    assert at.find(key=OTHER) is None
    at.keep(b'{"tools":[2]}', key=OTHER)
    assert (at.find(), at.find(key=OTHER)) == (b'{"tools":[1]}', b'{"tools":[2]}')


async def test_pages_are_told_apart() -> None:
    """Another cursor is another list."""
    at = await scene()
    at.keep(b"{}", params=b'{"cursor":"a"}')
    assert at.find() is None
    assert at.find(params=b'{"cursor":"b"}') is None
    assert at.find(params=b'{"cursor":"a"}') == b"{}"


async def test_metadata_makes_no_difference() -> None:
    """Traces and progress tokens, which differ from request to request, do not make another list."""
    at = await scene()
    at.keep(params=b'{"_meta":{"traceparent":"1"}}')
    assert at.find(params=b'{"_meta":{"traceparent":"2","progressToken":7}}') == RESULT
    assert at.find() == RESULT


@pytest.mark.parametrize(
    "change", [revisions.TOOLS_CHANGED, revisions.PROMPTS_CHANGED, revisions.RESOURCES_CHANGED]
)
async def test_a_change_empties_everything(change: str) -> None:
    """Whoever hears of a change: nothing kept is certain any more, for no caller."""
    at = await scene()
    at.keep()
    at.keep(key=OTHER, method="prompts/list")
    at.catalog.take_notification(change)
    assert at.find() is None
    assert at.find(key=OTHER, method="prompts/list") is None


@pytest.mark.parametrize("other", [revisions.RESOURCE_UPDATED, revisions.LOG_MESSAGE, revisions.PROGRESS])
async def test_other_news_empty_nothing(other: str) -> None:
    """Notifications about something else leave the lists alone."""
    at = await scene()
    at.keep()
    at.catalog.take_notification(other)
    assert at.find() == RESULT


async def test_a_change_on_the_way() -> None:
    """A list that was asked for before a change, and came after it, is not kept."""
    at = await scene()
    asked = at.catalog.generation
    at.catalog.take_notification(revisions.TOOLS_CHANGED)
    at.keep(generation=asked)
    assert at.find() is None


@pytest.mark.parametrize(
    ("told", "seconds"), [((), 60), ((revisions.TOOLS_CHANGED,), 300), ((revisions.PROMPTS_CHANGED,), 60)]
)
async def test_age(told: tuple[str, ...], seconds: int) -> None:
    """Servers forget to tell: a list is asked for again after five minutes, or one if they never told."""
    at = await scene()
    for change in told:
        at.catalog.take_notification(change)
    at.keep()
    await asyncio.sleep(seconds - 1)
    assert at.find() == RESULT
    await asyncio.sleep(2)
    assert at.find() is None


async def test_another_server_has_promises_of_its_own_to_keep() -> None:
    """After a re-opening it may be one that never tells."""
    at = await scene()
    at.catalog.take_notification(revisions.TOOLS_CHANGED)
    at.catalog.session_changed(at.session)
    at.keep()
    await asyncio.sleep(61)
    assert at.find() is None


async def test_the_newest_is_kept() -> None:
    """A list that is kept again replaces what was there."""
    at = await scene()
    at.keep(b'{"tools":[1]}')
    at.keep(b'{"tools":[2]}')
    assert at.find() == b'{"tools":[2]}'
    assert at.share.used_bytes < 1000


async def test_size() -> None:
    """What is kept has a limit, for one list and for all together; the oldest goes first."""
    at = await scene()
    at.keep(b"x" * (4 * 1024 * 1024 + 1))
    assert at.find() is None
    large = b"x" * (4 * 1024 * 1024)
    for number in range(17):
        at.keep(large, params=b'{"cursor":"%d"}' % number)
    assert at.find(params=b'{"cursor":"0"}') is None
    assert at.find(params=b'{"cursor":"16"}') == large
    assert not at.share.is_over
    at.share.max_bytes = 5 * 1024 * 1024
    at.catalog.keep_to_share()
    assert at.find(params=b'{"cursor":"15"}') is None
    assert at.find(params=b'{"cursor":"16"}') == large


async def test_parameters_count() -> None:
    """A client cannot fill the memory with the names of small lists."""
    at = await scene()
    at.share.max_bytes = 1_000_000
    cursors = [json.dumps({"cursor": f"{number}" + "x" * 100_000}).encode() for number in range(100)]
    for cursor in cursors:
        at.keep(b"{}", params=cursor)
    assert 1 <= sum(at.find(params=cursor) is not None for cursor in cursors) <= 10


# -- lists of one session ----------------------------------------------------------------------------


async def test_a_session_has_lists_of_its_own() -> None:
    """They are found by whoever holds the session, and by nobody else who has its key."""
    at = await scene()
    at.keep(b'{"tools":[1]}', key=at.session)
    assert at.find(key=at.session) == b'{"tools":[1]}'
    assert at.find() is None
    at.keep(b'{"tools":[2]}')
    assert at.find(key=at.session) == b'{"tools":[1]}'


async def test_other_headers_may_mean_another_list() -> None:
    """Servers choose tools by headers; what was asked for with some is not given for others."""
    at = await scene()
    some, others = Caller(headers=(("X-MCP-Tools", "a"),)), Caller(headers=(("X-MCP-Tools", "b"),))
    at.keep(key=at.session, caller=some)
    assert at.find(key=at.session, caller=others) is None
    assert at.find(key=at.session, caller=NOBODY) is None
    assert at.find(key=at.session, caller=Caller(headers=some.headers)) == RESULT


async def test_what_a_call_has_changed() -> None:
    """Word of it may come after its answer: what was asked for before is not believed for a moment."""
    at = await scene()
    at.keep(key=at.session)
    await asyncio.sleep(0.5)
    at.call()
    assert at.find(key=at.session) is None
    await asyncio.sleep(1.5)
    assert at.find(key=at.session) is None
    await asyncio.sleep(1.0)
    assert at.find(key=at.session) == RESULT  # no word has come, so nothing has changed


async def test_asked_for_after_a_call() -> None:
    """It shows what the call has changed, so it is believed at once."""
    at = await scene()
    at.call()
    await asyncio.sleep(0.1)
    at.keep(key=at.session)
    assert at.find(key=at.session) == RESULT


async def test_asked_for_during_a_call() -> None:
    """It may be of before what the call did, though it came after its end."""
    at = await scene()
    await asyncio.sleep(1.0)
    asked = at.catalog.ask(LIST, at.session)
    await asyncio.sleep(0.1)
    at.call()
    await asyncio.sleep(0.1)
    at.keep(key=at.session, asked=asked)
    assert at.find(key=at.session) is None


async def test_what_a_notification_has_changed() -> None:
    """A client's notification, or its answer to a question, may change a list as well as a call."""
    at = await scene()
    at.keep(key=at.session)
    await asyncio.sleep(0.5)
    await at.session.incarnation.tell(b'{"jsonrpc":"2.0","method":"notifications/x"}')
    assert at.find(key=at.session) is None


@pytest.mark.parametrize("other", sorted(revisions.LISTS))
async def test_lists_change_nothing(other: str) -> None:
    """Clients ask for all lists together: none takes the others their certainty."""
    at = await scene()
    at.keep(key=at.session)
    await asyncio.sleep(0.5)
    at.call(other)
    assert at.find(key=at.session) == RESULT


async def test_without_a_session_calls_change_nothing() -> None:
    """Who has none cannot know on which of them its call went out: there only the server's word counts."""
    at = await scene()
    at.keep()
    at.call()
    assert at.find() == RESULT


async def test_a_gap_while_a_list_is_on_its_way() -> None:
    """Word of a change may have been lost in it, whatever stands again when the list comes."""
    breaks = asyncio.Event()
    at = await scene(CHANGING, stream(breaks, ConnectionLost()), stream(asyncio.Event()))
    asked = at.catalog.ask(LIST, at.session)
    assert asked is not None
    breaks.set()
    await asyncio.sleep(3.0)
    assert at.session.streaming
    for owner in (KEY, at.session):
        at.keep(key=owner, asked=asked)
        assert at.find(key=owner) is None


async def test_a_closed_session_takes_its_lists_along() -> None:
    """Nobody can find them any more, so they take no room."""
    at = await scene()
    at.keep(key=at.session)
    at.keep(key=at.session, params=b'{"cursor":"2"}')
    assert at.share.used_bytes > 0
    generation = at.catalog.generation
    await at.session.close("test")
    at.catalog.session_changed(at.session)
    assert at.share.used_bytes == 0
    assert at.catalog.generation == generation  # lists of other sessions are as right as before


# -- header annotations ----------------------------------------------------------------------------


def page(*tools: object, cursor: str | None = None) -> Any:
    body: dict[str, Any] = {"tools": list(tools)}
    if cursor is not None:
        body["nextCursor"] = cursor
    return answer(result(body))


def tool(name: str, schema: object = None) -> dict[str, Any]:
    return {"name": name, "inputSchema": schema or {"type": "object"}}


async def test_marks() -> None:
    """The annotations are fetched once, and known for every tool from then on."""
    at = await scene()
    at.server.script(LIST, page(tool("plain"), tool("marked", MARKED)))
    assert await at.marks("marked") == (MARK,)
    assert await at.marks("plain") == ()
    assert await at.marks("unheard-of") == ()
    assert [sent.method for sent in at.server.seen] == [LIST]


async def test_marks_on_later_pages() -> None:
    """All pages of the list are read."""
    at = await scene()
    at.server.script(LIST, page(tool("a"), cursor="2"), page(tool("marked", MARKED)))
    assert await at.marks("marked") == (MARK,)
    assert [sent.params for sent in at.server.seen] == [None, {"cursor": "2"}]


async def test_a_list_without_end() -> None:
    """A server whose pages never end is not asked for ever."""
    at = await scene()
    at.server.script(LIST, *[page(tool("a"), cursor="again") for _ in range(1000)])
    assert await at.marks("a") == ()
    assert len(at.server.seen) == 100


async def test_marks_are_fetched_again() -> None:
    """After a change, and after a while, the annotations are asked for again; each caller has its own."""
    at = await scene()
    at.server.script(LIST, page(tool("t")), page(tool("t", MARKED)), page(tool("t")), page(tool("t", MARKED)))
    assert await at.marks("t") == ()
    at.catalog.take_notification(revisions.TOOLS_CHANGED)
    assert await at.marks("t") == (MARK,)
    assert await at.marks("t", key=OTHER) == ()
    assert await at.marks("t") == (MARK,)
    await asyncio.sleep(61)
    assert await at.marks("t") == (MARK,)
    assert len(at.server.seen) == 4


async def test_tools_that_no_client_sees() -> None:
    """A tool with invalid annotations is in nobody's list; whoever calls it needs no headers."""
    at = await scene()
    bad = {"type": "object", "properties": {"r": {"type": "number", "x-mcp-header": "R"}}}
    at.server.script(LIST, page(tool("bad", bad), {"inputSchema": MARKED}, tool("good", MARKED), 3, None))
    assert await at.marks("bad") == ()
    assert await at.marks("good") == (MARK,)


@pytest.mark.parametrize(
    "reply",
    [lambda: answer(error(-32603, "no")), lambda: answer(result("x-mcp-header")), lambda: answer(result({}))],
)
async def test_a_server_that_does_not_tell(reply: Any) -> None:
    """A list that cannot be had holds up no call."""
    at = await scene()
    at.server.script(LIST, reply())
    assert await at.marks("t") == ()


async def test_a_server_without_tools() -> None:
    """A server that has no tools is not asked for their list."""
    at = await scene({"prompts": {}})
    assert await at.marks("t") == ()
    assert at.server.seen == []


async def test_callers_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The annotations of callers that were not seen lately go."""
    monkeypatch.setattr("mcp_session_proxy.exchange.catalog.MARKING_CALLERS", 3)
    at = await scene()
    keys = [SessionKey(str(number), None, "p") for number in range(10)]
    for key in keys:
        await at.marks("t", key=key)
    assert [at.catalog.known_marks(key) is not None for key in keys] == [False] * 7 + [True] * 3


async def test_callers_that_are_gone_take_no_room() -> None:
    """What is known for a caller takes memory as long as it is of use."""
    at = await scene()
    at.server.script(LIST, *[page(tool("t", MARKED)) for _ in range(11)])
    for number in range(10):
        assert await at.marks("t", key=SessionKey(str(number), None, "p")) == (MARK,)
    of_ten = at.share.used_bytes
    await asyncio.sleep(3600)
    assert await at.marks("t") == (MARK,)
    assert 0 < at.share.used_bytes < of_ten


# -- sessions that change --------------------------------------------------------------------------


async def test_a_session_that_was_opened_anew() -> None:
    """Its lists go, and one that was being asked for meanwhile is not kept."""
    at = await scene()
    at.keep()
    before = at.catalog.generation
    at.catalog.session_changed(at.session)
    assert at.find() is None
    at.keep(generation=before)
    assert at.find() is None


async def test_a_stream_that_was_opened_anew() -> None:
    """Its server may have told of a change in between, and nobody heard it."""
    breaks = asyncio.Event()
    at = await scene(CHANGING, stream(breaks, ConnectionLost()), stream(asyncio.Event()))
    at.keep()
    assert at.find() == RESULT
    at.server.seen.clear()
    breaks.set()
    await asyncio.sleep(10.0)
    assert at.session.streaming
    assert len(at.server.gets()) == 1
    assert at.find() is None


async def test_tools_that_need_a_task() -> None:
    """They are told apart from those that may run as one, and from those that say nothing."""
    at = await scene()
    tools = [
        {"name": word, "inputSchema": {"type": "object"}, "execution": {"taskSupport": word}}
        for word in ("required", "optional", "forbidden")
    ]
    at.server.script(LIST, page(*tools, {"name": "odd", "execution": 3}, tool("marked", MARKED)))
    marks = await at.catalog.marks(KEY, cast(Any, Visit(at.session)))
    assert {name: known.support for name, known in marks.items()} == {
        "required": "required",
        "optional": "optional",
        "marked": "forbidden",
    }


async def test_marks_after_a_moments_trouble() -> None:
    """What a refusal or a lost page cut short is looked for again soon, and not believed for a minute."""
    at = await scene()
    at.server.script(LIST, refusal(429, b"slow down"), page(tool("t", MARKED)))
    assert await at.marks("t") == ()
    assert await at.marks("t") == ()
    assert len(at.server.posts(LIST)) == 1
    await asyncio.sleep(3)
    assert await at.marks("t") == (MARK,)


async def test_a_list_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of a list is kept with the lists, whoever asks for it, and goes when there is no room."""
    at = await scene()
    reads: list[bytes] = []

    def read(result: bytes) -> Generator[None, None, ToolList]:
        reads.append(result)
        yield
        return ToolList({}, result + b" ")

    monkeypatch.setattr("mcp_session_proxy.protocol.tool_lists.read", read)
    marked = b'{"tools":[{"name":"t","inputSchema":{"x-mcp-header":7}}]}'
    for _ in range(5):
        assert await at.catalog.lift_tools(marked) == marked + b" "
    assert reads == [marked]
    assert await at.catalog.lift_tools(RESULT) == RESULT
    assert at.share.used_bytes >= len(marked)
    at.share.max_bytes = 0
    at.catalog.keep_to_share()
    assert at.share.used_bytes == 0
    assert await at.catalog.lift_tools(marked) == marked + b" "
    assert len(reads) == 2


async def test_lists_of_any_size_are_read() -> None:
    """What is too large to be kept is read all the same, one after the other, and its marks are checked."""
    at = await scene()
    tools = [tool(f"t{number}", MARKED) for number in range(3)]
    enormous = json.dumps({"tools": [{"name": "x", "description": "x" * 5 * 1024 * 1024}, *tools]}).encode()
    bad = json.dumps({"tools": [*tools, tool("bad", {"x-mcp-header": "no token"})]}).encode()
    lists = await asyncio.gather(*(at.catalog.lift_tools(data) for data in (enormous, bad, enormous, bad)))
    assert lists[0] == lists[2] == enormous
    assert json.loads(lists[1]) == json.loads(lists[3]) == {"tools": tools}
    at.keep(enormous)
    assert at.find() is None
    at.server.script(LIST, answer(result(json.loads(enormous))))
    assert await at.marks("t2") == (MARK,)
