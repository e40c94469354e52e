"""JSON-RPC envelopes: what is accepted, what is refused and how, and that payloads stay exact."""

import contextlib
import gc
import json
import weakref
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.bounds import BATCH_MESSAGES
from mcp_session_proxy.errors import BadJson, BadRequest, UpstreamTimeout
from mcp_session_proxy.protocol.jsonrpc import (
    NULL,
    ErrorObject,
    Notification,
    Rejection,
    Request,
    Response,
    canonical,
    error_object,
    parse_body,
    parse_message,
    parse_upstream,
    parse_upstream_body,
    peek_id,
    quote,
    read_array,
    read_error,
    read_meta,
    read_number,
    read_object,
    read_string,
    read_value,
    replace_members,
    with_progress_token,
    write_batch,
    write_error,
    write_notification,
    write_object,
    write_plain_error,
    write_request,
    write_response,
)

# Python 3.14 asks how much of the stack is left, which is enough for a hundred thousand.
DEEP = b"[" * 1_000_000 + b"]" * 1_000_000

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)
raw_values = values.map(lambda value: json.dumps(value).encode())
raw_objects = st.dictionaries(st.text(max_size=5), values, max_size=5).map(
    lambda value: json.dumps(value).encode()
)
ids = (st.integers() | st.text(max_size=50)).map(lambda value: json.dumps(value).encode())
methods = st.text(max_size=30)


def request(*, identifier: str = "1", params: str = "{}") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{identifier},"method":"m","params":{params}}}'.encode()


# -- messages from clients -----------------------------------------------------------------------


def test_the_three_kinds() -> None:
    """Requests, notifications and responses are told apart by what they have."""
    assert parse_message(b'{"jsonrpc":"2.0","id":1,"method":"m"}') == Request(b"1", "m")
    assert parse_message(b'{"jsonrpc":"2.0","method":"m","params":{}}') == Notification("m", b"{}")
    assert parse_message(b'{"jsonrpc":"2.0","id":1,"result":{}}') == Response(b"1", result=b"{}")
    assert parse_message(b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}') == Response(
        b"1", error=b'{"code":1}'
    )


@pytest.mark.parametrize(
    "raw",
    [
        "0",
        "7",
        "-7",
        '"7"',
        '""',
        '"a\\u0041\\n"',
        '"ü"',
        "123456789012345678901234567890",
        '"' + "x" * 1000 + '"',
    ],
)
def test_ids_stay_as_they_were_written(raw: str) -> None:
    """Strings and integers of any size are ids, kept as raw JSON, so that 7 and "7" stay two."""
    message = parse_message(request(identifier=f" {raw} "))
    assert message == Request(raw.encode(), "m", b"{}")


@pytest.mark.parametrize(
    "raw", ["null", "1.5", "1e3", "1.0", "true", "false", "{}", "[]", '"' + "x" * 1100 + '"']
)
def test_odd_ids_are_refused(raw: str) -> None:
    """What MCP does not allow as an id is refused, and cannot be answered under it."""
    with pytest.raises(BadRequest, match='"id"'):
        parse_message(request(identifier=raw))
    assert peek_id(request(identifier=raw)) == NULL


