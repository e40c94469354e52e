"""Large JSON texts, looked at in pieces before they are read. Pure.

Some megabytes of keys, brackets or halves of characters cost a parser a tenth of a second and more, in which
nobody else has a turn. What is here are generators: they stop after each piece, which takes a millisecond or
two, and whoever drives them lets others have their turn. What has passed is read like any other text.
"""

import re
from collections.abc import Generator, Iterable
from typing import Final, NamedTuple

import msgspec

from ..bounds import BATCH_MESSAGES, PARAMS_MEMBERS, SERVER_MESSAGES, SMALL_BYTES
from ..errors import BadJson, BadRequest
from . import jsonrpc
from .depth import opens_more
from .jsonrpc import Message, Response
from .outline import Outline

_PIECE_BYTES: Final = 16 * 1024  # far longer than an escape or two
_ESCAPE_BYTES: Final = 6  # of a character by its number
_FIRST_HALF: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")

_texts: Final = msgspec.json.Decoder(msgspec.Raw)
_arrays: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Params(msgspec.Struct, gc=False):
    params: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Meta(msgspec.Struct, gc=False):
    meta: msgspec.Raw = msgspec.field(name="_meta", default_factory=msgspec.Raw)


_params = msgspec.json.Decoder(_Params)
_metas = msgspec.json.Decoder(_Meta)


class Shape(NamedTuple):
    """What a text looks like, as far as it was looked at: whether it is too deep, and how many commas stand
    between the items or members of the outermost array or object."""

    too_deep: bool
    commas: int


def examine(body: bytes, *, max_depth: int) -> Generator[None, None, bytes]:
    """Refuse a large POST body over which a parser would take long; gives it with broken characters mended.

    Raises:
        BadJson: it is not JSON, or (TooDeep) nested deeper than ``max_depth``.
        BadRequest: it is a batch of too many messages.
        InvalidParams: parameters, or a ``_meta`` in them, have too many members.
    """
    if not body.isascii():
        jsonrpc.require_utf8(body)
    yield
    is_batch = body[:_PIECE_BYTES].lstrip()[:1] == b"["
    if is_batch or opens_more(body, max_depth):
        shape = yield from survey(body, max_depth, BATCH_MESSAGES if is_batch else len(body))
        if shape.too_deep:
            raise jsonrpc.too_deep(max_depth)
        if is_batch and shape.commas >= BATCH_MESSAGES:
            raise BadRequest(f"The batch has too many messages; at most {BATCH_MESSAGES} are allowed.")
    body = yield from _readable(body)
    try:
        messages = _arrays.decode(body) if is_batch else [_texts.decode(body)]
    except jsonrpc.UNREADABLE as error:
        raise BadJson("The body is not valid JSON.") from error
    for message in messages:
        yield
        yield from _bound_members(message)
    return body


def read_answer(data: bytes, *, max_depth: int) -> Generator[None, None, list[Message]]:
    """Read a server's large JSON body, as ``jsonrpc.parse_upstream_body`` reads a small one."""
    if not jsonrpc.begins_batch(data[:_PIECE_BYTES]):
        message = yield from read_message(data, max_depth=max_depth)
        return [] if message is None else [message]
    data = jsonrpc.repair_utf8(data)
    yield
    shape = yield from survey(data, max_depth + 1, SERVER_MESSAGES)
    if shape.too_deep:
        return [Response(jsonrpc.NULL)]
    if shape.commas >= SERVER_MESSAGES:
        return []
    data = yield from _readable(data)
    try:
        entries = _arrays.decode(data)
    except jsonrpc.UNREADABLE:
        return []
    messages: list[Message] = []
    for entry in entries:
        yield
        message = yield from read_message(bytes(entry), max_depth=max_depth)
        if message is not None:
            messages.append(message)
    return messages


def read_bodies(bodies: Iterable[bytes], *, max_depth: int) -> Generator[None, None, list[Message]]:
    """Read what a server has sent at once, large or small: each is one message or a batch."""
    messages: list[Message] = []
    for body in bodies:
        messages += yield from read_body(body, max_depth=max_depth)
        yield
    return messages


