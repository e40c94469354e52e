"""What a new configuration changes in a running proxy, and what it cannot. Pure.

Which options can change is marked in ``config``; applying them is the ``assembly``'s business.
"""

from dataclasses import dataclass
from typing import Final

from .config import Settings
from .kinds import Live
from .sources import key_name

# TLS is spoken on a listener, and certificates are asked for, from the start or not at all.
_SWITCHES: Final = {
    "tls_cert": "tls_cert",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_client_ca",
    "upstream_cert": "upstream_cert",
    "upstream_key": "upstream_cert",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The way from one configuration to another.

    ``settings`` is as much of the new one as a running proxy can have. ``changed`` are the options that have
    new values in it, ``needs_restart`` those that would; both by their names in the file.
    """

    settings: Settings
    changed: list[str]
    needs_restart: list[str]


def compare(running: Settings, wanted: Settings) -> Change:
    """What becomes of a proxy that runs with these settings and should run with those."""
    different = [name for name in Settings.model_fields if getattr(running, name) != getattr(wanted, name)]
    applied = {name: getattr(wanted, name) for name in different if _can_change(name, running, wanted)}
    return Change(
        settings=running.model_copy(update=applied),
        changed=[key_name(name) for name in applied],
        needs_restart=[key_name(name) for name in different if name not in applied],
    )


def _can_change(name: str, running: Settings, wanted: Settings) -> bool:
    if not any(isinstance(item, Live) for item in Settings.model_fields[name].metadata):
        return False
    switch = _SWITCHES.get(name)
    return switch is None or (getattr(running, switch) is None) == (getattr(wanted, switch) is None)
