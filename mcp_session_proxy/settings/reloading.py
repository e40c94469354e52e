"""Which options of a new configuration a running proxy can take over. Pure.

The options that can change are marked in ``config``; the ``assembly`` applies them.
"""

from dataclasses import dataclass
from typing import Final

from .config import Settings
from .kinds import Live
from .sources import key_name

# An option on the left can change only if the one on the right was given before and is given still: a
# listener speaks TLS, or asks for certificates, from the start or not at all.
_SWITCHES: Final = {
    "tls_cert": "tls_cert",
    "tls_key": "tls_cert",
    "tls_client_ca": "tls_client_ca",
    "upstream_cert": "upstream_cert",
    "upstream_key": "upstream_cert",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a running proxy's configuration.

    ``settings`` are the running ones with all new values that can be taken over. ``changed`` are the options
    that have such values, and ``needs_restart`` those whose new values need a restart, by their names in the
    file.
    """

    settings: Settings
    changed: list[str]
    needs_restart: list[str]


def compare(running: Settings, wanted: Settings) -> Change:
    """Compare the settings that a proxy runs with and those that it should run with."""
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
