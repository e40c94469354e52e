"""The description of the admin listener, as an OpenAPI 3.1 document. Pure.

The schemas are made of the very types that are answered (``model``); here is only what they cannot say.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from ... import __version__
from ...protocol import revisions
from ..introspection import ClusterView
from .model import (
    ChildrenNow,
    Draining,
    Events,
    Health,
    Killed,
    Paused,
    Problem,
    ReadinessAnswer,
    Reconnected,
    Sessions,
    Status,
    WentRound,
)

_ABOUT: Final = """\
What the proxy shows of itself, and what an operator may change.

Reading needs no credential. A call that changes something needs the admin token, if one is configured; \
without one it works from the proxy's own machine only, and needs the header `X-Requested-With` or a JSON \
content type, so that no web page can make it."""
_PROBLEMS: Final = {
    400: "A parameter is not what it should be.",
    401: "The admin token is missing or wrong.",
    403: "Nobody may change anything here, or the request may be a web page's doing.",
    404: "There is no such session.",
    408: "The body did not arrive; hardly anything is needed.",
    413: "The body is too large; hardly anything is needed.",
}
_EVERYWHERE: Final = {
    "description": "Whether it is done at all proxies on the store. Nothing else is read.",
    "content": {
        revisions.JSON: {
            "schema": {"type": "object", "properties": {"cluster": {"type": "boolean", "default": False}}}
        }
    },
}
_TYPES: Final = (
    Health,
    ReadinessAnswer,
    Sessions,
    Status,
    ClusterView,
    ChildrenNow,
    Events,
    Paused,
    Reconnected,
    Draining,
    Killed,
    WentRound,
    Problem,
)


@cache
def describe() -> Mapping[str, Any]:
    """The document. It is the same in every process of this version."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-session-proxy admin API",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This listener."}],
        "paths": {
            "/healthz": {
                "get": _reading("health", "Whether the process lives.", Health),
            },
            "/readyz": {
                "get": _reading(
                    "readiness",
                    "Whether requests can be served.",
                    ReadinessAnswer,
                    {"503": _content("Not now.", ReadinessAnswer)},
                ),
            },
            "/metrics": {"get": _metrics()},
            "/sessions": {
                "get": _reading(
                    "sessions",
                    "The newest sessions of both kinds.",
                    Sessions,
                    parameters=[_number("limit", "How many of each kind at most.", 1000)],
                ),
            },
            "/api/v1/status": {
                "get": _reading("status", "How the proxy does.", Status),
            },
            "/api/v1/cluster": {
                "get": _reading("cluster", "This proxy among those on the same store.", ClusterView),
            },
            "/api/v1/children": {
                "get": _reading(
                    "children",
                    "The newest processes of a server that is a command; none of another server.",
                    ChildrenNow,
                    parameters=[_number("limit", "How many at most.", 1000)],
                ),
            },
            "/api/v1/events": {
                "get": _reading(
                    "events",
                    "Recent events of level info and above; the newest 50 of each kind are kept.",
                    Events,
                    parameters=[
                        _number("after", "Only events with a higher id.", 0),
                        _number("limit", "How many at most, the newest.", 500),
                    ],
                ),
            },
            "/api/v1/openapi.json": {"get": _document()},
            "/api/v1/pause": {
                "post": _changing(
                    "pause",
                    "Hold back all requests until resume. They wait for --acquire-timeout; who holds a "
                    "session keeps it.",
                    Paused,
                    goes_round=True,
                ),
            },
            "/api/v1/resume": {
                "post": _changing("resume", "End a pause.", Paused, goes_round=True),
            },
            "/api/v1/reconnect": {
                "post": _changing(
                    "reconnect",
                    "Replace every upstream session when nobody holds it. State at the server goes with it.",
                    Reconnected,
                    goes_round=True,
                ),
            },
            "/api/v1/drain": {
                "post": _changing(
                    "drain",
                    "Finish the requests in flight and end the process, as SIGTERM does.",
                    Draining,
                    status="202",
                ),
            },
            "/api/v1/sessions/{session}": {
                "delete": _changing(
                    "kill",
                    "Close one upstream session at once, whoever uses it.",
                    Killed,
                    more=(404,),
                    goes_round=True,
                    parameters=[_tag()],
                ),
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "--admin-token"}
            },
        },
    }


def _reading(
    name: str,
    text: str,
    kind: type,
    more: Mapping[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    responses = {"200": _content(text, kind), **(more or {})}
    if parameters:
        responses["400"] = _problem(400)
    return _operation(name, text, responses, parameters)


def _changing(
    name: str,
    text: str,
    kind: type,
    *,
    status: str = "200",
    more: tuple[int, ...] = (),
    parameters: list[dict[str, Any]] | None = None,
    goes_round: bool = False,
) -> dict[str, Any]:
    responses = {status: _content("Done.", kind)}
    if goes_round:
        more = (400, *more)
        responses[status] = _content("Done; if everywhere, what each proxy says.", kind, WentRound)
        responses["502"] = _content("Not done everywhere; what each proxy says.", WentRound)
    responses |= {str(number): _problem(number) for number in (401, 403, *more, 408, 413)}
    asked = {
        "name": "X-Requested-With",
        "in": "header",
        "description": "Any value. Not needed with the token, nor with a JSON content type.",
        "schema": {"type": "string"},
    }
    operation = _operation(name, text, responses, [*(parameters or []), asked])
    if goes_round:
        operation["requestBody"] = _EVERYWHERE
    return {**operation, "security": [{"token": []}, {}]}


def _operation(
    name: str, text: str, responses: Mapping[str, Any], parameters: list[dict[str, Any]] | None
) -> dict[str, Any]:
    operation = {"operationId": name, "summary": text, "responses": responses}
    return {**operation, "parameters": parameters} if parameters else operation


def _metrics() -> dict[str, Any]:
    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return _operation("metrics", "Metrics in Prometheus' text format, or OpenMetrics.", {"200": text}, None)


def _document() -> dict[str, Any]:
    found = {"description": "This document.", "content": {revisions.JSON: {"schema": {"type": "object"}}}}
    return _operation("openapi", "This document.", {"200": found}, None)


def _content(text: str, *kinds: type) -> dict[str, Any]:
    schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"description": text, "content": {revisions.JSON: {"schema": schema}}}


def _problem(status: int) -> dict[str, Any]:
    return _content(_PROBLEMS[status], Problem)


def _number(name: str, text: str, default: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0, "default": default}
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _tag() -> dict[str, Any]:
    text = "The session's tag, as /sessions shows it."
    return {
        "name": "session",
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string"},
    }
