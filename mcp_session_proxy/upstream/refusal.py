"""A server's non-2xx answer, read once: what it means for the session, and what the client is told."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ProxyError, UpstreamRejected
from ..protocol import jsonrpc, lost
from ..protocol.jsonrpc import Response
from ..protocol.sse import SseParser
from .transport import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What came with a status outside 2xx. ``response`` is the JSON-RPC error of the body, if any."""

    status: int
    body: bytes
    content_type: str | None
    headers: Mapping[str, str]
    response: Response | None

    def verdict(self, verb: str, *, sent_session_id: bool) -> lost.Verdict:
        """Whether this says that the session is gone."""
        return lost.judge(self._describe(verb, sent_session_id))

    def confirms_loss(self, *, sent_session_id: bool) -> bool:
        """Whether this, as the answer to the ping that followed a suspicion, makes it certain."""
        return lost.confirms_loss(self._describe("POST", sent_session_id))

    def _describe(self, verb: str, sent_session_id: bool) -> lost.Reply:
        error = None
        if self.response is not None and self.response.error is not None:
            error = jsonrpc.read_error(self.response.error)
        return lost.Reply(
            verb=verb, status=self.status, body=self.body, error=error, sent_session_id=sent_session_id
        )

    def error(self) -> ProxyError:
        """The same for the client."""
        raw_error = None if self.response is None else self.response.error
        if raw_error is not None:
            # {"error": "invalid_token"} is OAuth's (RFC 6750), not JSON-RPC.
            raw_error = jsonrpc.error_object(raw_error) if raw_error[:1] == b"{" else None
        return UpstreamRejected(self.status, self.body, self.content_type, self.headers, raw_error)


async def read_refusal(reply: Reply) -> Refusal:
    """Read the body of a refusal, as far as it matters."""
    body = await reply.text()
    payload = body
    if reply.is_stream:
        events = SseParser().feed(body + b"\n\n")
        payload = events[0].data if events else b""
    message = jsonrpc.parse_upstream(payload)
    return Refusal(
        status=reply.status,
        body=body,
        content_type=reply.content_type,
        headers=reply.explanation(),
        response=message if isinstance(message, Response) else None,
    )
