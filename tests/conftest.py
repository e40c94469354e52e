"""What every test needs."""

import os

import pytest

from mcp_session_proxy.options import ENV_PREFIX


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch):
    """Tests see the defaults, whatever the environment of the person who runs them."""
    for name in list(os.environ):
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
