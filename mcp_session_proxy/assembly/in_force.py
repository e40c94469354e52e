"""The settings in force, and the components that have rules made of them.

A component that is built here gets its first rules at once, and new ones whenever the settings are replaced.
So each option's meaning is written once, in ``rules``, and its component is named once, where it is built.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..settings.config import Settings

Rules = TypeVar("Rules")


class Ruled(Protocol):
    """A component whose rules may be replaced at any time."""

    rules: Any


Component = TypeVar("Component", bound=Ruled)


class InForce:
    """The settings as they are now, and a table of the components with what makes their rules."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._table: list[tuple[Ruled, Callable[[Settings], Any]]] = []

    def build(self, make_rules: Callable[[Settings], Rules], make: Callable[[Rules], Component]) -> Component:
        """Build a component with its first rules, and note it for all later ones.

        ``make_rules`` makes rules of settings, and ``make`` the component of rules.
        """
        component = make(make_rules(self.settings))
        self._table.append((component, make_rules))
        return component

    def replace(self, settings: Settings) -> None:
        """Give every component the rules that follow from these settings.

        What has to change then, such as a session that is over a lowered limit, changes in the next round of
        maintenance. If rules cannot be made of the settings, nothing is replaced.
        """
        everybody = [(component, make_rules(settings)) for component, make_rules in self._table]
        self.settings = settings
        for component, rules in everybody:
            component.rules = rules
