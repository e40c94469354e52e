"""A server's non-2xx answer, read once: what it means for the session, and what the client is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from ..errors import ProxyError, UpstreamRejected
from ..protocol import jsonrpc, lost
from ..protocol.jsonrpc import Message, Response
from ..protocol.sse import SseParser
from .transport import Reply

_NO_ANSWERS: Final = frozenset({401, 403, 429})


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

    @property
    def rpc_error(self) -> bytes | None:
        """The raw JSON-RPC error, if it is one: ``{"error": "invalid_token"}`` is OAuth's (RFC 6750)."""
        raw = None if self.response is None else self.response.error
        return jsonrpc.error_object(raw) if raw is not None and raw[:1] == b"{" else None

    @property
    def is_an_answer(self) -> bool:
        """Whether this answers the request, as the same JSON-RPC error with a 200 would.

        Servers differ in the status that they give an error. What they have against the caller, or against
        any request at this moment, is none.
        """
        return self.status >= 400 and self.status not in _NO_ANSWERS and self.rpc_error is not None

    def error(self) -> ProxyError:
        """The same for the client."""
        return UpstreamRejected(self.status, self.body, self.content_type, self.headers, self.rpc_error)


async def read_refusal(reply: Reply) -> Refusal:
    """Read the body of a refusal, as far as it matters."""
    body = await reply.text()
    payloads = [body]
    if reply.is_stream:
        payloads = [event.data for event in SseParser().feed(body + b"\n\n")]
    messages = (message for payload in payloads for message in jsonrpc.parse_upstream_body(payload))
    return Refusal(
        status=reply.status,
        body=body,
        content_type=reply.content_type,
        headers=reply.explanation(),
        response=next((message for message in messages if _says_something(message)), None),
    )


def _says_something(message: Message) -> TypeGuard[Response]:
    """Whether this is a response, and not one whose content could not be read."""
    return isinstance(message, Response) and (message.error is not None or message.result is not None)
