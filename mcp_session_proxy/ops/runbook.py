"""Which section of the runbook (docs/troubleshooting.md) is about an event. Pure."""

from collections.abc import Mapping
from typing import Final

from .. import events
from ..events import Event

# Events that are explained under an alert's name, or under what people see of them.
_SECTIONS: Final[Mapping[type[Event], str]] = {
    events.AnonymousCaller: "users-see-each-others-state",
    events.Crashed: "mcpsessionproxybugs",
    events.ReloadFailed: "mcpsessionproxyreloadfailed",
    events.ReplayRefused: "mcpsessionproxyreplaysrefused",
    events.SessionLost: "mcpsessionproxysessionslost",
    events.TokensNotChecked: "state-is-lost-every-hour",
    events.KeysMissing: "state-is-lost-every-hour",
    events.UpstreamDown: "mcpsessionproxyserverdown",
}


def path_of(event: Event) -> str | None:
    """Where on the admin listener it says what to do about an event; None where there is nothing to do."""
    section = _section_of(event)
    return None if section is None else f"/runbook#{section}"


def _section_of(event: Event) -> str | None:
    """A heading's fragment, or a reason: the rows of the table of reasons have fragments, too."""
    if (section := _SECTIONS.get(type(event))) is not None:
        return section
    if isinstance(event, events.RequestFailed | events.LeaseFailed):
        return event.reason
    return event.error if isinstance(event, events.SessionOpenFailed) else None
