"""Whether the server was started by the first request, as platforms that scale to nothing do. Pure."""

from dataclasses import dataclass
from typing import Final

from .clients import handshake_seconds
from .observations import Observations

# A first session that took this much longer than later ones waited for something else.
_START_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the first ``initialize`` took, and what a whole handshake took later."""

    first_seconds: float
    later_seconds: float


def judge_start(seen: Observations) -> Start | None:
    """How the server started; None if it seems to have been running."""
    later = handshake_seconds(seen)
    if not seen.hello.is_answered or later is None or seen.hello.seconds - later < _START_SECONDS:
        return None
    return Start(first_seconds=seen.hello.seconds, later_seconds=later)
