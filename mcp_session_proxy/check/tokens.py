"""How a server treats tokens that change: a damaged one, and another one on a session of the first."""

from ..protocol.tokens import damage, read_claims
from .observations import TokensSeen
from .plays import ask_initialize, session_of
from .wire import Wire


async def try_tokens(wire: Wire, version: str, reads: str, tokens: tuple[str, ...]) -> TokensSeen | None:
    """See what becomes of them. ``reads`` is a harmless method; the wire shows the first of the tokens."""
    if not tokens:
        return None
    shown = [f"Bearer {token}" for token in tokens]
    claims = [read_claims(each) for each in shown]
    damaged = other = is_same = None
    if claims[0] is not None:
        async with wire.showing(damage(shown[0])) as bearer:
            damaged = await ask_initialize(bearer, version)
    if len(shown) > 1:
        session = session_of(await ask_initialize(wire, version))
        async with wire.showing(shown[1]) as bearer:
            other = await bearer.request(reads, {}, session)
        await wire.end(session)
        if claims[0] is not None and claims[1] is not None:
            is_same = claims[0].identity == claims[1].identity
    return TokensSeen(damaged=damaged, other=other, is_same=is_same)
