"""The three verbs of an event store, which keeps events beside the memory, and loading one by its name.

``docs/event-store.md`` tells how to write one.
"""

import importlib
import inspect
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol

# An event and its number in its stream.
Numbered = tuple[int, bytes]
_VERBS: Final = ("append", "after", "drop")


class EventStore(Protocol):
    """Keeps the events of clients' streams, which clients may ask for again.

    A ``place`` is one stream of one client: unique over all sessions, clients and streams, and at most 200
    characters of A-Z, a-z, 0-9, ``/``, ``#``, ``.``, ``_`` and ``-``. Nothing can be read off it. Within a
    place, events have numbers from 0 to 2**63 - 1, which rise; there may be gaps between them. What an event
    says is sealed before it comes here.

    Nobody waits for ``append`` and ``drop``, and whoever comes back to a stream waits a second at most for
    ``after``. What a method raises is told to the operator; the proxy then goes on from its memory, and
    appends again what it has. Methods may be called at the same time, but never two that change one place.
    """

    async def append(self, place: str, events: Sequence[Numbered], keep: int, ttl_seconds: float) -> None:
        """Add events, behind those that are there, and keep the newest ``keep`` of the place.

        The whole place may be forgotten ``ttl_seconds`` after this, which is the last word on that: there
        may be no events in it but a new time. An event that is there already, by its number, is replaced.
        """
        ...

    async def after(self, place: str, number: int) -> Sequence[Numbered]:
        """All events of the place that have a higher number, in order. An unknown place has none."""
        ...

    async def drop(self, place: str) -> None:
        """Forget the place."""
        ...


class CannotLoad(Exception):
    """There is no event store of this name, or it cannot be made. The text is for the operator."""


async def load(name: str, stack: AsyncExitStack) -> EventStore:
    """The event store that ``MODULE:NAME`` names.

    If it can be called, it is called once, without arguments; what it gives may be awaited. A store that is
    an asynchronous context manager is entered, and left when the ``stack`` is closed.

    Raises:
        CannotLoad: there is none, or it could not be made.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        if inspect.isclass(found) or (callable(found) and _missing(found)):
            found = found()
        if inspect.isawaitable(found):
            found = await found
        if hasattr(type(found), "__aenter__"):
            found = await stack.enter_async_context(found)
    except Exception as error:  # other people's code may raise anything
        raise CannotLoad(f"{name}: {type(error).__name__}: {error}") from error
    if missing := _missing(found):
        raise CannotLoad(f"{name} is no event store: it has no method {' and no '.join(missing)}")
    return found  # type: ignore[no-any-return]


def _missing(found: object) -> list[str]:
    return [verb for verb in _VERBS if not callable(getattr(found, verb, None))]
