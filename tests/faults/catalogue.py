"""Every fault there is, by name: what it does to one request, and what may come of it."""

import asyncio
import importlib.util
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .fault_proxy import Answer, Fault, Hop, chunk, http_reply, say, say_in_stream, stream_head

SSE = "text/event-stream"
JSON = "application/json"
RESULT = "result"
UNKNOWN = "outcome-unknown"
REJECTED = "upstream-rejected"
SERVERS_OWN = "server-error"
TIMEOUT = "upstream-timeout"
GARBLED = "upstream-protocol-error"

_event_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, what a caller of a tool may be told after it, and how often the tool may have run.

    ``status`` is the HTTP status of the answer where the server's own is to be seen, ``modern_status`` the
    one that a modern client sees instead: to it a JSON-RPC error is an answer, whatever it came with.
    """

    name: str
    fault: Fault
    outcomes: frozenset[str]
    executed: frozenset[int]
    status: int | None = None
    modern_status: int | None = None
    forwards: bool = True
    """Whether the server ever sees the request (a stream that is forwarded whole would never end)."""
    stays: bool = False
    """Whether the session stays unusable, as the server says so in a way that does not tell of a loss."""


CASES: dict[str, Case] = {}


def _case(
    *outcomes: str,
    executed: int | set[int],
    status: int | None = None,
    modern_status: int | None = None,
) -> Callable[[Fault], Fault]:
    counts = frozenset({executed} if isinstance(executed, int) else executed)

    def add(fault: Fault) -> Fault:
        name = fault.__name__.replace("_", "-")
        CASES[name] = Case(
            name=name,
            fault=fault,
            outcomes=frozenset(outcomes),
            executed=counts,
            status=status,
            modern_status=modern_status or status,
            forwards=counts != {0},
        )
        return fault

    return add


def _middle(answer: Answer) -> int:
    return len(answer.body) // 2


def _half(answer: Answer) -> bytes:
    """The first half of a body, as a piece of one; an empty one would be the end."""
    return chunk(answer.body[: _middle(answer)]) if answer.body else b""


# The connection breaks ----------------------------------------------------------------------------


@_case(UNKNOWN, executed=0)
async def drop_before_sending(hop: Hop) -> None:
    """The server never sees it."""
    hop.close()


@_case(UNKNOWN, executed=0)
async def reset_before_sending(hop: Hop) -> None:
    """The same with a RST."""
    hop.reset()


@_case(UNKNOWN, executed=1)
async def drop_after_sending(hop: Hop) -> None:
    """The server has done it, nobody hears of it."""
    await hop.forward()
    hop.close()


@_case(UNKNOWN, executed=1)
async def reset_after_sending(hop: Hop) -> None:
    """The same with a RST."""
    await hop.forward()
    hop.reset()


@_case(UNKNOWN, executed=1)
async def drop_after_the_head(hop: Hop) -> None:
    """Status and headers come, the body does not."""
    await hop.deliver(await hop.forward())
    hop.close()


@_case(UNKNOWN, executed=1)
async def reset_after_the_head(hop: Hop) -> None:
    """The same with a RST."""
    await hop.deliver(await hop.forward())
    hop.reset()


@_case(UNKNOWN, executed=1)
async def truncated_stream(hop: Hop) -> None:
    """The connection ends in the middle of an event."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(_half(answer))
    hop.close()


@_case(UNKNOWN, executed=1)
async def reset_in_the_stream(hop: Hop) -> None:
    """A RST in the middle of an event."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(_half(answer))
    hop.reset()


@_case(UNKNOWN, executed=1)
async def half_closed_stream(hop: Hop) -> None:
    """A FIN in the middle of an event, and the other direction stays open."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(_half(answer))
    await hop.half_close()


@_case(UNKNOWN, executed=1)
async def shorter_than_announced(hop: Hop) -> None:
    """Content-Length promises more than comes."""
    answer = await hop.forward()
    whole = http_reply(answer.status, answer.body, SSE)
    await hop.write(whole[: len(whole) - _middle(answer)])
    hop.close()


# The stream ends ----------------------------------------------------------------------------------


@_case(UNKNOWN, executed=1)
async def stream_without_a_response(hop: Hop) -> None:
    """A stream that ends in order, and the response is not in it."""
    await hop.deliver(await hop.forward())
    await hop.write(chunk(b": nothing to say\n\n") + chunk(b""))


