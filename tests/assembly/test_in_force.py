"""One table says who goes by which rules, from the beginning and whenever the settings are replaced."""

import ast
from pathlib import Path

import pytest

from mcp_session_proxy import assembly
from mcp_session_proxy.assembly.in_force import InForce
from mcp_session_proxy.settings.config import Settings, load
from mcp_session_proxy.settings.kinds import LIVE


def settings(**options: object) -> Settings:
    return load({"upstream": "http://127.0.0.1:8000/mcp", **options})


class Component:
    """Goes by a number of seconds."""

    def __init__(self, rules: float) -> None:
        self.rules = rules


def test_everybody_is_built_with_the_rules_of_today_and_gets_those_of_tomorrow() -> None:
    """Who is built once is given new rules for ever."""
    in_force = InForce(settings(linger=1, heartbeat=10))
    one = in_force.build(lambda settings: settings.linger, Component)
    other = in_force.build(lambda settings: settings.heartbeat, Component)
    assert (one.rules, other.rules) == (1, 10)
    for linger, heartbeat in ((2, 20), (3, 30)):
        in_force.replace(settings(linger=linger, heartbeat=heartbeat))
        assert (one.rules, other.rules, in_force.settings.linger) == (linger, heartbeat, linger)


def test_who_is_built_late_gets_what_is_in_force() -> None:
    """Not what was so at the beginning."""
    in_force = InForce(settings(linger=1))
    in_force.replace(settings(linger=2))
    assert in_force.build(lambda settings: settings.linger, Component).rules == 2


def test_nobody_gets_new_rules_if_somebodys_cannot_be_made() -> None:
    """Either all go by the new settings, or none does."""

    def picky(settings: Settings) -> float:
        if settings.linger > 1:
            raise ZeroDivisionError
        return settings.linger

    in_force = InForce(settings(linger=1))
    first = in_force.build(lambda settings: settings.linger, Component)
    in_force.build(picky, Component)
    with pytest.raises(ZeroDivisionError):
        in_force.replace(settings(linger=2))
    assert (first.rules, in_force.settings.linger) == (1, 1)


def read_options(module: Path) -> set[str]:
    """The options that a module reads off the settings."""
    return {
        node.attr
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and "settings" in (getattr(node.value, "id", None), getattr(node.value, "attr", None))
    }


def test_what_can_change_is_read_where_rules_are_made() -> None:
    """No part of the assembly hands an option that can change to anybody, beside the one table.

    What is read at the moment at which it counts needs no rules.
    """
    live = {name for name, field in Settings.model_fields.items() if LIVE in field.metadata}
    rooms = Path(assembly.__file__).parent.glob("*.py")
    read = {module.stem: sorted(read_options(module) & live) for module in rooms if module.stem != "rules"}
    assert {module: options for module, options in read.items() if options} == {
        "admin": ["admin_token"],
        "proxy": ["drain_timeout", "on_stop"],
    }
