"""Asks a server what ``observations`` holds. Every question is bounded in time, and none changes anything.

No tool is ever called unless the plan names one: tools may do anything.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import uuid4

from .. import __version__
from ..protocol import jsonrpc, revisions
from ..upstream.transport import NO_SESSION, SessionRef
from .observations import Answer, Client, Idle, Observations, Play, Sent, Step, Streams
from .plan import ToolCall
from .wire import Wire

_OPENAI_VERSION: Final = "2025-03-26"
_HANDSHAKES: Final = 3
_RETRY_SECONDS: Final = 0.2
_NOTICE_SECONDS: Final = 2.0
_LAST_DIGITS: Final = 8

_INFO: Final = jsonrpc.write_object(
    {"name": jsonrpc.quote("mcp-session-proxy-check"), "version": jsonrpc.quote(__version__)}
)
_MODERN_META: Final = jsonrpc.write_object(
    {
        revisions.META_VERSION: jsonrpc.quote(revisions.FIRST_MODERN),
        revisions.META_CLIENT_INFO: _INFO,
        revisions.META_CAPABILITIES: b"{}",
    }
)
_MODERN: Final = SessionRef(None, revisions.FIRST_MODERN)
# What stands for use, in the order of preference: capability and method. All are reads by protocol.
_READS: Final = (
    ("tools", revisions.TOOLS_LIST),
    ("prompts", "prompts/list"),
    ("resources", "resources/list"),
)


async def observe(
    wire: Wire, hello: Answer, discover: Answer, shown_url: str, call: ToolCall | None
) -> Observations:
    """See how the server treats each kind of client. ``hello`` and ``discover`` were asked before.

    Raises:
        NoSuchTool: the server does not have the tool that is to be called.
    """
    asker = _Asker(wire, _choose_read(hello, discover), call)
    # What is timed comes first and alone, the rest at once.
    baseline, listed, ping, in_session = await asker.keep_session(hello)
    per_call = tuple([await asker.play_per_call() for _ in range(_HANDSHAKES)])
    async with asyncio.TaskGroup() as group:
        missing = group.create_task(asker.ask_without_id())
        unknown = group.create_task(asker.ask_with_id(_stranger(hello.session_id)))
        bare_get = group.create_task(asker.get_without_id())
        nonsense = group.create_task(wire.send_nonsense())
        streams = group.create_task(asker.try_streams())
        moved_to = group.create_task(wire.find_redirect())
    plays = await _play_all(
        {
            Client.OPENAI: asker.play_openai,
            Client.FORGETFUL: asker.play_forgetful,
            Client.STALE: lambda: asker.play_stale(hello.session_id),
            Client.MODERN: lambda: asker.play_modern(discover),
        },
        # Where answers are compared, nothing may come between them.
        rounds=1 if call is None else 2,
        at_once=call is None,
    )
    return Observations(
        url=shown_url,
        reads=asker.reads,
        tool=None if call is None else call.name,
        moved_to=moved_to.result(),
        hello=hello,
        listed=listed,
        ping=ping,
        in_session=in_session,
        missing=missing.result(),
        unknown=unknown.result(),
        bare_get=bare_get.result(),
        nonsense=nonsense.result(),
        discover=discover,
        streams=streams.result(),
        plays={Client.KEEPS: (baseline,), Client.PER_CALL: per_call, **plays},
    )


async def ask_hello(wire: Wire, version: str = revisions.LATEST_LEGACY) -> Answer:
    """The beginning of a session."""
    return await wire.request(
        revisions.INITIALIZE,
        {"protocolVersion": jsonrpc.quote(version), "capabilities": b"{}", "clientInfo": _INFO},
    )


async def ask_discover(wire: Wire) -> Answer:
    """What a modern client asks first."""
    return await _ask_modern(wire, revisions.DISCOVER, {})


async def wait_idle(wire: Wire, seconds: float) -> Idle:
    """Open a session, leave it alone for that long, then ask again."""
    hello = await ask_hello(wire)
    session = _session(hello)
    await wire.notify(revisions.INITIALIZED, session)
    await asyncio.sleep(seconds)
    return Idle(seconds=seconds, answer=await wire.request(_choose_read(hello, None), {}, session))


class NoSuchTool(Exception):
    """The server does not have the tool that was to be called. ``names`` are those that it has."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.names = names