@_case(UNKNOWN, executed=1)
async def stream_cut_in_order(hop: Hop) -> None:
    """A stream that ends in order in the middle of its event."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(_half(answer) + chunk(b""))


def _priming(hop: Hop, *then: Fault) -> bytes:
    """An event id to go on from; who does meets these in turn, and the last one for ever."""
    name = f"fault-{next(_event_numbers)}"
    if then:
        hop.faults.kept[name] = list(then)
    return b"id: %b\ndata: \n\n" % name.encode()


@_case(RESULT, executed=1)
async def resumable_stream_ends(hop: Hop) -> None:
    """A stream with event ids that ends early, and goes on where it is resumed."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(chunk(_priming(hop, say_in_stream(answer.body))) + chunk(b""))


@_case(RESULT, executed=1)
async def resumable_stream_breaks(hop: Hop) -> None:
    """A stream with event ids that breaks in the middle of an event, and goes on where it is resumed."""
    answer = await hop.forward()
    await hop.deliver(answer)
    rest = say_in_stream(answer.body)
    await hop.write(chunk(_priming(hop, rest) + answer.body[: _middle(answer)]))
    hop.close()


@_case(RESULT, executed=1)
async def resumable_stream_is_reset(hop: Hop) -> None:
    """The same with a RST."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(chunk(b"retry: 20\n" + _priming(hop, say_in_stream(answer.body))))
    await asyncio.sleep(0.02)  # a RST overtakes what has not been read
    hop.reset()


@_case(UNKNOWN, executed=1)
async def stream_that_cannot_be_resumed(hop: Hop) -> None:
    """A stream with event ids that breaks, of a server that then knows nothing of them."""
    await hop.deliver(await hop.forward())
    await hop.write(chunk(_priming(hop)))
    hop.close()


@_case(RESULT, executed=1)
async def polled_several_times(hop: Hop) -> None:
    """A stream that the server ends on purpose, several more that bring nothing, and then the answer."""
    answer = await hop.forward()
    await hop.deliver(answer)
    then = say_in_stream(answer.body)
    for _ in range(5):
        then = say_in_stream(b"retry: 20\n" + _priming(hop, then))
    await hop.write(chunk(b"retry: 20\n" + _priming(hop, then)) + chunk(b""))


@_case(RESULT, executed=1)
async def polled_at_one_place(hop: Hop) -> None:
    """The same, and the place to go on from stays the same."""
    answer = await hop.forward()
    await hop.deliver(answer)
    nothing = say_in_stream(b": nothing yet\n\n")
    then = [nothing, nothing, nothing, say_in_stream(answer.body)]
    await hop.write(chunk(b"retry: 20\n" + _priming(hop, *then)) + chunk(b""))


def _refused_for_a_while(status: int, times: int) -> None:
    async def refuse(hop: Hop) -> None:
        answer = await hop.forward()
        await hop.deliver(answer)
        refusals = [say(http_reply(status))] * times
        await hop.write(chunk(_priming(hop, *refusals, say_in_stream(answer.body))) + chunk(b""))

    refuse.__name__ = f"resuming_refused_{status}_{'once' if times == 1 else 'several_times'}"
    _case(RESULT, executed=1)(refuse)


for _status in (409, 429, 500, 502, 503, 504):
    _refused_for_a_while(_status, times=1)
_refused_for_a_while(503, times=3)


# Time ---------------------------------------------------------------------------------------------


@_case(TIMEOUT, executed=0)
async def stalled_request(hop: Hop) -> None:
    """Nothing happens."""
    await hop.stall()


@_case(TIMEOUT, executed=1)
async def stalled_answer(hop: Hop) -> None:
    """The server has done it, and its answer does not come."""
    await hop.forward()
    await hop.stall()


@_case(TIMEOUT, executed=1)
async def stalled_stream(hop: Hop) -> None:
    """The answer stops in the middle of an event."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(_half(answer))
    await hop.stall()


@_case(RESULT, executed=1)
async def slow_bytes(hop: Hop) -> None:
    """The answer comes in small pieces, split anywhere."""
    answer = await hop.forward()
    await hop.deliver(answer)
    for start in range(0, len(answer.body), 7):
        await hop.write(chunk(answer.body[start : start + 7]))
        if start % 28 == 0:
            await asyncio.sleep(0.001)
    await hop.write(chunk(b""))


