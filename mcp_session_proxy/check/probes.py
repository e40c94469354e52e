"""Asks a server what ``observations`` holds. Every question is bounded in time, and none changes anything."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from uuid import uuid4

from ..protocol import jsonrpc, revisions
from ..upstream.http.cookies import SessionCookies
from ..upstream.http.streamable_http import NO_SESSION, SessionRef
from .observations import Client, Entrance, Greeting, Idle, Observations, Play, ServerAnswer, Streams
from .plan import ToolCall
from .plays import Player, ask_initialize, ask_modern, session_of
from .wire import Wire

_HANDSHAKES: Final = 3
_ROUNDS: Final = 3
_WITHOUT_COOKIES: Final = 3
_RETRY_SECONDS: Final = 0.2
_NOTICE_SECONDS: Final = 2.0
_LAST_DIGITS: Final = 8
# What stands for use, in the order of preference: capability and method. All are reads by protocol.
_READS: Final = (
    ("tools", revisions.TOOLS_LIST),
    ("prompts", "prompts/list"),
    ("resources", "resources/list"),
)


async def greet(wire: Wire) -> Greeting:
    """Begin a session, in the newest version that has sessions, or else in one that the server takes."""
    first = await ask_initialize(wire, revisions.LATEST_LEGACY)
    if first.is_answered or not first.may_be_about_version:
        return Greeting(answer=first, version=revisions.LATEST_LEGACY)
    refusals = {revisions.LATEST_LEGACY: first}
    for version in reversed(revisions.LEGACY_VERSIONS[:-1]):
        answer = await ask_initialize(wire, version)
        if answer.is_answered:
            return Greeting(answer=answer, version=version, refusals=refusals)
        refusals[version] = answer
    return Greeting(answer=first, version=revisions.LATEST_LEGACY)


async def ask_discover(wire: Wire) -> ServerAnswer:
    """``server/discover``, which a legacy server refuses one way or another (2026-07-28, server/discover)."""
    return await ask_modern(wire, revisions.DISCOVER, {})


async def wait_idle(wire: Wire, seconds: float, version: str = revisions.LATEST_LEGACY) -> Idle:
    """Open a session, leave it alone for that long, then ask again."""
    hello = await ask_initialize(wire, version)
    session = session_of(hello)
    await wire.notify(revisions.INITIALIZED, session)
    await asyncio.sleep(seconds)
    return Idle(seconds=seconds, answer=await wire.request(_choose_read(hello, None), {}, session))


async def observe(
    wire: Wire, greeting: Greeting, discover: ServerAnswer, shown_url: str, call: ToolCall | None
) -> Observations:
    """See how the server treats each kind of client. ``greeting`` and ``discover`` were asked before.

    Raises:
        NoSuchTool: the server does not have the tool that is to be called.
    """
    hello = greeting.answer
    reads = _choose_read(hello, discover)
    player = Player(wire, reads=reads, version=greeting.version, call=call)
    asker = _Asker(wire, player)
    beside = await asker.ask_beside(hello, greeting.version)
    # What is timed comes first and alone, the rest at once.
    kept = await player.keep_session(hello)
    is_replaced = beside is not None and beside.is_answered and kept.play.lost_its_session
    if is_replaced:
        # The other session may have ended this one. Again, alone.
        again = await player.keep_session(await ask_initialize(wire, greeting.version))
        is_replaced = again.play.failed is None
        kept = again if is_replaced else kept
    # Where there is one session, two clients at a time would be in each other's way.
    takes_turns = is_replaced or (beside is not None and not beside.is_answered)
    cookies = wire.cookie_names
    per_call = tuple([await player.open_per_call() for _ in range(_HANDSHAKES)])
    async with asyncio.TaskGroup() as group:
        missing = group.create_task(asker.ask(None))
        unknown = group.create_task(asker.ask(_stranger(hello.session_id)))
        bare_get = group.create_task(asker.get_without_id())
        nonsense = group.create_task(wire.send_nonsense())
        streams = group.create_task(asker.try_streams())
        moved_to = group.create_task(wire.find_redirect())
    async with wire.apart(SessionCookies()) as leaving, wire.apart(None) as forgetting:

        async def make_room() -> None:
            """Nobody else gets a session where there is one, and somebody has it."""
            if takes_turns:
                await asyncio.gather(wire.end_all(), leaving.end_all())

        plays = await _play_all(
            {
                Client.LEAVES: lambda: player.leave_without_delete(leaving),
                Client.OPENAI: player.delete_then_use,
                Client.FORGETFUL: player.forget_id,
                Client.STALE: lambda: player.use_old_id(_stranger(hello.session_id)),
                Client.MODERN: lambda: player.discover_and_use(discover),
            },
            # Where answers are compared, nothing may come between them.
            rounds=1 if call is None else _ROUNDS,
            at_once=call is None and not takes_turns,
            between=make_room,
        )
        if cookies:
            plays[Client.NO_COOKIES] = tuple(
                [await player.keep_session_on(forgetting) for _ in range(_WITHOUT_COOKIES)]
            )
    return Observations(
        url=shown_url,
        reads=reads,
        tool=None if call is None else call.name,
        moved_to=moved_to.result(),
        hello=hello,
        asked_version=greeting.version,
        refused_versions=greeting.refusals,
        beside=beside,
        is_replaced=is_replaced,
        cookies=cookies,
        listed=kept.listed,
        ping=kept.ping,
        in_session=kept.calls,
        missing=missing.result(),
        unknown=unknown.result(),
        bare_get=bare_get.result(),
        nonsense=nonsense.result(),
        discover=discover,
        streams=streams.result(),
        plays={Client.KEEPS: (kept.play,), Client.PER_CALL: per_call, **plays},
        entrance=await look_at_door(wire, hello),
    )


async def look_at_door(wire: Wire, hello: ServerAnswer) -> Entrance | None:
    """For whom tokens must be, and for whom the given one is; None where nothing asks for one."""
    if not wire.has_token and hello.status != 401:
        return None
    return Entrance(resource=await wire.find_resource(hello), audience=wire.audience)


class _Asker:
    """The questions to one server that no client would ask in the course of its work."""

    def __init__(self, wire: Wire, player: Player) -> None:
        self._wire = wire
        self._player = player

    async def ask_beside(self, hello: ServerAnswer, version: str) -> ServerAnswer | None:
        """A second session while the one that ``hello`` began is open. It is ended at once."""
        if hello.session_id is None:
            return None
        second = await ask_initialize(self._wire, version)
        if second.session_id not in (None, hello.session_id):
            await self._wire.end(session_of(second))
        return second

    async def ask(self, session_id: str | None) -> ServerAnswer:
        """A request out of nowhere: without an id, or with one that the server never gave out."""
        return await self._wire.request(
            self._player.reads, {}, SessionRef(session_id, revisions.LATEST_LEGACY)
        )

    async def get_without_id(self) -> ServerAnswer:
        """A GET without a session id, which a server with sessions should refuse with 400."""
        async with self._wire.stream(NO_SESSION) as stream:
            return stream.answer

    async def try_streams(self) -> Streams | None:
        """One stream, a second one beside it, and another one after both."""
        session, steps = await self._player.open()
        if not all(step.is_fine for step in steps):
            return None
        async with self._wire.stream(session) as first:
            if not first.answer.is_stream:
                return Streams(first=first.answer)  # its session is ended with the wire
            async with self._wire.stream(session) as second:
                ended = await first.has_ended() if second.answer.is_stream else None
        again, seconds = await self._stream_again(session)
        if session.session_id is not None:
            await self._wire.end(session)
        return Streams(
            first=first.answer, second=second.answer, first_ended=ended, again=again, again_seconds=seconds
        )

    async def _stream_again(self, session: SessionRef) -> tuple[ServerAnswer, float]:
        """A GET after others were dropped. Servers may take a moment to notice that."""
        waited = 0.0
        while True:
            async with self._wire.stream(session) as again:
                if again.answer.is_stream or waited >= _NOTICE_SECONDS:
                    return again.answer, waited
            await asyncio.sleep(_RETRY_SECONDS)
            waited += _RETRY_SECONDS


async def _play_all(
    clients: Mapping[Client, Callable[[], Awaitable[Play]]],
    *,
    rounds: int,
    at_once: bool,
    between: Callable[[], Awaitable[None]],
) -> dict[Client, tuple[Play, ...]]:
    """Let each client have that many conversations, all clients at once or one after the other."""

    async def repeat(play: Callable[[], Awaitable[Play]]) -> tuple[Play, ...]:
        return tuple([await play() for _ in range(rounds)])

    if at_once:
        found = await asyncio.gather(*(repeat(play) for play in clients.values()))
        return dict(zip(clients, found, strict=True))
    plays = {}
    for client, play in clients.items():
        plays[client] = await repeat(play)
        await between()
    return plays


def _choose_read(hello: ServerAnswer, discover: ServerAnswer | None) -> str:
    answered = hello if hello.is_answered or discover is None else discover
    offered = jsonrpc.read_object(jsonrpc.read_object(answered.result).get("capabilities"))
    return next((method for name, method in _READS if name in offered), revisions.TOOLS_LIST)


def _stranger(real_id: str | None) -> str:
    """An id of the same shape that the server does not know."""
    if real_id is None:
        return str(uuid4())
    kept, last = real_id[:-_LAST_DIGITS], real_id[-_LAST_DIGITS:]
    return kept + "".join(_other(character) for character in last)


def _other(character: str) -> str:
    """Another character of the same kind, a hexadecimal digit for such a one."""
    for kind in ("0123456789", "abcdef", "ABCDEF", "ghijklmnopqrstuvwxyz", "GHIJKLMNOPQRSTUVWXYZ"):
        if character in kind:
            return kind[(kind.index(character) + 1) % len(kind)]
    return character
