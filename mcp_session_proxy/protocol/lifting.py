"""Server to client: what a legacy server answers, as the 2026-07-28 revision wants it. Pure.

Results gain ``resultType``, the server's name and cache hints; errors lose codes that the revision
retired or reserved. Payloads are not touched: members are put in front of what was received.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from ..errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND
from . import jsonrpc, mirroring, revisions
from .jsonrpc import Response

COMPLETE: Final = b'"complete"'
INPUT_REQUIRED: Final = b'"input_required"'
_RESOURCE_NOT_FOUND: Final = -32002
_URL_ELICITATION_REQUIRED: Final = -32042
# JSON-RPC 2.0, section 5.1, reserves the first range. Of that, servers of earlier revisions chose codes of
# their own from the second, and the rest is the specification's (2026-07-28, basic, "Error Codes").
_JSONRPC: Final = range(-32768, -31999)
_LEGACY_OWN: Final = range(-32019, -31999)
_STANDARD: Final = frozenset({-32700, -32600, -32601, -32602, -32603})


ALL_HINTS: Final = frozenset({"ttlMs", "cacheScope"})
_SCOPES: Final = frozenset({"private", "public"})
_MILLISECONDS: Final = re.compile(rb"0|[1-9][0-9]{0,14}")  # what every client can hold in a number


class CacheHint(NamedTuple):
    """How long and by whom a result may be kept (2026-07-28, server/utilities/caching)."""

    ttl_milliseconds: int = 0
    scope: str = "private"

    def members(self) -> Mapping[str, bytes]:
        """The two members of a result."""
        return {"ttlMs": b"%d" % self.ttl_milliseconds, "cacheScope": jsonrpc.quote(self.scope)}


class ServerFacts(NamedTuple):
    """What a server said of itself in its ``InitializeResult``; JSON stays raw."""

    info: bytes | None
    capabilities: Mapping[str, bytes]
    instructions: bytes | None

    @property
    def has_extensions(self) -> bool:
        """Whether it has extensions that are its own to carry out: any but tasks, which are translated."""
        if "extensions" not in self.capabilities:
            return False
        return bool(jsonrpc.read_object(self.capabilities["extensions"]).keys() - {revisions.TASKS_EXTENSION})

    def offers(self, feature: str, detail: str) -> bool:
        """Whether a capability has a detail switched on (``tools`` and ``listChanged``, say)."""
        return jsonrpc.read_object(self.capabilities.get(feature)).get(detail) == b"true"


def read_server_facts(initialize_result: bytes) -> ServerFacts:
    """What matters later of an ``InitializeResult``."""
    members = jsonrpc.read_object(initialize_result)
    return ServerFacts(
        members.get("serverInfo"),
        jsonrpc.read_object(members.get("capabilities")),
        members.get("instructions"),
    )


class _Occupied(msgspec.Struct, gc=False):
    """The members of a result that lifting writes: there or not."""

    meta: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="_meta", default=msgspec.UNSET)
    result_type: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="resultType", default=msgspec.UNSET)
    ttl: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="ttlMs", default=msgspec.UNSET)
    scope: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="cacheScope", default=msgspec.UNSET)


_occupied = msgspec.json.Decoder(_Occupied)
_CACHED_FRONTS: Final = 256
_OPENING: Final = re.compile(rb"\s*\{\s*")


def lift_result(
    result: bytes,
    facts: ServerFacts,
    hint: CacheHint | None,
    heeded: frozenset[str] = ALL_HINTS,
) -> bytes:
    """A result with the members that the revision requires. ``hint`` where the method has one.

    ``heeded`` are the hints that the server's own result may decide, if it says something fit.
    """
    # Reading all of it for four names is quicker than to search it for them once.
    try:
        there = _occupied.decode(result)
    except jsonrpc.UNREADABLE:
        return _put_in_front(facts.info, hint, b"{}")  # a result that is no object says nothing
    free = (
        there.meta is msgspec.UNSET
        and there.result_type is msgspec.UNSET
        and there.ttl is msgspec.UNSET
        and there.scope is msgspec.UNSET
    )
    if free:
        return _put_in_front(facts.info, hint, result)
    return _merge(_members(facts.info, hint), result, heeded)


def _members(info: bytes | None, hint: CacheHint | None) -> dict[str, bytes]:
    """What lifting adds to a result."""
    members: dict[str, bytes] = {"resultType": COMPLETE}
    if hint is not None:
        members.update(hint.members())
    if info is not None:
        members["_meta"] = jsonrpc.write_object({revisions.META_SERVER_INFO: info})
    return members


@lru_cache(maxsize=_CACHED_FRONTS)
def _front(info: bytes | None, hint: CacheHint | None) -> bytes:
    """The beginning of a result with these members: the same for all results of a server."""
    return jsonrpc.write_object(_members(info, hint))[:-1]


def _put_in_front(info: bytes | None, hint: CacheHint | None, result: bytes) -> bytes:
    """Splice members into an object that has none of them, without reading the rest of it."""
    # In front, because the end of an object is found only by reading all of it; and through a view, because
    # results may have megabytes.
    opening = _OPENING.match(result)
    assert opening is not None
    rest = memoryview(result)[opening.end() :]
    joint = b"" if result.startswith(b"}", opening.end()) else b","
    return b"".join((_front(info, hint), joint, rest))


def _merge(members: dict[str, bytes], result: bytes, heeded: frozenset[str]) -> bytes:
    merged = jsonrpc.read_object(result)
    own_meta = jsonrpc.read_object(merged.get("_meta"))
    own_meta.pop(revisions.META_SUBSCRIPTION, None)  # a listener's, which this is not for
    added_meta = jsonrpc.read_object(members.get("_meta"))
    # The first of several pages, which was asked for without a cursor: see ``heeded_hints``.
    if merged.get("nextCursor", jsonrpc.NULL) != jsonrpc.NULL:
        heeded -= {"cacheScope"}
    for name, value in members.items():
        # A server that gives hints of its own knows better; the result's type is ours to say.
        if name not in heeded or not _is_fit_hint(name, merged.get(name)):
            merged[name] = value
    if own_meta or added_meta:
        merged["_meta"] = jsonrpc.write_object({**added_meta, **own_meta})
    return jsonrpc.write_object(merged)


def heeded_hints(params: Mapping[str, bytes]) -> frozenset[str]:
    """The hints that a server may decide in answer to a request with these parameters.

    All pages of a list have one scope (server/utilities/caching, "Interaction with Pagination"). Each page is
    lifted for itself, so that is the operator's. The result of a retry must not be kept at all ("Cache Key"):
    for it there are none.
    """
    if "inputResponses" in params or "requestState" in params:
        return frozenset()
    return ALL_HINTS - {"cacheScope"} if "cursor" in params else ALL_HINTS


def _is_fit_hint(name: str, raw: bytes | None) -> bool:
    """Whether a server's own hint is one: a whole number of milliseconds, or one of two words."""
    if name == "ttlMs":
        return raw is not None and _MILLISECONDS.fullmatch(raw) is not None
    return jsonrpc.read_string(raw) in _SCOPES


