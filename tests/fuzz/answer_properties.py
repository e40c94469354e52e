"""What must hold for any bytes that a server sends as an answer; for Hypothesis and for ``make fuzz``.

The connection is real, what it is connected to is not: bytes are put in by hand, without a socket or a loop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcp_session_proxy.bounds import SERVER_FIELDS, SERVER_HEAD_BYTES
from mcp_session_proxy.upstream.http.http1 import AnswerStage, HttpAnswer, ServerConnection


class Line:
    """A transport that keeps what is written, and does what a test says. Stands for asyncio's."""

    def __init__(self, takes_bytes: float = math.inf) -> None:
        self.written: list[bytes] = []
        self.takes_bytes = takes_bytes
        self.is_cut = False
        self.is_paused = False
        self.connection: ServerConnection

    def write(self, data: bytes) -> None:
        """Keep it, and say so once it is more than the other side takes."""
        self.written.append(bytes(data))
        self.takes_bytes -= len(data)
        if self.takes_bytes <= 0:
            self.connection.pause_writing()

    def abort(self) -> None:
        """End it."""
        self.is_cut = True

    def is_closing(self) -> bool:
        """Whether it has been ended."""
        return self.is_cut

    def get_extra_info(self, _: str) -> None:
        """There is no socket."""

    def pause_reading(self) -> None:
        """Nothing may come."""
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        """Something may come again."""
        assert self.is_paused
        self.is_paused = False


@dataclass
class Scene:
    """A connection over a ``Line``, and what it told. ``time`` is its clock."""

    line: Line = field(default_factory=Line)
    time: float = 0.0
    idle: int = 0
    lost: int = 0
    watched: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Connect."""
        self.connection = ServerConnection(
            self._note_idle, self._note_lost, self.watched.append, lambda: self.time
        )
        self.line.connection = self.connection
        self.connection.connection_made(self.line)  # type: ignore[arg-type]

    def _note_idle(self, _: ServerConnection) -> None:
        self.idle += 1

    def _note_lost(self, _: ServerConnection) -> None:
        self.lost += 1

    def ask(self, body: bytes = b"{}", silence_seconds: float = 60.0) -> HttpAnswer:
        """Send a request."""
        return self.connection.ask(b"POST /mcp HTTP/1.1\r\n\r\n", body, silence_seconds)

    def hear(self, *pieces: bytes) -> None:
        """Bytes come, as long as the connection lets them."""
        for piece in pieces:
            if piece and not self.line.is_cut:
                self.connection.data_received(piece)

    def lose(self, error: Exception | None = None) -> None:
        """The other side ends the connection: in order, or by an error."""
        if error is None:
            self.connection.eof_received()
        self.connection.connection_lost(error)


def play(pieces: Sequence[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes, AnswerStage, bool]:
    """What comes of an answer in these pieces, each read at once, after which the server leaves."""
    scene = Scene()
    answer = scene.ask()
    body = b""
    for piece in pieces:
        scene.hear(piece)
        body += b"".join(answer.pieces)
        answer.pieces.clear()
        answer.unread_bytes = 0
        assert sum(len(name) + len(value) for name, value in answer.fields) <= SERVER_HEAD_BYTES
        assert len(answer.fields) <= SERVER_FIELDS or answer.stage is AnswerStage.BROKEN or not answer.status
    was_idle = scene.idle > 0 and not scene.line.is_cut
    scene.lose()
    assert scene.lost == 1
    assert scene.idle <= 1
    assert answer.stage in (AnswerStage.ENDED, AnswerStage.BROKEN)
    return answer.status, answer.fields if answer.status else [], body, answer.stage, was_idle


def check_answer(data: bytes, cuts: Sequence[int]) -> None:
    """The bytes of an answer come to the same however they are split; nothing raises, nothing grows."""
    whole = play([data])
    split = play([data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    assert whole == split
