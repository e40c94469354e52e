"""How long to pause between attempts that fail. Pure."""

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Pauses between attempts: ``first_seconds``, then twice as long each time, up to ``last_seconds``.

    It says what follows on what and counts nothing. Whoever tries keeps the last pause, 0 before the first
    one: a number, so that those many who never need to try twice make no object for it.
    """

    first_seconds: float
    last_seconds: float

    def __post_init__(self) -> None:
        # After a pause of nothing comes the first one, so a first pause of nothing would never grow.
        if not 0 < self.first_seconds <= self.last_seconds:
            raise ValueError("The first pause is longer than nothing and no longer than the last.")

    def after(self, pause_seconds: float) -> float:
        """The pause that follows on one of ``pause_seconds``; the first one follows on 0."""
        return min(max(2 * pause_seconds, self.first_seconds), self.last_seconds)
