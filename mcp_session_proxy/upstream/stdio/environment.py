"""What a child is started with: very little of our environment, what the operator gives, its caller's own.

A server that is started for one caller may get that caller's credentials as variables: nobody else ever uses
its session. Pure.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ...errors import BadRequest
from ..transport import Caller

# The same that MCP's SDKs give to the servers that they start; a proxy's own environment holds secrets.
INHERITED: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
_SOUNDS_SECRET: Final = re.compile(r"auth|token|key|secret|passw|credential|cookie", re.IGNORECASE)
# A shorter one may stand anywhere by chance, and what hides it would hide the rest of the text.
_LEAST_SECRET_CHARS: Final = 4
HIDDEN: Final = "***"
# In a working directory: stands for a new one that belongs to the child alone.
PRIVATE: Final = "{session}"


class Stderr(StrEnum):
    """What becomes of what children write to standard error."""

    LOG = "log"
    INHERIT = "inherit"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The variables of a server's children.

    ``given`` are the same for all of them. ``from_headers`` are pairs of a header's name, in lower case, and
    the variable that it becomes where the request that a child is started for has it.
    """

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    from_headers: tuple[tuple[str, str], ...] = ()

    def of(self, caller: Caller) -> dict[str, str]:
        """The variables of a child of this caller's.

        Raises:
            BadRequest: a header's value cannot be that of a variable.
        """
        variables = dict(self.given)
        for header, variable in self.from_headers:
            values = [value for name, value in caller.headers if name.lower() == header]
            if not values:
                continue
            if any("\0" in value for value in values):
                raise BadRequest(f"The header {header} holds a NUL, so it cannot become a variable.")
            variables[variable] = ", ".join(values)  # RFC 9110, section 5.3
        return variables

    def secrets(self, variables: Mapping[str, str]) -> tuple[str, ...]:
        """Which values of a child's variables must not be shown, should it write them somewhere."""
        return tuple(sorted(self._secrets(variables), key=len, reverse=True))

    def _secrets(self, variables: Mapping[str, str]) -> Iterator[str]:
        callers = {variable for _, variable in self.from_headers}
        for name, value in variables.items():
            is_secret = name in callers or _SOUNDS_SECRET.search(name)
            if is_secret and name not in INHERITED and len(value) >= _LEAST_SECRET_CHARS:
                yield value
                # "Bearer TOKEN": programs write the token alone, too.
                last = value.rpartition(" ")[2]
                if last != value and len(last) >= _LEAST_SECRET_CHARS:
                    yield last


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """A text without these values, the longest first."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
