"""Combining observers. What one of them does wrong never reaches the core or the other ones."""

import logging
from collections.abc import Collection
from typing import Protocol, runtime_checkable

from ..events import Event, Observer

_log = logging.getLogger(__name__)


@runtime_checkable
class Selective(Protocol):
    """An observer that wants to hear of some kinds only; the others cost nothing then."""

    kinds: Collection[type[Event]]


def tee(*observers: Observer) -> Observer:
    """An observer that tells every event to all of ``observers`` that want it, in order."""
    chosen: dict[type[Event], list[Observer]] = {}

    def tell_all(event: Event, /) -> None:
        kind = type(event)
        if kind not in chosen:
            chosen[kind] = [o for o in observers if not isinstance(o, Selective) or kind in o.kinds]
        for observer in chosen[kind]:
            try:
                observer(event)
            except Exception:
                # Being watched must never break a request. The standard logger itself does not raise.
                _log.exception("observer %r failed on %s", observer, event.name)

    return tell_all
