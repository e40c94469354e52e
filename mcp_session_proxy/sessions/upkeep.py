"""What becomes of sessions though no request has to do with it: idle, worn, elsewhere, or by hand."""

import asyncio

from ..upstream.life import ELSEWHERE
from ..upstream.session import UpstreamSession
from ..upstream.transport import Caller
from . import policy
from .books import Slot
from .pool import Pool
from .state import SessionState


def maintain(pool: Pool) -> None:
    """Close what has been idle for too long, keep the rest alive. Called regularly."""
    now = asyncio.get_running_loop().time()
    # A copy, for a session that turns out to be lost leaves the pool in the course of this.
    for slot in list(pool.books.slots()):
        if slot.usable:
            slot.session.tick(now)
    _relieve_worn(pool, now)
    for slot in pool.books.idle_slots():
        reason = policy.expiry(slot, now, pool.rules) or policy.surplus(slot, pool.books, pool.rules)
        if reason is not None:
            pool.retire(slot, reason)
    # Limits that an operator has raised meanwhile make room without anybody's release.
    pool.serve_everyone()


def _relieve_worn(pool: Pool, now: float) -> None:
    """Relieve sessions that have served for long enough, one old one at a time.

    Sessions that were opened together would end together, and all their clients would wait for handshakes
    in the same moment.
    """
    relieved = False
    for slot in list(pool.books.slots()):
        if not slot.usable or slot.aside is not None:
            continue
        reason = policy.wear(now - slot.born, slot.session.requests, slot.jitter, pool.rules)
        if reason == "lifetime" and relieved:
            continue
        if reason is not None:
            relieved = True
            _relieve(pool, slot, reason)


def _relieve(pool: Pool, slot: Slot[UpstreamSession], reason: str) -> None:
    """Let whoever holds a session go on with it, and nobody new have it."""
    if slot.leases == 0:
        pool.retire(slot, reason)
    else:
        pool.books.set_aside(slot, reason)


def reconnect(pool: Pool) -> int:
    """Relieve every session, so that whoever comes next gets a new one; gives how many there were."""
    slots = [slot for slot in pool.books.slots() if slot.usable and slot.aside is None]
    for slot in slots:
        _relieve(pool, slot, "reconnect")
    return len(slots)


def kill(pool: Pool, tag: str) -> bool:
    """Close one session at once, whoever holds it; gives whether there was one of that name."""
    for slot in list(pool.books.slots()):
        if slot.session.tag == tag and slot.state not in (SessionState.CLOSING, SessionState.CLOSED):
            pool.retire(slot, "killed")
            return True
    return False


def let_go(pool: Pool, slot: Slot[UpstreamSession]) -> None:
    """Another process goes on with a session: whoever uses it here may go on to the end of that."""
    if not slot.usable:
        pool.retire(slot, "shutdown")  # nobody else knows of a session that is being opened
        return
    pool.books.set_aside(slot, ELSEWHERE)
    if not slot.leases:
        pool.retire(slot, ELSEWHERE)


def renew_credentials(pool: Pool, principal: str, credentials: Caller) -> None:
    """What the sessions of a principal send of their own accord is sent with these from now on.

    With those of before it would be refused before long, be it a ping, the stream or the goodbye.
    """
    for slot in pool.books.slots():
        if slot.key.principal == principal:
            slot.session.record.credentials = credentials
    for key, demand in pool.queue.demands.items():
        if key.principal == principal:
            demand.credentials = credentials