@_case(RESULT, executed=1)
async def late_answer(hop: Hop) -> None:
    """The answer takes a moment, head and all."""
    answer = await hop.forward()
    await asyncio.sleep(0.3)
    await hop.deliver(answer)
    await hop.write(chunk(answer.body) + chunk(b""))


# Heads that are unusual, and right ------------------------------------------------------------------


@_case(RESULT, executed=1)
async def large_head(hop: Hop) -> None:
    """60 KiB of headers."""
    answer = await hop.forward()
    await hop.deliver(answer, {"x-large": "x" * 60 * 1024})
    await hop.write(chunk(answer.body) + chunk(b""))


@_case(RESULT, executed=1)
async def cookie_with_the_answer(hop: Hop) -> None:
    """A cookie, as balancers give that stick by it."""
    answer = await hop.forward()
    await hop.deliver(answer, {"set-cookie": f"ROUTE={next(_event_numbers)}; Path=/; HttpOnly"})
    await hop.write(chunk(answer.body) + chunk(b""))


# What is said is wrong ----------------------------------------------------------------------------


@_case(UNKNOWN, executed=0)
async def empty_success(hop: Hop) -> None:
    """200 and nothing else."""
    await hop.write(http_reply(200))


@_case(UNKNOWN, executed=0)
async def empty_stream(hop: Hop) -> None:
    """200, a stream, and nothing in it."""
    await hop.write(stream_head() + chunk(b""))


@_case(UNKNOWN, executed=0)
async def accepted(hop: Hop) -> None:
    """202, as for a notification."""
    await hop.write(http_reply(202))


@_case(UNKNOWN, executed=0)
async def no_content(hop: Hop) -> None:
    """204."""
    await hop.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@_case(UNKNOWN, GARBLED, executed=1)
async def stream_called_html(hop: Hop) -> None:
    """The right stream under a wrong content type."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, answer.body, "text/html"))


@_case(UNKNOWN, GARBLED, executed=1)
async def stream_called_json(hop: Hop) -> None:
    """A stream that says it is JSON."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, answer.body, JSON))


@_case(RESULT, executed=1)
async def json_called_text(hop: Hop) -> None:
    """A JSON answer under a wrong content type."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, _data(answer), "text/plain"))


@_case(RESULT, executed=1)
async def json_called_nothing(hop: Hop) -> None:
    """A JSON answer without content type."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, _data(answer)))


@_case(UNKNOWN, GARBLED, executed=1)
async def json_called_stream(hop: Hop) -> None:
    """A JSON answer that says it is a stream."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, _data(answer), SSE))


@_case(UNKNOWN, GARBLED, executed=1)
async def half_of_the_json(hop: Hop) -> None:
    """JSON that ends in the middle, of the length that was announced."""
    answer = await hop.forward()
    data = _data(answer)
    await hop.write(http_reply(answer.status, data[: len(data) // 2], JSON))


@_case(RESULT, executed=1)
async def duplicate_reply(hop: Hop) -> None:
    """The response comes twice."""
    answer = await hop.forward()
    await hop.deliver(answer)
    await hop.write(chunk(answer.body) + chunk(answer.body) + chunk(b""))


@_case(RESULT, executed=1)
async def stranger_reply(hop: Hop) -> None:
    """A response to something that nobody asked comes first."""
    answer = await hop.forward()
    await hop.deliver(answer)
    stranger = b'data: {"jsonrpc":"2.0","id":987654321,"result":{"content":[]}}\n\n'
    await hop.write(chunk(stranger + answer.body) + chunk(b""))


@_case(RESULT, executed=1)
async def noise_in_the_stream(hop: Hop) -> None:
    """Events that are no JSON, and no JSON-RPC, come first."""
    answer = await hop.forward()
    await hop.deliver(answer)
    noise = b"data: {\n\ndata: null\n\ndata: [1]\n\nevent: x\ndata: {}\n\n:\n\ndata: \xff\xfe\n\n"
    await hop.write(chunk(noise + answer.body) + chunk(b""))


@_case(UNKNOWN, executed=0)
async def response_to_another(hop: Hop) -> None:
    """A response to something that nobody asked, and nothing else."""
    await hop.write(http_reply(200, b'{"jsonrpc":"2.0","id":987654321,"result":{}}', JSON))


@_case(UNKNOWN, GARBLED, executed=0)
async def html_page(hop: Hop) -> None:
    """A page of something else's, with status 200."""
    await hop.write(http_reply(200, b"<html>Welcome!</html>", "text/html"))


