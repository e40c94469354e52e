"""Names and numbers of the MCP revisions: versions, eras, header names, ``_meta`` keys, methods.

Only constants and the pure questions about them live here.
"""

from enum import StrEnum
from typing import Final

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_LEGACY: Final = "2025-11-25"
FIRST_MODERN: Final = "2026-07-28"
MODERN_VERSIONS: Final = (FIRST_MODERN,)
SERVED_VERSIONS: Final = (*MODERN_VERSIONS, *reversed(LEGACY_VERSIONS))

# From this one on, streams begin with an event without data, which older clients cannot read.
_FIRST_PRIMED: Final = "2025-11-25"

# HTTP headers. MCP 2025-11-25, basic/transports, "Session Management" and "Protocol Version Header".
SESSION_HEADER: Final = "Mcp-Session-Id"
VERSION_HEADER: Final = "MCP-Protocol-Version"
LAST_EVENT_ID_HEADER: Final = "Last-Event-ID"
# MCP 2026-07-28, basic/transports/streamable-http, "Standard Request Headers".
METHOD_HEADER: Final = "Mcp-Method"
NAME_HEADER: Final = "Mcp-Name"
PARAM_HEADER_PREFIX: Final = "mcp-param-"
# Of what the members of one cluster say to each other.
MEMBER_HEADER_PREFIX: Final = "msp-"

JSON: Final = "application/json"
SSE: Final = "text/event-stream"
ACCEPT_BOTH: Final = "application/json, text/event-stream"

# MCP 2026-07-28, basic, "_meta".
META_PREFIX: Final = "io.modelcontextprotocol/"
META_VERSION: Final = META_PREFIX + "protocolVersion"
META_CLIENT_INFO: Final = META_PREFIX + "clientInfo"
META_CAPABILITIES: Final = META_PREFIX + "clientCapabilities"
META_LOG_LEVEL: Final = META_PREFIX + "logLevel"
META_SERVER_INFO: Final = META_PREFIX + "serverInfo"
META_SUBSCRIPTION: Final = META_PREFIX + "subscriptionId"
# What the core says with each request. Extensions have keys of their own under the same prefix.
META_OF_REQUESTS: Final = frozenset({META_VERSION, META_CLIENT_INFO, META_CAPABILITIES, META_LOG_LEVEL})
# The extension that has what the earlier revision's tasks were for.
TASKS_EXTENSION: Final = META_PREFIX + "tasks"
# Of the earlier revision's tasks (2025-11-25, basic/utilities/tasks).
META_RELATED_TASK: Final = META_PREFIX + "related-task"
META_IMMEDIATE_RESPONSE: Final = META_PREFIX + "model-immediate-response"

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
PING: Final = "ping"
DISCOVER: Final = "server/discover"
LISTEN: Final = "subscriptions/listen"
TOOLS_LIST: Final = "tools/list"
TOOLS_CALL: Final = "tools/call"
PROMPTS_GET: Final = "prompts/get"
RESOURCES_READ: Final = "resources/read"
SET_LEVEL: Final = "logging/setLevel"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"

# Tasks of 2025-11-25; the extension has the first, the third and ``tasks/update``.
TASK_GET: Final = "tasks/get"
TASK_RESULT: Final = "tasks/result"
TASK_CANCEL: Final = "tasks/cancel"
TASK_LIST: Final = "tasks/list"
TASK_UPDATE: Final = "tasks/update"

# What servers tell the changes of. Asking for one changes nothing.
LISTS: Final = frozenset({TOOLS_LIST, "prompts/list", "resources/list", "resources/templates/list"})
# Reads by protocol: repeating one changes nothing at the server.
READ_METHODS: Final = LISTS | frozenset(
    {
        TASK_GET,
        TASK_RESULT,
        TASK_LIST,
        "resources/read",
        "prompts/get",
        "completion/complete",
        "ping",
    }
)