@pytest.mark.parametrize(
    "params",
    [
        '{"n":123456789012345678901234567890}',
        '{"n":1.0,"m":1.10,"e":1E400,"z":-0}',
        '{"a":1,"b":2,"a":3}',
        '{"s":"\\u00fc\\/\\ud83d\\ude00\\\\ud800"}',
        '{ "spaces" : [ 1 , 2 ] }',
        '{"ü":"ü"}',
        '{"deep":' + "[" * 100 + "]" * 100 + "}",
    ],
)
def test_payloads_stay_exact(params: str) -> None:
    """Numbers, repeated keys, escapes and spaces come out as they went in."""
    message = parse_message(request(params=params))
    assert isinstance(message, Request)
    assert message.params == params.encode()
    assert write_request(b"9", "m", message.params) == request(identifier="9", params=params)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\ud83d", r"\ufffd"),
        (r"\uDE00 \ud83d\ude00 \ud83d", r"\ufffd \ud83d\ude00 \ufffd"),
        (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
        (r"\\ud83d \ud83d \"\u00fc", r"\\ud83d \ufffd \"\u00fc"),
    ],
)
def test_a_text_that_was_cut_amid_an_emoji(text: str, expected: str) -> None:
    """A surrogate without its partner becomes U+FFFD, from either side, and nothing else changes."""
    params, cut = f'{{"s":"{expected}","n":1.0}}'.encode(), f'{{"s":"{text}","n":1.0}}'
    assert parse_body(request(params=cut)) == ([Request(b"1", "m", params)], False)
    assert parse_body(b"[" + request(params=cut) + b"]") == ([Request(b"1", "m", params)], True)
    answer = f'{{"id":1,"result":{cut}}}'.encode()
    assert parse_upstream(answer) == Response(b"1", result=params)
    assert parse_upstream_body(b"[" + answer + b"]") == [Response(b"1", result=params)]