class _Asker:
    """The questions to one server. ``reads`` is the method that stands for use."""

    def __init__(self, wire: Wire, reads: str, call: ToolCall | None) -> None:
        self.reads = reads
        self._wire = wire
        self._call = call

    async def _use(self, session: SessionRef, name: str = "") -> Step:
        """What a client came for: the named tool, or else a read."""
        if self._call is None:
            answer = await self._wire.request(self.reads, {}, session)
            return Step(name=name or self.reads, answer=answer)
        answer = await self._wire.request(revisions.TOOLS_CALL, self._call.params, session)
        return Step(name=name or revisions.TOOLS_CALL, answer=answer)

    async def _open(self, version: str = revisions.LATEST_LEGACY) -> tuple[SessionRef, list[Step]]:
        hello = await ask_hello(self._wire, version)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if steps[0].is_fine:
            steps.append(await self._note_initialized(_session(hello)))
        return _session(hello), steps

    async def _note_initialized(self, session: SessionRef) -> Step:
        answer = await self._wire.notify(revisions.INITIALIZED, session)
        return Step(name=revisions.INITIALIZED, answer=answer, sent=Sent.NOTIFICATION)

    async def keep_session(
        self, hello: Answer
    ) -> tuple[Play, Answer | None, Answer | None, tuple[Answer, ...]]:
        """A client that does everything right, in the session that ``hello`` began."""
        session = _session(hello)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if not steps[0].is_fine:
            return Play(steps=tuple(steps)), None, None, ()
        steps.append(await self._note_initialized(session))
        listed = await self._wire.request(self.reads, {}, session)
        steps.append(Step(name=self.reads, answer=listed))
        self._require_tool(listed)
        ping = await self._wire.request(revisions.PING, None, session)
        calls: list[Answer] = []
        if self._call is not None:
            used = [await self._use(session) for _ in range(2)]
            steps += used
            calls = [step.answer for step in used]
        if session.session_id is not None:
            await self._wire.end(session)
        return Play(steps=tuple(steps)), listed, ping, tuple(calls)

    def _require_tool(self, listed: Answer) -> None:
        """Complain of a tool that is not among those of the one page that there is."""
        members = jsonrpc.read_object(listed.result)
        if self._call is None or "nextCursor" in members or self.reads != revisions.TOOLS_LIST:
            return
        tools = [jsonrpc.read_object(item) for item in jsonrpc.read_array(members.get("tools", b""))]
        names = [name for tool in tools if (name := jsonrpc.read_string(tool.get("name"))) is not None]
        if listed.is_answered and self._call.name not in names:
            raise NoSuchTool(self._call.name, names)

    async def play_per_call(self) -> Play:
        """A session, one use, and the end of it."""
        session, steps = await self._open()
        if all(step.is_fine for step in steps):
            steps.append(await self._use(session))
            if session.session_id is not None:
                await self._wire.end(session)
        return Play(steps=tuple(steps))

    async def play_openai(self) -> Play:
        """The session is ended after the list, and used then."""
        session, steps = await self._open(_OPENAI_VERSION)
        if not all(step.is_fine for step in steps):
            return Play(steps=tuple(steps))
        listed = await self._wire.request(self.reads, {}, session)
        steps.append(Step(name=self.reads, answer=listed))
        if session.session_id is None:
            steps.append(await self._use(session))
            return Play(steps=tuple(steps))
        ended = await self._wire.end(session)
        steps.append(Step(name="DELETE", answer=ended, sent=Sent.FAREWELL))
        steps.append(await self._use(session, f"{self._used} after DELETE"))
        return Play(steps=tuple(steps))

    async def play_forgetful(self) -> Play:
        """The id that ``initialize`` gave is never sent back."""
        hello = await ask_hello(self._wire)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if steps[0].is_fine:
            version = _session(hello).version
            steps.append(await self._note_initialized(SessionRef(None, version)))
            if steps[-1].is_fine:
                steps.append(await self._use(SessionRef(None, version), f"{self._used} without an id"))
        return Play(steps=tuple(steps))

    async def play_stale(self, real_id: str | None) -> Play:
        """An id from before a restart of the server goes on being used."""
        session = SessionRef(_stranger(real_id), revisions.LATEST_LEGACY)
        return Play(steps=(await self._use(session, f"{self._used} with an old id"),))

    async def play_modern(self, discover: Answer) -> Play:
        """What the server can is discovered, then used; without any session."""
        steps = [Step(name=revisions.DISCOVER, answer=discover)]
        if steps[0].is_fine:
            if self._call is None:
                answer = await _ask_modern(self._wire, self.reads, {})
            else:
                routed = ((revisions.NAME_HEADER, _routable(self._call.name)),)
                answer = await _ask_modern(self._wire, revisions.TOOLS_CALL, self._call.params, routed)
            steps.append(Step(name=self._used, answer=answer))
        return Play(steps=tuple(steps))

    @property
    def _used(self) -> str:
        return self.reads if self._call is None else revisions.TOOLS_CALL

    async def ask_without_id(self) -> Answer:
        """A request out of nowhere."""
        return await self._wire.request(self.reads, {}, SessionRef(None, revisions.LATEST_LEGACY))

    async def ask_with_id(self, session_id: str) -> Answer:
        """A request with an id that the server never gave out."""
        return await self._wire.request(self.reads, {}, SessionRef(session_id, revisions.LATEST_LEGACY))

    async def get_without_id(self) -> Answer:
        """A stream out of nowhere."""
        async with self._wire.stream(NO_SESSION) as stream:
            return stream.answer

    async def try_streams(self) -> Streams | None:
        """One stream, a second one beside it, and another one after both."""
        session, steps = await self._open()
        if not all(step.is_fine for step in steps):
            return None
        async with self._wire.stream(session) as first:
            if not first.answer.is_stream:
                return Streams(first=first.answer)
            async with self._wire.stream(session) as second:
                ended = await first.has_ended() if second.answer.is_stream else None
        again, seconds = await self._stream_again(session)
        return Streams(
            first=first.answer, second=second.answer, first_ended=ended, again=again, again_seconds=seconds
        )

    async def _stream_again(self, session: SessionRef) -> tuple[Answer, float]:
        """A GET after others were dropped. Servers may take a moment to notice that."""
        waited = 0.0
        while True:
            async with self._wire.stream(session) as again:
                if again.answer.is_stream or waited >= _NOTICE_SECONDS:
                    return again.answer, waited
            await asyncio.sleep(_RETRY_SECONDS)
            waited += _RETRY_SECONDS


