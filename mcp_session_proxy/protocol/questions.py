"""What a server may ask a client in the course of a call, and what a fit answer looks like. Pure.

Elicitation, sampling and roots: MCP 2025-11-25, client; 2026-07-28, basic/patterns/mrtr.
"""

import re
from collections.abc import Container, Mapping
from typing import Final

from ..bounds import ELICITATION_ID_CHARS
from . import jsonrpc, revisions

_CAPABILITY: Final = {
    revisions.ELICIT: "elicitation",
    revisions.SAMPLE: "sampling",
    revisions.LIST_ROOTS: "roots",
}
_MAX_KEY_CHARS: Final = 64
_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})


def is_question(method: str) -> bool:
    """Whether a server's request is one that a client can answer in a retry."""
    return method in _CAPABILITY


def missing_capability(
    method: str, params: bytes | None, capabilities: Mapping[str, bytes]
) -> Mapping[str, Mapping[str, object]] | None:
    """What the client would have to declare for this question; None when it has declared that."""
    feature = _CAPABILITY[method]
    declared = capabilities.get(feature)
    detail = _detail(method, params)
    if declared is None or declared[:1] != b"{":
        return {feature: {} if detail is None else {detail: {}}}
    details = jsonrpc.read_object(declared)
    # "elicitation": {} means forms (2025-11-25, client/elicitation, "Capabilities").
    if detail is None or detail in details or (detail == "form" and not details):
        return None
    return {feature: {detail: {}}}


def _detail(method: str, params: bytes | None) -> str | None:
    """The part of the capability that a question needs: a mode of elicitation, tools in sampling."""
    members = jsonrpc.read_object(params)
    if method == revisions.ELICIT:
        return "url" if members.get("mode") == b'"url"' else "form"
    if method == revisions.SAMPLE and ("tools" in members or "toolChoice" in members):
        return "tools"
    return None


def key_for(method: str, params: bytes | None, taken: Container[str]) -> str:
    """A readable key that is not taken: from the form's title, else from the method.

    The more are taken, the longer it may take to find one: callers see to it that they are few.
    """
    schema = jsonrpc.read_object(jsonrpc.read_object(params).get("requestedSchema"))
    title = (jsonrpc.read_string(schema.get("title")) or method)[:_MAX_KEY_CHARS]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", title)
    stem = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")[:_MAX_KEY_CHARS] or "question"
    key, number = stem, 1
    while key in taken:
        number += 1
        key = f"{stem}_{number}"
    return key


def elicitation_id(params: bytes | None) -> str | None:
    """The ``elicitationId`` of a question or of a notification, unless it is too long to be kept.

    MCP 2025-11-25, client/elicitation, "Completion Notifications for URL Mode Elicitation".
    """
    identifier = jsonrpc.read_string(jsonrpc.read_object(params).get("elicitationId"))
    return identifier if identifier is not None and len(identifier) <= ELICITATION_ID_CHARS else None


def is_fit_answer(method: str, answer: bytes) -> bool:
    """Whether a raw JSON value has the form of an answer to this question."""
    if answer[:1] != b"{":
        return False
    members = jsonrpc.read_object(answer)
    if method == revisions.ELICIT:
        # "n" begins null, which some clients write where they decline and have no content.
        content = members.get("content", b"{}")
        return jsonrpc.read_string(members.get("action")) in _ACTIONS and content[:1] in (b"{", b"n")
    if method == revisions.LIST_ROOTS:
        return members.get("roots", b"")[:1] == b"["
    named = all(jsonrpc.read_string(members.get(name)) is not None for name in ("role", "model"))
    return named and members.get("content", b"")[:1] in (b"{", b"[")
