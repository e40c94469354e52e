"""The rooms of the house: what may import what, read from the source."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import mcp_session_proxy

NAME = "mcp_session_proxy"
ROOT = Path(mcp_session_proxy.__file__).parent

# From the bottom to the top: each floor may import itself and those before it.
CORE_ROOMS = ["protocol", "upstream", "store", "sessions", "exchange", "cluster", "downstream"]
ROOMS = [*CORE_ROOMS, "settings", "ops", "assembly"]
# Anybody may import these, because they import nobody.
LEAVES = ["aio", "backoff", "bounds", "errors", "memory", "events", "tracing"]
# What is no room and no leaf: the way in.
ENTRANCE = {"", "__main__", "cli"}
# Wings of their own. One looks at servers from outside, and is built on the lowest floors and the settings
# alone; one shows the whole.
WINGS = {"check": {"check", "protocol", "upstream", "settings", *LEAVES}, "demo": {"demo", *ROOMS, *LEAVES}}
# An event and the error it tells of, named with their modules; what the API calls so; and what is to go.
STILL_TWICE = {"SessionLost", "UpstreamDown", "Draining", "Opening", "Router", "Share", "Trouble"}
MOST_AT_THE_ROOT = 10
# A class that has more is two things.
MOST_METHODS = 30
MOST_ATTRIBUTES = 20
# Those that are two things today. Whoever takes one apart takes it out of here; nobody puts one in.
STILL_LARGE: set[str] = set()


def find_modules() -> dict[str, Path]:
    """Every module's name without the package's, and its file. A package is its ``__init__``."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = find_modules()


def tree_of(module: str) -> ast.Module:
    """A module's source, parsed."""
    return ast.parse(MODULES[module].read_text())


@cache
def imports_of(module: str) -> frozenset[str]:
    """The absolute names of all modules that a module imports, wherever in its text."""
    package = module.split(".") if MODULES[module].stem == "__init__" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = [NAME, *package][: len(package) + 2 - node.level] if node.level else []
            base = ".".join([*here, *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(found)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports itself."""
    names = {name.removeprefix(f"{NAME}.") for name in imports_of(module) if name.startswith(f"{NAME}.")}
    return {name for name in names if name in MODULES} - {module}


def room_of(module: str) -> str:
    return module.split(".")[0]


def rooms_used_by(module: str) -> set[str]:
    """The rooms, leaves and wings whose modules a module imports itself."""
    return {room_of(name) for name in own_imports(module)}


def outside_world(module: str) -> set[str]:
    """The top-level packages that a module pulls in, by itself and through others of the package."""
    seen, waiting, found = {module}, [module], set()
    while waiting:
        current = waiting.pop()
        found |= {name.split(".")[0] for name in imports_of(current)} - {NAME}
        fresh = own_imports(current) - seen
        seen |= fresh
        waiting += fresh
    return found


@cache
def purpose_of(module: str) -> str:
    """The first paragraph of a module."""
    return (ast.get_docstring(tree_of(module)) or "").split("\n\n")[0]


@cache
def pure() -> list[str]:
    """All of ``protocol``, and every module that says of itself "Pure." in its first paragraph."""
    return [module for module in MODULES if room_of(module) == "protocol" or "Pure." in purpose_of(module)]


HOUSE = [module for module in MODULES if room_of(module) in ROOMS]


def test_the_rooms_are_there() -> None:
    """These tests look at the real thing: every room has modules, and imports are found."""
    assert {room_of(module) for module in MODULES} == {*ROOMS, *LEAVES, *ENTRANCE, *WINGS}
    assert "protocol.jsonrpc" in own_imports("protocol.lost")
    assert "errors" in own_imports("protocol.lost")
    assert {"downstream.guard", "protocol.headers", "sessions.policy"} <= set(pure())


def test_pure_modules_know_neither_event_loop_nor_http() -> None:
    """What claims to be pure imports no asyncio, no aiohttp and no sockets, not even through others."""
    impure = {"asyncio", "aiohttp", "socket", "threading", "time", "uvloop"}
    assert {module: found for module in pure() if (found := outside_world(module) & impure)} == {}


def test_the_protocol_loads_without_asyncio() -> None:
    """Loading the whole protocol in a fresh interpreter loads neither asyncio nor aiohttp."""
    names = [f"{NAME}.{module}" for module in MODULES if room_of(module) == "protocol"]
    code = f"import sys, {', '.join(names)}; sys.exit(bool({{'asyncio', 'aiohttp'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_point_down() -> None:
    """A room imports itself, the rooms below, and leaves; never what is above."""
    allowed = {room: {*ROOMS[: floor + 1], *LEAVES} for floor, room in enumerate(ROOMS)}
    above = {module: rooms_used_by(module) - allowed[room_of(module)] for module in HOUSE}
    assert {module: rooms for module, rooms in above.items() if rooms} == {}


def test_leaves_import_nobody() -> None:
    """What everybody may import imports nobody itself, but for the errors that it raises and its bounds."""
    imported = {module: own_imports(module) for module in LEAVES}
    assert imported.pop("memory") <= {"bounds", "errors"}
    assert {module: names for module, names in imported.items() if names} == {}


def test_nobody_imports_the_top() -> None:
    """``__main__`` alone imports the command line, which alone imports the demo and the check."""
    used = {module: rooms_used_by(module) - {room_of(module)} for module in MODULES}
    assert {module for module, rooms in used.items() if "cli" in rooms} <= {"__main__"}
    assert {room_of(module) for module, rooms in used.items() if rooms & set(WINGS)} <= {"cli"}


def test_a_wing_stands_on_its_floors() -> None:
    """What checks servers knows nothing of the proxy's sessions, exchanges and front door."""
    wings = [module for module in MODULES if room_of(module) in WINGS]
    elsewhere = {module: rooms_used_by(module) - WINGS[room_of(module)] for module in wings}
    assert {module: rooms for module, rooms in elsewhere.items() if rooms} == {}


def test_few_modules_stand_at_the_root() -> None:
    """Whoever opens the package sees the rooms, and few modules that everybody needs."""
    assert len(list(ROOT.glob("*.py"))) <= MOST_AT_THE_ROOT


def test_no_two_modules_import_each_other() -> None:
    """The modules form no circle, within a room or across."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in own_imports(module):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_every_module_says_what_it_is_for() -> None:
    """Every module begins with a paragraph that says what lives there."""
    assert [module for module in MODULES if not purpose_of(module).endswith((".", ":"))] == []


@pytest.mark.slow
def test_a_class_name_means_one_thing() -> None:
    """Whoever reads a class's name need not ask which one; an underscore makes it no other name."""
    counted = Counter(
        node.name.lstrip("_")
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in counted.items() if times > 1} <= STILL_TWICE


def sizes_of(module: str) -> dict[str, tuple[int, int]]:
    """How many methods each class of a module has, and how many attributes its methods set."""
    found = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            attributes = {
                target.attr
                for method in methods
                for target in ast.walk(method)
                if isinstance(target, ast.Attribute)
                and isinstance(target.ctx, ast.Store)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            }
            found[node.name] = (len({method.name for method in methods}), len(attributes))
    return found


@pytest.mark.slow
def test_every_class_is_one_thing() -> None:
    """None has thirty methods or twenty attributes, but those that are known to be too large still."""
    large = {
        name
        for module in MODULES
        for name, (methods, attributes) in sizes_of(module).items()
        if methods >= MOST_METHODS or attributes >= MOST_ATTRIBUTES
    }
    assert large == STILL_LARGE
