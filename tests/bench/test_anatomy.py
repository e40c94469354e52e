"""Where the work of a call goes, counted exactly."""

import json

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


def test_functions_and_objects() -> None:
    """Of the proxy's own, what every call enters and makes, the dearest function first."""
    package = "/x/mcp_session_proxy/"
    often, once = anatomy.CALLS, 1
    work = anatomy.read_work(
        json.dumps(
            {
                "functions": [
                    (package + "sessions/pool.py", "Pool.acquire", 2 * often, 90 * often),
                    (package + "events.py", "tell", often, 100 * often),
                    (package + "sessions/pool.py", "Pool.maintain", once, 400),
                    ("/x/site-packages/aiohttp/client.py", "get", often, 5 * often),
                ],
                "objects": [
                    ("mcp_session_proxy.sessions.pool", "Lease", often),
                    ("mcp_session_proxy.sessions.pool", "Pool", once),
                    ("aiohttp.client", "Session", often),
                ],
            }
        ).encode()
    )
    assert work.bytecodes == {"sessions": 92, "the leaves": 100, anatomy.LIBRARIES: 5}
    assert anatomy.list_work("modern", work).splitlines() == [
        "",
        "modern: 3 functions are entered and 1 objects made",
        "    100    1 x  events.py tell",
        "     90    2 x  sessions/pool.py Pool.acquire",
        "           1 x  Lease",
    ]


@pytest.mark.slow
def test_calls_stay_cheap() -> None:
    """No time is measured here: a call takes so many bytecodes on any machine, and a client's life, too."""
    columns = {name: sum(work.bytecodes.values()) for name, work in anatomy.measure().items()}
    bare = columns.pop("bare")
    most = {
        "session-less": 0.84,
        "client session": 0.84,
        "modern": 1.08,
        "before a command": 0.76,
        "flow": 4.1,
    }
    assert {
        name: round(number / bare, 2) for name, number in columns.items() if number > most[name] * bare
    } == {}
