"""What servers list, kept as long as they would tell us of a change.

Lists are kept per session key, so never across principals; those that clients with a session have asked for
are kept per upstream session, for what was done on one is nobody else's. They are served from here only while
the upstream session holds a standalone stream and the server has promised ``list_changed``: for a minute, and
for five once it has told of such a change. A change that any session hears of empties everything: some
servers tell only the session that caused it.

The tools' parameters that clients mirror in headers are kept here as well, for they must be checked
with every call (MCP 2026-07-28, basic/transports/streamable-http, "Server Validation").
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Generator
from typing import Final, NamedTuple, TypeAlias

from ..aio import in_pieces
from ..bounds import LIFTED_LISTS, LIST_BYTES, LIST_PAGES, MARKED_TOOLS, MARKING_CALLERS
from ..errors import OverBudget
from ..events import Observer
from ..memory import UNBOUNDED, Loan, Share
from ..protocol import changes, jsonrpc, revisions, tool_lists
from ..protocol.tool_lists import Marks, ToolList, ToolMarks
from ..sessions.binding import Visit
from ..sessions.identity import SessionKey
from ..upstream.incarnation import Incarnation
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from .inquiry import inquire

_ENTRY_OVERHEAD_BYTES: Final = 500
# Some servers promise to tell of changes and never do. A promise is worth more once it has been kept.
_MAX_AGE_SECONDS: Final = 60.0
_MAX_AGE_OF_THE_TOLD_SECONDS: Final = 300.0
# After a call, word of what it has changed may still be on its way: on another stream than its answer.
_WORD_SECONDS: Final = 2.0
_MARKS_SECONDS: Final = 60.0
_PARTIAL_MARKS_SECONDS: Final = 2.0
_MARK_BYTES: Final = 300  # about what Python makes of one
_HASHED_AT_ONCE_BYTES: Final = 1024 * 1024
# What of a server each list is of.
_FEATURE: Final = {method: method.partition("/")[0] for method in revisions.LISTS}
_CHANGES: Final = frozenset(changes.LIST_CHANGES.values())
# Whose lists they are: those of all that have this key, or of the clients of this session.
Owner: TypeAlias = SessionKey | UpstreamSession
_Place = tuple[Owner, str, bytes]


class AskedList(NamedTuple):
    """A list that is being asked for, and how things stood just before."""

    method: str
    session: UpstreamSession
    incarnation: Incarnation
    gaps: int
    generation: int
    at: float


class KeptList(NamedTuple):
    """A list as its server gave it, and with whose headers it was asked for."""

    result: bytes
    asked: AskedList
    caller: Caller

    @property
    def incarnation(self) -> Incarnation:
        """What would hear of a change."""
        return self.asked.incarnation


class _ReadList(NamedTuple):
    tools: ToolList
    size_bytes: int


class _KnownMarks(NamedTuple):
    marks: Marks
    room: Loan
    generation: int
    good_until: float


class Catalog:
    """Lists and header annotations, by session key; together within their share of the memory."""

    def __init__(self, observe: Observer, share: Share = UNBOUNDED) -> None:
        self.generation = 0
        self._observe = observe
        self._entries: OrderedDict[_Place, KeptList] = OrderedDict()
        self._places: dict[UpstreamSession, set[_Place]] = {}  # of what is kept, by who has given it
        self._share = share
        self._told: set[str] = set()  # the changes that the server has told of, ever since it was opened anew
        self._marks: OrderedDict[SessionKey, _KnownMarks] = OrderedDict()
        # By their hash: what is made of a page depends on its bytes alone, whoever it was sent to.
        self._read: OrderedDict[bytes, _ReadList] = OrderedDict()
        self._reading = asyncio.Lock()

    # -- lists -----------------------------------------------------------------------------------

    def find(self, owner: Owner, method: str, params: bytes | None, caller: Caller) -> KeptList | None:
        """A list that is certainly still right, for a request that has the headers of ``caller``.

        A client that has a session knows what it has just done there, and may list to see what came of that.
        So the list of a session is given for the same headers only, and not while word of a change may be on
        its way. Without a session there is no such order in what is done.
        """
        if method not in _FEATURE:
            return None
        place = _place(owner, method, params)
        entry = self._entries.get(place)
        if entry is None:
            return None
        now, asked = asyncio.get_running_loop().time(), entry.asked
        if not _would_hear(asked) or now - asked.at > self._max_age_seconds(method):
            self._drop(place)
            return None
        if isinstance(owner, UpstreamSession):
            acted_at = asked.incarnation.calls.acted_at
            if entry.caller != caller or asked.at <= acted_at > now - _WORD_SECONDS:
                return None
        return entry

    def ask(self, method: str, session: UpstreamSession) -> AskedList | None:
        """Note that this is asked for now; None where it is no list, or none that could be kept."""
        feature, incarnation = _FEATURE.get(method), session.incarnation
        # Who would not hear of a change must not believe that there was none.
        if (
            feature is None
            or not incarnation.streaming
            or not incarnation.facts.offers(feature, "listChanged")
        ):
            return None
        now = asyncio.get_running_loop().time()
        return AskedList(method, session, incarnation, incarnation.gaps, self.generation, now)

    def keep(
        self, owner: Owner, params: bytes | None, result: bytes, asked: AskedList, caller: Caller
    ) -> None:
        """Keep a list that has come. One that was asked for before a change and came after it may be of
        before; the same holds for a time in which nobody would have heard of one.
        """
        if asked.generation != self.generation or not _would_hear(asked) or len(result) > LIST_BYTES:
            return
        place = _place(owner, asked.method, params)
        self._drop(place)
        self._entries[place] = KeptList(result, asked, caller)
        self._places.setdefault(asked.session, set()).add(place)
        self._share.hold(_size(place, result))
        self.keep_to_share()

    def keep_to_share(self) -> None:
        """Let go of the oldest lists for as long as there is too much of them. Called regularly, too."""
        # What was made of lists goes before the lists: it can be made again without asking anybody.
        while self._share.is_over and self._read:
            self._share.give_back(self._read.popitem(last=False)[1].size_bytes)
        while self._share.is_over and self._entries:
            self._drop(next(iter(self._entries)))

    def _max_age_seconds(self, method: str) -> float:
        kept_promise = changes.LIST_CHANGES[_FEATURE[method]] in self._told
        return _MAX_AGE_OF_THE_TOLD_SECONDS if kept_promise else _MAX_AGE_SECONDS

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._share.give_back(_size(place, entry.result))
            places = self._places[entry.asked.session]
            places.discard(place)
            if not places:
                del self._places[entry.asked.session]

    def take_notification(self, method: str) -> None:
        """A server told of a change: nothing kept is certain any more."""
        if method in _CHANGES:
            self._told.add(method)
            self.generation += 1
            for place in list(self._entries):
                self._drop(place)

    def session_changed(self, session: UpstreamSession) -> None:
        """A session was closed, or re-opened, and what is being asked for may be another list now."""
        for place in tuple(self._places.get(session, ())):
            self._drop(place)
        if not session.closed:
            self.generation += 1
            # It may be another server by now, one that never tells.
            self._told.clear()

    # -- what is made of tools ---------------------------------------------------------------------

    async def lift_tools(self, result: bytes) -> bytes:
        """A ``tools/list`` result as modern clients get it; each list is read once, not for each request."""
        if not tool_lists.may_be_marked(result):
            return result
        lifted = (await self._read_tools(result)).lifted
        return result if lifted is None else lifted

    async def ease_tools(self, result: bytes) -> bytes:
        """A ``tools/list`` result as clients of earlier revisions get it: no tool needs to be called as a
        task, since here each may be called without.
        """
        if b"taskSupport" not in result and b"\\u" not in result:
            return result
        async with self._reading:
            return await in_pieces(tool_lists.ease(result))

    async def _read_tools(self, result: bytes) -> ToolList:
        # One after the other: all that are being read take their piece of everybody's time.
        async with self._reading:
            digest = await in_pieces(_digest(result))
            known = self._read.get(digest)
            if known is not None:
                self._read.move_to_end(digest)
                return known.tools
            tools = await in_pieces(tool_lists.read(result))
            size_bytes = _size_of_marks(tools.marks) + len(tools.lifted or b"")
            self._read[digest] = _ReadList(tools, size_bytes)
        self._share.hold(size_bytes)
        if len(self._read) > LIFTED_LISTS:
            self._share.give_back(self._read.popitem(last=False)[1].size_bytes)
        self.keep_to_share()
        return tools

    # -- header annotations ------------------------------------------------------------------------

    def known_marks(self, key: SessionKey) -> Marks | None:
        """The mirrored parameters of the tools, as far as they are known and fresh."""
        known = self._marks.get(key)
        if known is None or known.generation != self.generation:
            return None
        return known.marks if asyncio.get_running_loop().time() <= known.good_until else None

    async def marks(self, key: SessionKey, visit: Visit) -> Marks:
        """The mirrored parameters of the tools, from the server's list: as far as that can be had."""
        # From before it is asked for: a change that is told of meanwhile makes the answer an old one.
        generation, now = self.generation, asyncio.get_running_loop().time()
        marks, whole = await self._fetch_marks(visit)
        # What a moment's trouble cut short is looked for again soon, but not with every call.
        good_for = _MARKS_SECONDS if whole else _PARTIAL_MARKS_SECONDS
        self._marks.pop(key, None)
        try:
            room = self._share.lend(_size_of_marks(marks))
        except OverBudget:
            return marks
        self._marks[key] = _KnownMarks(marks, room, generation, now + good_for)
        # Callers come and go; what is known for those who are gone is of no use to anybody.
        while len(self._marks) > MARKING_CALLERS or next(iter(self._marks.values())).good_until < now:
            self._marks.popitem(last=False)
        return marks

    async def _fetch_marks(self, visit: Visit) -> tuple[Marks, bool]:
        """The marks on all pages, and whether there were no pages more."""
        marks: dict[str, ToolMarks] = {}
        # A server without tools answers with an error, which would look like a moment's trouble.
        if "tools" not in visit.session.incarnation.facts.capabilities:
            return marks, True
        params: bytes | None = None
        for _ in range(LIST_PAGES):
            response = await inquire(visit, revisions.TOOLS_LIST, params, self._observe)
            if response is None or response.result is None:
                return marks, False
            if tool_lists.may_be_marked(response.result):
                marks.update((await self._read_tools(response.result)).marks)
            if len(marks) > MARKED_TOOLS:
                return marks, False
            cursor = jsonrpc.read_object(response.result).get("nextCursor")
            if cursor is None or cursor == jsonrpc.NULL:
                break
            params = jsonrpc.write_object({"cursor": cursor})
        return marks, True


