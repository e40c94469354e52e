"""What may have changed when a server was opened anew."""

import json

import pytest

from mcp_session_proxy.protocol import changes
from mcp_session_proxy.protocol.lifting import read_server_facts

BEFORE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}, "prompts": {"listChanged": False}, "resources": {}},
    "serverInfo": {"name": "shop", "version": "1"},
}


def raw(**changed: object) -> bytes:
    return json.dumps(BEFORE | changed).encode()


def test_lists_told_of() -> None:
    """What the server promised, and nothing else."""
    assert changes.lists_told_of(read_server_facts(raw())) == {"tools"}
    assert changes.lists_told_of(read_server_facts(b"[]")) == frozenset()


def test_everything() -> None:
    """One notification for each list and each resource."""
    told = changes.everything({"prompts", "tools"}, ["a:\u00fc"])
    assert [(m.method, m.params) for m in told] == [
        ("notifications/tools/list_changed", None),
        ("notifications/prompts/list_changed", None),
        ("notifications/resources/updated", '{"uri":"a:\u00fc"}'.encode()),
    ]


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (raw(), []),
        (json.dumps(BEFORE, indent=2, sort_keys=True).encode(), []),
        (raw(instructions="other"), []),
        (raw(serverInfo={"name": "shop", "version": "2"}), ["version"]),
        (raw(serverInfo={"name": "store", "version": "1"}), ["name"]),
        (raw(protocolVersion="2025-06-18"), ["protocol version"]),
        (raw(capabilities={"tools": {}}), ["capabilities"]),
        (b'{"serverInfo":[]}', ["name", "version", "protocol version", "capabilities"]),
        (b"[" * 100_000, ["name", "version", "protocol version", "capabilities"]),
    ],
)
def test_differences(after: bytes, what: list[str]) -> None:
    """Formatting is none; nonsense is one."""
    assert changes.differences(raw(), after) == what


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        ({"name": "shop", "version": "1"}, "shop 1"),
        ({"name": 5}, "- -"),
        (None, "- -"),
        ({"name": "a\nb\x1b[31m", "version": "v" * 1000}, "ab[31m " + "v" * 64),
    ],
)
def test_name_and_version(info: object, shown: str) -> None:
    """Fit for a log, whatever the server calls itself."""
    assert changes.name_and_version(raw(serverInfo=info)) == shown
