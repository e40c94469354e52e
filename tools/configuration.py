"""The page ``docs/configuration.md``, made of the settings model.

``python -m tools.configuration`` writes it.
"""

import sys
from typing import Final

from mcp_session_proxy.settings.kinds import Group
from mcp_session_proxy.settings.options import Option, options
from mcp_session_proxy.settings.sources import env_name

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


def render() -> str:
    """The page ``docs/configuration.md``."""
    parts = [_PAGE]
    for group in Group:
        parts.append(f"## {group}\n")
        parts += [_entry(option) for option in options() if option.group is group]
    return "\n".join(parts)


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