async def _play_all(
    clients: Mapping[Client, Callable[[], Awaitable[Play]]], *, rounds: int, at_once: bool
) -> Mapping[Client, tuple[Play, ...]]:
    """Let each client have that many conversations, all clients at once or one after the other."""

    async def repeat(play: Callable[[], Awaitable[Play]]) -> tuple[Play, ...]:
        return tuple([await play() for _ in range(rounds)])

    if at_once:
        found = await asyncio.gather(*(repeat(play) for play in clients.values()))
    else:
        found = [await repeat(play) for play in clients.values()]
    return dict(zip(clients, found, strict=True))


async def _ask_modern(
    wire: Wire, method: str, params: Mapping[str, bytes], headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    routed = ((revisions.METHOD_HEADER, method), *headers)
    return await wire.request(method, {**params, "_meta": _MODERN_META}, _MODERN, routed)


def _routable(name: str) -> str:
    """A tool's name as a header's value (MCP 2026-07-28, basic/transports, "Value Encoding")."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


def _session(hello: Answer) -> SessionRef:
    """The session that an ``initialize`` began, in the version that the server chose."""
    version = jsonrpc.read_string(jsonrpc.read_object(hello.result).get("protocolVersion"))
    return SessionRef(hello.session_id, version or revisions.LATEST_LEGACY)


def _choose_read(hello: Answer, discover: Answer | None) -> str:
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