@_case(GARBLED, executed=0)
async def garbage(hop: Hop) -> None:
    """Bytes that are no HTTP."""
    await hop.write(bytes(range(256)) + b"\r\n\r\n")
    hop.close()


@_case(UNKNOWN, executed=1)
async def garbage_in_the_body(hop: Hop) -> None:
    """Chunks whose sizes are none."""
    await hop.deliver(await hop.forward())
    await asyncio.sleep(0.02)  # the head is to arrive by itself
    await hop.write(b"zz\r\n\x00\xff\r\n")
    hop.close()


@_case(UNKNOWN, GARBLED, executed=1)
async def false_gzip(hop: Hop) -> None:
    """A body that says it is compressed and is not."""
    answer = await hop.forward()
    await hop.write(http_reply(answer.status, answer.body, SSE, {"content-encoding": "gzip"}))


@_case(GARBLED, executed=0)
async def redirect_elsewhere(hop: Hop) -> None:
    """A redirect to another origin."""
    await hop.write(http_reply(307, headers={"location": "http://192.0.2.1/mcp"}))


def _data(answer: Answer) -> bytes:
    """The response in a stream of one; anything else as it is."""
    lines = (line[5:].strip() for line in answer.body.splitlines() if line.startswith(b"data:"))
    return next(lines, answer.body)


# Refusals that are none of the session's ------------------------------------------------------------


def _refusal(
    status: int,
    body: bytes,
    content_type: str | None,
    *,
    seen_as: int,
    modern: int | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    async def refuse(hop: Hop) -> None:
        await hop.write(http_reply(status, body, content_type, headers))

    refuse.__name__ = f"refused_{status}{'_json' if content_type == JSON else ''}"
    _case(SERVERS_OWN if b"jsonrpc" in body else REJECTED, executed=0, status=seen_as, modern_status=modern)(
        refuse
    )


_refusal(400, b"Bad Request", None, seen_as=400)
_refusal(401, b'{"error":"invalid_token"}', JSON, seen_as=401, headers={"www-authenticate": "Bearer"})
_refusal(403, b"Forbidden", "text/plain", seen_as=403)
_refusal(
    409,
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Conflict"}}',
    JSON,
    seen_as=409,
    modern=200,
)
_refusal(413, b"", None, seen_as=413)
_refusal(422, b"Unprocessable Entity", "text/plain", seen_as=422)
_refusal(429, b"slow down", "text/plain", seen_as=429, headers={"retry-after": "1"})
_refusal(500, b"Internal Server Error", "text/plain", seen_as=502)
_refusal(502, b"<html>Bad Gateway</html>", "text/html", seen_as=502)
_refusal(503, b"Service Unavailable", "text/plain", seen_as=503, headers={"retry-after": "1"})
_refusal(504, b"", None, seen_as=504)
_refusal(
    404, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}', JSON, seen_as=404
)


# The session is gone, in every dialect ----------------------------------------------------------------


def _dialects() -> list[Any]:
    """The servers' answers to an unknown session id, from the tests of the code that recognises them."""
    path = Path(__file__).parent.parent / "protocol" / "test_lost.py"
    spec = importlib.util.spec_from_file_location("lost_dialects", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    cases: list[Any] = module.UNKNOWN_ID
    return cases


def _gone(dialect: Any) -> Case:
    def reply(verb: str) -> bytes:
        if verb != "POST":
            return http_reply(404)
        if dialect.sse:
            return http_reply(dialect.status, f"event: message\ndata: {dialect.body}\n\n".encode(), SSE)
        return http_reply(dialect.status, dialect.body.encode(), JSON if dialect.body[0] == "{" else None)

    async def gone(hop: Hop) -> None:
        if hop.request.session is None:  # the very first message: nothing to lose yet
            await hop.relay()
            return
        await hop.faults.end_session(hop.request, reply)
        await hop.write(reply("POST"))

    # A server that says 503 to the ping as well is overloaded, for all that anybody can tell.
    stays = dialect.status == 503
    return Case(
        name=f"gone {dialect.status} {dialect.server}",
        fault=gone,
        outcomes=frozenset({REJECTED if stays else RESULT}),
        executed=frozenset({0 if stays else 1}),
        forwards=False,
        stays=stays,
    )


GONE = {case.name: case for case in map(_gone, _dialects())}
ALL = CASES | GONE
