"""JSON-RPC 2.0 envelopes around payloads that stay bytes.

Only the envelope (``id``, ``method``) and, of the parameters, ``_meta`` are ever looked at. Results,
errors and arguments are carried as the raw JSON that was received, so numbers, key order and
unknown members survive exactly, and a large payload is never turned into objects.

Ids are raw JSON too: ``7`` and ``"7"`` stay two different ids.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import msgspec

from ..bounds import BATCH_MESSAGES, ID_BYTES, PARAMS_MEMBERS, SERVER_MESSAGES, SMALL_BYTES
from ..errors import INTERNAL_ERROR, BadJson, BadRequest, InvalidParams, ProxyError, TooDeep
from .depth import DEFAULT_MAX_DEPTH, is_deeper, peek_members

NULL: Final = b"null"
ABSENT: Final = b""  # an id that is left out
# What msgspec raises on reading: for what is no JSON or of another type, for what is nested deeper than the
# interpreter's stack, and for a text that is no UTF-8, which it does not count as an error of its own.
UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_USUAL_ID_BYTES: Final = 20


# Messages are made for every call, and what they hold is bytes and text, which lead back to nothing: the
# garbage collector need not look at them.


class Request(msgspec.Struct, frozen=True, gc=False):
    """A call that wants an answer. ``id`` and ``params`` are raw JSON."""

    id: bytes
    method: str
    params: bytes | None = None


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A message that wants no answer."""

    method: str
    params: bytes | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
    """An answer: exactly one of ``result`` and ``error`` is raw JSON. ``id`` may be ``null``.

    A server's answer that was too deep to be read has neither.
    """

    id: bytes
    result: bytes | None = None
    error: bytes | None = None


class Rejection(msgspec.Struct, frozen=True):
    """A message that was refused, with the error to answer it with and the id it carried.

    Not without garbage collection, as the others are: an error's traceback leads to the frames of its
    caller, which hold this, and what they hold besides would never be let go.
    """

    id: bytes
    error: ProxyError


Message: TypeAlias = Request | Notification | Response


class ErrorObject(msgspec.Struct, frozen=True):
    """The readable part of a JSON-RPC error (JSON-RPC 2.0, section 5.1)."""

    code: int = 0
    message: str = ""


class _WholeError(msgspec.Struct):
    code: int
    message: str


class _Body(msgspec.Struct, gc=False):
    """What every message has, strictly read or not."""

    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Envelope(_Body, gc=False):
    """A client's message."""

    jsonrpc: str = ""
    method: str | msgspec.UnsetType = msgspec.UNSET


class _LenientEnvelope(_Body, gc=False):
    """A server's message: without ``jsonrpc``, or with ``null`` for what it leaves out, it is still one."""

    method: str | None = None


class _IdOnly(msgspec.Struct, gc=False):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _MetaOnly(msgspec.Struct, gc=False):
    meta: dict[str, msgspec.Raw] | None = msgspec.field(name="_meta", default=None)


_envelopes = msgspec.json.Decoder(_Envelope)
_lenient_envelopes = msgspec.json.Decoder(_LenientEnvelope)
_ids = msgspec.json.Decoder(_IdOnly)
_metas = msgspec.json.Decoder(_MetaOnly)
_raw_lists = msgspec.json.Decoder(list[msgspec.Raw])
_raw_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_error_objects = msgspec.json.Decoder(ErrorObject)
_whole_errors = msgspec.json.Decoder(_WholeError)
_strings = msgspec.json.Decoder(str)
_integers = msgspec.json.Decoder(int)
_encode = msgspec.json.Encoder().encode

_ID: Final = b'{"jsonrpc":"2.0","id":'
_METHOD: Final = b'{"jsonrpc":"2.0","method":'
_BOM: Final = b"\xef\xbb\xbf"
_FLOAT: Final = re.compile(rb"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]+)?")
_FLOAT_BYTES: Final = 24
_MAX_EXACT: Final = 2.0**53  # from there on, not every integer is a floating-point number

