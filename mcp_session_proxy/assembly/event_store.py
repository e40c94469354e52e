"""The event store that ``--events`` names, opened and joined to deliveries."""

from contextlib import AsyncExitStack
from typing import Final

from ..aio import Tasks
from ..events import Observer
from ..exchange.delivery import Delivery
from ..sessions.event_ledger import EventLedger
from ..store.events import CannotLoad, load
from .sockets import CannotStart
from .state import KeptState

_MEMORY: Final = "memory"
_STORE: Final = "store"


async def open_event_store(
    stack: AsyncExitStack, name: str, state: KeptState, delivery: Delivery, observe: Observer
) -> None:
    """Keep the events of clients' streams in the store of this name, until ``stack`` is closed.

    All that is left to be written is written then.

    Raises:
        CannotStart: there is no such store.
    """
    if name == _MEMORY:
        return
    try:
        store = state.events if name == _STORE else await load(name, stack)
    except CannotLoad as error:
        raise CannotStart(f"--events {error}") from error
    ledger = EventLedger(store, state.keys, delivery.rules, observe)
    delivery.ledger = state.event_ledger = ledger
    state.ledger.before_writing.append(ledger.settle)
    tasks = Tasks()
    tasks.spawn(ledger.keep_up(), "event ledger")

    async def close() -> None:
        tasks.cancel()
        await tasks.ended()
        await ledger.finish()

    stack.push_async_callback(close)
