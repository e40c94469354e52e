"""JSON-RPC messages as tests write them: JSON values, and :func:`raw` makes bytes of them."""

import json
from typing import Any

INITIALIZE_PARAMS = (
    b'{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}'
)
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": json.loads(INITIALIZE_PARAMS),
}
GONE = {"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Session not found"}}


def raw(value: object) -> bytes:
    """A value as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def result(value: object = None) -> dict[str, Any]:
    """A response; its id is filled in with that of the request it answers."""
    return {"jsonrpc": "2.0", "id": "?", "result": {} if value is None else value}


def error(code: int, message: str) -> dict[str, Any]:
    """An error response; its id is filled in with that of the request it answers."""
    return {"jsonrpc": "2.0", "id": "?", "error": {"code": code, "message": message}}


def notification(method: str, **params: object) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def request(identifier: object, method: str, **params: object) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}


def call(identifier: object = 1, method: str = "tools/call", **params: object) -> dict[str, Any]:
    """A request of a client."""
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