def read_body(body: bytes, *, max_depth: int) -> Generator[None, None, list[Message]]:
    """Read one of them."""
    if len(body) > SMALL_BYTES:
        return (yield from read_answer(body, max_depth=max_depth))
    return jsonrpc.parse_upstream_body(body, max_depth=max_depth)


def read_message(data: bytes, *, max_depth: int) -> Generator[None, None, Message | None]:
    """Read a server's large message, as ``jsonrpc.parse_upstream`` reads a small one."""
    if opens_more(data, max_depth):
        shape = yield from survey(data, max_depth, len(data))
        if shape.too_deep:
            return jsonrpc.without_content(data)
    if not data.isascii():
        data = jsonrpc.repair_utf8(data)
        yield
    data = yield from _readable(data)
    return jsonrpc.parse_upstream(data, max_depth=None)


def _readable(data: bytes) -> Generator[None, None, bytes]:
    """The same text, mended if a parser would not take it."""
    # One byte is found many times faster than three, and most large texts have no escape at all.
    if b"\\" not in data or (b"\\ud" not in data and b"\\uD" not in data):
        return data  # it has no surrogates
    try:
        _texts.decode(data)
    except jsonrpc.UNREADABLE:
        data = yield from mend(data)
    yield
    return data


def _bound_members(message: msgspec.Raw) -> Generator[None, None, None]:
    """Refuse parameters, or a ``_meta`` in them, of very many members."""
    try:
        params = bytes(_params.decode(message).params)
        yield from _bound_commas(params)
        yield from _bound_commas(bytes(_metas.decode(params).meta))
    except jsonrpc.UNREADABLE:
        return  # it is no message, or has no such parameters: who reads it finds that, and says so


def _bound_commas(members: bytes) -> Generator[None, None, None]:
    # More colons than members: most parameters need no closer look.
    if members.count(b":") > PARAMS_MEMBERS:
        shape = yield from survey(members, len(members), PARAMS_MEMBERS)
        if shape.commas >= PARAMS_MEMBERS:
            raise jsonrpc.too_many_members()


def survey(data: bytes, max_depth: int, max_commas: int) -> Generator[None, None, Shape]:
    """Look at the brackets and commas outside of strings, until there are too many of either.

    What is no JSON may be called too deep or not; a parser does not get deeper into it than this says.
    """
    outline = Outline(max_depth)
    start = 0
    while start < len(data):
        end = end_of_piece(data, start)
        outline.take(data[start:end])
        start = end
        if outline.too_deep or outline.commas > max_commas:
            break
        yield
    return Shape(outline.too_deep, outline.commas)


def end_of_piece(data: bytes, start: int) -> int:
    """Where a piece ends that begins here: never between a backslash and what it escapes."""
    end = min(start + _PIECE_BYTES, len(data))
    piece = data[start:end]
    is_cut = (len(piece) - len(piece.rstrip(b"\\"))) % 2
    return min(end + is_cut, len(data))


def mend(data: bytes) -> Generator[None, None, bytes]:
    """The same text with U+FFFD for surrogates that have no partner: see ``jsonrpc``."""
    mended: list[bytes] = []
    start = 0
    while start < len(data):
        end = end_of_piece(data, start)
        # An escape that is cut, or stands before its other half, belongs to the next piece.
        if end < len(data):
            end = before_escape(data, start, end)
        mended.append(jsonrpc.replace_lone_surrogates(data[start:end]))
        start = end
        yield
    return b"".join(mended)


def before_escape(data: bytes, start: int, end: int) -> int:
    """The end of a piece that begins and ends so, moved in front of a character that would be cut."""
    at = data.rfind(b"\\", max(start, end - _ESCAPE_BYTES + 1), end)
    if at >= 0 and _is_escape(data, start, at):
        end = at
    # The other half may follow.
    before = end - _ESCAPE_BYTES
    if _FIRST_HALF.fullmatch(data, before, end) and _is_escape(data, start, before):
        end = before
    return end


def _is_escape(data: bytes, start: int, at: int) -> bool:
    """Whether the backslash there begins an escape, and is not escaped itself."""
    before = data[start:at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
