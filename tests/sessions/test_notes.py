"""What is to be written: the newest word about each record, once, as soon as its most urgent word wants."""

import pytest

from mcp_session_proxy.sessions.notes import RecordNotes
from mcp_session_proxy.store.engine import RecordPlace

A, B, C = (RecordPlace("client", name) for name in "abc")


@pytest.fixture
def notes() -> RecordNotes[str | None]:
    return RecordNotes()


def test_what_can_wait_waits(notes: RecordNotes[str | None]) -> None:
    """Only what is urgent is taken, until all is."""
    notes.note_soon("one", A, "a")
    notes.note_later("one", B, "b")
    notes.note_later("two", C, None)
    assert notes.take_soon() == {"one": {A: "a"}}
    assert notes.take_all() == {"one": {B: "b"}, "two": {C: None}}
    assert not notes


def test_the_newest_word_counts(notes: RecordNotes[str | None]) -> None:
    """However often something has changed, it is written once."""
    for subject in ("first", "second", None):
        notes.note_later("one", A, subject)
    assert notes.pending == 1
    assert notes.take_all() == {"one": {A: None}}


def test_a_word_that_can_wait_goes_along_with_an_urgent_one(notes: RecordNotes[str | None]) -> None:
    """Begun and over before it was written: that is one record, and no sooner or later than it would be."""
    notes.note_soon("one", A, "begun")
    notes.note_later("one", A, "over")
    assert notes.take_soon() == {"one": {A: "over"}}
    assert not notes.take_all()


def test_what_waits_becomes_urgent(notes: RecordNotes[str | None]) -> None:
    """An urgent word takes along what waited of the same record, and of no other."""
    notes.note_later("one", A, "over")
    notes.note_later("one", B, "over")
    notes.note_soon("one", A, "here again")
    assert notes.pending == 2
    assert notes.take_soon() == {"one": {A: "here again"}}
    assert notes.take_all() == {"one": {B: "over"}}


def test_what_was_written_is_done_with(notes: RecordNotes[str | None]) -> None:
    """Whoever writes takes it out; the rest is to be written soon."""
    notes.note_soon("one", A, "a")
    notes.note_later("two", B, "b")
    batch = notes.take_all()
    assert (notes.pending, bool(notes), notes.has("two")) == (2, False, False)
    del batch["one"]
    notes.settle()
    assert (notes.pending, notes.has("one"), notes.has("two")) == (1, False, True)
    assert notes.take_soon() == {"two": {B: "b"}}


@pytest.mark.parametrize("urgent", [True, False])
def test_what_comes_while_it_is_written_is_newer(notes: RecordNotes[str | None], urgent: bool) -> None:
    """The write fails: the newer word is to be written, as soon as the older one was."""
    notes.note_soon("one", A, "old")
    notes.note_soon("one", B, "b")
    notes.take_soon()
    (notes.note_soon if urgent else notes.note_later)("one", A, "new")
    assert notes.pending == 2
    notes.settle()
    assert notes.take_soon() == {"one": {A: "new", B: "b"}}
    assert not notes


def test_what_comes_while_it_is_written_is_written_after_it(notes: RecordNotes[str | None]) -> None:
    """The write succeeds: what has changed since can wait as ever."""
    notes.note_soon("one", A, "old")
    batch = notes.take_soon()
    notes.note_later("one", A, "new")
    del batch["one"]
    notes.settle()
    assert not notes.take_soon()
    notes.settle()
    assert notes.take_all() == {"one": {A: "new"}}


def test_what_another_process_goes_on_with_is_forgotten(notes: RecordNotes[str | None]) -> None:
    """All of the shard: what is in hand, too."""
    notes.note_soon("one", A, "a")
    notes.note_later("one", B, "b")
    batch = notes.take_soon()
    notes.note_soon("one", C, "c")
    notes.note_soon("two", A, "a")
    notes.let_go("one")
    notes.settle()
    assert not batch
    assert notes.take_all() == {"two": {A: "a"}}
