"""Combining observers. What one of them does wrong never reaches the core or the other ones."""

import logging
from collections.abc import Callable
from typing import Protocol

from ..events import Event

_log = logging.getLogger(__name__)

Listener = Callable[[Event], None]


class SelectiveObserver(Protocol):
    """An observer that hears some kinds of events; the others cost nothing."""

    def listener(self, kind: type[Event], /) -> Listener | None:
        """What to call with each event of this kind; None for nothing."""
        ...


class Tee:
    """The observer that tells every event to those of ``observers`` that want its kind, in order."""

    def __init__(self, *observers: SelectiveObserver) -> None:
        self._observers = observers
        self._listeners: dict[type[Event], list[Listener]] = {}

    def refresh(self) -> None:
        """Ask the observers anew what they want to hear."""
        self._listeners = {}

    def __call__(self, event: Event, /) -> None:
        """Tell one event."""
        listeners = self._listeners.get(type(event))
        if listeners is None:
            listeners = self._choose(type(event))
        for tell in listeners:
            try:
                tell(event)
            except Exception:
                # Being watched must never break a request. The standard logger itself does not raise.
                _log.exception("%r failed on %s", tell, event.name)

    def _choose(self, kind: type[Event]) -> list[Listener]:
        wanted = [observer.listener(kind) for observer in self._observers]
        chosen = self._listeners[kind] = [tell for tell in wanted if tell is not None]
        return chosen
