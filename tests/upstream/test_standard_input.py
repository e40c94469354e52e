"""What a child is told: lines, written together, bounded, and counted where they never were."""

import asyncio

import pytest
from fakes import settle

from mcp_session_proxy.bounds import CHILD_UNREAD_BYTES
from mcp_session_proxy.errors import UpstreamTimeout
from mcp_session_proxy.upstream.stdio.child import StandardInput


class Pipe:
    """Keeps what is written to it. Of that, ``waiting`` bytes were not taken."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Scene:
    """The standard input of a child, and what was said of it."""

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.said: list[str] = []
        self.stdin = StandardInput(lambda: self.pipe, self._unread)

    def _unread(self, why: str) -> None:
        self.said.append(why)
        self.stdin.is_closed = True  # as the child does once it is of no use


@pytest.fixture
async def at() -> Scene:
    return Scene()


async def test_lines_of_one_turn_are_one_write(at: Scene) -> None:
    """In their order; those of the next turn are the next one."""
    for line in (b"one", b"two", b"three"):
        at.stdin.write(line)
    assert at.pipe.written == []
    await settle()
    at.stdin.write(b"four")
    await settle()
    assert at.pipe.written == [b"one\ntwo\nthree\n", b"four\n"]


async def test_a_message_is_one_line(at: Scene) -> None:
    """Whatever stands between its tokens."""
    at.stdin.write(b'{\n "id":\r\n1}')
    await settle()
    assert at.pipe.written == [b'{  "id":\r 1}\n']


async def test_one_line_may_be_larger_than_the_bound(at: Scene) -> None:
    """Where nothing else waits."""
    at.stdin.write(b"x" * (CHILD_UNREAD_BYTES + 1))
    await settle()
    assert len(at.pipe.written[0]) == CHILD_UNREAD_BYTES + 2


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_child_that_reads_nothing(at: Scene, turns: int) -> None:
    """It has a bound, whether what waits is in this turn of the event loop or behind it."""
    at.stdin.write(b"x" * (CHILD_UNREAD_BYTES - 10))
    if turns == 2:
        await settle()
        at.pipe.waiting = CHILD_UNREAD_BYTES - 9
    at.stdin.write(b"x")
    with pytest.raises(UpstreamTimeout):
        at.stdin.write(b"x" * 10)
    assert len(at.said) == 1


async def test_what_was_never_written(at: Scene) -> None:
    """What the pipe did not take, what was kept in this turn, and what came after the end."""
    at.stdin.write(b"taken")
    await settle()
    at.pipe.waiting = 2
    at.stdin.write(b"1234")
    assert at.stdin.unwritten_bytes == 2 + 5
    at.stdin.is_closed = True
    at.stdin.write(b"123456")
    await settle()
    assert at.stdin.unwritten_bytes == 2 + 5 + 7
    assert at.pipe.written == [b"taken\n"]


async def test_what_was_said_last_is_written_before_the_end(at: Scene) -> None:
    """Whoever says goodbye has said what it said before."""
    at.stdin.write(b"last")
    at.stdin.close()
    at.stdin.write(b"too late")
    await asyncio.sleep(0)
    assert at.pipe.written == [b"last\n"]
    assert at.pipe.closed
