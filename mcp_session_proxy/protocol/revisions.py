"""Names and numbers of the MCP revisions: versions, eras, header names, ``_meta`` keys, methods.

Only constants and the pure questions about them live here.
"""

from enum import StrEnum
from typing import Final

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_LEGACY: Final = "2025-11-25"
FIRST_MODERN: Final = "2026-07-28"

# HTTP headers. MCP 2025-11-25, basic/transports, "Session Management" and "Protocol Version Header".
SESSION_HEADER: Final = "Mcp-Session-Id"
VERSION_HEADER: Final = "MCP-Protocol-Version"
LAST_EVENT_ID_HEADER: Final = "Last-Event-ID"

JSON: Final = "application/json"
SSE: Final = "text/event-stream"
ACCEPT_BOTH: Final = "application/json, text/event-stream"

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
PING: Final = "ping"
DISCOVER: Final = "server/discover"
TOOLS_CALL: Final = "tools/call"
SET_LEVEL: Final = "logging/setLevel"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"

# Reads by protocol: repeating one changes nothing at the server.
READ_METHODS: Final = frozenset(
    {
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "resources/read",
        "prompts/get",
        "completion/complete",
        "ping",
    }
)

# Every request method a client may send in a legacy revision; anything else is "other" in metrics.
KNOWN_METHODS: Final = READ_METHODS | {
    INITIALIZE,
    TOOLS_CALL,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    DISCOVER,
    "subscriptions/listen",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
}


class Era(StrEnum):
    """Which generation of the protocol a caller speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


def method_label(method: str) -> str:
    """The method's name as a metrics label: unknown methods share ``other``, so labels are bounded."""
    return method if method in KNOWN_METHODS else "other"
