"""A modern request as a legacy server gets it."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp_types import methods
from wire_types import (
    LEGACY,
    MODERN,
    assert_legacy_request,
    json_objects,
    json_values,
    requests_of,
    values_of,
)

from mcp_session_proxy.protocol import jsonrpc, lowering, revisions
from mcp_session_proxy.protocol.inbound import ModernRequest
from mcp_session_proxy.protocol.jsonrpc import Request
from mcp_session_proxy.sessions.identity import read_profile

META = "io.modelcontextprotocol/"
SHARED = sorted(
    method
    for method, version in methods.CLIENT_REQUESTS
    if version == MODERN and (method, LEGACY) in methods.CLIENT_REQUESTS
)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def modern(params: dict[str, Any] | None, method: str = "tools/call") -> ModernRequest:
    """A request that has passed the checks at the front door."""
    raw = None if params is None else json.dumps(params).encode()
    meta = jsonrpc.read_meta(raw)
    return ModernRequest(
        Request(b"1", method, raw),
        jsonrpc.read_object(raw),
        meta,
        meta.get(revisions.META_CAPABILITIES, b"{}"),
        meta.get(revisions.META_CLIENT_INFO),
        None,
    )


def lower(params: dict[str, Any] | None, method: str = "tools/call") -> Any:
    lowered = lowering.lower_params(modern(params, method))
    return None if lowered is None else json.loads(lowered)


def lower_initialize(**meta: object) -> Any:
    request = modern({"_meta": {META + k: v for k, v in meta.items()}})
    return json.loads(lowering.lower_initialize(request.raw_capabilities, request.client_info))


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SHARED)
@few
@given(data=st.data())
def test_any_modern_request_becomes_a_legacy_one(method: str, data: st.DataObject) -> None:
    """Whatever the new schema allows becomes what the old one allows; only what is new is taken away."""
    params = data.draw(requests_of(method)).get("params", {})
    lowered = lower(params, method)
    assert_legacy_request(method, lowered)
    ours = ("_meta", "inputResponses", "requestState")
    rest = {name: value for name, value in (lowered or {}).items() if name != "_meta"}
    assert rest == {name: value for name, value in params.items() if name not in ours}
    meta = {key: value for key, value in params.get("_meta", {}).items() if not key.startswith(META)}
    assert (lowered or {}).get("_meta", {}) == meta


def test_the_revisions_metadata_goes_and_all_else_stays() -> None:
    """Some servers answer 400 to the core's own keys; tokens, traces, vendors' and extensions' keys go on."""
    own = {
        META + "protocolVersion": MODERN,
        META + "clientInfo": {"name": "c", "version": "1"},
        META + "clientCapabilities": {},
        META + "logLevel": "info",
    }
    others = {
        "progressToken": "p",
        "traceparent": "00-1",
        "vendor/x": None,
        "io.modelcontextprotocol": 2,
        META + "ui": {"a": 1},
        META + "related-task": {"taskId": "t"},
        META + "oauth-client-credentials": 1,
    }
    assert lower({"name": "t", "_meta": {**own, **others}}) == {"name": "t", "_meta": others}
    assert lower({"name": "t", "_meta": own}) == {"name": "t"}


def test_no_call_becomes_a_task() -> None:
    """What would make the server answer with a task is left out; an argument of that name is the tool's."""
    params = {"name": "t", "arguments": {"task": 1}}
    assert lower({**params, "task": {"ttl": 60000}, "_meta": {META + "protocolVersion": MODERN}}) == params


def test_nothing_left() -> None:
    """A request that had only metadata has no parameters."""
    assert lower({"_meta": {META + "protocolVersion": MODERN}}, "tools/list") is None
    assert lower(None, "tools/list") is None


# -- the handshake ---------------------------------------------------------------------------------


@few
@given(data=st.data())
def test_any_client_gets_a_handshake(data: st.DataObject) -> None:
    """Whatever a modern request says of its client makes an `initialize` that the old schema allows."""
    params = data.draw(requests_of("tools/call"))["params"]
    request = modern(params)
    initialize = lowering.lower_initialize(request.raw_capabilities, request.client_info)
    assert_legacy_request("initialize", json.loads(initialize))
    read_profile(initialize)


@few
@given(capabilities=json_objects, info=st.none() | json_values)
def test_any_json_gets_a_handshake(capabilities: dict[str, Any], info: Any) -> None:
    """Clients that say odd things of themselves get a handshake as well."""
    meta = {"clientCapabilities": {**capabilities, "sampling": 1, "roots": None}}
    if info is not None:
        meta["clientInfo"] = info
    assert_legacy_request("initialize", lower_initialize(**meta))


def test_handshake() -> None:
    """The newest legacy version, the client's own name, and the capabilities that the server can use."""
    capabilities = {
        "sampling": {"tools": {}, "context": {}},
        "elicitation": {"form": {}, "url": {}},
        "roots": {"listChanged": True},
        "experimental": {"x": {}},
        "extensions": {"io.modelcontextprotocol/tasks": {}, "vendor/ui": {"a": 1}},
        "tasks": {"list": {}},
        "unheard-of": {},
    }
    info = {"name": "c", "version": "2", "title": "C"}
    lowered = lower_initialize(clientCapabilities=capabilities, clientInfo=info)
    assert lowered == {
        "protocolVersion": LEGACY,
        "clientInfo": info,
        "capabilities": {
            "sampling": {"tools": {}, "context": {}},
            "elicitation": {"form": {}, "url": {}},
            "roots": {"listChanged": True},  # the proxy tells of changes
            "experimental": {"x": {}},
            "extensions": {"vendor/ui": {"a": 1}},
        },
    }


@pytest.mark.parametrize(
    "info", [None, {}, {"name": "c"}, {"version": "1"}, {"name": 1, "version": "1"}, "c", []]
)
def test_clients_without_a_name(info: Any) -> None:
    """Servers insist on a name and a version; a client that gives none gets some."""
    meta = {} if info is None else {"clientInfo": info}
    assert lower_initialize(**meta)["clientInfo"] == {"name": "unnamed", "version": "0"}


@few
@given(
    capabilities=values_of(methods.CLIENT_REQUESTS["initialize", LEGACY]).map(
        lambda m: m["params"]["capabilities"]
    )
)
def test_profiles_differ_by_what_the_server_would_use(capabilities: dict[str, Any]) -> None:
    """Two requests whose clients a server cannot tell apart have one profile, and so one session."""
    first = lowering.lower_capabilities({k: json.dumps(v).encode() for k, v in capabilities.items()})
    more = {**capabilities, "unheard-of": {}, "tasks": {}}
    second = lowering.lower_capabilities({k: json.dumps(v).encode() for k, v in reversed(more.items())})
    assert jsonrpc.canonical(first) == jsonrpc.canonical(second)
