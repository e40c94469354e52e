"""A real server that asks its client as soon as it is listened to."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp import types

from .conftest import Desk
from .sdk import call, connected

pytestmark = pytest.mark.e2e


ROOT = "file:///srv/data"


async def test_a_question_before_anything_else(desk: Callable[[str], Desk]) -> None:
    """A server that asks for roots as soon as it is listened to gets its answer from the client."""

    async def roots(_: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=ROOT)])  # type: ignore[arg-type]

    at = desk("resumable")
    async with connected(at.proxy.url, at.caller.token, list_roots_callback=roots) as client:
        assert json.loads(await call(client, "roots_heard")) == [ROOT]