@pytest.mark.parametrize("params", ["null", None])
def test_missing_params(params: str | None) -> None:
    """Params that are null are none."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"m"}' if params is None else request(params=params)
    assert parse_message(body) == Request(b"1", "m", None)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"7",
        b'"ping"',
        b"{}",
        b'{"id":5,"method":"m"}',
        b'{"jsonrpc":"1.0","id":5,"method":"m"}',
        b'{"jsonrpc":2.0,"id":5,"method":"m"}',
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":5}',
        b'{"jsonrpc":"2.0","id":5,"method":7}',
        b'{"jsonrpc":"2.0","id":5,"method":null}',
        b'{"jsonrpc":"2.0","id":5,"method":"m","params":"x"}',
        b'{"jsonrpc":"2.0","id":5,"method":"m","params":[1]}',
        b'{"jsonrpc":"2.0","id":5,"error":null}',
        b'{"jsonrpc":"2.0","id":5,"result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
    ],
)
def test_json_that_is_no_message_is_refused(body: bytes) -> None:
    """What is JSON but not a message of MCP is an invalid request."""
    with pytest.raises(BadRequest):
        parse_message(body)


@pytest.mark.parametrize("raw", ["7.0", "7.00", "7e0", '"7.0"'])
def test_a_number_of_ours_may_come_back_as_another_kind(raw: str) -> None:
    """To some clients and servers all numbers are floating-point ones; what we gave them is an integer."""
    message = parse_message(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % raw.encode())
    assert isinstance(message, Response)
    assert read_number(message.id) == 7


@pytest.mark.parametrize(
    "raw", ["7.5", "-7.0", "1e400", "1e99", "9007199254740992.0", "nan", "7_0", "7.", "", "x"]
)
def test_what_is_no_number_of_ours(raw: str) -> None:
    """Whatever else looks like a number is none that was given to anybody."""
    assert read_number(raw.encode()) == -1


def test_a_response_may_say_that_it_has_no_error() -> None:
    """Some clients write null for the member that a response does not have."""
    assert parse_message(b'{"jsonrpc":"2.0","id":5,"result":{},"error":null}') == Response(b"5", result=b"{}")
    error = parse_message(b'{"jsonrpc":"2.0","id":5,"result":null,"error":{"code":1}}')
    assert error == Response(b"5", error=b'{"code":1}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b'{"jsonrpc":"2.0","id":1,"method":"m"',
        b'{"jsonrpc":"2.0","id":1,"method":"m"} x',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":01}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\n"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\\q"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":"\xff","method":"m"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud80"}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[",
        b'[{"jsonrpc":"2.0","method":"m"}',
        b'[{"jsonrpc":"2.0","method":"\xff"}]',
        DEEP,
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":' + DEEP + b"}}",
        b'{"jsonrpc":"2.0","id":' + DEEP + b',"method":"m"}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    """Truncated, malformed, wrongly encoded or bottomless bodies are a parse error, and no crash."""
    with pytest.raises(BadJson):
        parse_body(body)


def test_deep_json_has_no_readable_parts() -> None:
    """No reader of a part crashes on a value that is nested without end."""
    deep = b'{"a":' + DEEP + b"}"
    assert read_object(deep) == {}
    assert read_array(DEEP) == []
    assert read_meta(b'{"_meta":' + deep + b"}") == {}
    assert read_error(deep) == ErrorObject()
    assert canonical(deep) == deep
    assert peek_id(b'{"id":7,"x":' + DEEP + b"}") == b"7"
    assert peek_id(b'{"id":' + DEEP + b"}") == NULL
    assert parse_upstream(b'{"id":7,"result":' + DEEP + b"}") == Response(b"7")
    assert parse_upstream(b'{"result":' + DEEP + b',"id":7}') == Response(b"7")
    broad = b"[" + b"[]," * 20_000 + DEEP + b"]"
    assert parse_upstream(b'{"result":' + broad + b',"id":7}') == Response(NULL)
    assert parse_upstream(b'{"id":7,"method":"x","params":' + DEEP + b"}") is None
    assert parse_upstream_body(b"[" + DEEP + b"]") == [Response(NULL)]
    assert parse_upstream_body(DEEP) == [Response(NULL)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":5,"method":7}', b"5"),
        (b'{"id":"x","jsonrpc":1}', b'"x"'),
        (b'{"method":"m"}', NULL),
        (b'{"id":5', NULL),
        (b"[]", NULL),
        (b"\xff", NULL),
    ],
)
def test_refusals_carry_the_id_where_there_is_one(body: bytes, expected: bytes) -> None:
    """A refused message is answered under its own id if that can be found."""
    assert peek_id(body) == expected


# -- batches -------------------------------------------------------------------------------------


def test_a_single_message_is_no_batch() -> None:
    """A body says whether it was a batch, white space before it or not."""
    assert parse_body(b" \r\n\t" + request()) == ([Request(b"1", "m", b"{}")], False)
    assert parse_body(b" \r\n\t[" + request() + b"]") == ([Request(b"1", "m", b"{}")], True)


def test_a_batch_keeps_its_order_and_its_bad_entries() -> None:
    """Good entries are read, bad ones become refusals with their own id, all in order."""
    messages, is_batch = parse_body(
        b'[{"jsonrpc":"2.0","id":1,"method":"a"}, 7, {"jsonrpc":"2.0","method":"b"},'
        b'{"jsonrpc":"2.0","id":2,"method":5}, [], {"jsonrpc":"2.0","id":1.5,"method":"c"}]'
    )
    assert is_batch
    assert messages[0] == Request(b"1", "a")
    assert messages[2] == Notification("b")
    refused = [entry for entry in messages if isinstance(entry, Rejection)]
    assert [entry.id for entry in refused] == [NULL, b"2", NULL, NULL]
    assert all(isinstance(entry.error, BadRequest) for entry in refused)


@pytest.mark.parametrize("size", [0, BATCH_MESSAGES + 1])
def test_batches_have_bounds(size: int) -> None:
    """An empty batch and one of too many messages are refused as a whole."""
    with pytest.raises(BadRequest, match="batch"):
        parse_body(b"[" + b",".join([request()] * size) + b"]")


def test_the_largest_batch() -> None:
    """A batch of exactly the largest size is fine."""
    messages, _ = parse_body(write_batch([request()] * BATCH_MESSAGES))
    assert len(messages) == BATCH_MESSAGES


# -- messages from servers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', Response(b"1", result=b"{}")),
        (b'{"id":1,"result":{}}', Response(b"1", result=b"{}")),
        (b'{"jsonrpc":2.0,"id":1,"result":{}}', Response(b"1", result=b"{}")),
        (b'{"id":null,"error":{"code":1}}', Response(NULL, error=b'{"code":1}')),
        (b'{"error":{"code":1}}', Response(NULL, error=b'{"code":1}')),
        (b'{"id":"server-error","error":{}}', Response(b'"server-error"', error=b"{}")),
        (b'{"id":1,"result":{},"error":null,"method":null,"params":null}', Response(b"1", result=b"{}")),
        (b'{"id":1,"result":null,"error":{"code":1}}', Response(b"1", error=b'{"code":1}')),
        (b'{"id":1,"result":null}', Response(b"1", result=NULL)),
        (b'{"id":1.5,"method":"ping"}', Request(b"1.5", "ping")),
        (b'{"id":0,"method":"ping","params":null}', Request(b"0", "ping")),
        (b'{"id":null,"method":"note"}', Notification("note")),
        (b'{"method":"note","params":{"a":1.0}}', Notification("note", b'{"a":1.0}')),
        (b'{"id":1}', None),
        (b'{"id":1,"method":7}', None),
        (b"[]", None),
        (b"", None),
        (b"<html>", None),
        (b'{"id":1,"result":{}', None),
        (b'\xef\xbb\xbf{"id":1,"result":{}}', Response(b"1", result=b"{}")),
    ],
)
def test_servers_are_read_leniently(body: bytes, expected: object) -> None:
    """What a server meant is taken, even where it does not write quite what it should."""
    assert parse_upstream(body) == expected


def test_bodies_of_servers() -> None:
    """A JSON body is one message or a batch; what is no message in it is left out."""
    one, two = b'{"id":1,"result":{}}', b'{"method":"note"}'
    assert parse_upstream_body(one) == [Response(b"1", result=b"{}")]
    both = [Response(b"1", result=b"{}"), Notification("note")]
    assert parse_upstream_body(b" [" + one + b",7," + two + b"]") == both
    assert parse_upstream_body(b"\xef\xbb\xbf [" + one + b"," + two + b"]") == both
    assert parse_upstream_body(b"[") == parse_upstream_body(b"x") == parse_upstream_body(b"") == []


# -- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "meta"),
    [
        (b'{"_meta":{"a":1.0,"b":"x","c":{ "d":[] }}}', {"a": b"1.0", "b": b'"x"', "c": b'{ "d":[] }'}),
        (b'{"x":1,"_meta":{}}', {}),
        (b'{"_meta":null}', {}),
        (b'{"_meta":"x"}', {}),
        (b'{"_meta":[1]}', {}),
        (b"{}", {}),
        (b"[]", {}),
        (b"", {}),
        (None, {}),
    ],
)
def test_read_meta(params: bytes | None, meta: dict[str, bytes]) -> None:
    """The members of ``_meta`` come as raw JSON; an odd ``_meta`` is none."""
    assert read_meta(params) == meta


def test_read_object_and_array() -> None:
    """Members and items come as raw JSON; what is no object or array has none."""
    assert read_object(b'{"a": 1.0 ,"\\u0062":[ ]}') == {"a": b"1.0", "b": b"[ ]"}
    assert read_object(b"[]") == read_object(b"x") == read_object(None) == {}
    assert read_array(b'[1.0, "x",{} ]') == [b"1.0", b'"x"', b"{}"]
    assert read_array(b"{}") == read_array(b"") == []


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b'"a\\u0041"', "aA"), (b'""', ""), (b"1", None), (b"{", None), (b'"\xff"', None), (None, None)],
)
def test_read_string(raw: bytes | None, expected: str | None) -> None:
    """A JSON string's value, or None."""
    assert read_string(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"code":-32001,"message":"gone","data":{"x":1}}', ErrorObject(-32001, "gone")),
        (b'{"code":5}', ErrorObject(5, "")),
        (b'{"code":"5","message":"gone"}', ErrorObject(0, "gone")),
        (b'{"code":1.5,"message":"gone"}', ErrorObject(0, "gone")),
        (b'{"code":7,"message":null}', ErrorObject(7, "")),
        (b'"Session not found"', ErrorObject(0, "Session not found")),
        (b"[]", ErrorObject(0, "")),
        (b"{", ErrorObject(0, "")),
    ],
)
def test_read_error(raw: bytes, expected: ErrorObject) -> None:
    """What can be read of an error is read, whatever is odd about the rest."""
    assert read_error(raw) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":{"d":2,"c":3}}', b' { "b" : {"c":3, "d":2}, "a":1 } ', True),
        (b'"\\u0041"', b'"A"', True),
        (b"[1,2]", b"[2,1]", False),
        (b"1", b'"1"', False),
        (b"{}", b"null", False),
    ],
)
def test_canonical(one: bytes, other: bytes, same: bool) -> None:
    """Equal values have equal canonical forms, whatever their order and spelling."""
    assert (canonical(one) == canonical(other)) is same


