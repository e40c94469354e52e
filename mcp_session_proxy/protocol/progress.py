"""Progress under another token, and progress that comes in a row. Pure.

A tool that tells of its progress tells it often, and all that its client must not see as it came is the token
(MCP 2025-11-25, basic/utilities/progress). So what nearly all servers write is looked at as one text, of as
many lines as there are messages: checked together, renamed together, and never taken apart. Whatever is
written otherwise, though it be one message among a hundred, is read message by message like anything else.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from ..bounds import SMALL_BYTES
from . import jsonrpc, revisions
from .jsonrpc import Notification

_NAME: Final = b'"notifications/progress"'
_TOKEN: Final = b'"progressToken"'


class _Named(msgspec.Struct, gc=False):
    progressToken: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]  # noqa: N815


class _Progress(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    jsonrpc: Literal["2.0"]
    method: Literal["notifications/progress"]
    params: _Named


_lines = msgspec.json.Decoder(_Progress)


class ProgressRun(Notification, frozen=True, gc=False):
    """Notifications of one request's progress, each a line of ``lines``, and the token that they name it by.

    It has no ``params``: whoever takes notifications on their way to a client has to know of it (``apart``).
    """

    lines: bytes = b""
    token: bytes = b""

    @property
    def texts(self) -> list[bytes]:
        """The text of each."""
        return self.lines.split(b"\n")

    def under(self, token: bytes) -> "ProgressRun":
        """The same under another token, as raw JSON."""
        lines = self.lines
        for end in (b",", b"}"):
            lines = lines.replace(_with_token(self.token, end), _with_token(token, end))
        return ProgressRun(self.method, None, lines, token)

    def apart(self) -> list[Notification]:
        """Each by itself."""
        return [note for text in self.texts if isinstance(note := jsonrpc.parse_upstream(text), Notification)]


def under_other_token(note: Notification, own: int, token: bytes) -> Notification | None:
    """Progress that names its request by the number ``own``, with ``token`` (raw JSON) in place of that.

    None if it names another request.
    """
    # Nearly all servers write the number as it was sent, so the text need not be read.
    params = with_other_token(note.params, b"%d" % own, token)
    if params is None:
        members = jsonrpc.read_object(note.params)
        if jsonrpc.read_number(members.get("progressToken")) != own:
            return None
        params = jsonrpc.write_object({**members, "progressToken": token})
    return Notification(note.method, params)


def with_other_token(params: bytes | None, old: bytes, new: bytes) -> bytes | None:
    """The params of a progress notification with another token, if they begin or end with it.

    None where that does not show in the bytes as they are: they have to be read.
    """
    # Once, and with no escapes in which a key could hide, it is the key of the object itself and no other's.
    if params is None or params.count(_TOKEN) != 1 or b"\\" in params:
        return None
    first, last = b"{%b:%b," % (_TOKEN, old), b",%b:%b}" % (_TOKEN, old)
    if params.startswith(first):
        return b"".join((b"{", _TOKEN, b":", new, params[len(first) - 1 :]))
    if params.endswith(last):
        return b"".join((params[: 1 - len(last)], _TOKEN, b":", new, b"}"))
    return None


def apart(note: Notification) -> Sequence[Notification]:
    """What a notification stands for: itself, unless it is a run."""
    return note.apart() if isinstance(note, ProgressRun) else (note,)


def may_be_in(data: bytes) -> bool:
    """Whether it is worth the while to look for progress in this."""
    return _NAME in data


def join_runs(texts: Sequence[bytes], *, max_depth: int) -> list[bytes | ProgressRun]:
    """The same messages, with what is a run of progress in the place of its texts."""
    joined: list[bytes | ProgressRun] = []
    # Nothing is called here for each of them that is not written in C.
    named = map(operator.contains, texts, itertools.repeat(_NAME))
    for is_progress, group in itertools.groupby(zip(named, texts, strict=False), operator.itemgetter(0)):
        some = [text for _, text in group]
        run = _read_run(some, max_depth) if is_progress else None
        joined += some if run is None else [run]
    return joined


def _read_run(texts: Sequence[bytes], max_depth: int) -> ProgressRun | None:
    """What these are together; None unless each is progress, of one request, and written as usual."""
    if max(map(len, texts)) > SMALL_BYTES:  # it is read in pieces
        return None
    lines, count = b"\n".join(texts), len(texts)
    # With escapes, a key could be written otherwise. Of two brackets each of them has need; if one has all
    # that are left, that is how deep it is.
    if b"\\" in lines or lines.count(b"{") + lines.count(b"[") - 2 * (count - 1) > max_depth:
        return None
    try:
        if not lines.isascii():
            lines.decode()
        found = _lines.decode_lines(lines)
    except jsonrpc.UNREADABLE:
        return None
    token = b"%d" % found[0].params.progressToken
    # Each has the key once at least, where it belongs. So if there are no more of it than there are messages,
    # they are those, and all of them can be seen to have the same value without looking at each.
    named = lines.count(_with_token(token, b",")) + lines.count(_with_token(token, b"}"))
    # No JSON has an end and a beginning beside one another, so each message ends where its line does.
    ends = lines.count(b"}\n{") + 1
    if len(found) == count == ends == lines.count(b"\n") + 1 and count == named == lines.count(_TOKEN):
        return ProgressRun(revisions.PROGRESS, None, lines, token)
    return None


def _with_token(token: bytes, end: bytes) -> bytes:
    return b"".join((_TOKEN, b":", token, end))
