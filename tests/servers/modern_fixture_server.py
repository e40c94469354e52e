"""A legacy, stateful MCP server with everything that the official suite asks of a server of 2026-07-28.

    python modern_fixture_server.py --port 8000 [--ask-on post|get] [--transport streamable-http|sse|stdio]

The suite expects results that ask for input; this server knows nothing of them. It asks its client in
mid-call, as every revision up to 2025-11-25 does: on the stream of the call's POST or, with `--ask-on get`,
on the session's standalone GET stream, where nothing says which call is meant. What a scenario's fixture is
to do is said in the description of the scenario. Beside the MCP endpoint:

    GET  /calls       how often each tool was started, finished, cancelled or failed, over all sessions
    POST /visit/{id}  the user visits the URL of an elicitation; the session that asked is told
"""

import argparse
from collections import Counter
from typing import Annotated, Any

import anyio
from conformance_server import (
    STEP_SECONDS,
    add_content_tools,
    add_prompts,
    add_resources,
    add_talking_tools,
)
from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp.shared.message import ServerMessageMetadata
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

LINGER_SECONDS = 60.0
Properties = dict[str, dict[str, Any]]

# The suite gives the schema of this tool's parameters word for word.
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class Ledger:
    """What was executed, counted where it happened."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.visited: set[str] = set()
        self.waiting: dict[str, Any] = {}  # elicitation id -> the session that wants to know

    def count(self, name: str) -> "_Count":
        """Count a call as long as the `with` block lasts."""
        return _Count(self, name)


class _Count:
    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name

    def __enter__(self) -> None:
        self._ledger.started[self._name] += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._ledger.finished[self._name] += 1
        elif issubclass(kind, anyio.get_cancelled_exc_class()):
            self._ledger.cancelled[self._name] += 1
        else:
            self._ledger.failed[self._name] += 1


class Voice:
    """Talks to the client in mid-call, on the stream that was chosen."""

    def __init__(self, ask_on: str) -> None:
        self._on_get = ask_on == "get"

    def _related(self, ctx: Context) -> str | None:
        return None if self._on_get else ctx.request_id

    async def elicit(
        self, ctx: Context, message: str, properties: Properties, title: str | None = None
    ) -> types.ElicitResult:
        """Ask the user; the title of the form is the name of the question."""
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
        if title is not None:
            schema["title"] = title
        return await ctx.session.elicit_form(message, schema, related_request_id=self._related(ctx))

    async def visit(self, ctx: Context, url: str, identifier: str) -> types.ElicitResult:
        """Ask the user to visit a URL."""
        message = "Please visit this page."
        return await ctx.session.elicit_url(message, url, identifier, related_request_id=self._related(ctx))

    async def sample(self, ctx: Context, prompt: str) -> str:
        """Ask the model."""
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
        answer = await ctx.session.create_message(
            messages=[message], max_tokens=100, related_request_id=self._related(ctx)
        )
        return answer.content.text if isinstance(answer.content, types.TextContent) else "?"

    async def sample_with_tool(self, ctx: Context, prompt: str) -> list[str]:
        """Ask the model, which may use a tool; gives the types of what it says."""
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
        tool = types.Tool(name="weather", inputSchema={"type": "object"})
        answer = await ctx.session.create_message(
            messages=[message], max_tokens=100, tools=[tool], related_request_id=self._related(ctx)
        )
        return [block.type for block in answer.content_as_list]

    async def roots(self, ctx: Context) -> list[str]:
        """Ask for the client's roots."""
        answer = await ctx.session.send_request(
            types.ServerRequest(types.ListRootsRequest()),
            types.ListRootsResult,
            metadata=ServerMessageMetadata(related_request_id=self._related(ctx)),
        )
        return [str(root.uri) for root in answer.roots]

    async def log(self, ctx: Context, text: str, level: types.LoggingLevel = "info") -> None:
        """Send a log message."""
        await ctx.session.send_log_message(level, text, related_request_id=self._related(ctx))

    async def progress(self, ctx: Context, done: float) -> None:
        """Report progress, if the client wants that."""
        meta = ctx.request_context.meta
        if meta is not None and meta.progressToken is not None:
            await ctx.session.send_progress_notification(
                meta.progressToken, done, 100, related_request_id=self._related(ctx)
            )


