"""Fixtures of the tests of the pool and of the sharing modes."""

import adopted_sessions
import binding_world
import pytest


@pytest.fixture(params=["opened", "adopted"])
def every_beginning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions of a ``World`` are opened by a handshake, or stood at their server before."""
    if request.param == "adopted":
        monkeypatch.setattr(binding_world, "SessionMaker", adopted_sessions.AdoptedSessionMaker)
