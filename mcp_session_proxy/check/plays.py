"""The kinds of clients, played: what each would send, up to where it would give up.

No tool is ever called unless the plan names one: tools may do anything.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .. import __version__
from ..protocol import jsonrpc, revisions
from ..upstream.http.streamable_http import SessionRef
from .observations import OPENAI_VERSION, Play, Sent, ServerAnswer, Step
from .plan import ToolCall
from .wire import Wire

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


async def ask_initialize(wire: Wire, version: str) -> ServerAnswer:
    """An ``initialize`` of a client that can do nothing; whatever the server says is an observation."""
    return await wire.request(
        revisions.INITIALIZE,
        {"protocolVersion": jsonrpc.quote(version), "capabilities": b"{}", "clientInfo": _INFO},
    )


async def ask_modern(
    wire: Wire, method: str, params: dict[str, bytes], headers: tuple[tuple[str, str], ...] = ()
) -> ServerAnswer:
    """A request with the metadata that each has to bring (2026-07-28, basic, "_meta")."""
    routed = ((revisions.METHOD_HEADER, method), *headers)
    return await wire.request(method, {**params, "_meta": _MODERN_META}, _MODERN, routed)


def session_of(hello: ServerAnswer) -> SessionRef:
    """The session that an ``initialize`` began, in the version that the server chose."""
    version = jsonrpc.read_string(jsonrpc.read_object(hello.result).get("protocolVersion"))
    return SessionRef(hello.session_id, version or revisions.LATEST_LEGACY)


class NoSuchTool(Exception):
    """The server does not have the tool that was to be called. ``names`` are those that it has."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.names = names


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSession:
    """A conversation in one session, and what else was learnt in it: the list, a ping, the tool's answers."""

    play: Play
    listed: ServerAnswer | None = None
    ping: ServerAnswer | None = None
    calls: tuple[ServerAnswer, ...] = ()


class Player:
    """The clients of one server.

    ``reads`` is the method that stands for use, unless there is a tool to ``call``; ``version`` is one that
    the server takes. What a client does about cookies and connections comes with the wire that it is given.
    """

    def __init__(self, wire: Wire, *, reads: str, version: str, call: ToolCall | None) -> None:
        self.reads = reads
        self._wire = wire
        self._version = version
        self._call = call

    async def open(
        self, version: str | None = None, wire: Wire | None = None
    ) -> tuple[SessionRef, list[Step]]:
        """A session, and the steps towards it; the last of them may have failed."""
        hello = await ask_initialize(wire or self._wire, version or self._version)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if steps[0].is_fine:
            steps.append(await self._note_initialized(session_of(hello), wire))
        return session_of(hello), steps

    async def keep_session(self, hello: ServerAnswer) -> "KeptSession":
        """A client that does everything right, in the session that ``hello`` began."""
        session = session_of(hello)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if not steps[0].is_fine:
            return KeptSession(play=Play(steps=tuple(steps)))
        steps.append(await self._note_initialized(session))
        listed = await self._wire.request(self.reads, {}, session)
        steps.append(Step(name=self.reads, answer=listed))
        self._require_tool(listed)
        ping = await self._wire.request(revisions.PING, None, session)
        calls: list[ServerAnswer] = []
        if self._call is not None:
            used = [await self._use(session) for _ in range(2)]
            steps += used
            calls = [step.answer for step in used]
        await self._end(session)
        return KeptSession(play=Play(steps=tuple(steps)), listed=listed, ping=ping, calls=tuple(calls))

    async def keep_session_on(self, wire: Wire) -> Play:
        """The same on another wire, in a session of its own; no tool is called."""
        session, steps = await self.open(wire=wire)
        if all(step.is_fine for step in steps):
            steps.append(Step(name=self.reads, answer=await wire.request(self.reads, {}, session)))
        return Play(steps=tuple(steps))

    async def open_per_call(self) -> Play:
        """A session, one use, and the end of it."""
        session, steps = await self.open()
        if all(step.is_fine for step in steps):
            steps.append(await self._use(session))
            await self._end(session)
        return Play(steps=tuple(steps))

    async def leave_without_delete(self, wire: Wire) -> Play:
        """A session and one use on connections of its own, which are closed: a process that has ended."""
        session, steps = await self.open(wire=wire)
        if all(step.is_fine for step in steps):
            steps.append(await self._use(session, wire=wire))
        await wire.hang_up()
        return Play(steps=tuple(steps))

    async def delete_then_use(self) -> Play:
        """OpenAI's: the session is ended after the list, and used then."""
        session, steps = await self.open(OPENAI_VERSION)
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

    async def forget_id(self) -> Play:
        """The id that ``initialize`` gave is never sent back."""
        hello = await ask_initialize(self._wire, self._version)
        steps = [Step(name=revisions.INITIALIZE, answer=hello)]
        if steps[0].is_fine:
            nowhere = SessionRef(None, session_of(hello).version)
            steps.append(await self._note_initialized(nowhere))
            if steps[-1].is_fine:
                steps.append(await self._use(nowhere, f"{self._used} without an id"))
        return Play(steps=tuple(steps))

    async def use_old_id(self, session_id: str) -> Play:
        """An id from before a restart of the server goes on being used."""
        session = SessionRef(session_id, self._version)
        return Play(steps=(await self._use(session, f"{self._used} with an old id"),))

    async def discover_and_use(self, discover: ServerAnswer) -> Play:
        """Modern: what the server can is discovered, then used; without any session."""
        steps = [Step(name=revisions.DISCOVER, answer=discover)]
        if steps[0].is_fine:
            if self._call is None:
                answer = await ask_modern(self._wire, self.reads, {})
            else:
                routed = ((revisions.NAME_HEADER, _routable(self._call.name)),)
                answer = await ask_modern(self._wire, revisions.TOOLS_CALL, {**self._call.params}, routed)
            steps.append(Step(name=self._used, answer=answer))
        return Play(steps=tuple(steps))

    # -- below -------------------------------------------------------------------------------------

    @property
    def _used(self) -> str:
        return self.reads if self._call is None else revisions.TOOLS_CALL

    async def _use(self, session: SessionRef, name: str = "", wire: Wire | None = None) -> Step:
        """What a client came for: the named tool, or else a read."""
        params = {} if self._call is None else self._call.params
        answer = await (wire or self._wire).request(self._used, params, session)
        return Step(name=name or self._used, answer=answer)

    async def _note_initialized(self, session: SessionRef, wire: Wire | None = None) -> Step:
        answer = await (wire or self._wire).notify(revisions.INITIALIZED, session)
        return Step(name=revisions.INITIALIZED, answer=answer, sent=Sent.NOTIFICATION)

    async def _end(self, session: SessionRef) -> None:
        if session.session_id is not None:
            await self._wire.end(session)

    def _require_tool(self, listed: ServerAnswer) -> None:
        """Complain of a tool that is not among those of the one page that there is."""
        members = jsonrpc.read_object(listed.result)
        if self._call is None or "nextCursor" in members or self.reads != revisions.TOOLS_LIST:
            return
        tools = [jsonrpc.read_object(item) for item in jsonrpc.read_array(members.get("tools", b""))]
        names = [name for tool in tools if (name := jsonrpc.read_string(tool.get("name"))) is not None]
        if listed.is_answered and self._call.name not in names:
            raise NoSuchTool(self._call.name, names)


def _routable(name: str) -> str:
    """A tool's name as a header's value (MCP 2026-07-28, basic/transports, "Value Encoding")."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
