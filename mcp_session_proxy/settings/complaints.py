"""The problems of a configuration, in lines that name each option as its user has written it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .sources import FILE_PROBLEMS, Source, key_name, origin
from .values import mask, show_secret

# Options whose values are never shown, not even if they are wrong.
_SECRETS: Final = frozenset({"admin_token", "cluster_key", "command", "stdio_env", "store"})


def describe(error: ValidationError, flags: Mapping[str, Any]) -> Iterator[str]:
    """The problems that the model has found with these flags, the environment and the file."""
    for detail in error.errors():
        yield from _describe(detail, flags)


def _describe(detail: ErrorDetails, flags: Mapping[str, Any]) -> list[str]:
    """One line for each problem in an error of the model's."""
    if not detail["loc"]:
        conflicts = detail["ctx"]["conflicts"]
        return [_complaint(field, detail["input"][field], problem, flags) for field, problem in conflicts]
    field = str(detail["loc"][0])
    if field == FILE_PROBLEMS:
        return list(detail["input"])
    if detail["type"] == "default_factory_not_called":
        return []  # the default depends on another option, which is wrong and has a line of its own
    if detail["type"] == "missing":
        return [
            "URL: the server's address is missing; write it as in serve http://127.0.0.1:8000/mcp, "
            "or its command as in serve --stdio -- npx -y @modelcontextprotocol/server-memory"
        ]
    return [_complaint(field, detail["input"], _problem(detail), flags)]


def _complaint(field: str, given: object, problem: str, flags: Mapping[str, Any]) -> str:
    quoted = show_secret(given) if field in _SECRETS else _quote(given)
    return f"{_written(field, flags)}: {quoted} is not allowed; it {problem}"


def _written(field: str, flags: Mapping[str, Any]) -> str:
    """The option as its user wrote it, wherever that was."""
    where = origin(field, flags)
    return f"{key_name(field)} in {where.name}" if where.source is Source.FILE else str(where.name)


def _quote(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(mask(value)) if isinstance(value, str) else mask(str(value))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _problem(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind.startswith("int"):
        return "must be a whole number"
    if kind.startswith("bool"):
        return "must be true or false"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    return detail["msg"].replace("Input should be", "must be")