def lift_tool(tool: bytes) -> bytes | None:
    """One tool of a list as modern clients get it; None where they cannot call it.

    Whether it runs as a task means nothing to them: that is the server's to decide for each call, or ours.
    """
    if not _is_well_marked(tool):
        return None
    members = jsonrpc.read_object(tool)
    if "execution" not in members:
        return tool
    del members["execution"]
    return jsonrpc.write_object(members)


def _is_well_marked(tool: bytes) -> bool:
    if b"x-mcp-header" not in tool and b"\\u" not in tool:
        return True
    try:
        mirroring.read_marks(read_input_schema(tool))
    except mirroring.InvalidMarks:
        return False
    return True


def read_input_schema(tool: bytes) -> object:
    """A tool's input schema, decoded; None where it cannot be."""
    return jsonrpc.read_value(jsonrpc.read_object(tool).get("inputSchema"))


def lift_discovery(
    facts: ServerFacts, hint: CacheHint, versions: Sequence[str], *, offers_tasks: bool = False
) -> bytes:
    """The result of ``server/discover``, where these versions are served (2026-07-28, server/discover).

    ``offers_tasks``: calls may become tasks, as the extension has them, whatever the server says of that.
    """
    capabilities = {name: value for name, value in facts.capabilities.items() if name != "tasks"}
    if "extensions" in capabilities or offers_tasks:
        extensions = jsonrpc.read_object(capabilities.get("extensions"))
        extensions.pop(revisions.TASKS_EXTENSION, None)
        if offers_tasks:
            extensions[revisions.TASKS_EXTENSION] = b"{}"
        capabilities["extensions"] = jsonrpc.write_object(extensions)
    members = {
        "supportedVersions": jsonrpc.write_batch([jsonrpc.quote(version) for version in versions]),
        "capabilities": jsonrpc.write_object(capabilities),
    }
    if facts.instructions is not None:
        members["instructions"] = facts.instructions
    return lift_result(jsonrpc.write_object(members), facts, hint)


# -- errors ----------------------------------------------------------------------------------------


class LiftedError(NamedTuple):
    """A raw JSON-RPC error and the HTTP status it deserves."""

    raw: bytes
    status: int


