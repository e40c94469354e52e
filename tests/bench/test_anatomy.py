"""Where the work of a call goes, counted exactly."""

import pytest

from bench import anatomy


@pytest.mark.parametrize(
    ("file", "room"),
    [
        ("/x/mcp_session_proxy/sessions/pool.py", "sessions"),
        ("/x/mcp_session_proxy/ops/admin/api.py", "ops"),
        ("/x/mcp_session_proxy/events.py", "the leaves"),
        ("/x/site-packages/aiohttp/client.py", anatomy.LIBRARIES),
        ("<string>", anatomy.LIBRARIES),
        ("/x/bench/programs/bare.py", "the pass-through"),
    ],
)
def test_rooms(file: str, room: str) -> None:
    """A source file belongs to its folder in the package, or to the libraries."""
    assert anatomy.room(file) == room


def test_table() -> None:
    """The largest room first, and a sum of each column."""
    table = anatomy.tabulate({"bare": {"a": 10.4, "b": 2000}, "proxy": {"a": 3000, "c": 1}})
    assert table.splitlines()[2:] == [
        "| a | 10 | 3,000 |",
        "| b | 2,000 |  |",
        "| c |  | 1 |",
        "| all | 2,010 | 3,001 |",
    ]


def test_calls_stay_cheap() -> None:
    """No time is measured here: a call takes so many bytecodes on any machine, and hardly more."""
    columns = {name: sum(rooms.values()) for name, rooms in anatomy.measure().items()}
    bare = columns.pop("bare")
    most = {"session-less": 1.48, "client session": 1.46, "modern": 1.7}
    assert {
        name: round(number / bare, 2) for name, number in columns.items() if number > most[name] * bare
    } == {}
