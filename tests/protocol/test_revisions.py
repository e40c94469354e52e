"""The names and numbers of the revisions agree with one another."""

import re

import pytest

from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.revisions import (
    KNOWN_METHODS,
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    READ_METHODS,
    method_label,
)


def test_versions_are_dates_in_order() -> None:
    """Versions are dates, the legacy ones in order, and the eras do not overlap."""
    assert all(re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", version) for version in LEGACY_VERSIONS)
    assert list(LEGACY_VERSIONS) == sorted(LEGACY_VERSIONS)
    assert LEGACY_VERSIONS[-1] == LATEST_LEGACY
    assert revisions.FIRST_MODERN > LATEST_LEGACY


@pytest.mark.parametrize("method", ["tools/call", "logging/setLevel", "resources/subscribe", "initialize"])
def test_methods_with_effects_are_not_reads(method: str) -> None:
    """What changes something at the server is never repeated as a read."""
    assert method not in READ_METHODS
    assert method in KNOWN_METHODS


@pytest.mark.parametrize("method", sorted(READ_METHODS))
def test_reads_are_known(method: str) -> None:
    """Every read by protocol has a metrics label of its own."""
    assert method_label(method) == method


@pytest.mark.parametrize("method", ["", "other", "tools/Call", "my/method", "x" * 10_000, "a\nb"])
def test_unknown_methods_share_a_label(method: str) -> None:
    """Labels stay few, whatever clients call."""
    assert method_label(method) == "other"
