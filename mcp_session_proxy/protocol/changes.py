"""What may have changed when a server was opened anew, or said something that nobody heard. Pure.

Clients keep what they were told: lists until ``list_changed``, resources until ``updated`` (MCP 2025-11-25,
server/tools, server/prompts, server/resources). Who hides a loss from them has to tell them.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

from . import jsonrpc, revisions
from .jsonrpc import Notification
from .lifting import ServerFacts

# The notification that tells of a change, by the feature that has the list.
LIST_CHANGES: Final = {
    "tools": revisions.TOOLS_CHANGED,
    "prompts": revisions.PROMPTS_CHANGED,
    "resources": revisions.RESOURCES_CHANGED,
}
# What concerns everybody on a session, in the course of whose call ever it is told.
CHANGES: Final = frozenset({*LIST_CHANGES.values(), revisions.RESOURCE_UPDATED})
_MAX_SHOWN: Final = 64


def lists_told_of(facts: ServerFacts) -> frozenset[str]:
    """The features whose changes a server has promised to tell of."""
    return frozenset(feature for feature in LIST_CHANGES if facts.offers(feature, "listChanged"))


def everything(features: Collection[str], uris: Iterable[str]) -> list[Notification]:
    """That these lists and resources have changed, all of them."""
    lists = [Notification(method, None) for feature, method in LIST_CHANGES.items() if feature in features]
    return lists + [
        Notification(revisions.RESOURCE_UPDATED, jsonrpc.write_object({"uri": jsonrpc.quote(uri)}))
        for uri in uris
    ]


def differences(before: bytes, after: bytes) -> list[str]:
    """What a server says otherwise of itself in another ``InitializeResult``, in words for a log."""
    old, new = jsonrpc.read_value(before), jsonrpc.read_value(after)
    found = []
    for words, path in (
        ("name", ("serverInfo", "name")),
        ("version", ("serverInfo", "version")),
        ("protocol version", ("protocolVersion",)),
        ("capabilities", ("capabilities",)),
    ):
        if _at(old, path) != _at(new, path):
            found.append(words)
    return found


def name_and_version(initialize_result: bytes) -> str:
    """What a server calls itself, fit for a log."""
    info = jsonrpc.read_object(jsonrpc.read_object(initialize_result).get("serverInfo"))
    words = [jsonrpc.read_string(info.get(member)) or "-" for member in ("name", "version")]
    return " ".join("".join(c for c in word[:_MAX_SHOWN] if c.isprintable()) for word in words)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
