"""A non-2xx answer of Streamable HTTP, read once: what its status and words come to in ``transport``'s terms.

Servers differ in the status that they give to one and the same error, so all that statuses are believed to
mean stands here, in a few tables; above this room nobody reads one.
"""

from collections.abc import Mapping
from typing import Final, TypeGuard

import msgspec

from ...errors import UpstreamRejected
from ...protocol import jsonrpc, lost, revisions
from ...protocol.headers import explaining_response_headers
from ...protocol.jsonrpc import Message, Response
from ...protocol.sse import SseParser
from ..transport import Concern, NoStream, Refused
from .http1 import HttpAnswer

_MAX_TEXT_BYTES: Final = 64 * 1024
# What the server has against the caller, or against any request at this moment, answers no request.
_NO_ANSWERS: Final = frozenset({401, 403, 429})
_CONCERNS: Final[Mapping[int, Concern]] = {
    400: Concern.MESSAGE,
    422: Concern.MESSAGE,
    406: Concern.FORM,
    415: Concern.FORM,
    501: Concern.METHOD,
    404: Concern.PLACE,
    405: Concern.PLACE,
    401: Concern.CALLER,
    403: Concern.CALLER,
    407: Concern.CALLER,
    429: Concern.RATE,
    408: Concern.MOMENT,
}
# 409 is what the Python and TypeScript SDKs say as long as the former stream stands.
_NO_STREAM: Final[Mapping[int, NoStream]] = {
    408: NoStream.PASSING,
    409: NoStream.PASSING,
    423: NoStream.PASSING,
    425: NoStream.PASSING,
    429: NoStream.PASSING,
    500: NoStream.CRASH,
    501: NoStream.NOT_OFFERED,
    505: NoStream.NOT_OFFERED,
    401: NoStream.CALLER,
    403: NoStream.CALLER,
    404: NoStream.NO_SESSION,
    410: NoStream.NO_SESSION,
}


def media_type(headers: Mapping[str, str]) -> str | None:
    """The bare content type."""
    header = headers.get("Content-Type")
    return None if header is None else header.partition(";")[0].strip().lower()


def why_no_stream(status: int) -> NoStream:
    """What an answer to a GET means that is no event stream."""
    # Delivery networks have statuses of their own for a server that they do not reach (520 to 530).
    unnamed = NoStream.PASSING if status >= 500 else NoStream.NOT_OFFERED
    return _NO_STREAM.get(status, unnamed)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What came with a status outside 2xx. ``response`` is the JSON-RPC error of the body, if any."""

    status: int
    body: bytes
    content_type: str | None
    headers: Mapping[str, str]
    response: Response | None

    def refused(self, *, sent_session_id: bool) -> Refused:
        """The same in the words of ``transport``, of a message that was sent with a session id or without."""
        described = self._describe(sent_session_id=sent_session_id)
        return Refused(
            self.error(),
            how=self.status,
            session=lost.judge(described),
            confirms_loss=lost.confirms_loss(described),
            concern=self._concern(),
            words=self.body.strip(),
            response=self.response,
            is_an_answer=self.is_an_answer,
            is_page=self.content_type == "text/html" or self.body.lstrip().startswith(b"<"),
            busy=any(name.lower() == "retry-after" for name in self.headers),
        )

    def _describe(self, *, sent_session_id: bool) -> lost.Evidence:
        error = None
        if self.response is not None and self.response.error is not None:
            error = jsonrpc.read_error(self.response.error)
        return lost.Evidence(
            verb="POST", status=self.status, body=self.body, error=error, sent_session_id=sent_session_id
        )

    def _concern(self) -> Concern:
        # Whatever a server has against a request is 4xx; anything else is its own trouble, or a redirect.
        usual = Concern.UNCLEAR if 400 <= self.status < 500 else Concern.MOMENT
        return _CONCERNS.get(self.status, usual)

    @property
    def rpc_error(self) -> bytes | None:
        """The raw JSON-RPC error, if it is one: ``{"error": "invalid_token"}`` is OAuth's (RFC 6750)."""
        raw = None if self.response is None else self.response.error
        return jsonrpc.error_object(raw) if raw is not None and raw[:1] == b"{" else None

    @property
    def is_an_answer(self) -> bool:
        """Whether this answers the request, as the same JSON-RPC error with a 200 would."""
        return self.status >= 400 and self.status not in _NO_ANSWERS and self.rpc_error is not None

    def error(self) -> UpstreamRejected:
        """What the client is told: the server's words, under its status where that is about the client."""
        return UpstreamRejected(self.status, self.body, self.content_type, self.headers, self.rpc_error)


async def read_refusal(answer: HttpAnswer) -> Refusal:
    """Read the body of a refusal, as far as it matters. Raises nothing."""
    body = await answer.read_beginning(_MAX_TEXT_BYTES)
    content_type = media_type(answer.headers)
    payloads = [body]
    if content_type == revisions.SSE:
        # Only the beginning was read, so its last event may lack the end.
        payloads = [event.data for event in SseParser().feed(body + b"\n\n")]
    messages = (message for payload in payloads for message in jsonrpc.parse_upstream_body(payload))
    return Refusal(
        status=answer.status,
        body=body,
        content_type=content_type,
        headers=explaining_response_headers(answer.headers.items()),
        response=next((message for message in messages if _says_something(message)), None),
    )


def _says_something(message: Message) -> TypeGuard[Response]:
    """Whether this is a response, and not one whose content could not be read."""
    return isinstance(message, Response) and (message.error is not None or message.result is not None)
