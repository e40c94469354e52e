"""What a ``subscriptions/listen`` asks to hear of, and what a notification is about.

MCP 2026-07-28, basic/patterns/subscriptions.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from ..bounds import LISTENED_URI_CHARS, LISTENED_URIS
from ..errors import InvalidParams
from . import jsonrpc
from .changes import LIST_CHANGES

# A filter's members for lists, by the feature that must offer them: "toolsListChanged" and so on.
LIST_FIELDS: Final = {f"{feature}ListChanged": feature for feature in LIST_CHANGES}
# Which member asks for a notification.
FIELDS_BY_METHOD: Final = {LIST_CHANGES[feature]: field for field, feature in LIST_FIELDS.items()}
_URIS: Final = "resourceSubscriptions"
_TASKS: Final = "taskIds"
_MAX_PARTS: Final = 64
_BOUNDARY: Final = re.compile(r"[/?#]")


class Filter(NamedTuple):
    """What a listener wants, or what it was promised: names of list members, resource URIs, ids of tasks."""

    lists: frozenset[str] = frozenset()
    uris: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def write(self) -> bytes:
        """As the ``notifications`` member of an acknowledgement."""
        members = {field: b"true" for field in LIST_FIELDS if field in self.lists}
        if self.uris:
            members[_URIS] = jsonrpc.write_batch([jsonrpc.quote(uri) for uri in self.uris])
        if self.tasks:
            members[_TASKS] = jsonrpc.write_batch([jsonrpc.quote(task) for task in self.tasks])
        return jsonrpc.write_object(members)


def read_filter(raw: bytes | None) -> Filter:
    """The ``notifications`` parameter of a ``subscriptions/listen``. What is true is wanted.

    Raises:
        InvalidParams: it is missing or malformed, or names more than 1000 URIs or tasks.
    """
    if raw is None or raw[:1] != b"{":
        raise InvalidParams('"subscriptions/listen" needs a "notifications" object.')
    members = jsonrpc.read_object(raw)
    for field in LIST_FIELDS:
        if members.get(field, b"false") not in (b"true", b"false"):
            raise InvalidParams(f'"{field}" must be true or false.')
    lists = frozenset(field for field in LIST_FIELDS if members.get(field) == b"true")
    return Filter(lists, _read_names(members, _URIS, "URIs"), _read_names(members, _TASKS, "ids of tasks"))


def _read_names(members: Mapping[str, bytes], field: str, what: str) -> tuple[str, ...]:
    raw = members.get(field, b"[]")
    names = [jsonrpc.read_string(item) for item in jsonrpc.read_array(raw)[: LISTENED_URIS + 1]]
    if raw[:1] != b"[" or any(name is None for name in names) or len(names) > LISTENED_URIS:
        raise InvalidParams(f'"{field}" must be a list of at most {LISTENED_URIS} {what}.')
    # Once each, in their order: each is subscribed to, and promised, for itself.
    return tuple(dict.fromkeys(name for name in names if name is not None))


def wholes(uri: str) -> Iterator[str]:
    """The URIs of what a resource may be a part of, itself first.

    An update may name a part of what was subscribed to (2025-11-25, server/resources, "Subscriptions"; the
    schema's ``ResourceUpdatedNotification``).
    """
    yield uri
    # Each boundary costs a look-up among the subscriptions, and the text is the server's.
    if len(uri) <= LISTENED_URI_CHARS:
        for boundary in islice(_BOUNDARY.finditer(uri), _MAX_PARTS):
            yield uri[: boundary.start()]
            if boundary[0] == "/":
                yield uri[: boundary.end()]
