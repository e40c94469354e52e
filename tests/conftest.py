"""What every test needs."""

import asyncio
import os

import pytest
from hypothesis import HealthCheck, settings

from mcp_session_proxy.settings.sources import ENV_PREFIX

# Hypothesis judges by the clock as well; on a busy machine an example may take as long as it likes.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch):
    """Tests see the defaults, whatever the environment of the person who runs them."""
    for name in list(os.environ):
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


def pytest_configure() -> None:
    """Without a loop to begin with, pytest-asyncio makes none that nobody would close."""
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In CI, an end-to-end test that fails runs once more, and is listed: shared machines stall."""
    if os.environ.get("CI") == "true":
        for item in items:
            if item.get_closest_marker("e2e") is not None:
                item.add_marker(pytest.mark.flaky(reruns=1))