# What a modern client may ask (MCP 2026-07-28, schema, ClientRequest).
MODERN_METHODS: Final = frozenset(
    {
        DISCOVER,
        LISTEN,
        TOOLS_LIST,
        TOOLS_CALL,
        "resources/list",
        "resources/templates/list",
        RESOURCES_READ,
        "prompts/list",
        PROMPTS_GET,
        "completion/complete",
        TASK_GET,
        TASK_UPDATE,
        TASK_CANCEL,
    }
)
# What earlier revisions had, and this one has in another way or not at all.
REMOVED_METHODS: Final = frozenset(
    {INITIALIZE, PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE, TASK_RESULT, TASK_LIST}
)
# No other extension has methods there (ext-tasks, "Reservations"); nor is a notification a request.
_RESERVED: Final = ("tasks/", "notifications/")
_METHOD_CHARS: Final = 256
# Those of them that belong to the extension for tasks.
TASK_METHODS: Final = frozenset({TASK_GET, TASK_UPDATE, TASK_CANCEL})
# Results of these carry ttlMs and cacheScope (2026-07-28, server/utilities/caching).
CACHEABLE_METHODS: Final = frozenset(
    {
        DISCOVER,
        TOOLS_LIST,
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        RESOURCES_READ,
    }
)
# Only these may be answered with a question (2026-07-28, basic/patterns/mrtr, "Supported Requests").
PARKABLE_METHODS: Final = frozenset({TOOLS_CALL, PROMPTS_GET, RESOURCES_READ})

# What a server may ask, and of whom (2025-11-25, schema, ServerRequest).
ELICIT: Final = "elicitation/create"
SAMPLE: Final = "sampling/createMessage"
LIST_ROOTS: Final = "roots/list"
ROOTS_CHANGED: Final = "notifications/roots/list_changed"

LOG_MESSAGE: Final = "notifications/message"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"
PROMPTS_CHANGED: Final = "notifications/prompts/list_changed"
RESOURCES_CHANGED: Final = "notifications/resources/list_changed"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
ELICITATION_COMPLETE: Final = "notifications/elicitation/complete"
TASK_STATUS: Final = "notifications/tasks/status"
TASK_NEWS: Final = "notifications/tasks"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"

# RFC 5424 severities, the least severe first.
LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

# Every request method a client may send in a legacy revision; anything else is "other" in metrics.
KNOWN_METHODS: Final = READ_METHODS | {
    INITIALIZE,
    TOOLS_CALL,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    DISCOVER,
    LISTEN,
    TASK_CANCEL,
    TASK_UPDATE,
}


def may_be_an_extensions(method: str) -> bool:
    """Whether a modern client's method may be that of an extension, which only its server knows."""
    known = method in MODERN_METHODS or method in REMOVED_METHODS or method.startswith(_RESERVED)
    return not known and 0 < len(method) <= _METHOD_CHARS


class Era(StrEnum):
    """Which generation of the protocol a caller speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


class UpstreamEra(StrEnum):
    """The operator's choice: what becomes of modern requests."""

    AUTO = "auto"  # as the server needs it
    LEGACY = "legacy"  # always translated onto the server's sessions
    MODERN = "modern"  # always passed to the server as they are


class HttpTransport(StrEnum):
    """The operator's choice: which of its two transports a server with a URL speaks."""

    AUTO = "auto"  # found out with the first handshake
    HTTP = "http"  # Streamable HTTP, since 2025-03-26
    SSE = "sse"  # HTTP+SSE, of 2024-11-05


class ServedEras(StrEnum):
    """The operator's choice: which clients are served."""

    BOTH = "both"
    LEGACY = "legacy"
    MODERN = "modern"

    @property
    def versions(self) -> tuple[str, ...]:
        """The protocol versions that are served, the newest first."""
        return _VERSIONS[self]


_VERSIONS: Final = {
    ServedEras.BOTH: SERVED_VERSIONS,
    ServedEras.LEGACY: tuple(reversed(LEGACY_VERSIONS)),
    ServedEras.MODERN: MODERN_VERSIONS,
}


def takes_cursors(named: str | None, negotiated: str | None) -> bool:
    """Whether a client can read events that have an id and no data.

    ``named`` is the version that its request names, ``negotiated`` that of its handshake; where they differ,
    the older one counts.
    """
    versions = [version for version in (named, negotiated) if version is not None]
    return bool(versions) and min(versions) >= _FIRST_PRIMED


def method_label(method: str) -> str:
    """The method's name as a metrics label: unknown methods share ``other``, so labels are bounded."""
    return method if method in KNOWN_METHODS else "other"