def lift_error(raw: bytes, params: Mapping[str, bytes]) -> LiftedError:
    """A legacy server's error (raw) in answer to a request with these parameters."""
    error = jsonrpc.read_error(raw)
    members = jsonrpc.read_object(raw)
    if error.code == _RESOURCE_NOT_FOUND or (
        error.code == 0 and error.message.startswith("Unknown resource")
    ):
        data = jsonrpc.read_object(members.get("data"))
        data.setdefault("uri", params.get("uri", jsonrpc.NULL))
        return LiftedError(_error(INVALID_PARAMS, members, jsonrpc.write_object(data)), 200)
    if error.code == METHOD_NOT_FOUND:
        return LiftedError(_error(METHOD_NOT_FOUND, members, members.get("data")), 404)
    if _may_stay(error.code, members.get("code")):
        return LiftedError(_error(error.code, members, members.get("data")), 200)
    return LiftedError(_error(INTERNAL_ERROR, members, jsonrpc.write_object({"original": raw})), 200)


def _may_stay(code: int, raw_code: bytes | None) -> bool:
    """Whether a code means to a modern client what it means to the server."""
    if raw_code is None or code == 0:
        return False
    return code in _STANDARD or code in _LEGACY_OWN or code not in _JSONRPC


def _error(code: int, members: Mapping[str, bytes], data: bytes | None) -> bytes:
    message = jsonrpc.read_string(members.get("message")) or "The server gave no reason."
    lifted = {"code": b"%d" % code, "message": jsonrpc.quote(message)}
    if data is not None:
        lifted["data"] = data
    return jsonrpc.write_object(lifted)


def required_urls(response: Response) -> list[bytes]:
    """The URL elicitations that an error asks for instead of a result (2025-11-25, -32042), raw."""
    if response.error is None or jsonrpc.read_error(response.error).code != _URL_ELICITATION_REQUIRED:
        return []
    data = jsonrpc.read_object(jsonrpc.read_object(response.error).get("data"))
    return jsonrpc.read_array(data.get("elicitations", b""))


# -- what a server asks ----------------------------------------------------------------------------


def lift_question(method: str, params: bytes | None) -> bytes:
    """A server's request as one of a result's ``inputRequests`` (2026-07-28, basic/patterns/mrtr)."""
    members = jsonrpc.read_object(params)
    # The modern schema has neither: tasks are an extension there, and who visited a URL says so by retrying.
    for name in ("task", "elicitationId"):
        members.pop(name, None)
    meta = jsonrpc.read_object(members.get("_meta"))
    for name in ("progressToken", revisions.META_RELATED_TASK):
        meta.pop(name, None)
    if meta:
        members["_meta"] = jsonrpc.write_object(meta)
    else:
        members.pop("_meta", None)
    question = {"method": jsonrpc.quote(method)}
    if members or method != revisions.LIST_ROOTS:
        question["params"] = jsonrpc.write_object(members)
    return jsonrpc.write_object(question)


def may_name_subscription(text: bytes) -> bool:
    """Whether a message may be one of a listener's."""
    return b"subscriptionId" in text


def lift_notification(params: bytes | None, token: bytes | None) -> bytes | None:
    """The parameters of a notification on a request's own stream, under its progress token if it has one."""
    if token is None and (params is None or not may_name_subscription(params)):
        return params
    members = jsonrpc.read_object(params)
    if token is not None:
        members["progressToken"] = token
    meta = jsonrpc.read_object(members.get("_meta"))
    if meta.pop(revisions.META_SUBSCRIPTION, None) is not None:  # a listener's, which this is not for
        members["_meta"] = jsonrpc.write_object(meta)
    return jsonrpc.write_object(members)


def lift_input_required(questions: Mapping[str, bytes], state: str, facts: ServerFacts) -> bytes:
    """The result that asks the client."""
    members = {
        "resultType": INPUT_REQUIRED,
        "inputRequests": jsonrpc.write_object(questions),
        "requestState": jsonrpc.quote(state),
    }
    if facts.info is not None:
        members["_meta"] = jsonrpc.write_object({revisions.META_SERVER_INFO: facts.info})
    return jsonrpc.write_object(members)


def subscription_meta(subscription_id: bytes) -> bytes:
    """The ``_meta`` that names a listener."""
    return jsonrpc.write_object({revisions.META_SUBSCRIPTION: subscription_id})


def tag(params: bytes | None, subscription_id: bytes) -> bytes:
    """A notification's parameters with the id of the listener that gets it (2026-07-28, subscriptions)."""
    members = jsonrpc.read_object(params)
    meta = jsonrpc.read_object(members.get("_meta"))
    meta[revisions.META_SUBSCRIPTION] = subscription_id
    members["_meta"] = jsonrpc.write_object(meta)
    return jsonrpc.write_object(members)
