"""What the official Python SDK's clients, 1.x and 2.x, answer when the server asks them."""

from typing import Any

import mcp

if hasattr(mcp, "Client"):  # 2.x
    import mcp_types as types
else:
    from mcp import types


async def elicited(context: Any, params: Any) -> types.ElicitResult:
    """The user says: Ada."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
    """The model says: hello."""
    content = types.TextContent(type="text", text="hello")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def roots(context: Any) -> types.ListRootsResult:
    """The client has one root."""
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/data")])  # type: ignore[arg-type]


ANSWERS: dict[str, Any] = {
    "elicitation_callback": elicited,
    "sampling_callback": sampled,
    "list_roots_callback": roots,
}
