"""Headers that repeat what the body says, and the check that both say the same.

MCP 2026-07-28, basic/transports/streamable-http, "Request Metadata": ``Mcp-Method``, ``Mcp-Name``, and
``Mcp-Param-*`` for the tool parameters that a schema marks with ``x-mcp-header``.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ..errors import HeaderMismatch, InvalidParams
from . import jsonrpc, revisions

_SENTINEL_START: Final = "=?base64?"
_SENTINEL_END: Final = "?="
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN: Final = re.compile(r"[\x20-\x7e\t]*")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_MARK: Final = "x-mcp-header"
_MARKABLE_TYPES: Final = frozenset({"integer", "string", "boolean"})
# Beyond it, an integer is not the same number to every reader of JSON (RFC 8259, section 6).
_MAX_SAFE_INTEGER: Final = 2**53 - 1
_NAMED_BY: Final = {
    revisions.TOOLS_CALL: "name",
    revisions.PROMPTS_GET: "name",
    revisions.RESOURCES_READ: "uri",
    # ext-tasks, "Streamable HTTP: Routing Headers".
    revisions.TASK_GET: "taskId",
    revisions.TASK_UPDATE: "taskId",
    revisions.TASK_CANCEL: "taskId",
}
# FastMCP's client of the extension sends none with these, and the specification has servers refuse only those
# that say something else.
_MAY_BE_UNNAMED: Final = frozenset({revisions.TASK_GET, revisions.TASK_UPDATE, revisions.TASK_CANCEL})
# Bounds for a tool's schema, which is the server's and may be anything.
_MAX_DEPTH: Final = 64


HeaderValues = Callable[[str], Sequence[str]]


class MirroredParam(NamedTuple):
    """A tool parameter that clients repeat in a header."""

    header: str  # the whole header name in lower case
    path: tuple[str, ...]  # of property names, from the arguments' root
    type: str


class InvalidMarks(Exception):
    """A tool's ``x-mcp-header`` annotations break the rules; the text says how."""