TEXT: dict[str, Any] = {"type": "string"}
NAME: Properties = {"name": TEXT}
OK: Properties = {"ok": {"type": "boolean"}}


def add_notifying_tools(mcp: FastMCP, voice: Voice) -> None:
    """Tools that talk on the way; they stand before those of the other revision, whose names they share."""

    @mcp.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Reports progress three times."""
        for done in (0, 50, 100):
            await voice.progress(ctx, done)
            await anyio.sleep(STEP_SECONDS)
        return "Reported progress three times."

    @mcp.tool()
    async def test_logging_tool(ctx: Context) -> str:
        """Sends a log message at three levels."""
        levels: tuple[types.LoggingLevel, ...] = ("debug", "info", "error")
        for level in levels:
            await voice.log(ctx, f"This is {level}.", level)
        return "Sent three log messages."

    @mcp.tool()
    async def test_streaming_elicitation(ctx: Context) -> str:
        """Reports progress, then asks the user."""
        await voice.progress(ctx, 50)
        answer = await voice.elicit(ctx, "Go on?", OK)
        return answer.action


def add_asking_tools(mcp: FastMCP, voice: Voice, ledger: Ledger) -> None:
    """Tools that cannot finish without their client."""

    @mcp.tool()
    async def test_missing_capability(ctx: Context) -> str:
        """Asks the model, whether the client has one or not."""
        return await voice.sample(ctx, "Are you there?")

    @mcp.tool()
    async def test_input_required_result_elicitation(ctx: Context) -> str:
        """Asks for a name."""
        with ledger.count("elicitation"):
            answer = await voice.elicit(ctx, "What is your name?", NAME, "user_name")
            return f"Hello, {(answer.content or {}).get('name', answer.action)}!"

    @mcp.tool()
    async def test_input_required_result_sampling(ctx: Context) -> str:
        """Asks the model for a capital."""
        with ledger.count("sampling"):
            return await voice.sample(ctx, "What is the capital of France?")

    @mcp.tool()
    async def test_input_required_result_list_roots(ctx: Context) -> str:
        """Asks for the client's roots."""
        with ledger.count("roots"):
            return f"Roots: {', '.join(await voice.roots(ctx))}"


def add_state_tools(mcp: FastMCP, voice: Voice, ledger: Ledger) -> None:
    """Tools whose state between the rounds is the call itself, which waits."""

    @mcp.tool()
    async def test_input_required_result_request_state(ctx: Context) -> str:
        """Asks for a confirmation."""
        answer = await voice.elicit(ctx, "Please confirm", OK, "confirm")
        return f"state-ok: {answer.action}"

    @mcp.tool()
    async def test_input_required_result_tampered_state(ctx: Context) -> str:
        """Asks for a confirmation, which must not come with a forged state."""
        with ledger.count("tampered"):
            answer = await voice.elicit(ctx, "Please confirm", OK, "confirm")
            return answer.action

    @mcp.tool()
    async def test_input_required_result_multi_round(ctx: Context) -> str:
        """Asks for a name and then for a colour."""
        with ledger.count("multi_round"):
            name = await voice.elicit(ctx, "Step 1: What is your name?", NAME, "step1")
            await voice.progress(ctx, 50)
            colour = await voice.elicit(ctx, "Step 2: What is your favorite color?", {"color": TEXT}, "step2")
            said = {**(name.content or {}), **(colour.content or {})}
            return f"{said.get('name')} likes {said.get('color')}."


