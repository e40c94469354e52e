"""A stateful MCP server that does to the proxy what its callers want: large answers, floods, questions.

    python obedient_server.py --port 8000

Each session counts for itself. Who shows no credential is sent to a login page; a token that begins with
``malformed`` is answered 500, one that begins with ``made-up`` 401.
"""

import argparse
import asyncio
import json
import uuid
from typing import Any

from aiohttp import web

Message = dict[str, Any]

SESSION = "Mcp-Session-Id"
FLOOD_EVENTS = 20_000
EMPTY_LINES = 200


class Session:
    """What one session remembers, and its GET stream."""

    def __init__(self) -> None:
        self.count = 0
        self.heard: asyncio.Queue[Message] = asyncio.Queue()


sessions: dict[str, Session] = {}


async def endpoint(request: web.Request) -> web.StreamResponse:
    """The MCP endpoint."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not token:
        return web.Response(status=302, headers={"Location": "/login"})
    if token.startswith("malformed"):
        return web.Response(status=500, text="cannot read the token")
    if token.startswith("made-up"):
        return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
    if request.method == "POST":
        return await post(request, token)
    session = sessions.get(request.headers.get(SESSION, ""))
    if session is None:
        return web.Response(status=404)
    if request.method == "DELETE":
        del sessions[request.headers[SESSION]]
        return web.Response()
    return await listen(request, session)


async def listen(request: web.Request, session: Session) -> web.StreamResponse:
    """The GET stream of a session."""
    stream = await begin(request)
    while True:
        await say(stream, await session.heard.get())


async def post(request: web.Request, token: str) -> web.StreamResponse:
    """One message."""
    message = json.loads(await request.read())
    if message.get("method") == "initialize":
        made = "same" if token.startswith("same-id") else uuid.uuid4().hex
        sessions[made] = Session()
        capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
        result = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": {"name": "obedient", "version": "1"},
        }
        return answer(message, result, headers={SESSION: made})
    session = sessions.get(request.headers.get(SESSION, ""))
    if session is None:
        return web.Response(status=404 if SESSION in request.headers else 400)
    if "id" not in message or "method" not in message:
        return web.Response(status=202)
    if message["method"] == "tools/list":
        return answer(message, {"tools": []})
    if message["method"] != "tools/call":
        return answer(message, {})
    tool, arguments = message["params"]["name"], message["params"]["arguments"]
    return await TOOLS[tool](request, message, session, **arguments)


async def increment(request: web.Request, message: Message, session: Session) -> web.StreamResponse:
    """Count one more in this session."""
    session.count += 1
    return answer(message, text(str(session.count)))


async def slow(
    request: web.Request, message: Message, session: Session, seconds: float
) -> web.StreamResponse:
    """Answer after a while."""
    await asyncio.sleep(seconds)
    return answer(message, text("slept"))


async def big(request: web.Request, message: Message, session: Session, size: int) -> web.StreamResponse:
    """A text of this size."""
    return answer(message, text("x" * size))


async def echo(request: web.Request, message: Message, session: Session, what: Any) -> web.StreamResponse:
    """The same, in a text."""
    return answer(message, text(json.dumps(what)))


async def ask(request: web.Request, message: Message, session: Session, number: int) -> web.StreamResponse:
    """Ask the client so many questions, and wait for no answer if there is more than one."""
    stream = await begin(request)
    question = {
        "method": "elicitation/create",
        "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
    }
    for identifier in range(number):
        await say(stream, {"jsonrpc": "2.0", "id": f"q{identifier}", **question})
    if number == 1:
        await asyncio.sleep(3600)
    await say(stream, {"jsonrpc": "2.0", "id": message["id"], "result": text("asked")})
    return stream


async def flood(request: web.Request, message: Message, session: Session) -> web.StreamResponse:
    """Very many events of very many empty lines, then the answer."""
    stream = await begin(request)
    event = b"event: message\n" + b"data:\n" * EMPTY_LINES + b"\n"
    for _ in range(FLOOD_EVENTS // 100):
        await stream.write(event * 100)
    await say(stream, {"jsonrpc": "2.0", "id": message["id"], "result": text("flooded")})
    return stream


async def tell(
    request: web.Request, message: Message, session: Session, number: int, size: int = 0
) -> web.StreamResponse:
    """Say so often, on the session's GET stream, that resources were updated."""
    for index in range(number):
        params = {"uri": f"counter://{index}", "padding": "x" * size}
        session.heard.put_nowait(
            {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}
        )
    return answer(message, text("told"))


TOOLS = {tool.__name__: tool for tool in (increment, slow, big, echo, ask, flood, tell)}


def text(content: str) -> Message:
    """A tool's result."""
    return {"content": [{"type": "text", "text": content}]}


def answer(message: Message, result: Message, headers: dict[str, str] | None = None) -> web.Response:
    """The answer to a request, as JSON."""
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


async def begin(request: web.Request) -> web.StreamResponse:
    """An event stream."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(request)
    return stream


async def say(stream: web.StreamResponse, message: Message) -> None:
    """One message as an event."""
    await stream.write(b"data: " + json.dumps(message).encode() + b"\n\n")


async def login(_: web.Request) -> web.Response:
    """Not MCP at all."""
    return web.Response(text="<form>", content_type="text/html")


async def large(request: web.Request) -> web.StreamResponse:
    """A page without an end."""
    page = web.StreamResponse()
    await page.prepare(request)
    while True:
        await page.write(bytes(256 * 1024))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/mcp", endpoint)
    app.router.add_route("*", "/login", login)
    app.router.add_route("*", "/large", large)
    web.run_app(app, host="127.0.0.1", port=arguments.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
