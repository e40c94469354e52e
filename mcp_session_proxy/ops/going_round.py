"""What an operator does to all proxies on a store: each does it to itself, and says what came of it.

One that cannot be reached does not keep the others from it. One that comes later knows nothing of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from .. import events
from ..cluster.outcomes import PeerFailure
from ..downstream.forwarded import ForwardedRequest
from ..events import Observer
from ..protocol import revisions
from .acting import Acted, Action, MemberActed
from .operator import Operator

ACT_PATH: Final = "/peer/act"
_OK: Final = 200

# Asks all other members the same; gives what each has answered, with its status, or why there is no answer.
AskAll: TypeAlias = Callable[[bytes, bytes], Awaitable[Sequence[tuple[str, tuple[int, bytes] | PeerFailure]]]]


class _Instruction(msgspec.Struct, frozen=True):
    action: Action
    session: str | None = None


class GoingRound:
    """Has this proxy, which ``operator`` acts on, and all others act. ``own`` is its name among them."""

    def __init__(
        self, operator: Operator, *, own: str | None, ask_all: AskAll | None, observe: Observer
    ) -> None:
        self._operator = operator
        self._own = own
        self._ask_all = ask_all
        self._observe = observe

    async def act(self, action: Action, session: str | None) -> list[MemberActed]:
        """Do it here and everywhere else; gives what came of it, here first."""
        acted = self._operator.act(action, session)
        found = [MemberActed(member=self._own, here=True, acted=acted)]
        if self._ask_all is not None:
            asked = msgspec.json.encode(_Instruction(action, session))
            for member, said in await self._ask_all(f"POST {ACT_PATH}".encode(), asked):
                found.append(_read(member, said))
        return found

    async def answer(self, http: web.BaseRequest, body: bytes) -> web.Response:
        """Another member's operator wants it."""
        try:
            asked = msgspec.json.decode(body, type=_Instruction)
        except (msgspec.MsgspecError, ValueError):
            return web.Response(status=400)
        acted = self._operator.act(asked.action, asked.session)
        assert isinstance(http, ForwardedRequest)
        peer = f"member {http.signed.member}"
        self._observe(events.OperatorActed(action=asked.action, session=asked.session, peer=peer))
        return web.Response(body=msgspec.json.encode(acted), content_type=revisions.JSON)


def _read(member: str, said: tuple[int, bytes] | PeerFailure) -> MemberActed:
    if isinstance(said, PeerFailure):
        return MemberActed(member=member, here=False, acted=None, problem=f"no answer ({said})")
    status, body = said
    try:
        if status == _OK:
            return MemberActed(member=member, here=False, acted=msgspec.json.decode(body, type=Acted))
    except msgspec.MsgspecError:
        pass
    return MemberActed(
        member=member, here=False, acted=None, problem=f"it does not know this (HTTP {status})"
    )