def add_compound_tools(mcp: FastMCP, voice: Voice, ledger: Ledger) -> None:
    """Tools that ask for more than one thing."""

    @mcp.tool()
    async def test_input_required_result_multiple_inputs(ctx: Context) -> str:
        """Asks for three things at once."""
        said: dict[str, str] = {}

        async def name() -> None:
            answer = await voice.elicit(ctx, "What is your name?", NAME, "user_name")
            said["name"] = str((answer.content or {}).get("name"))

        async def greeting() -> None:
            said["greeting"] = await voice.sample(ctx, "Generate a greeting")

        async def roots() -> None:
            said["roots"] = ", ".join(await voice.roots(ctx))

        with ledger.count("multiple"):
            async with anyio.create_task_group() as group:
                for question in (name, greeting, roots):
                    group.start_soon(question)
            return "; ".join(f"{what}: {said[what]}" for what in ("name", "greeting", "roots"))

    @mcp.tool()
    async def test_input_required_result_capabilities(ctx: Context) -> str:
        """Asks whom there is to ask, as the handshake said."""
        model = types.ClientCapabilities(sampling=types.SamplingCapability())
        user = types.ClientCapabilities(elicitation=types.ElicitationCapability())
        said: list[str] = []
        if ctx.session.check_client_capability(model):
            said.append(await voice.sample(ctx, "Are you there?"))
        if ctx.session.check_client_capability(user):
            said.append((await voice.elicit(ctx, "And you?", OK)).action)
        return f"There were: {', '.join(said) or 'none'}"


def add_asking_reads(mcp: FastMCP, voice: Voice) -> None:
    """A prompt and a resource that ask as well."""

    @mcp.prompt()
    async def test_input_required_result_prompt(ctx: Context) -> str:
        """A prompt that asks for its context."""
        question = "What context should the prompt use?"
        answer = await voice.elicit(ctx, question, {"context": TEXT}, "user_context")
        return f"Consider: {(answer.content or {}).get('context')}"

    @mcp.resource("test://asking/{topic}")
    async def asking(topic: str, ctx: Context) -> str:
        """A resource that asks before it shows itself."""
        answer = await voice.elicit(ctx, f"May I show {topic}?", OK, "may_show")
        return f"{topic}: {answer.action}"


def add_further_asking_tools(mcp: FastMCP, voice: Voice, ledger: Ledger) -> None:
    """What the suite has no scenario for."""

    @mcp.tool()
    async def ask_model_with_tool(ctx: Context) -> str:
        """Asks a model that may use a tool."""
        return ", ".join(await voice.sample_with_tool(ctx, "How is the weather?"))

    @mcp.tool()
    async def ask_to_visit(ctx: Context, identifier: str) -> str:
        """Asks the user to visit a page and waits for the answer."""
        answer = await voice.visit(ctx, f"http://127.0.0.1:9/visit/{identifier}", identifier)
        return answer.action

    @mcp.tool()
    async def demand_visit(ctx: Context, identifier: str) -> str:
        """Refuses to do anything before the user has visited a page."""
        with ledger.count("demand_visit"):
            if identifier not in ledger.visited:
                ledger.waiting[identifier] = ctx.session
                page = types.ElicitRequestURLParams(
                    message="Please visit this page first.",
                    url=f"http://127.0.0.1:9/visit/{identifier}",
                    elicitationId=identifier,
                )
                raise UrlElicitationRequiredError([page])
            return "visited"

    @mcp.tool()
    async def linger(ctx: Context, ask: bool = False) -> str:
        """Says that it has begun, and does not end soon; before that, it asks if it is to."""
        with ledger.count("linger"):
            if ask:
                await voice.elicit(ctx, "Begin?", OK)
            await voice.progress(ctx, 1)
            await anyio.sleep(LINGER_SECONDS)
            return "done"

    @mcp.tool()
    async def ask_with(ctx: Context, message: str) -> str:
        """Asks with the caller's own words, so that a test can tell calls apart."""
        answer = await voice.elicit(ctx, message, NAME)
        return f"{message}: {(answer.content or {}).get('name', answer.action)}"