_T = TypeVar("_T")
_RAW_NULL: Final = msgspec.Raw(NULL)  # a Raw equals no bytes
# A surrogate without a partner: a first half that no second follows, or a second one that follows no first.
_LONE_SURROGATES: Final = re.compile(
    rb"\\u[dD](?:"
    rb"[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_UNSET: Final = msgspec.UNSET
_NO_JSON: Final = b"\x01"  # stands in no JSON text


def _decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Decode, with U+FFFD for surrogates that have no partner.

    JavaScript writes such when a text was cut amid an emoji; msgspec, rightly, takes none.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        repaired = replace_lone_surrogates(data)
        if repaired == data:
            raise
        return decoder.decode(repaired)


def replace_lone_surrogates(data: bytes) -> bytes:
    """A text may hold nothing but escapes, so each of these steps is one call, whatever there is to find."""
    if _NO_JSON in data:
        return data
    # Backslashes that stand for themselves are out of the way first: what is left of them begins an escape.
    escapes = data.replace(rb"\\", _NO_JSON)
    return _LONE_SURROGATES.sub(rb"\\ufffd", escapes).replace(_NO_JSON, rb"\\")


# -- reading -------------------------------------------------------------------------------------


def parse_body(
    body: bytes, *, max_depth: int | None = DEFAULT_MAX_DEPTH
) -> tuple[list[Message | Rejection], bool]:
    """Read a client's POST body: its messages, and whether they came as a batch.

    Its depth was looked at already if ``max_depth`` is None: see ``large``, which goes before for large ones.

    A batch (MCP 2025-03-26, basic, "Batching") may hold refused entries beside good ones; a single
    message that is refused raises instead, as does a batch that is empty or over ``BATCH_MESSAGES``.

    Raises:
        BadJson: the body is not JSON, or (TooDeep) nested deeper than ``max_depth``.
        BadRequest: it is JSON, but no message.
        InvalidParams: the parameters have too many members.

    ``peek_id`` finds the id to answer with.
    """
    if not body.isascii():
        require_utf8(body)
    # Before anything recurses into it: what a parser refuses by itself depends on the interpreter's stack.
    # Most bodies have fewer bytes than there may be levels.
    if max_depth is not None and len(body) > max_depth and is_deeper(body, max_depth):
        raise too_deep(max_depth)
    if body.lstrip()[:1] != b"[":
        return [parse_message(body)], False
    try:
        entries = _decode(_raw_lists, body)
    except UNREADABLE as error:
        raise BadJson("The body is not valid JSON.") from error
    if not entries:
        raise BadRequest("The batch is empty.")
    if len(entries) > BATCH_MESSAGES:
        raise BadRequest(f"The batch has {len(entries)} messages; at most {BATCH_MESSAGES} are allowed.")
    return [_parse_entry(bytes(entry)) for entry in entries], True


def too_deep(max_depth: int) -> TooDeep:
    """The error about JSON that is nested too deep."""
    return TooDeep(f"The JSON is nested more than {max_depth} levels deep, which --max-json-depth allows.")


def too_many_members() -> InvalidParams:
    """The error about parameters of too many members."""
    return InvalidParams(f'"params" and "_meta" may have {PARAMS_MEMBERS} members each.')


def require_utf8(body: bytes) -> None:
    """Raw payloads are not decoded on their way, so this is where bad ones are stopped."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadJson("The body is not valid UTF-8.") from error


def _parse_entry(entry: bytes) -> Message | Rejection:
    try:
        return parse_message(entry)
    except ProxyError as error:
        # Nobody will raise it again; without its traceback the request goes as soon as it is answered.
        error.__cause__ = error.__context__ = None
        return Rejection(peek_id(entry), error.with_traceback(None))


def parse_message(data: bytes) -> Message:
    """Read one message from a client, strictly.

    Raises:
        BadJson: not JSON.
        BadRequest: not JSON-RPC 2.0, or an id that MCP does not allow (MCP 2025-11-25, basic,
            "Requests": a string or an integer, never null).
        InvalidParams: its parameters have too many members.
    """
    try:
        envelope = _decode(_envelopes, data)
    except msgspec.ValidationError as error:
        raise BadRequest("The body is not a JSON-RPC message.") from error
    except UNREADABLE as error:
        raise BadJson("The body is not valid JSON.") from error
    if envelope.jsonrpc != "2.0":
        raise BadRequest('The message lacks "jsonrpc": "2.0".')
    if envelope.method is not msgspec.UNSET:
        params = _read_params(envelope.params)
        if envelope.id is msgspec.UNSET:
            return Notification(envelope.method, params)
        return Request(_read_id(bytes(envelope.id)), envelope.method, params)
    response = _read_response(envelope)
    if response is None or (response.error is not None and _is_given(envelope.result)):
        raise BadRequest("The message is neither a request, nor a notification, nor a response.")
    # An answer is to a question that had a number, or an id of this form, or to none that anybody asked.
    if read_number(response.id) < 0:
        _read_id(response.id)
    return response


def parse_upstream(data: bytes, *, max_depth: int | None = DEFAULT_MAX_DEPTH) -> Message | None:
    """Read one message from a server, leniently; None when it is not a JSON-RPC message.

    Servers answer with ``"id": null``, without an id, or with ids of their own invention. Of what is nested
    deeper than ``max_depth``, an answer comes without its content, and anything else not at all; it is None
    where that was looked at already (``large``).
    """
    if max_depth is not None and len(data) > max_depth and is_deeper(data, max_depth):
        return without_content(data)
    if not data.isascii():
        data = repair_utf8(data)
    try:
        envelope = _decode(_lenient_envelopes, data)
    except UNREADABLE:
        return None
    raw_id = envelope.id
    if envelope.method is None:
        # Nearly always that is all there is.
        if envelope.error is _UNSET and envelope.result is not _UNSET and raw_id is not _UNSET:
            return Response(bytes(raw_id), bytes(envelope.result))
        return _read_response(envelope)
    raw_params = envelope.params
    # Some write ``null`` for a member that is not there.
    params = None if raw_params is msgspec.UNSET or raw_params == _RAW_NULL else bytes(raw_params)
    if raw_id is msgspec.UNSET or raw_id == _RAW_NULL:
        return Notification(envelope.method, params)
    return Request(bytes(raw_id), envelope.method, params)


def without_content(data: bytes) -> Response | None:
    """What can be told of a message that is too deep to be read."""
    members = peek_members(data)
    return None if b'"method"' in members else Response(members.get(b'"id"') or NULL)


def repair_utf8(data: bytes) -> bytes:
    """What is no UTF-8 becomes U+FFFD, as in the standard for event streams; clients could not read it.

    A byte order mark goes, which browsers and Node take no notice of.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    return data.removeprefix(_BOM)


def parse_upstream_body(data: bytes, *, max_depth: int = DEFAULT_MAX_DEPTH) -> list[Message]:
    """Read a server's JSON body: one message, or the batch that 2025-03-26 servers may answer with."""
    if data[:1] == b"{" or not begins_batch(data):
        message = parse_upstream(data, max_depth=max_depth)
        return [] if message is None else [message]
    if is_deeper(data, max_depth + 1):
        return [Response(NULL)]
    try:
        entries = _decode(_raw_lists, repair_utf8(data))
    except UNREADABLE:
        return []
    if len(entries) > SERVER_MESSAGES:
        return []
    messages = (parse_upstream(bytes(entry), max_depth=max_depth) for entry in entries)
    return [message for message in messages if message is not None]


def begins_batch(data: bytes) -> bool:
    """Whether a text, or the beginning of one, is an array of messages and not one of them."""
    return data[:1] != b"{" and data.removeprefix(_BOM).lstrip()[:1] == b"["


def _read_params(raw: msgspec.Raw | msgspec.UnsetType) -> bytes | None:
    if raw is msgspec.UNSET:
        return None
    params = bytes(raw)
    # JSON-RPC 2.0, section 4.2, has no null here, but clients that write every member they know send it.
    if params == NULL:
        return None
    if params[:1] != b"{":
        raise BadRequest('"params" must be an object.')
    if params.count(b":") > PARAMS_MEMBERS:  # more colons than members: most parameters need no closer look
        _bound_members(params)
    return params


def _bound_members(params: bytes) -> None:
    """Refuse parameters, or a ``_meta`` in them, of very many members: each is looked at more than once."""
    try:
        members = _raw_objects.decode(params)
        meta = members.get("_meta", b"")
        too_many = len(members) > PARAMS_MEMBERS or (
            bytes(meta).count(b":") > PARAMS_MEMBERS and len(_raw_objects.decode(meta)) > PARAMS_MEMBERS
        )
    except UNREADABLE as error:
        raise InvalidParams('The members of "params" cannot be read.') from error
    if too_many:
        raise too_many_members()


def _read_id(raw: bytes) -> bytes:
    if len(raw) <= _USUAL_ID_BYTES and raw.isdigit():
        return raw
    is_string = raw[:1] == b'"'
    is_integer = raw.lstrip(b"-").isdigit()
    if not (is_string or is_integer):
        raise BadRequest('"id" must be a string or an integer.')
    if len(raw) > ID_BYTES:
        raise BadRequest(f'"id" is longer than {ID_BYTES} bytes.')
    return raw


def _read_response(envelope: _Body) -> Response | None:
    identifier = NULL if envelope.id is msgspec.UNSET else bytes(envelope.id)
    error = envelope.error
    if error is not msgspec.UNSET and error != _RAW_NULL:
        return Response(identifier, error=bytes(error))
    if envelope.result is not msgspec.UNSET:
        return Response(identifier, result=bytes(envelope.result))
    return None


def _is_given(raw: msgspec.Raw | msgspec.UnsetType) -> TypeGuard[msgspec.Raw]:
    """Whether a member is there; some write ``null`` for one that is not."""
    return raw is not msgspec.UNSET and raw != _RAW_NULL


def peek_id(data: bytes) -> bytes:
    """The id to answer a refused message with: its own where it has a usable one, else ``null``.

    A large message is not mended first, which would take long.
    """
    try:
        raw = (_decode(_ids, data) if len(data) <= SMALL_BYTES else _ids.decode(data)).id
        if raw is msgspec.UNSET:
            return NULL
        return _usable_id(bytes(raw))
    except RecursionError:
        return _usable_id(peek_members(data).get(b'"id"', NULL))
    except UNREADABLE:
        return NULL


def _usable_id(raw: bytes) -> bytes:
    try:
        require_utf8(raw)
        return _read_id(raw)
    except (BadJson, BadRequest):
        return NULL


def read_meta(params: bytes | None) -> Mapping[str, bytes]:
    """``params._meta`` as raw JSON members; empty when there is none or it is not an object."""
    # Most have none, and a search is far cheaper than reading. A key may be written with escapes.
    if params is None or (b"_meta" not in params and b"\\u" not in params):
        return {}
    try:
        meta = _metas.decode(params).meta
    except UNREADABLE:
        return {}
    return {} if meta is None else {key: bytes(value) for key, value in meta.items()}


def read_object(raw: bytes | None) -> dict[str, bytes]:
    """The members of a JSON object as raw JSON; empty when it is not an object."""
    return {key: bytes(value) for key, value in view_object(raw).items()}


def view_object(raw: bytes | None) -> Mapping[str, msgspec.Raw]:
    """As ``read_object``, without copying the members: for whoever wants few of many."""
    if raw is None:
        return {}
    try:
        return _raw_objects.decode(raw)
    except UNREADABLE:
        return {}


def read_array(raw: bytes) -> list[bytes]:
    """The items of a JSON array as raw JSON; none when it is not an array."""
    try:
        return [bytes(item) for item in _raw_lists.decode(raw)]
    except UNREADABLE:
        return []


def read_string(raw: bytes | None) -> str | None:
    """A raw JSON string's value; None when it is something else."""
    if raw is None:
        return None
    try:
        return _strings.decode(raw)
    except UNREADABLE:
        return None


def read_value(raw: bytes | None) -> Any:
    """A JSON value as Python has it; None for ``null`` and for what cannot be read."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return None


def read_error(raw: bytes) -> ErrorObject:
    """Code and message of a raw error object; zeros and blanks where they are missing or odd.

    A bare string, which some gateways send instead of an object, is taken as the message.
    """
    try:
        return _error_objects.decode(raw)
    except UNREADABLE:
        members = read_object(raw)
        return ErrorObject(
            code=_read_integer(members.get("code")),
            message=read_string(members.get("message", raw)) or "",
        )


def error_object(raw: bytes) -> bytes:
    """A server's raw error as clients insist on it: an object with an integer code and a message.

    Some gateways send a bare string, or objects of their own.
    """
    try:
        _whole_errors.decode(raw)
    except UNREADABLE:
        error = read_error(raw)
    else:
        return raw
    message = error.message or "The MCP server answered with an error."
    return _encode({"code": error.code or INTERNAL_ERROR, "message": message})


def _read_integer(raw: bytes | None) -> int:
    try:
        return 0 if raw is None else _integers.decode(raw)
    except UNREADABLE:
        return 0


def canonical(raw: bytes | None) -> bytes:
    """The same bytes for equal JSON values, whatever their key order and spacing.

    What is too deep or too large a number to compare comes back as it is.
    """
    if raw is None:
        return b""
    try:
        return msgspec.json.encode(msgspec.json.decode(raw), order="deterministic")
    except UNREADABLE:
        return raw


# -- writing -------------------------------------------------------------------------------------
#
# Joined, not formatted: formatting takes twenty times as long with a payload of a mebibyte.


def write_request(identifier: bytes, method: str, params: bytes | None) -> bytes:
    """A request's bytes."""
    if params is None:
        return b"".join((_ID, identifier, b',"method":', _encode(method), b"}"))
    return b"".join((_ID, identifier, b',"method":', _encode(method), b',"params":', params, b"}"))


def write_notification(method: str, params: bytes | None) -> bytes:
    """A notification's bytes."""
    if params is None:
        return b"".join((_METHOD, _encode(method), b"}"))
    return b"".join((_METHOD, _encode(method), b',"params":', params, b"}"))


def write_response(identifier: bytes, response: Response) -> bytes:
    """A response's bytes under another id."""
    if response.error is not None:
        return _write_error(identifier, response.error)
    return b"".join((_ID, identifier, b',"result":', response.result or b"{}", b"}"))


def _write_error(identifier: bytes, error: bytes) -> bytes:
    if identifier == ABSENT:
        return b"".join((b'{"jsonrpc":"2.0","error":', error, b"}"))
    return b"".join((_ID, identifier, b',"error":', error, b"}"))


def write_error(identifier: bytes, error: ProxyError) -> bytes:
    """An error as a JSON-RPC error response: the server's own where there is one, else ours.

    ``identifier`` may be ``ABSENT``. ``data`` says that an error is ours and why.
    """
    # What the server said is passed on as it came: clients may know its codes, and what it says in ``data``.
    raw_error: bytes | None = getattr(error, "raw_error", None)
    if raw_error is not None:
        return _write_error(identifier, raw_error)
    payload = {
        "code": error.code,
        "message": error.message,
        "data": error.data,
    }
    return _write_error(identifier, _encode(payload))


def write_plain_error(identifier: bytes, code: int, message: str) -> bytes:
    """An error response towards a server (an answer to a request of its own)."""
    return _write_error(identifier, _encode({"code": code, "message": message}))


def write_batch(entries: list[bytes]) -> bytes:
    """Responses joined into one batch."""
    return b"[" + b",".join(entries) + b"]"


def replace_members(raw: bytes, members: Mapping[str, bytes]) -> bytes:
    """A raw JSON object, such as ``read_object`` can read, with some members set to other raw values.

    Raises:
        msgspec.DecodeError: it is not such an object (or another of ``UNREADABLE``).
    """
    merged: dict[str, msgspec.Raw] = _raw_objects.decode(raw)
    for key, value in members.items():
        merged[key] = msgspec.Raw(value)
    return _encode(merged)


def read_progress_token(meta: Mapping[str, bytes]) -> bytes | None:
    """The raw ``progressToken`` of ``_meta``: a string or a number, else None (``null`` is none)."""
    token = meta.get("progressToken")
    return token if token is not None and token[:1] in b'"-0123456789' else None


def read_number(raw: bytes | None) -> int:
    """The id in a raw JSON number, or in a string of it, as some peers give it back; -1 for anything else.

    To some, all numbers are floating-point ones: they make 7.0 of 7.
    """
    text = b"" if raw is None else raw.strip(b'"')
    if text.isdigit():
        return int(text) if len(text) < 19 else -1
    if len(text) > _FLOAT_BYTES or _FLOAT.fullmatch(text) is None:
        return -1
    number = float(text)
    return int(number) if number.is_integer() and number < _MAX_EXACT else -1


def with_progress_token(params: bytes, token: bytes) -> bytes:
    """Params whose ``_meta.progressToken`` is another one (MCP 2025-11-25, basic/utilities/progress)."""
    meta = read_object(read_object(params).get("_meta"))
    meta["progressToken"] = token
    return replace_members(params, {"_meta": write_object(meta)})


def write_object(members: Mapping[str, bytes]) -> bytes:
    """A JSON object from raw members."""
    return _encode({key: msgspec.Raw(value) for key, value in members.items()})


def write_array(items: Sequence[bytes]) -> bytes:
    """A JSON array from raw items."""
    return _encode([msgspec.Raw(item) for item in items])


def quote(text: str) -> bytes:
    """A string as raw JSON."""
    return _encode(text)
