"""A stateful MCP server with the tools, resources and prompts that the official conformance suite asks for.

    python conformance_server.py --port 8000 [--transport streamable-http|sse|stdio]

The suite names every fixture in the descriptions of its scenarios; what is here follows those for 2025-11-25.
"""

import argparse
import base64
import json
import struct
import zlib
from typing import Any

import anyio
from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.prompts.base import Message, UserMessage
from pydantic import AnyUrl

STEP_SECONDS = 0.05


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def red_pixel_png() -> bytes:
    """A picture of one red pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def silent_wav() -> bytes:
    """Eight samples of silence."""
    samples = b"\x80" * 8
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", len(samples))
        + samples
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


PNG = base64.b64encode(red_pixel_png()).decode()
WAV = base64.b64encode(silent_wav()).decode()


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mimeType="image/png")


def _resource(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=AnyUrl(uri), mimeType=mime_type, text=text)
    return types.EmbeddedResource(type="resource", resource=contents)


def add_content_tools(mcp: FastMCP) -> None:
    """Tools that only return something."""

    @mcp.tool(structured_output=False)
    def test_simple_text() -> list[types.ContentBlock]:
        """Returns one text."""
        return [_text("This is a simple text response for testing.")]

    @mcp.tool(structured_output=False)
    def test_image_content() -> list[types.ContentBlock]:
        """Returns one image."""
        return [_image()]

    @mcp.tool(structured_output=False)
    def test_audio_content() -> list[types.ContentBlock]:
        """Returns one sound."""
        return [types.AudioContent(type="audio", data=WAV, mimeType="audio/wav")]

    @mcp.tool(structured_output=False)
    def test_embedded_resource() -> list[types.ContentBlock]:
        """Returns one embedded resource."""
        return [_resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]

    @mcp.tool(structured_output=False)
    def test_multiple_content_types() -> list[types.ContentBlock]:
        """Returns text, an image and a resource."""
        data = json.dumps({"test": "data", "value": 123})
        return [
            _text("Multiple content types test:"),
            _image(),
            _resource("test://mixed-content-resource", "application/json", data),
        ]

    @mcp.tool()
    def test_error_handling() -> str:
        """Always fails."""
        raise ValueError("This tool intentionally returns an error for testing")


def add_talking_tools(mcp: FastMCP) -> None:
    """Tools that talk to the client while they run."""

    @mcp.tool()
    async def test_tool_with_logging(ctx: Context) -> str:
        """Sends three log messages."""
        await ctx.info("Tool execution started")
        await anyio.sleep(STEP_SECONDS)
        await ctx.info("Tool processing data")
        await anyio.sleep(STEP_SECONDS)
        await ctx.info("Tool execution completed")
        return "Sent three log messages."

    @mcp.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Reports progress three times."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await anyio.sleep(STEP_SECONDS)
        return "Reported progress three times."

    @mcp.tool()
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Asks the client's model."""
        message = types.SamplingMessage(role="user", content=_text(prompt))
        answer = await ctx.session.create_message(
            messages=[message], max_tokens=100, related_request_id=ctx.request_id
        )
        said = answer.content.text if isinstance(answer.content, types.TextContent) else answer.content.type
        return f"LLM response: {said}"

    @mcp.tool()
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Asks the client's user."""
        properties = {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        }
        return f"User response: {await _elicit(ctx, message, properties, required=list(properties))}"

    @mcp.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """Asks with a default for every primitive type."""
        properties = {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        }
        return f"Elicitation completed: {await _elicit(ctx, 'Check these values', properties)}"

    @mcp.tool()
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """Asks with every form of enumeration."""
        plain = ["option1", "option2", "option3"]

        def titled(word: str) -> list[dict[str, str]]:
            return [
                {"const": f"value{number}", "title": f"{ordinal} {word}"}
                for number, ordinal in enumerate(("First", "Second", "Third"), start=1)
            ]

        properties = {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {"type": "string", "oneOf": titled("Option")},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
        }
        return f"Elicitation completed: {await _elicit(ctx, 'Choose', properties)}"


async def _elicit(
    ctx: Context, message: str, properties: dict[str, Any], required: list[str] | None = None
) -> str:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required or []}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={answer.action}, content={json.dumps(answer.content)}"


def add_resources(mcp: FastMCP) -> None:
    """Static resources, a template, and one to watch."""

    @mcp.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """A text that never changes."""
        return "This is the content of the static text resource."

    @mcp.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """A picture that never changes."""
        return red_pixel_png()

    @mcp.resource("test://template/{number}/data", mime_type="application/json")
    def template(number: str) -> str:
        """Data for any number."""
        return json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})

    @mcp.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """A resource to subscribe to."""
        return "Watched."

    server = mcp._mcp_server

    @server.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        """Nothing ever changes here."""

    @server.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        """Nothing ever changes here."""

    @server.set_logging_level()
    async def set_level(level: str) -> None:
        """All levels are sent."""

    @mcp.completion()
    async def complete(
        ref: types.PromptReference | types.ResourceTemplateReference,
        argument: types.CompletionArgument,
        context: types.CompletionContext | None,
    ) -> types.Completion:
        found = [word for word in ("paris", "park", "party") if word.startswith(argument.value)]
        return types.Completion(values=found, total=len(found), hasMore=False)

    # The 1.x SDK declares `subscribe: false` whatever handlers there are.
    plain = server.get_capabilities

    def capabilities(*arguments: Any) -> types.ServerCapabilities:
        declared = plain(*arguments)
        declared.resources = types.ResourcesCapability(subscribe=True, listChanged=False)
        return declared

    server.get_capabilities = capabilities  # type: ignore[method-assign]


def add_prompts(mcp: FastMCP) -> None:
    """The suite's prompts."""

    @mcp.prompt()
    def test_simple_prompt() -> str:
        """A prompt without arguments."""
        return "This is a simple prompt for testing."

    @mcp.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """A prompt with two arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    # The argument's name is the suite's.
    @mcp.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:
        """A prompt with a resource in it."""
        embedded = _resource(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(embedded), UserMessage("Please process the embedded resource above.")]

    @mcp.prompt()
    def test_prompt_with_image() -> list[Message]:
        """A prompt with an image in it."""
        return [UserMessage(_image()), UserMessage("Please analyze the image above.")]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--transport", default="streamable-http", choices=["streamable-http", "sse", "stdio"])
    arguments = parser.parse_args()
    mcp = FastMCP("conformance", host="127.0.0.1", port=arguments.port, log_level="CRITICAL")
    add_content_tools(mcp)
    add_talking_tools(mcp)
    add_resources(mcp)
    add_prompts(mcp)
    mcp.run(arguments.transport)


if __name__ == "__main__":
    main()
