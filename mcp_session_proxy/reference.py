"""The settings model turned into what people read: one :class:`Option` each, for the help and the docs.

``python -m mcp_session_proxy.reference`` writes the page ``docs/configuration.md``.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic.fields import FieldInfo

from .config import Group, Live, Settings
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
option and what is allowed. `mcp-session-proxy config check` looks for all of that, and at the TLS files,
without starting anything; `mcp-session-proxy config show` tells every option's value and where it comes from
(`--json` for programs). Both take the options of `serve`. `mcp-session-proxy completion bash` (or `zsh`,
`fish`) prints a script for the Tab key; `mcp-session-proxy completion --help` says where it goes.

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

## While it runs

SIGHUP (`systemctl reload`, `kill -HUP`) makes the proxy read the file again. Flags and variables stay as
they were and still win over it. Options that are marked *live* below change within a second, without losing
a session or a request; what has begun already (a call that is parked, a handshake, the wait for a stream's
next heartbeat) may end by the old value. If other options have changed, too, the rest is applied all the
same, and the log event [`config.reloaded`](events.md#configreloaded) names those that need a restart. If
anything in the file is wrong, nothing is applied, and
[`config.reload_failed`](events.md#configreload_failed) says what. The metrics
`mcp_session_proxy_config_reloads_total` and `mcp_session_proxy_config_last_reload_successful` tell of both.

The TLS files are read again as well, changed or not, so SIGHUP is all it takes after a renewal. New
connections get the new certificate; those that are open keep theirs. Authorities that are no longer in
`--tls-client-ca` are not trusted any more. Those of `--upstream-ca` are trusted until a restart, new ones
from SIGHUP on. TLS on the listener, certificates of clients and a certificate towards the server can be
turned on or off only by a restart.

As a service of systemd with `Type=notify` (or `notify-reload`), the proxy tells when it is ready, reloads
and stops, and it feeds the watchdog of `WatchdogSec=`, once a second.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, as help texts speak of it."""

    field: str
    group: Group
    metavar: str
    default: str | None
    text: str
    show: Callable[[Any], str]
    is_switch: bool
    is_list: bool
    is_live: bool

    @property
    def flag(self) -> str:
        """Its flag."""
        return flag_name(self.field)

    @property
    def key(self) -> str:
        """Its key in the file."""
        return key_name(self.field)

    @property
    def choices(self) -> list[str]:
        """The words that it can be, where they are few."""
        return self.metavar[1:-1].split(",") if self.metavar.startswith("{") else []


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
    write = form.show if form else show
    return Option(
        field=field,
        group=_find(info, Group) or Group.LISTENING,
        metavar=form.metavar if form else _choices(info.annotation),
        default=None if info.is_required() else write(info.default),
        text=" ".join((info.description or "").split()),
        show=write,
        is_switch=info.annotation is bool,
        is_list=isinstance(info.default, tuple),
        is_live=_find(info, Live) is not None,
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
        heading = f"`{option.flag}`, `--no-{option.key}`"
    facts = [f"`{env_name(option.field)}`", f"`{option.key}`", default]
    if option.field == "config":
        del facts[1]
    if option.is_live:
        facts.append("live")
    return f"### {heading}\n\n{option.text}\n\n{' · '.join(facts)}\n"


if __name__ == "__main__":
    sys.stdout.write(render())
