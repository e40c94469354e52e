"""Text that a server wrote, made fit to be shown: no control characters, no secrets, not too long. Pure."""

import re
from collections.abc import Iterable
from typing import Final

from ..protocol import jsonrpc

_MAX: Final = 100
# A shorter one would blot out half of the report.
_SHORTEST_SECRET: Final = 6
_MASK: Final = "***"
# ECMA-48 control sequences, and the strings of a terminal's operating system commands.
_ESCAPES: Final = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.")


def clean(text: str, limit: int = _MAX) -> str:
    """One line of printable characters, at most ``limit`` of them."""
    text = _ESCAPES.sub("", text)
    # str.isprintable is False for controls, for marks that turn or hide text, and for lone surrogates.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clean_string(raw: bytes | None) -> str | None:
    """A raw JSON string, cleaned; None if it is none."""
    text = jsonrpc.read_string(raw)
    return None if text is None else clean(text)


def name_and_version(info: bytes | None) -> str:
    """How a raw ``Implementation`` calls itself; empty if it does not."""
    named = jsonrpc.read_object(info)
    return clean(" ".join(jsonrpc.read_string(named.get(member)) or "" for member in ("name", "version")))


def find_secrets(header_values: Iterable[str], query_values: Iterable[str] = ()) -> tuple[str, ...]:
    """What must not be shown: whole values and, of ``Bearer abc``, also ``abc``. The longest first."""
    found = {word for value in header_values for word in (value, value.rpartition(" ")[2])}
    found.update(query_values)
    return tuple(
        sorted((word for word in found if len(word) >= _SHORTEST_SECRET), key=lambda word: (-len(word), word))
    )


def conceal(raw: bytes, secrets: Iterable[str]) -> bytes:
    """What a server sent, without the secrets that it may have repeated."""
    for secret in secrets:
        raw = raw.replace(secret.encode("utf-8", "surrogateescape"), _MASK.encode())
    return raw
