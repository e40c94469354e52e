"""Everybody who is told of events: the log, the metrics, and the observers for people who look."""

import time
from datetime import UTC, datetime

from ..events import Level
from ..ops.churn import Churn
from ..ops.logs import EventLog, hush_libraries
from ..ops.metrics import Metrics
from ..ops.observers import Tee
from ..ops.recent import Recent


class Watchers:
    """All observers; ``observe`` tells each of them. ``rules`` is the lowest level that is logged."""

    def __init__(self, rules: Level) -> None:
        self.metrics = Metrics()
        self.churn = Churn(time.monotonic)
        self.recent = Recent(lambda: datetime.now(UTC))
        self._log = EventLog(rules)
        self.observe = Tee(self._log, self.metrics, self.churn, self.recent)
        self._rules = rules

    @property
    def rules(self) -> Level:
        """The level."""
        return self._rules

    @rules.setter
    def rules(self, rules: Level) -> None:
        self._rules = rules
        self._log.set_level(rules)
        self.observe.refresh()
        hush_libraries(rules)