@pytest.mark.parametrize("raw", [b"{", DEEP, b'"\xff"'])
def test_what_cannot_be_read_says_nothing_and_raises_nothing(raw: bytes) -> None:
    """No reader of a payload raises for one that is cut off, too deep for the stack, or no UTF-8."""
    assert (read_value(raw), read_string(raw), read_object(raw), read_array(raw)) == (None, None, {}, [])
    assert read_error(raw) == ErrorObject()
    assert error_object(raw).startswith(b'{"code":-32603')
    assert peek_id(b'{"id":' + raw + b"}") == NULL
    assert canonical(raw) == raw


def test_canonical_of_nothing() -> None:
    """No value has a form of its own, which no value has; odd numbers do not break it."""
    assert canonical(None) == b""
    assert canonical(b"1e400") == b"1e400"


# -- writing -------------------------------------------------------------------------------------


@given(ids, methods, st.none() | raw_objects)
@pytest.mark.slow
def test_requests_are_read_as_written(identifier: bytes, method: str, params: bytes | None) -> None:
    """A request comes back with the same id, method and params."""
    assert parse_message(write_request(identifier, method, params)) == Request(identifier, method, params)


@given(methods, st.none() | raw_objects)
@pytest.mark.slow
def test_notifications_are_read_as_written(method: str, params: bytes | None) -> None:
    """A notification comes back with the same method and params."""
    assert parse_message(write_notification(method, params)) == Notification(method, params)