def _would_hear(asked: AskedList) -> bool:
    """Whether every word of a change that came since a list was asked for would have been heard."""
    incarnation = asked.incarnation
    return incarnation.stands and incarnation.streaming and incarnation.gaps == asked.gaps


def _place(owner: Owner, method: str, params: bytes | None) -> _Place:
    """Where a list is kept. Its request's metadata, which often differs, makes no difference."""
    members = jsonrpc.read_object(params)
    members.pop("_meta", None)
    return owner, method, jsonrpc.write_object(members)


def _size(place: _Place, result: bytes) -> int:
    return _ENTRY_OVERHEAD_BYTES + len(place[2]) + len(result)


def _size_of_marks(marks: Marks) -> int:
    """About what they take."""
    return _ENTRY_OVERHEAD_BYTES + sum(
        len(name) + _MARK_BYTES * (1 + len(tool.mirrored)) for name, tool in marks.items()
    )


def _digest(data: bytes) -> Generator[None, None, bytes]:
    """The hash of a text, in pieces."""
    hashed, view = hashlib.blake2b(digest_size=16), memoryview(data)
    for start in range(0, len(data), _HASHED_AT_ONCE_BYTES):
        hashed.update(view[start : start + _HASHED_AT_ONCE_BYTES])
        yield
    return hashed.digest()
