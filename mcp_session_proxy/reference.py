"""The settings model turned into what people read: one :class:`Option` each, for the help and the docs.

``python -m mcp_session_proxy.reference`` writes the page ``docs/configuration.md``.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic.fields import FieldInfo

from .config import Group, Settings
from .options import env_name, flag_name, key_name
from .values import Form, show

T = TypeVar("T")

_PAGE: Final = """\
# Configuration

Every option can be given in four ways. The first one that gives it wins:

1. a flag: `mcp-session-proxy serve http://127.0.0.1:8000/mcp --idle-timeout 5m`
2. an environment variable: `MCP_SESSION_PROXY_IDLE_TIMEOUT=5m`
3. a key of the TOML file that `--config FILE` names: `idle-timeout = "5m"`
4. its default

A wrong value, an unknown flag or an unknown key ends the program with status 2 and a message that names the
option and what is allowed.

| kind of value | how to write it |
|---|---|
| `DURATION` | `500ms`, `30s`, `5m`, `2h`, `1d`, or a number of seconds |
| `SIZE` | `512KiB`, `4MiB`, `1GB`, or a number of bytes |
| `HOST:PORT` | `127.0.0.1:8080`, `[::1]:8080`, `:8080` for every interface; port 0 takes any free port |
| a list | repeat the flag; commas in a flag or a variable; an array in the file |

```toml
# proxy.toml
upstream = "http://127.0.0.1:8000/mcp"
listen = "127.0.0.1:8080"
sharing = "handover"
idle-timeout = "30m"
credential-header = ["authorization", "x-tenant"]
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, as help texts speak of it."""

    field: str
    group: Group
    metavar: str
    default: str | None
    text: str
    is_switch: bool
    is_list: bool

    @property
    def flag(self) -> str:
        """Its flag."""
        return flag_name(self.field)


def options() -> list[Option]:
    """All options, in the order of the settings model."""
    return [_option(field, info) for field, info in Settings.model_fields.items()]


def render() -> str:
    """The page ``docs/configuration.md``."""
    parts = [_PAGE]
    for group in Group:
        parts.append(f"## {group}\n")
        parts += [_entry(option) for option in options() if option.group is group]
    return "\n".join(parts)


def _option(field: str, info: FieldInfo) -> Option:
    form = _find(info, Form)
    return Option(
        field=field,
        group=_find(info, Group) or Group.LISTENING,
        metavar=form.metavar if form else _choices(info.annotation),
        default=None if info.is_required() else (form.show if form else show)(info.default),
        text=" ".join((info.description or "").split()),
        is_switch=info.annotation is bool,
        is_list=isinstance(info.default, tuple),
    )


def _find(info: FieldInfo, kind: type[T]) -> T | None:
    return next((item for item in info.metadata if isinstance(item, kind)), None)


def _choices(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "{" + ",".join(annotation) + "}"
    return "BOOL"


def _entry(option: Option) -> str:
    default = "required" if option.default is None else f"default `{option.default}`"
    heading = f"`{option.flag} {option.metavar}`"
    if option.field == "upstream":
        heading = f"`{option.flag}`"
    elif option.is_switch:
        heading = f"`{option.flag}`, `--no-{key_name(option.field)}`"
    names = f"`{env_name(option.field)}`"
    if option.field != "config":
        names += f" · `{key_name(option.field)}`"
    return f"### {heading}\n\n{option.text}\n\n{names} · {default}\n"


if __name__ == "__main__":
    sys.stdout.write(render())