@given(ids, raw_values, st.booleans())
def test_responses_are_read_as_written(identifier: bytes, payload: bytes, failed: bool) -> None:
    """A response comes back under its new id with the same payload."""
    response = Response(b"1", error=payload) if failed and payload != NULL else Response(b"1", result=payload)
    written = write_response(identifier, response)
    assert parse_upstream(written) == Response(identifier, response.result, response.error)


@given(st.lists(ids, min_size=1, max_size=5))
def test_batches_are_read_as_written(identifiers: list[bytes]) -> None:
    """A batch comes back with the same messages."""
    batch = write_batch([write_request(identifier, "m", None) for identifier in identifiers])
    assert parse_body(batch) == ([Request(identifier, "m") for identifier in identifiers], True)


def test_errors_of_ours_say_so() -> None:
    """An error of ours has the client's id, its code, and who made it and why."""
    written = json.loads(write_error(b'"x"', UpstreamTimeout("Too slow.")))
    assert written == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": -32603,
            "message": "Too slow.",
            "data": {"source": "mcp-session-proxy", "reason": "upstream-timeout"},
        },
    }


def test_plain_errors() -> None:
    """An error towards a server has a code and a message, and nothing of ours."""
    written = json.loads(write_plain_error(b"3", -32601, "No such method."))
    assert written == {"jsonrpc": "2.0", "id": 3, "error": {"code": -32601, "message": "No such method."}}


def test_an_empty_response_has_a_result() -> None:
    """A response without a payload is an empty result, so that it is a response at all."""
    assert write_response(b"1", Response(NULL)) == b'{"jsonrpc":"2.0","id":1,"result":{}}'


@given(st.text())
def test_quote(text: str) -> None:
    """A quoted string reads as itself."""
    assert read_string(quote(text)) == text


# -- changing ------------------------------------------------------------------------------------


