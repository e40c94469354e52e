"""How soon the proxy is ready: from the start of its process until `/readyz` says 200.

Ready means that it listens and that it has seen its server take a connection. The pass-through beside it
is ready as soon as it takes connections: it shows what Python and aiohttp need by themselves. Both are
asked every 20 ms.
"""

import time
from dataclasses import dataclass

from e2e.launch import StartError

from .contenders import Stage
from .result import Progress, Result


@dataclass(frozen=True, kw_only=True)
class StartupCase:
    """Starts the contenders in turns, each to be stopped at once."""

    name: str
    title: str
    contenders: tuple[str, ...] = ("bare", "proxy")

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure; a contender that does not come up is noted in the result."""
        result = Result(name=self.name, title=self.title)
        stage.server("stub")
        for name in self.contenders:
            self._start_once(stage, name, result)  # compiled from then on, as what is installed
        for number in range(rounds):
            for name in self.contenders:
                if name in result.failures:
                    continue
                say(f"{self.name}: {name}, round {number + 1} of {rounds}")
                seconds = self._start_once(stage, name, result)
                if seconds is not None:
                    result.add(name, {"ready": seconds})
        return result

    def _start_once(self, stage: Stage, name: str, result: Result) -> float | None:
        try:
            started = time.monotonic()
            place = stage.start_ready(name, "stub")
            seconds = time.monotonic() - started
        except StartError as error:
            result.fail(name, str(error))
            return None
        stage.stop(place)
        return seconds
