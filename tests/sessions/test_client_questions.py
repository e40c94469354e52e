"""What a client was asked: each question is answered or refused once, and there are only so many."""

from typing import Any, cast

from mcp_session_proxy.sessions.questions import Questions


class FakeQuestion:
    """A question that notes how often it was refused."""

    def __init__(self, identifier: bytes = b"1", session: object = None) -> None:
        self.session = session
        self.request = type("Request", (), {"id": identifier})
        self.refused = 0

    def refuse(self) -> None:
        self.refused += 1


def add(questions: Questions, *asked: FakeQuestion) -> list[int]:
    return [questions.add(cast(Any, question)) for question in asked]


def test_each_is_taken_once() -> None:
    """Under the number that the client knows it by, which is no other's before or after."""
    questions, one, two = Questions(), FakeQuestion(), FakeQuestion()
    first, second = add(questions, one, two)
    assert first != second
    assert questions.take(first) is cast(Any, one)
    assert questions.take(first) is None
    assert first not in questions
    assert second in questions
    assert questions.take(77) is None
    assert len(questions) == 1
    assert (one.refused, two.refused) == (0, 0)


def test_refusing_all() -> None:
    """All that are open, once; and what is asked later has other numbers, so a late answer meets nothing."""
    questions, one, two, later = Questions(), FakeQuestion(), FakeQuestion(), FakeQuestion()
    first, second = add(questions, one, two)
    questions.take(first)
    questions.refuse_all()
    questions.refuse_all()
    assert (one.refused, two.refused, len(questions)) == (0, 1, 0)
    [third] = add(questions, later)
    assert third not in (first, second)


def test_the_bound() -> None:
    """The oldest question is refused for one that is too many."""
    questions, asked = Questions(), [FakeQuestion() for _ in range(103)]
    add(questions, *asked)
    assert [question.refused for question in asked] == [1] * 3 + [0] * 100
    assert len(questions) == 100


def test_what_the_server_calls_it() -> None:
    """A server names its question by its own id, which is no other server's."""
    here, there = object(), object()
    questions = Questions()
    first, second = add(questions, FakeQuestion(b'"a"', here), FakeQuestion(b'"a"', there))
    assert questions.take_asked_as(cast(Any, there), b'"b"') is None
    assert questions.take_asked_as(cast(Any, there), None) is None
    assert questions.take_asked_as(cast(Any, there), b'"a"') == second
    assert questions.take_asked_as(cast(Any, there), b'"a"') is None
    assert first in questions


def test_elicitations_are_bounded() -> None:
    """The newest hundred are remembered."""
    questions = Questions()
    for number in range(150):
        questions.note_elicitation(str(number))
    remembered = [number for number in range(150) if questions.has_elicited(str(number))]
    assert remembered == list(range(50, 150))
    assert not questions.has_elicited(None)
