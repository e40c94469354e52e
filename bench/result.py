"""What came of a case, whatever it measured. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .figures import Figure, ratios, summarise

Progress = Callable[[str], None]
Sample = Mapping[str, float]
"""One contender in one round, by quantity: see UNITS."""

UNITS: Mapping[str, tuple[str, str]] = {
    "cpu": ("CPU per call", "µs"),
    "rate": ("per second", ""),
    "p50": ("p50", "ms"),
    "p99": ("p99", "ms"),
    "flow": ("time per flow", "ms"),
    "flow cpu": ("CPU per flow", "µs"),
    "flows": ("flows per second", ""),
    "grown": ("memory at most above idle", "MiB"),
    "each": ("memory for each", "KiB"),
    "ready": ("time until ready", "s"),
    "takeover": ("from the first answer to the last", "s"),
    "idle": ("CPU while nothing is asked", "% of a core"),
}


# The entries of the memory case, which are no contenders.
CLIENT_SESSION = "client session"
UPSTREAM_SESSION = "upstream session with its GET stream"
LISTENER = "idle subscriptions/listen stream"
# Those of several proxies.
ONE_PROXY = "one proxy"
AT_OWNER = "two, each call where its caller is served"
AT_EITHER = "two, each call at either"
ELSEWHERE = "two, each call at the other"
TAKEN_OVER = "callers of a proxy that was killed"
IN_MEMORY = "in memory"
ON_STORE = "on a store"


@dataclass(kw_only=True)
class Result:
    """Of each entry either the samples, one for each round, or why there are none."""

    name: str
    title: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, entry: str, sample: Sample) -> None:
        """Note a round."""
        self.samples.setdefault(entry, []).append(sample)

    def fail(self, entry: str, why: str) -> None:
        """Note that an entry cannot be measured; its rounds so far do not count."""
        self.samples.pop(entry, None)
        self.failures[entry] = why

    def values(self, entry: str, quantity: str) -> list[float]:
        """A quantity in each round. Raises KeyError when the entry failed or does not have it."""
        return [sample[quantity] for sample in self.samples[entry]]

    def figure(self, entry: str, quantity: str) -> Figure:
        """A quantity over all rounds. Raises KeyError like `values`."""
        return summarise(self.values(entry, quantity))

    def ratio(self, entry: str, other: str, quantity: str) -> Figure:
        """One's quantity divided by the other's, round by round. Raises KeyError like `values`."""
        return ratios(self.values(entry, quantity), self.values(other, quantity))