def test_replaced_members_leave_the_others_exact() -> None:
    """Members keep their place and their raw text; new ones come last."""
    raw = b'{"n": 1.10, "token":7,"big":123456789012345678901234567890,"s":"\\u00fc"}'
    assert replace_members(raw, {"token": b'"x"', "new": b"[1 ]"}) == (
        b'{"n":1.10,"token":"x","big":123456789012345678901234567890,"s":"\\u00fc","new":[1 ]}'
    )


@pytest.mark.parametrize("raw", [b"[]", b"7", b"{", b""])
def test_only_objects_have_members_to_replace(raw: bytes) -> None:
    """What is no object cannot be changed, and says so."""
    with pytest.raises(msgspec.DecodeError):
        replace_members(raw, {"a": b"1"})


@given(raw_objects, st.dictionaries(st.text(max_size=5), raw_values, max_size=3))
@pytest.mark.slow
def test_replaced_members_are_there(raw: bytes, members: dict[str, bytes]) -> None:
    """After the change the object has the new members and all others."""
    expected = json.loads(raw) | {key: json.loads(value) for key, value in members.items()}
    assert json.loads(replace_members(raw, members)) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (b'{"a":1.0,"_meta":{"progressToken":7,"x":"\\u0041"},"b":2}',
         b'{"a":1.0,"_meta":{"progressToken":99,"x":"\\u0041"},"b":2}'),
        (b'{"_meta":{"x":1}}', b'{"_meta":{"x":1,"progressToken":99}}'),
        (b'{"a":1}', b'{"a":1,"_meta":{"progressToken":99}}'),
        (b'{"_meta":"odd"}', b'{"_meta":{"progressToken":99}}'),
    ],
)  # fmt: skip
def test_progress_token(params: bytes, expected: bytes) -> None:
    """The progress token is another one, and everything else is as it was."""
    assert with_progress_token(params, b"99") == expected


@given(st.dictionaries(st.text(max_size=5), raw_values, max_size=4))
@pytest.mark.slow
def test_written_objects_are_read(members: dict[str, bytes]) -> None:
    """An object made of raw members has these members."""
    assert read_object(write_object(members)) == members


# -- anything ------------------------------------------------------------------------------------

texts = st.text('{}[]":,0123456789.eE-+truefalsn \\u"jsonrpcidmethod2.0', max_size=60).map(str.encode)
readers: list[Callable[[bytes], object]] = [
    parse_upstream,
    parse_upstream_body,
    peek_id,
    read_meta,
    read_number,
    read_object,
    read_array,
    read_string,
    read_value,
    read_error,
    canonical,
    error_object,
]


@given(st.binary(max_size=100) | texts | raw_values)
@pytest.mark.slow
def test_clients_may_send_anything(body: bytes) -> None:
    """Any body is read or refused with an error of ours."""
    with contextlib.suppress(BadJson, BadRequest):
        parse_body(body)


@given(st.binary(max_size=100) | texts | raw_values)
@pytest.mark.slow
def test_servers_may_send_anything(body: bytes) -> None:
    """No reader raises, whatever a server sends."""
    for read in readers:
        read(body)


@pytest.mark.slow
def test_a_refused_entry_keeps_nothing_alive():
    """The error of a refused entry holds frames by its traceback; they go when the messages do.

    An entry that the garbage collector could not see would keep the whole request for ever.
    """

    class Request:
        """Stands for what the frame of a request holds."""

    def read() -> weakref.ref[Request]:
        whole = Request()
        messages, _ = parse_body(b"[7]")
        assert isinstance(messages[0], Rejection)
        return weakref.ref(whole)

    held = read()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b'{"id":1,"result":"\xff"}', '"\ufffd"'.encode()),
        (b'[{"id":1,"result":"\xc3\x28"}]', '"\ufffd("'.encode()),
        ('{"id":1,"result":"é"}'.encode(), '"é"'.encode()),
    ],
)
def test_servers_that_do_not_write_utf8(data, result):
    """A server's stray bytes are replaced, so that clients can read what it says."""
    (message,) = parse_upstream_body(data)
    assert isinstance(message, Response)
    assert message.result == result
