"""Session ids of ours: unguessable, and told from others by themselves."""

import base64
import json
import secrets
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.bounds import CARRIED_PROFILE_BYTES, PACKED_PROFILE_CHARS
from mcp_session_proxy.sessions import minting
from mcp_session_proxy.sessions.minting import is_of_capable_client, is_ours, mint_id, read_profile_of

# As real clients write them.
PROFILES: dict[str, Any] = {
    "mcp 1.30": {
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "elicitation": {"form": {}, "url": {}},
            "sampling": {},
            "roots": {"listChanged": True},
        },
        "clientInfo": {"name": "mcp", "version": "0.1.0"},
    },
    "inspector": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}},
        "clientInfo": {"name": "inspector-client", "version": "0.17.2"},
    },
    "an editor": {
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "roots": {"listChanged": True},
            "sampling": {"tools": {}, "context": {}},
            "elicitation": {"form": {}, "url": {}},
            "tasks": {
                "list": {},
                "cancel": {},
                "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}},
            },
            "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}},
        },
        "clientInfo": {
            "name": "An Editor, Insiders",
            "title": "Editor",
            "version": "1.107.0-insider",
            "websiteUrl": "https://editor.example/",
            "icons": [
                {"src": "https://editor.example/icon.png", "mimeType": "image/png", "sizes": ["48x48"]}
            ],
        },
    },
    "in another alphabet": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "客户端 🦆", "version": "1"},
    },
}


@pytest.mark.parametrize("capable", [True, False])
def test_ours(capable: bool) -> None:
    """An id says that it is ours, and whether its client had declared capabilities."""
    for _ in range(1000):
        identifier = mint_id(capable=capable)
        assert is_ours(identifier)
        assert is_of_capable_client(identifier) is capable
        assert identifier.isascii()
        assert identifier.isprintable()


@pytest.mark.parametrize("name", PROFILES)
def test_the_profile_travels(name: str) -> None:
    """What its client said of itself is in the id, and the id stays short enough for any header."""
    for separators in ((",", ":"), (", ", ": ")):
        profile = json.dumps(PROFILES[name], ensure_ascii=False, separators=separators).encode()
        identifier = mint_id(capable=True, profile=profile)
        assert read_profile_of(identifier) == profile
        assert is_ours(identifier)
        assert is_of_capable_client(identifier)
        assert identifier.isascii()
        assert identifier.isprintable()
        assert len(identifier) < 300
        assert identifier != mint_id(capable=True, profile=profile)


def test_what_does_not_travel() -> None:
    """Nothing of a client that can do nothing, and nothing that is too large: the ids are short then."""
    large = json.dumps({"x": secrets.token_hex(CARRIED_PROFILE_BYTES)}).encode()
    dense = json.dumps({"x": secrets.token_hex(CARRIED_PROFILE_BYTES // 4)}).encode()
    for identifier in (
        mint_id(capable=False, profile=b'{"capabilities":{}}'),
        mint_id(capable=True),
        mint_id(capable=True, profile=large),
        mint_id(capable=True, profile=dense),
    ):
        assert len(identifier) == len(mint_id(capable=False))
        assert read_profile_of(identifier) is None


def forged(data: bytes, *, packed: str | None = None) -> str:
    """An id that somebody has made up around this."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=minting._USUAL)
    whole = packer.compress(data) + packer.flush()
    text = base64.urlsafe_b64encode(whole).decode().rstrip("=") if packed is None else packed
    stem = secrets.token_urlsafe(18) + text + "s"
    return stem + minting._check(stem)


@pytest.mark.parametrize(
    "identifier",
    [
        forged(b""),
        forged(b" " * (CARRIED_PROFILE_BYTES + 1)),
        forged(b" " * 50_000_000),
        forged(b"[" * 40 + b"]" * 40),
        forged(b"", packed="A" * (PACKED_PROFILE_CHARS + 1)),
        forged(b"", packed="?" * 10),
        forged(b"", packed="\udce9" * 10),
        forged(b"{}") + "x",
        forged(b"{}")[:-1],
    ],
    # What is made up differs in every process, and names of tests must not.
    ids=["empty", "large", "a bomb", "deep", "long", "no base64", "no text", "longer", "shorter"],
)
def test_forgeries(identifier: str) -> None:
    """Bombs, depths and garbage hold nothing, and cost nothing to speak of."""
    assert read_profile_of(identifier) is None


@given(st.text(max_size=200))
def test_any_id(text: str) -> None:
    """Whatever somebody packs: something small, or nothing, and no exception."""
    for identifier in (text, forged(b"", packed=text)):
        profile = read_profile_of(identifier)
        assert profile is None or len(profile) <= CARRIED_PROFILE_BYTES


def test_others() -> None:
    """Nobody else's id is taken for one of ours."""
    foreign = [
        "",
        "c",
        "p",
        "platform-1",
        "\udce9",
        "c" * 8,
        "x" * 8000,
        "f" * 32,
        mint_id(capable=True)[:-1],
    ]
    for identifier in [*foreign, *(secrets.token_urlsafe(24) for _ in range(10_000))]:
        assert not is_ours(identifier)
        assert not is_of_capable_client(identifier)


def test_a_changed_letter() -> None:
    """An id that was changed is nobody's."""
    identifier = mint_id(capable=False)
    position = len(identifier) - 9
    assert identifier[position] == "p"
    assert not is_ours(f"{identifier[:position]}c{identifier[position + 1 :]}")