def add_schema_tools(mcp: FastMCP) -> None:
    """Tools whose schemas matter."""

    # The names of the parameters are arbitrary; each of their schemas tells the client of a header.
    @mcp.tool()
    def bad_header_tool(
        tenant: Annotated[str, Field(json_schema_extra={"x-mcp-header": "not a token"})],
    ) -> str:
        """Marks a parameter in a way that no modern client may see."""
        return tenant

    @mcp.tool()
    def test_headers(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
        count: Annotated[int, Field(json_schema_extra={"x-mcp-header": "Count"})] = 0,
        dry: Annotated[bool, Field(json_schema_extra={"x-mcp-header": "Dry-Run"})] = False,
    ) -> str:
        """Marks parameters that clients repeat in headers."""
        return f"{region} {count} {dry}"

    @mcp.tool()
    def json_schema_2020_12_tool(name: str = "") -> str:
        """Tool with JSON Schema 2020-12 features."""
        return name

    tool = mcp._tool_manager.get_tool("json_schema_2020_12_tool")
    assert tool is not None
    tool.parameters = SCHEMA_2020_12


def add_changing_lists(mcp: FastMCP) -> None:
    """Tools that change what is listed. The names stay: the suite compares two lists' names."""
    changes: Counter[str] = Counter()

    @mcp.tool()
    def changing_tool() -> str:
        """Unchanged."""
        return "unchanged"

    @mcp.prompt()
    def changing_prompt() -> str:
        """Unchanged."""
        return "unchanged"

    @mcp.tool()
    async def test_trigger_tool_change(ctx: Context) -> str:
        """Changes the list of tools."""
        changes["tools"] += 1
        tool = mcp._tool_manager.get_tool("changing_tool")
        assert tool is not None
        tool.description = f"Changed {changes['tools']} times."
        await ctx.session.send_tool_list_changed()
        return tool.description

    @mcp.tool()
    async def test_trigger_prompt_change(ctx: Context) -> str:
        """Changes the list of prompts."""
        changes["prompts"] += 1
        prompt = mcp._prompt_manager.get_prompt("changing_prompt")
        assert prompt is not None
        prompt.description = f"Changed {changes['prompts']} times."
        await ctx.session.send_prompt_list_changed()
        return prompt.description

    server = mcp._mcp_server
    plain = server.get_capabilities

    def capabilities(*arguments: Any) -> types.ServerCapabilities:
        declared = plain(*arguments)
        declared.tools = types.ToolsCapability(listChanged=True)
        declared.prompts = types.PromptsCapability(listChanged=True)
        return declared

    server.get_capabilities = capabilities  # type: ignore[method-assign]


def add_routes(mcp: FastMCP, ledger: Ledger) -> None:
    """What only the tests call."""

    @mcp.custom_route("/calls", methods=["GET"])
    async def calls(_: Request) -> Response:
        return JSONResponse(
            {
                "started": dict(ledger.started),
                "finished": dict(ledger.finished),
                "cancelled": dict(ledger.cancelled),
                "failed": dict(ledger.failed),
            }
        )

    @mcp.custom_route("/visit/{identifier}", methods=["POST"])
    async def visit(request: Request) -> Response:
        identifier = request.path_params["identifier"]
        ledger.visited.add(identifier)
        session = ledger.waiting.pop(identifier, None)
        if session is not None:
            await session.send_elicit_complete(identifier)
        return PlainTextResponse("thank you")


def build(port: int, ask_on: str) -> FastMCP:
    """The server; it asks on the POST's stream or on the GET stream."""
    voice, ledger = Voice(ask_on), Ledger()
    mcp = FastMCP(
        "modern-fixture",
        host="127.0.0.1",
        port=port,
        log_level="CRITICAL",
        warn_on_duplicate_tools=False,  # the first of a name stays
    )
    add_content_tools(mcp)
    add_notifying_tools(mcp, voice)
    add_talking_tools(mcp)
    add_asking_tools(mcp, voice, ledger)
    add_state_tools(mcp, voice, ledger)
    add_compound_tools(mcp, voice, ledger)
    add_asking_reads(mcp, voice)
    add_further_asking_tools(mcp, voice, ledger)
    add_schema_tools(mcp)
    add_resources(mcp)
    add_prompts(mcp)
    add_changing_lists(mcp)
    add_routes(mcp, ledger)
    return mcp


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ask-on", choices=("post", "get"), default="post")
    parser.add_argument("--transport", default="streamable-http", choices=["streamable-http", "sse", "stdio"])
    arguments = parser.parse_args()
    build(arguments.port, arguments.ask_on).run(arguments.transport)


if __name__ == "__main__":
    main()
