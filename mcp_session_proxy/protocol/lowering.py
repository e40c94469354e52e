"""Client to server: a modern request as a legacy server understands it. Pure.

The 2026-07-28 revision says with every request what 2025-11-25 says once, in ``initialize``; so the
metadata of a request becomes a session's profile, and what is left is the request.
"""

from collections.abc import Mapping
from typing import Final

from . import jsonrpc, revisions
from .inbound import ModernRequest

# Members of the parameters that are between the client and us; and ``task``, which would make the server
# answer with a task of the earlier revision, of which a modern client could never get the result.
_OURS: Final = frozenset({"_meta", "inputResponses", "requestState", "task"})
# In what an extension asks, the others are its own.
_OURS_IN_EXTENSIONS: Final = frozenset({"_meta"})
# Capabilities that 2025-11-25 knows. Tasks became an extension with another protocol.
_CAPABILITIES: Final = ("elicitation", "experimental", "extensions", "roots", "sampling")
_UNNAMED_CLIENT: Final = b'{"name":"unnamed","version":"0"}'


def lower_params(modern: ModernRequest) -> bytes | None:
    """The parameters without the revision's metadata; every other member of ``_meta`` stays.

    Some servers (go-sdk) refuse requests with the core's keys. Those of extensions are for the server.
    """
    ours = _OURS if modern.request.method in revisions.MODERN_METHODS else _OURS_IN_EXTENSIONS
    members = {name: value for name, value in modern.params.items() if name not in ours}
    of_the_core = revisions.META_OF_REQUESTS
    if not modern.meta.keys() <= of_the_core:
        meta = {key: value for key, value in modern.meta.items() if key not in of_the_core}
        members["_meta"] = jsonrpc.write_object(meta)
    return jsonrpc.write_object(members) if members else None


def lower_initialize(capabilities: bytes, client_info: bytes | None) -> bytes:
    """The parameters of the ``initialize`` that fits a client with these (raw)."""
    return jsonrpc.write_object(
        {
            "protocolVersion": jsonrpc.quote(revisions.LATEST_LEGACY),
            "capabilities": lower_capabilities(jsonrpc.read_object(capabilities)),
            "clientInfo": _client_info(client_info),
        }
    )


def lower_capabilities(capabilities: Mapping[str, bytes]) -> bytes:
    """The client's capabilities, as far as 2025-11-25 knows them, raw."""
    known = {name: capabilities[name] for name in _CAPABILITIES if _is_object(capabilities.get(name))}
    if "roots" in known:
        # A modern client tells of no changes, but the proxy does: when another client's call comes.
        known["roots"] = b'{"listChanged":true}'
    if "extensions" in known:
        extensions = jsonrpc.read_object(known["extensions"])
        extensions.pop(revisions.TASKS_EXTENSION, None)
        known["extensions"] = jsonrpc.write_object(extensions)
        if not extensions:
            # Else a client that declares tasks for some of its calls would have two sessions.
            del known["extensions"]
    return jsonrpc.write_object(known)


def _client_info(raw: bytes | None) -> bytes:
    """Who the client says it is; servers insist on a name and a version."""
    members = jsonrpc.read_object(raw)
    named = all(jsonrpc.read_string(members.get(key)) is not None for key in ("name", "version"))
    return raw if named and raw is not None else _UNNAMED_CLIENT


def _is_object(raw: bytes | None) -> bool:
    return raw is not None and raw[:1] == b"{"
