"""Session ids of ours: unguessable, and told from others by themselves."""

import secrets

import pytest

from mcp_session_proxy.sessions.minting import is_of_capable_client, is_ours, mint_id


@pytest.mark.parametrize("capable", [True, False])
def test_ours(capable: bool) -> None:
    """An id says that it is ours, and whether its client had declared capabilities."""
    for _ in range(1000):
        identifier = mint_id(capable=capable)
        assert is_ours(identifier)
        assert is_of_capable_client(identifier) is capable
        assert identifier.isascii()
        assert identifier.isprintable()


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
