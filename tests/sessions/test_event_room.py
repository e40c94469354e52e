"""How much of one process lies in an event store."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.bounds import KEPT_STREAM_BYTES
from mcp_session_proxy.sessions.event_room import EventRoom


def put(room: EventRoom, place: str, *sizes: int, until: float = 10.0, most: int = 100) -> int:
    """Something is written; how many of its newest events there is room for."""
    fit = room.fit(place, sizes, most)
    room.put(place, fit, until)
    return fit.keep


def test_as_many_as_may_be() -> None:
    """The store is told the limit: what an earlier process has left counts, too, and is not known here."""
    room = EventRoom()
    assert put(room, "a", 10, 10) == 100
    assert put(room, "a", *[1] * 200) == 100
    assert room.used_bytes == 100 + 1024


def test_large_events_leave_room_for_fewer() -> None:
    """Never for none: the newest stays whatever its size."""
    room = EventRoom()
    half = KEPT_STREAM_BYTES // 2
    assert [put(room, "a", half) for _ in range(3)] == [100, 100, 2]
    assert put(room, "a", KEPT_STREAM_BYTES) == 1
    assert room.used_bytes == KEPT_STREAM_BYTES + 1024


def test_over_the_limit_the_oldest_goes() -> None:
    """By when it was written to last; what has had its time counts no more."""
    room = EventRoom()
    for place in ("a", "b", "c"):
        put(room, place, 1000)
    put(room, "a", 1000)
    put(room, "over", 1000, until=1.0)
    assert room.make(5.0, 1 << 30) == []
    assert room.make(5.0, 2 * 2024 + 1000) == ["b"]
    assert room.make(5.0, 2 * 2024 + 1000) == []
    room.remove("a")
    room.remove("a")
    assert room.make(5.0, 0) == ["c"]
    assert (room.used_bytes, len(room)) == (0, 0)


def test_what_has_ended_is_not_remembered() -> None:
    """However many there are, and however far from the limit."""
    room = EventRoom()
    for number in range(20_000):
        put(room, str(number), 1, until=float(number))
        room.make(float(number), 1 << 30)
    assert len(room) <= 1000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 600_000), max_size=5))))
def test_the_count_is_right(writes: list[tuple[str, list[int]]]) -> None:
    """Whatever is written: no place has more than its share, and together they are what is used."""
    room = EventRoom()
    for place, sizes in writes:
        put(room, place, *sizes, most=7)
    kept = [sizes for sizes, _ in room._places.values()]
    assert room.used_bytes == sum(map(sum, kept)) + 1024 * len(kept)
    assert all(len(sizes) <= 7 and (sum(sizes) <= KEPT_STREAM_BYTES or len(sizes) == 1) for sizes in kept)
