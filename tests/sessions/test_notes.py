"""What is to be written: the newest word about each record, once."""

import pytest

from mcp_session_proxy.sessions.notes import RecordNotes
from mcp_session_proxy.store.engine import RecordPlace

A, B, C = (RecordPlace("client", name) for name in "abc")


@pytest.fixture
def notes() -> RecordNotes[str | None]:
    return RecordNotes()


def test_the_newest_word_counts(notes: RecordNotes[str | None]) -> None:
    """However often something has changed, it is written once."""
    for subject in ("first", "second", None):
        notes.note("one", A, subject)
    assert notes.pending == 1
    assert notes.take() == {"one": {A: None}}
    assert not notes


def test_what_was_written_is_done_with(notes: RecordNotes[str | None]) -> None:
    """Whoever writes takes it out; the rest is to be written again."""
    notes.note("one", A, "a")
    notes.note("two", B, "b")
    batch = notes.take()
    assert (notes.pending, bool(notes), notes.has("two")) == (2, False, False)
    del batch["one"]
    notes.settle()
    assert (notes.pending, notes.has("one"), notes.has("two")) == (1, False, True)
    assert notes.take() == {"two": {B: "b"}}


def test_what_comes_while_it_is_written_is_newer(notes: RecordNotes[str | None]) -> None:
    """The write fails: the newer word is to be written."""
    notes.note("one", A, "old")
    notes.note("one", B, "b")
    notes.take()
    notes.note("one", A, "new")
    assert notes.pending == 2
    notes.settle()
    assert notes.take() == {"one": {A: "new", B: "b"}}
    assert not notes


def test_what_comes_while_it_is_written_is_written_after_it(notes: RecordNotes[str | None]) -> None:
    """The write succeeds: what has changed since is written the next time."""
    notes.note("one", A, "old")
    batch = notes.take()
    notes.note("one", A, "new")
    del batch["one"]
    notes.settle()
    assert notes.take() == {"one": {A: "new"}}


def test_what_another_process_goes_on_with_is_forgotten(notes: RecordNotes[str | None]) -> None:
    """All of the shard: what is in hand, too."""
    notes.note("one", A, "a")
    notes.note("one", B, "b")
    batch = notes.take()
    notes.note("one", C, "c")
    notes.note("two", A, "a")
    notes.let_go("one")
    notes.settle()
    assert not batch
    assert notes.take() == {"two": {A: "a"}}