def decode(value: str) -> str:
    """A header's value as the body has it, unwrapped from base64 where it is wrapped.

    Raises:
        HeaderMismatch: characters that a header must not have, or bad base64.
    """
    if not _PLAIN.fullmatch(value):
        raise HeaderMismatch("A header holds characters that must be encoded in base64.")
    if not (value.startswith(_SENTINEL_START) and value.endswith(_SENTINEL_END)):
        return value
    wrapped = value[len(_SENTINEL_START) : -len(_SENTINEL_END)]
    try:
        return base64.b64decode(wrapped, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise HeaderMismatch("A header holds bad base64.") from error


def check_routing(method: str, params: Mapping[str, bytes], header_values: HeaderValues) -> None:
    """Compare ``Mcp-Method`` and ``Mcp-Name`` with the body.

    ``params`` are the raw members of the request's parameters; ``header_values`` gives a header's values.

    Raises:
        HeaderMismatch: one is missing, sent twice, or says something else.
    """
    named = _single(header_values, revisions.METHOD_HEADER)
    if named != method:
        raise HeaderMismatch(f"{revisions.METHOD_HEADER} does not match the body's method.")
    member = _NAMED_BY.get(method)
    if method in _MAY_BE_UNNAMED and not header_values(revisions.NAME_HEADER):
        return
    if member is not None:
        name = decode(_single(header_values, revisions.NAME_HEADER))
        if name != jsonrpc.read_string(params.get(member)):
            raise HeaderMismatch(f'{revisions.NAME_HEADER} does not match the body\'s "{member}".')


def _single(header_values: HeaderValues, name: str) -> str:
    values = header_values(name)
    if len(values) != 1:
        problem = "is missing" if not values else "was sent more than once"
        raise HeaderMismatch(f"The header {name} {problem}.")
    return values[0].strip(" \t")


# -- Mcp-Param-* -----------------------------------------------------------------------------------


def read_marks(schema: object) -> tuple[MirroredParam, ...]:
    """The annotated parameters of a tool's input schema (decoded JSON).

    Raises:
        InvalidMarks: an annotation breaks a rule; the tool must be left out of ``tools/list``.
    """
    found: list[MirroredParam] = []
    _collect(schema, (), found, reachable=True, depth=0)
    names = [param.header for param in found]
    if len(set(names)) != len(names):
        raise InvalidMarks("two parameters share one header")
    return tuple(found)


def _collect(
    node: object, path: tuple[str, ...], found: list[MirroredParam], *, reachable: bool, depth: int
) -> None:
    """Gather the marks of a schema node and below; ``reachable`` through ``properties`` alone."""
    if depth > _MAX_DEPTH:
        raise InvalidMarks("the schema is nested too deeply")
    if isinstance(node, list):
        for item in node:
            _collect(item, path, found, reachable=False, depth=depth + 1)
        return
    if not isinstance(node, dict):
        return
    if _MARK in node:
        found.append(_read_mark(node, path, reachable=reachable and bool(path)))
    for key, child in node.items():
        if key == "properties" and isinstance(child, dict):
            for name, schema in child.items():
                _collect(schema, (*path, name), found, reachable=reachable, depth=depth + 1)
        # The others hold values and no schemas: what looks like a mark in there is somebody's data.
        elif key not in (_MARK, "const", "default", "enum", "examples"):
            _collect(child, path, found, reachable=False, depth=depth + 1)


def _read_mark(node: Mapping[str, object], path: tuple[str, ...], *, reachable: bool) -> MirroredParam:
    name, kind = node[_MARK], node.get("type")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise InvalidMarks("a header name is not a token")
    if not reachable:
        raise InvalidMarks(f"{name} is not reachable through properties alone")
    if not isinstance(kind, str) or kind not in _MARKABLE_TYPES:
        raise InvalidMarks(f"{name} is neither an integer nor a string nor a boolean")
    return MirroredParam(revisions.PARAM_HEADER_PREFIX + name.lower(), path, kind)


def check_params(
    marks: Iterable[MirroredParam], arguments: bytes | None, headers: Mapping[str, list[str]]
) -> None:
    """Compare ``Mcp-Param-*`` headers with the call's arguments (raw JSON).

    Raises:
        HeaderMismatch: a header is missing, or not expected, or says something else.
        InvalidParams: the arguments cannot be read, for all their being JSON.
    """
    known: dict[tuple[str, ...], Mapping[str, msgspec.Raw]] = {}
    for mark in marks:
        value = _read_value(_raw_value_at(arguments, mark.path, known))
        values = headers.get(mark.header, [])
        if value is None:
            if values:
                raise HeaderMismatch(f"The header {mark.header} is there, but the body has no such value.")
            continue
        if len(values) != 1:
            raise HeaderMismatch(f"The header {mark.header} is missing or was sent more than once.")
        if not _equal(decode(values[0].strip(" \t")), value, mark.type):
            raise HeaderMismatch(f"The header {mark.header} does not match the body.")


def _raw_value_at(
    arguments: bytes | None, path: tuple[str, ...], known: dict[tuple[str, ...], Mapping[str, msgspec.Raw]]
) -> bytes | None:
    """What stands at this path, raw. Only the objects on the way are read, each once: see ``known``."""
    raw = arguments
    for depth, name in enumerate(path):
        above = path[:depth]
        if above not in known:
            known[above] = jsonrpc.view_object(raw)
        member = known[above].get(name)
        if member is None:
            return None
        raw = bytes(member)
    return raw


def _read_value(raw: bytes | None) -> object:
    """A marked value, which is scalar. A JSON text may hold numbers and surrogates that nothing here can."""
    if raw is None:
        return None
    if raw[:1] in b"{[":
        return raw  # equals no header
    try:
        return msgspec.json.decode(raw)
    except jsonrpc.UNREADABLE as error:
        raise InvalidParams("The arguments hold a number or a character that is out of range.") from error


def _equal(text: str, value: object, kind: str) -> bool:
    # Before the numbers: to Python, a bool is an int.
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if kind == "integer" and isinstance(value, int | float):
        if not _NUMBER.fullmatch(text):
            return False
        # "10", "1e1" and "10.0" are one integer: clients format numbers as their languages do.
        number = float(text)
        return number == value and abs(number) <= _MAX_SAFE_INTEGER
    if isinstance(value, int | float):
        return text == str(value)
    return isinstance(value, str) and text == value
