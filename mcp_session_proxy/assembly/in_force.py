"""The settings in force, and everybody who goes by them.

Whoever is built here is given rules that are made of the settings, and new ones whenever these are replaced:
what an option means is said once, in ``rules``, and who goes by it once, where that is built.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..settings.config import Settings

Rules = TypeVar("Rules")


class Ruled(Protocol):
    """Something that goes by rules, which may be replaced whole at any time."""

    rules: Any


Component = TypeVar("Component", bound=Ruled)


class InForce:
    """The settings as they are now, and the table of those who go by them with how their rules are made."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._table: list[tuple[Ruled, Callable[[Settings], Any]]] = []

    def build(self, make_rules: Callable[[Settings], Rules], make: Callable[[Rules], Component]) -> Component:
        """What ``make`` makes of the rules of today; it gets those of tomorrow, too."""
        component = make(make_rules(self.settings))
        self._table.append((component, make_rules))
        return component

    def replace(self, settings: Settings) -> None:
        """Go by these settings from now on.

        What follows from it (who waits gets room, who is over a limit goes) happens with the next round of
        maintenance.
        """
        everybody = [(component, make_rules(settings)) for component, make_rules in self._table]
        self.settings = settings
        for component, rules in everybody:
            component.rules = rules
