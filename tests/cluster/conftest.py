"""Two members, for tests of what they say to each other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peer_bench import Pair


@pytest.fixture
async def idle_pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two members that are started by the test."""
    async with Pair(tmp_path) as pair:
        yield pair


@pytest.fixture
async def pair(idle_pair: Pair) -> Pair:
    """Two members on one machine."""
    await idle_pair.start()
    return idle_pair
