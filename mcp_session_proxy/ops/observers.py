"""Combining observers. What one of them does wrong never reaches the core or the other ones."""

import logging

from ..events import Event, Observer

_log = logging.getLogger(__name__)


def tee(*observers: Observer) -> Observer:
    """An observer that tells every event to all of ``observers``, in order."""

    def tell_all(event: Event, /) -> None:
        for observer in observers:
            try:
                observer(event)
            except Exception:
                # Being watched must never break a request. The standard logger itself does not raise.
                _log.exception("observer %r failed on %s", observer, event.name)

    return tell_all
