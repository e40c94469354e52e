"""What a server may ask, what the client must have declared for it, and what a fit answer looks like."""

import json
from typing import Any

import mcp_types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selection import examples
from wire_types import json_values, judge, questions_of, values_of

from mcp_session_proxy.protocol import questions, revisions

ELICIT, SAMPLE, ROOTS = revisions.ELICIT, revisions.SAMPLE, revisions.LIST_ROOTS
URL = {"mode": "url", "url": "u", "message": "m"}
FORM = {"message": "m", "requestedSchema": {"type": "object", "properties": {}}}
few = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write(value: object) -> bytes:
    return json.dumps(value).encode()


def missing(method: str, params: object, **declared: object) -> Any:
    return questions.missing_capability(method, write(params), {k: write(v) for k, v in declared.items()})


def key(method: str, params: object = None, taken: tuple[str, ...] = ()) -> str:
    return questions.key_for(method, write(params), taken)


def test_what_is_a_question() -> None:
    """Three methods are; everything else that a server may send is not."""
    assert all(map(questions.is_question, (ELICIT, SAMPLE, ROOTS)))
    assert not any(map(questions.is_question, ("ping", "tools/call", "tasks/get", "", "elicitation")))


# -- capabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "declared", "lacks"),
    [
        (ELICIT, FORM, {"elicitation": {}}, None),
        (ELICIT, FORM, {"elicitation": {"form": {}}}, None),
        (ELICIT, FORM | {"mode": "form"}, {"elicitation": {"form": {}, "url": {}}}, None),
        (ELICIT, FORM, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        (ELICIT, FORM, {"sampling": {}}, {"elicitation": {"form": {}}}),
        (ELICIT, FORM, {"elicitation": None}, {"elicitation": {"form": {}}}),
        (ELICIT, URL, {"elicitation": {"url": {}}}, None),
        (ELICIT, URL, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        (ELICIT, URL, {}, {"elicitation": {"url": {}}}),
        (SAMPLE, {}, {"sampling": {}}, None),
        (SAMPLE, {}, {"sampling": {"tools": {}}}, None),
        (SAMPLE, {}, {}, {"sampling": {}}),
        (SAMPLE, {"tools": []}, {"sampling": {"tools": {}}}, None),
        (SAMPLE, {"tools": []}, {"sampling": {}}, {"sampling": {"tools": {}}}),
        (SAMPLE, {"toolChoice": {}}, {"sampling": {}}, {"sampling": {"tools": {}}}),
        (ROOTS, None, {"roots": {}}, None),
        (ROOTS, {}, {"roots": {"listChanged": True}}, None),
        (ROOTS, None, {"elicitation": {}}, {"roots": {}}),
    ],
)
def test_missing_capabilities(
    method: str, params: object, declared: dict[str, object], lacks: object
) -> None:
    """A question needs its capability, and the part of it that it uses."""
    assert missing(method, params, **declared) == lacks


@pytest.mark.parametrize("method", [ELICIT, SAMPLE, ROOTS])
@few
@given(data=st.data())
@pytest.mark.slow
def test_what_is_missing_would_do(method: str, data: st.DataObject) -> None:
    """Whatever is asked: what a client is told to declare is a valid capability, and enough."""
    params = data.draw(questions_of(method)).get("params")
    lacks = missing(method, params)
    judge(mcp_types.ClientCapabilities).validate_python(lacks)
    assert missing(method, params, **lacks) is None


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("user_name", "user_name"),
        ("User Name", "user_name"),
        ("UserName", "user_name"),
        ("  What's your name?! ", "what_s_your_name"),
        ("HTTPServer2Go", "httpserver2_go"),
        ("\u65e5\u672c", "question"),
        ("?!", "question"),
        ("x" * 200, "x" * 64),
    ],
)
def test_keys_from_titles(title: str, expected: str) -> None:
    """A question's key is its form's title, in snake case."""
    assert key(ELICIT, {"requestedSchema": {"title": title}}) == expected


def test_keys_from_methods() -> None:
    """A question without a title is named for its method."""
    assert key(ELICIT, FORM) == "elicitation_create"
    assert key(SAMPLE) == "sampling_create_message"
    assert key(ROOTS) == "roots_list"
    assert key(ELICIT, {"requestedSchema": {"title": 3}}) == "elicitation_create"


def test_keys_are_unique() -> None:
    """A key that is taken gets a number."""
    assert key(ROOTS, None, ("roots_list",)) == "roots_list_2"
    assert key(ROOTS, None, ("roots_list", "roots_list_2")) == "roots_list_3"


@few
@given(titles=st.lists(st.text(max_size=6), max_size=6))
def test_any_titles_make_unique_keys(titles: list[str]) -> None:
    """Whatever servers call their forms, each key is its own."""
    keys: list[str] = []
    for title in titles:
        keys.append(key(ELICIT, {"requestedSchema": {"title": title}}, tuple(keys)))
    assert len(set(keys)) == len(titles)
    assert all(k.isascii() and k.isprintable() and 0 < len(k) < 70 for k in keys)


# -- answers ---------------------------------------------------------------------------------------

ANSWERS = {
    ELICIT: mcp_types.ElicitResult,
    SAMPLE: mcp_types.CreateMessageResult,
    ROOTS: mcp_types.ListRootsResult,
}


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (ELICIT, {"action": "accept", "content": {"a": 1}}),
        (ELICIT, {"action": "accept"}),
        (ELICIT, {"action": "decline"}),
        (ELICIT, {"action": "cancel", "_meta": {}}),
        (SAMPLE, {"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}}),
        (SAMPLE, {"role": "assistant", "model": "m", "content": [{"type": "text", "text": "t"}]}),
        (ROOTS, {"roots": []}),
        (ROOTS, {"roots": [{"uri": "file:///a"}]}),
    ],
)
def test_fit_answers(method: str, answer: object) -> None:
    """What a client's user, model or workspace may answer."""
    assert questions.is_fit_answer(method, write(answer))


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (ELICIT, {}),
        (ELICIT, {"action": "maybe"}),
        (ELICIT, {"action": 1}),
        (ELICIT, {"action": "accept", "content": []}),
        (ELICIT, {"action": "accept", "content": "x"}),
        (SAMPLE, {}),
        (SAMPLE, {"role": "assistant", "content": {"type": "text", "text": "t"}}),
        (SAMPLE, {"role": "assistant", "model": "m"}),
        (SAMPLE, {"role": "assistant", "model": "m", "content": "t"}),
        (SAMPLE, {"model": "m", "content": {}}),
        (ROOTS, {}),
        (ROOTS, {"roots": {}}),
        (ROOTS, {"roots": None}),
    ],
)
def test_unfit_answers(method: str, answer: object) -> None:
    """An answer to another question, or to none."""
    assert not questions.is_fit_answer(method, write(answer))


@pytest.mark.parametrize("method", [ELICIT, SAMPLE, ROOTS])
@few
@given(answer=json_values.filter(lambda value: not isinstance(value, dict)))
def test_answers_are_objects(method: str, answer: Any) -> None:
    """Nothing but an object answers a question."""
    assert not questions.is_fit_answer(method, write(answer))


@pytest.mark.parametrize("method", [ELICIT, SAMPLE, ROOTS])
@few
@given(data=st.data())
def test_any_valid_answer_is_fit(method: str, data: st.DataObject) -> None:
    """Whatever the schema allows for an answer is taken."""
    assert questions.is_fit_answer(method, write(data.draw(values_of(ANSWERS[method]))))
