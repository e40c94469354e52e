"""Questions that a call's client cannot be asked, because it has not declared that it can answer them.

They are refused, and the server may well do without. Only if it does not, the call fails for want of what
the client would have to declare (MCP 2026-07-28, basic, "_meta"). A server that says nothing after a refusal
may be about to end the call, or may wait for ever; so it has two seconds of silence, and every sign of life
begins them anew.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from ..protocol import jsonrpc
from ..protocol.jsonrpc import Request, Response
from ..upstream.question import UNABLE, refuse_in_turn
from ..upstream.session import UpstreamSession

SILENCE_SECONDS: Final = 2.0


class Unasked(msgspec.Struct, eq=False):
    """Those of one call: ``required`` is what its client would have to declare for them, together."""

    # Not shared: msgspec makes an empty default anew for each.
    required: dict[str, dict[str, object]] = {}
    _heard_at: float = 0.0

    async def refuse(
        self, session: UpstreamSession, request: Request, missing: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Refuse a question for want of these capabilities, before anything else of the server's is read."""
        for feature, details in missing.items():
            self.required.setdefault(feature, {}).update(details)
        await refuse_in_turn(session, request, UNABLE)
        self.heard()

    def heard(self) -> None:
        """The server shows a sign of life, or its silence has been somebody else's."""
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def until(self) -> float:
        """How long the server may be silent, by the loop's clock."""
        return self._heard_at + SILENCE_SECONDS

    @property
    def may_yet_end(self) -> bool:
        """Whether a question was refused, and the server may still be about to end the call over it."""
        return bool(self.required) and asyncio.get_running_loop().time() < self.until

    def explains(self, response: Response) -> bool:
        """Whether a call failed over what was refused: by an error, or by a result that repeats why."""
        if not self.required:
            return False
        # An error after a refusal is taken to be over that, for nothing else is known of why.
        if response.result is None:
            return True
        if UNABLE.encode() not in response.result:
            return False
        return jsonrpc.read_object(response.result).get("isError") == b"true"
