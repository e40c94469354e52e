"""Progress that comes in a row: as one where nothing is lost by it, and message by message where it might."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.bounds import SMALL_BYTES
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.jsonrpc import Message, Notification
from mcp_session_proxy.protocol.progress import (
    ProgressRun,
    apart,
    join_runs,
    under_other_token,
    with_other_token,
)

NAME = "notifications/progress"


def written(token: object = 17, progress: object = 1, **more: object) -> bytes:
    """Progress as most servers write it."""
    params = {"progressToken": token, "progress": progress, **more}
    message = {"method": NAME, "params": params, "jsonrpc": "2.0"}
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def join(*texts: bytes, max_depth: int = 512) -> list[bytes | ProgressRun]:
    return join_runs(texts, max_depth=max_depth)


def one_run(*texts: bytes) -> ProgressRun:
    """What these are together, which has to be one run."""
    (run,) = join(*texts)
    assert isinstance(run, ProgressRun)
    return run


def test_what_comes_together_is_one() -> None:
    """Whatever comes first in a message, and with whatever else is in its parameters."""
    texts = [
        written(17, 1),
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":17}}',
        written(17, 2, message="größer", total=9, _meta={"a": [{}, {"b": []}]}),
    ]
    run = one_run(*texts)
    assert (run.method, run.token, run.texts) == (NAME, b"17", texts)
    assert apart(run) == [jsonrpc.parse_upstream(text) for text in texts]


def test_what_comes_between_stays_where_it_was() -> None:
    """The order is the server's."""
    log = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":1}}'
    answer = b'{"jsonrpc":"2.0","id":17,"result":{}}'
    first, between, second, last = join(written(17, 1), written(17, 2), log, written(17, 3), answer)
    assert isinstance(first, ProgressRun)
    assert isinstance(second, ProgressRun)
    assert (first.texts, between) == ([written(17, 1), written(17, 2)], log)
    assert (second.texts, last) == ([written(17, 3)], answer)


@pytest.mark.parametrize("token", [b"1", b'"mine"', b'"\\"progressToken\\":17}"', b"17", b"-1.5", b'"a,17}"'])
def test_another_token(token: bytes) -> None:
    """All else stays as it came."""
    texts = [written(17, 17, total=17), written(17, message="17, 17}"), written(17, _meta={"token": 17})]
    last = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":17}}'
    for text, renamed in zip([*texts, last], one_run(*texts, last).under(token).texts, strict=True):
        message = json.loads(text)
        message["params"]["progressToken"] = json.loads(token)
        assert json.loads(renamed) == message


ODD = {
    "another's": written(18),
    "a longer number": written(170),
    "the number as a string": written("17"),
    "the number with a point": written(17.0),
    "a negative number": written(-17),
    "a number that is too large": written(10**400),
    "no number": written(None),
    "none": b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}',
    "no parameters": b'{"jsonrpc":"2.0","method":"notifications/progress"}',
    "parameters in a list": b'{"jsonrpc":"2.0","method":"notifications/progress","params":[17]}',
    "blanks": json.dumps(json.loads(written())).encode(),
    "blanks around it": b" " + written() + b" ",
    "several lines": json.dumps(json.loads(written()), indent=1).encode(),
    "an escape": written(message='"'),
    "a key in escapes": written(message="a").replace(b"progressToken", b"progress\\u0054oken"),
    "the same key elsewhere": written(_meta={"progressToken": 17}),
    "the key twice": written().replace(b'"progress":1', b'"progressToken":17'),
    "a request": written().replace(b'"params"', b'"id":1,"params"'),
    "a response": b'{"jsonrpc":"2.0","id":1,"result":{"method":"notifications/progress","progressToken":17}}',
    "another method": written().replace(b"notifications/progress", b"notifications/progress/other"),
    "another version": written().replace(b'"2.0"', b'"1.0"'),
    "no version": written().replace(b',"jsonrpc":"2.0"', b""),
    "no JSON": written()[:-1],
    "two in a line": written() + written(),
    "half of one": written()[: len(written()) // 2],
    "no UTF-8": written(message="a").replace(b'"a"', b'"\xff"'),
    "too much": written(message="x" * SMALL_BYTES),
    "too deep": written(a=[[[[[[]]]]]]),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_written_otherwise(name: str) -> None:
    """It is read by itself, and what came beside it is not taken for the same."""
    usual = [written(17, 1), written(17, 2)]
    for texts in ([ODD[name], *usual], [*usual, ODD[name]], [usual[0], ODD[name], usual[1]]):
        runs = [each.texts for each in join(*texts, max_depth=5) if isinstance(each, ProgressRun)]
        assert [run for run in runs if ODD[name] in run and len(run) > 1] == []
    alone = join(ODD[name], max_depth=5)
    assert (alone == [ODD[name]]) is (name not in ("another's", "a longer number", "blanks around it"))


def test_parts_that_would_make_a_whole() -> None:
    """Two halves in two events are none, though they would be one message in one."""
    half = len(written()) // 2
    texts = [written()[:half], written()[half:], written() + written()]
    assert join(*texts) == texts


def test_depth() -> None:
    """As deep as allowed and no deeper, however many there are."""
    texts = [written(a=[[[]]])] * 50
    assert isinstance(join(*texts, max_depth=600)[0], ProgressRun)
    assert join(*texts, max_depth=4) == texts
    flat = [written()] * 500
    assert isinstance(join(*flat, max_depth=2)[0], ProgressRun)
    assert join(*flat, max_depth=1) == flat


pieces = st.sampled_from([*ODD.values(), written(17, 2), written(17, 3, message="ß"), written(18)])


def read(texts: list[bytes]) -> list[Message | None]:
    return [jsonrpc.parse_upstream(text) for text in texts]


@given(st.lists(pieces, max_size=8))
def test_nothing_changes_but_the_count(texts: list[bytes]) -> None:
    """Taken apart again, it is what would have been read without it, in the same order."""
    found: list[Any] = []
    for each in join(*texts):
        found += apart(each) if isinstance(each, ProgressRun) else read([each])
    assert found == read(texts)


# -- one message under another token ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (b'{"progressToken":7,"progress":1}', b'{"progressToken":"mine","progress":1}'),
        (b'{"progress":1,"progressToken":7}', b'{"progress":1,"progressToken":"mine"}'),
        # Somebody else's, or not to be seen without reading.
        (b'{"progressToken":77,"progress":1}', None),
        (b'{"progress":1,"progressToken":17}', None),
        (b'{"progressToken":"7","progress":1}', None),
        (b'{"progress":1,"progressToken":7,"total":2}', None),
        (b'{"progressToken": 7,"progress":1}', None),
        # Not the object's own, or not its only one.
        (b'{"_meta":{"progressToken":7},"progress":1}', None),
        (b'{"progressToken":7,"progressToken":8}', None),
        (b'{"progressToken":7,"progressToken" :8}', None),
        (b'{"progressToken":7,"progress\\u0054oken":8}', None),
        (b'{"progressToken":7,"message":"progressToken"}', None),
        (b"[]", None),
        (None, None),
    ],
)
def test_other_token(params: bytes | None, found: bytes | None) -> None:
    """A progress token is exchanged in the bytes only where there can be no doubt which it is."""
    assert with_other_token(params, b"7", b'"mine"') == found


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (b'{"progressToken":7,"progress":1}', b'{"progressToken":"mine","progress":1}'),
        (b'{ "progress": 1, "progressToken": 7.0 }', b'{"progress":1,"progressToken":"mine"}'),
        (b'{"progressToken":8,"progress":1}', None),
        (b'{"progress":1}', None),
        (None, None),
    ],
)
def test_one_message(params: bytes | None, found: bytes | None) -> None:
    """However a server writes the number, its progress is told under the client's token; another's is not."""
    renamed = under_other_token(Notification(NAME, params), 7, b'"mine"')
    assert renamed == (None if found is None else Notification(NAME, found))
